// SPDX-License-Identifier: Apache-2.0
// A recording held against limits in bytes, for tests.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "profiler/analysis/summary.h"

namespace tally::analysis {

// What is limited and how ("1.2 GiB"): "peak" (everything), "saved" (kept by autograd), a role or
// its plural, "activations" (those made again among them), "temporaries" (of all phases).
using Limits = std::vector<std::pair<std::string, std::string>>;

// What had more than it may at any mark of any step, and when; "" where all is within. Also a
// sentence for limits without sense, and where there is no step.
std::string over_budget(const Summary& summary, const Limits& limits);

}  // namespace tally::analysis
