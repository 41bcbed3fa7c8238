// SPDX-License-Identifier: Apache-2.0
// A training run of a small GPT, made by hand: blocks are allocated and freed as LibTorch would,
// and marks, timelines and cells are read off the same list of live blocks, so that the books
// close to the byte. No clock, no randomness beyond a fixed sequence: the same options give the
// same run. For tests of everything right of the ledger, and for trying the reports.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "profiler/core/ids.h"
#include "profiler/ledger/books.h"
#include "profiler/recording/reader.h"

namespace tally::test {

struct SyntheticOptions {
  int layers = 3;
  int64_t width = 96;
  int64_t heads = 4;
  int64_t vocabulary = 1024;
  int64_t batch = 2;
  int64_t sequence = 64;
  int steps = 4;
  int micro_steps = 1;
  int detailed_steps = 2;        // the first ones
  bool vary = false;             // another sequence length in every step: nothing repeats
  bool hostile = true;           // a module whose name is an attack on HTML and on terminals
  int64_t leak_bytes = 0;        // held by the program at the end of each step, never freed
  bool keep_gradients = false;   // zeroed, not freed, between steps
  // The blocks lie on cuda:0, an H100 whose allocator caches and whose counters are read: tensor
  // cores, kernel time and traffic in odd steps, scalar instructions in even ones.
  bool on_card = false;
  std::string recipe = "adamw";  // "adamw", "sgd", "sgd-momentum"
};

// "</script><script>...", quotes, U+202E, an escape sequence.
extern const char* const kHostileName;

struct SyntheticRun {
  std::unique_ptr<StringTable> strings = std::make_unique<StringTable>();
  RunInfo info;
  std::vector<StepBooks> steps;
  RunEnd end;

  const std::string& text(StringId id) const { return strings->text(id); }
  // What a reader would give back, without a file. The strings move into it.
  recording::Run as_recorded() &&;
};

SyntheticRun make_synthetic_run(const SyntheticOptions& options = {});
// Writes it as the session would, to its end. Throws Error when that fails.
void write_recording(const SyntheticRun& run, const std::string& path);

}  // namespace tally::test
