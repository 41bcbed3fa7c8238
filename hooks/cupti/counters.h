// SPDX-License-Identifier: Apache-2.0
// The source of what kernels execute, by hardware counters: one range around each outermost
// operator, one set of counters a step; in the step after each set had its turn, the kernels' names
// and times, by activity records. Made only when it is asked for (TORCHTALLY_COUNTERS=1).
// Where CUPTI refuses, the FLOPs of the formulas stay, and the recording says why and what to do.
#pragma once

#include <memory>

#include "profiler/core/source.h"

namespace tally::hooks {

struct CounterOptions {
  // Each kernel is counted by itself, with its name. Each waits for the one before, and sets of
  // several passes run it several times.
  bool per_kernel = false;
};

std::unique_ptr<Source> make_counter_source(CounterOptions options = {});

namespace cupti {
struct Api;
class Driver;
// The same with a CUPTI and a driver of the caller's: for tests. Both must outlive the source.
std::unique_ptr<Source> make_counter_source(CounterOptions options, const Api& api, Driver& driver);
}  // namespace cupti

}  // namespace tally::hooks
