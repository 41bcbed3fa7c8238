// SPDX-License-Identifier: Apache-2.0
#include "profiler/analysis/alive.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

namespace tally::analysis {

std::vector<AliveRow> alive_rows(const DeviceStep& device, const MarkSummary& mark) {
  const bool from_blocks = mark.mark == Mark::kPeak && !device.peak_blocks.empty();
  std::vector<AliveRow> rows;
  RoleBytes missing = mark.roles;
  std::array<bool, kRoleCount> listed{};
  const auto add = [&](AliveRow row) {
    missing[static_cast<size_t>(row.role)] -= row.bytes;
    listed[static_cast<size_t>(row.role)] = true;
    rows.push_back(std::move(row));
  };
  std::map<std::pair<Role, std::string>, int64_t> of_blocks;
  if (from_blocks) {
    for (const BlockRow& b : device.peak_blocks) {
      const int64_t bytes = b.bytes * b.count;
      of_blocks[{b.role, b.module}] += bytes;
      add({b.role, b.module, b.op, b.name, b.dtype, b.shape, b.source, b.phase, b.saved, b.count,
           bytes});
    }
  }
  std::map<std::pair<Role, std::string>, std::pair<int64_t, uint32_t>> of_cells;
  for (const Cell& cell : mark.cells) {
    auto& [bytes, blocks] = of_cells[{cell.role, cell.module}];
    bytes += cell.bytes;
    blocks += cell.blocks;
  }
  for (const auto& [place, held] : of_cells) {
    AliveRow row;
    row.role = place.first;
    row.module = place.second;
    row.bytes = held.first;
    row.count = held.second;
    if (from_blocks) {
      const auto found = of_blocks.find(place);
      if (found != of_blocks.end()) row.bytes -= found->second;
      row.name = kNotListed;
      row.count = 0;
    }
    if (row.bytes != 0) add(std::move(row));
  }
  for (size_t role = 0; role < kRoleCount; ++role) {
    if (missing[role] == 0) continue;
    AliveRow row;
    row.role = static_cast<Role>(role);
    // A role without any row has none by nature: what the allocator adds, what it keeps in reserve.
    if (listed[role]) row.name = kNotListed;
    row.bytes = missing[role];
    rows.push_back(std::move(row));
  }
  std::stable_sort(rows.begin(), rows.end(),
                   [](const AliveRow& a, const AliveRow& b) { return a.bytes > b.bytes; });
  return rows;
}

}  // namespace tally::analysis
