// SPDX-License-Identifier: Apache-2.0
// Writes run.tally: what the session's bookkeeper thread has closed, one transaction a step, inside
// somebody's training process. Throws Error only from the constructor; what fails later (a full
// disk) is remembered for problem(), and the next step is tried again.
//
// SQLite in WAL mode: a committed step survives SIGKILL of the process, a reader may look on while
// it runs, and finish() folds everything into one file. One thread at a time.
#pragma once

#include <memory>
#include <string>

#include "profiler/core/ids.h"
#include "profiler/ledger/books.h"

namespace tally::recording {

class Writer {
 public:
  // Replaces an older recording at `path`; never a file of anyone else. `strings` must outlive
  // the writer: new ones are stored with the step that brings them.
  Writer(const std::string& path, const StringTable& strings);
  // Without finish() the recording stays as a killed process would leave it. In a forked child it
  // touches nothing.
  ~Writer();
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  void write_run(const RunInfo& run);  // again whenever it has changed
  void write_step(const StepBooks& step, const RunEnd& so_far);
  void finish(const RunEnd& end);

  // "" or a sentence: what failed first, and how many steps are missing.
  std::string problem() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tally::recording
