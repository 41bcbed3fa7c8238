// SPDX-License-Identifier: Apache-2.0
#include "profiler/analysis/alive.h"

#include <gtest/gtest.h>

#include "profiler/analysis/build.h"
#include "profiler/core/error.h"
#include "tests/support/synthetic_run.h"

namespace tally::analysis {
namespace {

Summary summary_of(const SummaryOptions& options = {}) {
  return build_summary(test::make_synthetic_run().as_recorded(), options);
}
RoleBytes by_role(const std::vector<AliveRow>& rows) {
  RoleBytes out{};
  for (const AliveRow& row : rows) out[static_cast<size_t>(row.role)] += row.bytes;
  return out;
}

TEST(AliveRows, AddUpToEachMarkRoleByRole) {
  const Summary summary = summary_of();
  const DeviceStep& device = *summary.device_step();
  for (const MarkSummary& mark : device.marks) {
    const auto rows = alive_rows(device, mark);
    EXPECT_EQ(by_role(rows), mark.roles) << title(mark.mark);
    for (size_t i = 1; i < rows.size(); ++i) EXPECT_GE(rows[i - 1].bytes, rows[i].bytes);
  }
  EXPECT_TRUE(alive_rows(device, device.peak).front().phase) << "blocks, at the peak";
}

TEST(AliveRows, WhatIsNotListedHasARowOfItsOwn) {
  Summary summary = summary_of();
  DeviceStep& device = summary.steps[summary.shown].devices[0];
  const BlockRow gone = device.peak_blocks.back();
  device.peak_blocks.pop_back();
  device.peak.roles[static_cast<size_t>(Role::kRounding)] = 512;
  device.peak.bytes += 512;
  const auto rows = alive_rows(device, device.peak);
  EXPECT_EQ(by_role(rows), device.peak.roles);
  const auto has = [&](Role role, const std::string& name, int64_t bytes) {
    return std::any_of(rows.begin(), rows.end(), [&](const AliveRow& row) {
      return row.role == role && row.name == name && row.bytes == bytes;
    });
  };
  EXPECT_TRUE(has(gone.role, kNotListed, gone.bytes * gone.count));
  EXPECT_TRUE(has(Role::kRounding, "", 512)) << "rounding has no blocks by nature";
}

TEST(Explained, TheMarkAndTheDeviceThatAreAskedFor) {
  const Summary summary = summary_of({.step = 1, .device = "cpu", .at = Mark::kForwardEdge});
  EXPECT_EQ(summary.device, "cpu");
  EXPECT_EQ(summary.mark()->mark, Mark::kForwardEdge);
  int64_t bytes = 0;
  for (const ModuleSummary& m : summary.modules) bytes += sum(m.bytes);
  EXPECT_EQ(bytes, summary.mark()->bytes) << "modules are those of the mark";
  EXPECT_LT(bytes, summary.device_step()->peak.bytes);
}

TEST(Explained, WhatIsNotThereIsASentence) {
  const auto sentence = [](const SummaryOptions& options) -> std::string {
    try {
      summary_of(options);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(sentence({.step = 2, .device = "cuda:0"}),
            "step 2 of synthetic.tally has no device 'cuda:0'; it has cpu");
  EXPECT_EQ(sentence({.step = 2, .at = Mark::kOom}),
            "step 2 of synthetic.tally has no mark 'oom'; its marks are start, forward_edge, peak, "
            "backward_end, end: no allocation failed in it, and the budget was not crossed");
}

}  // namespace
}  // namespace tally::analysis
