// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "profiler/analysis/parts.h"

namespace tally::analysis {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::StartsWith;

constexpr int64_t kMiB = 1 << 20;

MarkSummary mark_at(Mark mark, Phase phase) {
  MarkSummary out;
  out.mark = mark;
  out.phase = phase;
  return out;
}
void put(MarkSummary& mark, Role role, int64_t bytes, const std::string& module = "") {
  mark.roles[static_cast<size_t>(role)] += bytes;
  mark.bytes += bytes;
  mark.cells.push_back({role, module, bytes, 1});
}

// Step 0 came to its end; step 1 failed in its forward pass.
Summary failing() {
  Summary summary;
  summary.device = "cpu";
  StepSummary good;
  DeviceStep before;
  before.device = "cpu";
  before.peak = mark_at(Mark::kPeak, Phase::kBackward);
  put(before.peak, Role::kParameter, 10 * kMiB);
  put(before.peak, Role::kActivation, 40 * kMiB);
  before.marks = {mark_at(Mark::kForwardEdge, Phase::kForward), mark_at(Mark::kBackwardEnd, Phase::kBackward),
                  mark_at(Mark::kEnd, Phase::kOther)};
  put(before.marks[0], Role::kGradient, 5 * kMiB);
  TimelinePoint point;
  point.phase = Phase::kBackward;
  point.roles = before.peak.roles;
  before.timeline = {point};
  good.devices.push_back(before);
  summary.steps.push_back(good);

  StepSummary bad;
  bad.index = 1;
  DeviceStep device;
  device.device = "cpu";
  MarkSummary oom = mark_at(Mark::kOom, Phase::kForward);
  oom.module = "h.3.mlp";
  oom.op = "aten::addmm";
  oom.wanted_bytes = 8 * kMiB;
  oom.limit_bytes = 64 * kMiB;
  put(oom, Role::kParameter, 10 * kMiB, "h.0");
  put(oom, Role::kOptimizerState, 20 * kMiB, "h.0");
  put(oom, Role::kHeldOutput, 16 * kMiB, "head");
  put(oom, Role::kUnattributed, 14 * kMiB, "h.2");
  device.marks = {oom};
  device.peak = oom;
  bad.devices.push_back(device);
  summary.steps.push_back(bad);
  return summary;
}

const Remedy* remedy(const Verdict& verdict, const std::string& text) {
  for (const Remedy& found : verdict.remedies) {
    if (found.text.starts_with(text)) return &found;
  }
  return nullptr;
}

TEST(Oom, WithoutAFailureThereIsNoPostMortem) {
  Summary summary = failing();
  summary.steps.pop_back();
  EXPECT_FALSE(oom_verdict(summary).has_value());
}

TEST(Oom, SaysWhatWasAskedWhereAndWhatWasAlive) {
  const Verdict verdict = oom_verdict(failing()).value();
  EXPECT_EQ(verdict.verdict, "an allocation of 8.0 MiB failed in step 1, forward of h.3.mlp (aten::addmm): 60.0 MiB "
                             "of 64.0 MiB were alive on cpu");
  EXPECT_EQ(verdict.bytes, 8 * kMiB);
  EXPECT_THAT(verdict.evidence, Contains("alive: optimizer state 20.0 MiB, held outputs 16.0 MiB, unattributed 14.0 MiB, "
                                         "parameters 10.0 MiB"));
  EXPECT_THAT(verdict.evidence, Contains(HasSubstr("14.0 MiB are made by this forward pass, and nothing proves yet")));
  EXPECT_THAT(verdict.evidence, Contains("the step before peaked at 50.0 MiB; 10.0 MiB more were alive here, and "
                                         "8.0 MiB asked for"));
}

TEST(Oom, RemediesCarryTheirBytesTheMostFirst) {
  const Verdict verdict = oom_verdict(failing()).value();
  EXPECT_EQ(remedy(verdict, "let go of the outputs")->bytes, 16 * kMiB);
  EXPECT_EQ(remedy(verdict, "an optimizer with 8-bit state")->bytes, 15 * kMiB);
  EXPECT_EQ(remedy(verdict, "ZeRO-1")->bytes, 10 * kMiB);
  EXPECT_EQ(remedy(verdict, "FSDP")->bytes, 15 * kMiB);
  EXPECT_EQ(remedy(verdict, "micro-batches of 1/2")->bytes, 20 * kMiB);
  EXPECT_EQ(remedy(verdict, "zero_grad")->bytes, 5 * kMiB);
  EXPECT_EQ(remedy(verdict, "checkpoint"), nullptr);  // no repeated blocks
  for (size_t i = 1; i < verdict.remedies.size(); ++i) {
    EXPECT_GE(verdict.remedies[i - 1].bytes, verdict.remedies[i].bytes);
  }
}

TEST(Oom, ACrossedBudgetIsToldAsOne) {
  Summary summary = failing();
  summary.steps[1].devices[0].marks[0].limit_bytes = 50 * kMiB;
  EXPECT_THAT(oom_verdict(summary).value().verdict, StartsWith("the budget of 50.0 MiB was crossed in step 1, forward"));
}

TEST(Oom, FreePiecesThatAreTooSmallAskForExpandableSegments) {
  Summary summary = failing();
  CachingBook book;
  book.reserved_bytes = 64 * kMiB;
  book.active_bytes = 50 * kMiB;
  book.largest_free_bytes = 2 * kMiB;
  summary.steps[1].devices[0].marks[0].caching = book;
  const Verdict verdict = oom_verdict(summary).value();
  ASSERT_NE(remedy(verdict, "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"), nullptr);
  summary.steps[1].devices[0].marks[0].caching->largest_free_bytes = 9 * kMiB;
  EXPECT_EQ(remedy(oom_verdict(summary).value(), "PYTORCH_CUDA"), nullptr);
}

TEST(Oom, InTheFirstStepNothingIsPredicted) {
  Summary summary = failing();
  summary.steps.erase(summary.steps.begin());
  const Verdict verdict = oom_verdict(summary).value();
  EXPECT_THAT(verdict.evidence, Contains("it was the first step: no earlier one to compare with"));
  EXPECT_EQ(remedy(verdict, "micro-batches"), nullptr);
}

}  // namespace
}  // namespace tally::analysis
