// SPDX-License-Identifier: Apache-2.0
// What was alive at a mark, as rows whose sum is the mark's bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "profiler/analysis/summary.h"

namespace tally::analysis {

struct AliveRow {
  Role role = Role::kUnattributed;
  std::string module;
  std::string op;
  std::string name;  // of a parameter or a piece of state
  std::string dtype;
  std::string shape;
  std::string source;
  std::optional<Phase> phase;  // it was made in
  bool saved = false;
  uint32_t count = 0;  // blocks; 0: not known
  int64_t bytes = 0;   // of all of them
};

inline constexpr const char* kNotListed = "not listed one by one";

// At the peak of a step in detail the blocks; else sums by role and module. What the recording does
// not list stands in rows named kNotListed. The largest first.
std::vector<AliveRow> alive_rows(const DeviceStep& device, const MarkSummary& mark);

}  // namespace tally::analysis
