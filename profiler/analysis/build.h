// SPDX-License-Identifier: Apache-2.0
// From a recording to the Summary that every report reads. A pure function; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "profiler/analysis/summary.h"
#include "profiler/recording/reader.h"

namespace tally::analysis {

struct SummaryOptions {
  std::optional<uint64_t> step = {};  // the one to explain
  std::string device = {};  // the one to explain: "cuda:0"; "": that with the highest peak
  Mark at = Mark::kPeak;    // whose books to explain
  std::string model = {};   // for the closed forms, in place of what the recording says: a preset's
                            // name or the text of a config.json
};

// The step explained is the asked one. Else it is the one with the highest peak among the steps
// kept in detail (all steps when none is); of equally high ones the first, but not step 0 if a
// later one is as high: step 0 is a warm-up, where the optimizer makes its state and libraries
// their caches. Throws Error when the recording has no step, or not the asked one.
Summary build_summary(const recording::Run& run, const SummaryOptions& options = {});

// The recordings of the ranks of one run, a Summary each, ordered by rank; each holds `ranks` of
// all. Recordings that say no rank are numbered in the order given. The step asked for must be in
// the recording of `explained`; other ranks that lack it show the step they would show alone.
// Throws Error when the recordings cannot be of one run.
struct RankedSummaries {
  std::vector<Summary> summaries;
  size_t explained = 0;  // the rank asked for, else the one with the highest peak
};
RankedSummaries build_ranks(const std::vector<recording::Run>& runs, std::optional<int64_t> rank,
                            const SummaryOptions& options = {});

}  // namespace tally::analysis
