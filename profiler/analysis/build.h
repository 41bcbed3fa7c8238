// SPDX-License-Identifier: Apache-2.0
// From a recording to the Summary that every report reads. A pure function; any thread.
#pragma once

#include <cstdint>
#include <optional>

#include "profiler/analysis/summary.h"
#include "profiler/recording/reader.h"

namespace tally::analysis {

struct SummaryOptions {
  std::optional<uint64_t> step;  // the one to explain
};

// The step explained is the asked one. Else it is the one with the highest peak among the steps
// kept in detail (all steps when none is); of equally high ones the first, but not step 0 if a
// later one is as high: step 0 is a warm-up, where the optimizer makes its state and libraries
// their caches. Throws Error when the recording has no step, or not the asked one.
Summary build_summary(const recording::Run& run, const SummaryOptions& options = {});

}  // namespace tally::analysis
