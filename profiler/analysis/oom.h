// SPDX-License-Identifier: Apache-2.0
// What the post-mortem (oom.cpp) and its remedies (oom_remedies.cpp) share; inside this room only.
#pragma once

#include <cstdint>
#include <vector>

#include "profiler/analysis/summary.h"

namespace tally::analysis {

// The first failed allocation or crossed budget of a run. All point into its Summary.
struct Failure {
  const StepSummary* step = nullptr;
  const DeviceStep* device = nullptr;
  const MarkSummary* mark = nullptr;
  int count = 0;  // of all steps
  int begun = 0;  // micro-steps of the step whose backward pass had begun
  // The highest step of the run that came to its end and is kept in detail: what predictions start
  // from. Null: there is none. With a budget that is only recorded it is the step itself.
  const StepSummary* reference = nullptr;
  const DeviceStep* reference_device = nullptr;
};

// In no order; one that gives back next to nothing is left out.
std::vector<Remedy> oom_remedies(const Failure& failure);

}  // namespace tally::analysis
