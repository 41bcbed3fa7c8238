// SPDX-License-Identifier: Apache-2.0
// What is known of kernels, summed by operator and name and told to the log.
#pragma once

#include <string>
#include <vector>

#include "hooks/cupti/activity_recorder.h"
#include "hooks/cupti/flop_metrics.h"
#include "hooks/cupti/launch_names.h"
#include "hooks/cupti/range_counter.h"
#include "profiler/core/source.h"

namespace tally::hooks::cupti {

// Ids that operators get while kernels are named: the number of their range, and one.
inline constexpr uint64_t id_of_range(uint64_t range) { return range + 1; }

// Sums of a set's values by what is counted: FLOPs by format, nanoseconds, bytes.
struct CountedSums {
  double of[kCountedQuantities] = {};
  void add(const std::vector<Metric>& metrics, const std::vector<double>& values);
};

// Times of kernels, copies and fills, as activity records have them.
void tell_kernels(Context& context, const ActivityRecorder::Report& report);

// Counters of each kernel, and their sums for the operators. `launches` are the names in the order
// of `rows`; "" when they are as many, else a sentence: then nothing has a name or an operator.
std::string tell_kernels(Context& context, const std::vector<Metric>& metrics,
                         const std::vector<RangeCounter::Row>& rows,
                         const std::vector<LaunchNames::Launch>& launches);

// Pushes one quantity of a range.
void tell_range(Context& context, uint64_t range, const CountedSums& sums);

// "void at::native::kernel<float>(int)" of a mangled name; what is none stays as it is.
std::string demangled(const std::string& name);

}  // namespace tally::hooks::cupti
