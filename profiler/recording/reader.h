// SPDX-License-Identifier: Apache-2.0
// Reads run.tally back into the values it was written from. Anywhere, without Torch; while the
// program still runs, and after it was killed. Throws Error with one sentence for everything that
// is no recording, newer than this program, or damaged.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "profiler/core/ids.h"
#include "profiler/ledger/books.h"

namespace tally::recording {

struct RecordedStep {
  StepBooks books;
  // False: cells and timelines were left out, and `operators` holds one sum for each phase. So
  // 10,000 steps load in a second.
  bool full = true;
};

struct Run {
  std::string path;
  std::string started;  // ISO 8601, UTC
  int64_t start_unix_ns = 0;  // the same, to the nanosecond; 0: not recorded
  int64_t schema = 0;
  int64_t step_count = 0;  // in the file, loaded or not
  RunInfo info;
  RunEnd end;                       // ended: "killed" when the process is gone without a word
  std::vector<RecordedStep> steps;  // in the order of their index
  std::shared_ptr<const StringTable> strings;  // of every StringId above

  const std::string& text(StringId id) const { return strings->text(id); }
};

enum class Load {
  kRun,    // no steps
  kShown,  // detailed steps, the highest peak, the last four and `step` in full, others as totals
  kAll,    // every step in full
};
struct ReadOptions {
  Load load = Load::kShown;
  std::optional<uint64_t> step;  // one more in full
};

Run read_run(const std::string& path, const ReadOptions& options = {});

}  // namespace tally::recording
