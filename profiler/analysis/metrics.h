// SPDX-License-Identifier: Apache-2.0
// The numbers of a report, each named once: key in JSON, title for people, unit, meaning. Reports
// take titles and units from here, and the documents their tables.
#pragma once

#include <array>
#include <string_view>

namespace tally::analysis {

struct Metric {
  std::string_view key;
  std::string_view title;
  std::string_view unit;
  std::string_view meaning;
};

inline constexpr std::array kMetrics{
    Metric{"bytes", "sum", "bytes", "All blocks alive at the mark, as the ledger books them."},
    Metric{"allocator_bytes", "allocator", "bytes",
           "What the allocator itself counts at the same moment."},
    Metric{"difference", "difference", "bytes",
           "Sum of the books minus the allocator's count; 0 when they close."},
    Metric{"saved_bytes", "saved", "bytes",
           "Unique storages that autograd holds for backward, parameters left out."},
    Metric{"saved_parameter_bytes", "saved parameters", "bytes",
           "Parameters among what autograd holds."},
    Metric{"expected_saved_bytes", "saved by rule", "bytes",
           "What the save rules of the recorded operators add up to."},
    Metric{"flops", "FLOPs", "FLOP",
           "Matrix products, convolutions and attention; a multiply-add counts 2."},
    Metric{"elementwise_flops", "element-wise", "FLOP",
           "Element-wise operators, reductions and normalisations."},
    Metric{"overhead_seconds", "overhead", "seconds",
           "Spent in the profiler's hooks on the program's threads."},
};

// A key that is not in the table does not compile.
consteval const Metric& metric(std::string_view key) {
  for (const Metric& m : kMetrics) {
    if (m.key == key) return m;
  }
  throw "no such metric";
}

}  // namespace tally::analysis
