// SPDX-License-Identifier: Apache-2.0
// What every face of the profiler stands on (C++, Python, LD_PRELOAD): a session with the sources
// of this build, from the options to the report.
#pragma once

#include <optional>
#include <string>

#include "torchtally/profiler.h"

namespace tally {

class Session;
namespace hooks {
class ObjectSource;
}
namespace analysis {
struct Summary;
}

class Recorder {
 public:
  // Who says where a step ends: the program, or the ledger by what the program does.
  enum class Steps { kTold, kInferred };
  // Applies the environment to `options`. Throws Error; nothing stays behind then.
  explicit Recorder(Options options, Steps steps = Steps::kTold);
  ~Recorder();
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  // "clean" or "exception", and a sentence that says more, or "". Writes the report.
  void stop(const std::string& ended, const std::string& note = {}) noexcept;

  // What the model is, as Options::model, where it is known only later; the last word counts.
  void describe_model(const std::string& model);

  Session* session();             // nullptr when disabled or stopped
  hooks::ObjectSource* objects();  // the same
  const Options& options() const { return options_; }  // with the environment applied
  std::string problem() const;    // what could not be recorded, or ""

  // The reports, after stop(). Throw Error when there is no recording to read.
  std::string text() const;
  std::string json() const;
  std::string verdict(const std::string& kind) const;  // its sentence, or ""
  std::string over_budget(
      const std::vector<std::pair<std::string, std::string>>& limits) const;  // or ""

 private:
  analysis::Summary summary() const;

  Options options_;
  std::unique_ptr<Session> session_;
  hooks::ObjectSource* objects_ = nullptr;  // owned by the session
  bool stopped_ = false;
};

}  // namespace tally
