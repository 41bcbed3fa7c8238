// SPDX-License-Identifier: Apache-2.0
// TorchTally in a LibTorch program: wrap the training loop, get a recording and a page.
//
//   tally::Profiler profiler({.recording = "run.tally", .report = "report.html"});
//   profiler.watch(*model);
//   profiler.watch(optimizer);
//   for (auto& batch : *loader) {
//     auto step = profiler.step();   // one optimizer update
//     ...
//   }
//
// One profiler records at a time in a process. It changes no result. Needs only forward
// declarations of LibTorch; C++17.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace at {
class Tensor;
}
namespace torch {
namespace nn {
class Module;
}
namespace optim {
class Optimizer;
}
}  // namespace torch

#define TORCHTALLY_API __attribute__((visibility("default")))

namespace tally {

// Every field has a default; the environment variable beside it wins over the program.
struct Options {
  std::string recording = "run.tally";  // TORCHTALLY_RECORDING: SQLite file; an old one is replaced
  std::string report;                   // TORCHTALLY_REPORT: HTML page written at stop(); "": none
  // TORCHTALLY_DETAIL: steps at the beginning that are kept with every block and operator (a new
  // highest peak always is).
  int64_t detail_steps = 3;
  // TORCHTALLY_BUDGET ("8GiB"): bytes; a step that has more alive gets a mark `oom`. 0: no budget.
  int64_t budget_bytes = 0;
  // TORCHTALLY_BUDGET_ACTION ("record" or "stop"): true makes a CPU allocation that would pass the
  // budget fail with c10::OutOfMemoryError, as on a device of that size.
  bool budget_stops = false;
  // TORCHTALLY_COUNTERS (0 or 1): counts what kernels execute on CUDA devices, with the GPU's own
  // counters, and names the kernels of one step. Where they are refused, the recording says why;
  // FLOPs are those of the formulas then.
  bool counters = false;
  // TORCHTALLY_COUNTERS=kernels: counts kernel by kernel, with their names. Kernels wait for one
  // another and may run several times: the times of such a run are not those of the program.
  bool counters_per_kernel = false;
  // TORCHTALLY_SOURCE_LINES ("1MiB", or "off"): bytes; blocks of at least so many are recorded with
  // the line of Python that made them, in a program that runs Python. 0: none is.
  int64_t source_lines_bytes = 1 << 20;
  // TORCHTALLY_ENABLED (0 or 1): false makes everything below do nothing.
  bool enabled = true;
  // What the model is, for the closed forms that the report has beside its theory: a name of
  // `torchtally models`, or the text of a configuration (docs/estimates.md: a Hugging Face
  // config.json, or a family and its dimensions). "": not said. No variable of its own; what cannot
  // be used is said in the report.
  std::string model = {};
};

// Thrown by the constructor only: the recording cannot be written, another profiler records, an
// environment variable has no sense. The text says what to do.
using ProfilerError = std::runtime_error;

class Profiler;

// One optimizer update, from step() until this object ends.
class TORCHTALLY_API Step {
 public:
  Step(Step&& other) noexcept;
  Step& operator=(Step&&) = delete;
  ~Step();

  // A new micro-batch begins. Optional: a backward pass ends a micro-step by itself.
  void micro_step();
  // Names a tensor as data of this step, where the way it is used does not tell.
  void input(const at::Tensor& tensor);

 private:
  friend class Profiler;
  Step(Profiler* profiler, bool owns);
  Profiler* profiler_;
  bool owns_;  // false: another step was open, and this one is part of it
  int exceptions_;
};

class TORCHTALLY_API Profiler {
 public:
  explicit Profiler(Options options = {});
  ~Profiler();  // stop()
  Profiler(const Profiler&) = delete;
  Profiler& operator=(const Profiler&) = delete;

  // Gives names to a module's parameters and buffers. Optional: without it roles are inferred and
  // totals are the same. Call it again after adding layers. Keeps nothing alive.
  void watch(const torch::nn::Module& module, const std::string& name = "");
  // The same for an optimizer's state. It must live until forget() or its last step.
  void watch(torch::optim::Optimizer& optimizer);
  void forget(const torch::optim::Optimizer& optimizer);

  Step step();

  // Ends the recording and writes the report. Never throws; a problem is one line on stderr.
  void stop() noexcept;

  // The report as text, as `torchtally report` prints it. After stop(); "" if nothing was recorded.
  std::string summary() const;
  // What the report judges of "checkpointing", "accumulation", "oom" or "leak": the sentence of its
  // card, which begins with the verdict ("pays: ..."). After stop(); "" where there was nothing to
  // judge. For tests: EXPECT_EQ(profiler.verdict("accumulation").rfind("works", 0), 0u).
  std::string verdict(const std::string& kind) const;
  // What had more bytes than it may, of limits such as {{"peak", "1.2 GiB"}, {"activations", "800
  // MiB"}}: a sentence, "" where all stayed within. torchtally/testing.h has the words and a
  // matcher for GoogleTest. After stop().
  std::string over_budget(const std::vector<std::pair<std::string, std::string>>& limits) const;
  const Options& options() const;  // with the environment applied

 private:
  friend class Step;
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// Names what runs on this thread until it ends: operators that read no parameter of a watched
// module belong to the innermost scope. Costs next to nothing when nobody records.
class TORCHTALLY_API Scope {
 public:
  explicit Scope(const char* name) noexcept;
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  bool entered_;
};

}  // namespace tally
