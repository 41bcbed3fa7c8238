// SPDX-License-Identifier: Apache-2.0
// The source of what kernels execute, by hardware counters: one range around each outermost
// operator, one set of counters a step. Made only when it is asked for (TORCHTALLY_COUNTERS=1).
// Where CUPTI refuses, the FLOPs of the formulas stay, and the recording says why and what to do.
#pragma once

#include <memory>

#include "profiler/core/source.h"

namespace tally::hooks {

std::unique_ptr<Source> make_counter_source();

namespace cupti {
struct Api;
class Driver;
// The same with a CUPTI and a driver of the caller's: for tests. Both must outlive the source.
std::unique_ptr<Source> make_counter_source(const Api& api, Driver& driver);
}  // namespace cupti

}  // namespace tally::hooks
