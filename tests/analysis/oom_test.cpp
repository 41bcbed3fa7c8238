// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fmt/format.h>

#include "profiler/analysis/parts.h"

namespace tally::analysis {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;
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

BlockRow block(Role role, int64_t mib, const std::string& dtype) {
  BlockRow row;
  row.role = role;
  row.bytes = mib * kMiB;
  row.dtype = dtype;
  return row;
}

// Step 0 came to its end; step 1 failed in its forward pass.
Summary failing(int64_t activations = 40 * kMiB) {
  Summary summary;
  summary.device = "cpu";
  StepSummary good;
  DeviceStep before;
  before.device = "cpu";
  before.peak = mark_at(Mark::kPeak, Phase::kBackward);
  put(before.peak, Role::kParameter, 10 * kMiB);
  put(before.peak, Role::kActivation, activations);
  before.marks = {mark_at(Mark::kForwardEdge, Phase::kForward),
                  mark_at(Mark::kBackwardEnd, Phase::kBackward),
                  mark_at(Mark::kEnd, Phase::kOther)};
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
  for (int i = 0; i < 5; ++i) put(oom, Role::kParameter, 2 * kMiB, fmt::format("h.{}.mlp", i));
  put(oom, Role::kOptimizerState, 20 * kMiB, "h.0");
  put(oom, Role::kHeldOutput, 16 * kMiB, "head");
  put(oom, Role::kGradient, 5 * kMiB, "h.0");
  put(oom, Role::kUnattributed, 9 * kMiB, "h.2");
  device.peak_blocks = {
      block(Role::kOptimizerState, 16, "float32"), block(Role::kOptimizerState, 4, "uint8"),
      block(Role::kHeldOutput, 16, "bfloat16"), block(Role::kParameter, 10, "float32")};
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

TEST(Oom, OfSeveralDevicesTheOneThatFailedIsTold) {
  Summary summary = failing();
  std::vector<DeviceStep>& devices = summary.steps[1].devices;
  devices.insert(devices.begin(), DeviceStep{});
  devices[0].device = "cpu";
  devices[1].device = "cuda:0";
  devices[0].marks = {mark_at(Mark::kOom, Phase::kForward)};
  const Verdict verdict = oom_verdict(summary).value();
  EXPECT_THAT(verdict.verdict, HasSubstr("60.0 MiB of 64.0 MiB were alive on cuda:0"));
  EXPECT_THAT(verdict.evidence, Not(Contains(HasSubstr("failures in the run"))));
}

TEST(Oom, SaysWhatWasAskedWhereAndWhatWasAlive) {
  const Verdict verdict = oom_verdict(failing()).value();
  EXPECT_EQ(verdict.verdict, "an allocation of 8.0 MiB failed in step 1, forward of h.3.mlp (aten::addmm): 60.0 MiB "
                             "of 64.0 MiB were alive on cpu");
  EXPECT_EQ(verdict.bytes, 8 * kMiB);
  EXPECT_THAT(
      verdict.evidence,
      Contains("alive: optimizer state 20.0 MiB, held outputs 16.0 MiB, parameters 10.0 MiB, "
               "unattributed 9.0 MiB, gradients 5.0 MiB"));
  EXPECT_THAT(verdict.evidence,
              Contains(HasSubstr("9.0 MiB are made by this forward pass, and nothing proves yet")));
  EXPECT_THAT(verdict.evidence, Contains("the step before peaked at 50.0 MiB; 10.0 MiB more were alive here, and "
                                         "8.0 MiB asked for"));
}

TEST(Oom, RemediesCarryTheirBytesTheMostFirst) {
  const Verdict verdict = oom_verdict(failing(20 * kMiB)).value();
  EXPECT_EQ(remedy(verdict, "let go of the outputs")->bytes, 16 * kMiB);
  EXPECT_THAT(remedy(verdict, "let go of the outputs")->text, HasSubstr("): head 16.0 MiB"));
  // What has another type already is not counted.
  EXPECT_EQ(remedy(verdict, "an optimizer with 8-bit state")->bytes, 12 * kMiB);
  // A gradient has the type of its parameter.
  EXPECT_EQ(remedy(verdict, "the model in bfloat16")->bytes, 31 * kMiB / 2);
  EXPECT_EQ(remedy(verdict, "ZeRO-1")->bytes, 10 * kMiB);
  EXPECT_THAT(remedy(verdict, "ZeRO-1")->text,
              HasSubstr("2 ranks give 10.0 MiB back, 8 give 17.5 MiB"));
  // Half of 35 MiB is on the other rank; two blocks of 2 MiB are whole.
  EXPECT_EQ(remedy(verdict, "FSDP (ZeRO-3) of 5 blocks")->bytes, 27 * kMiB / 2);
  EXPECT_EQ(remedy(verdict, "micro-batches of 1/2")->bytes, 10 * kMiB);
  EXPECT_EQ(remedy(verdict, "zero_grad")->bytes, 5 * kMiB);
  EXPECT_EQ(remedy(verdict, "checkpoint"), nullptr);  // no repeated blocks
  EXPECT_EQ(remedy(verdict, "an optimizer with fused"), nullptr);  // the update is not what failed
  EXPECT_EQ(remedy(verdict, "offload"), nullptr);                  // it is in the host's memory
  for (size_t i = 1; i < verdict.remedies.size(); ++i) {
    EXPECT_GE(verdict.remedies[i - 1].bytes, verdict.remedies[i].bytes);
  }
}

// What does not lower the complete step's peak would have to be there all the same.
TEST(Oom, TheCompleteStepBoundsWhatARemedyGivesBack) {
  const Verdict verdict = oom_verdict(failing(40 * kMiB)).value();
  EXPECT_EQ(remedy(verdict, "let go of the outputs")->bytes, 10 * kMiB);
  EXPECT_EQ(remedy(verdict, "an optimizer with 8-bit state")->bytes, 10 * kMiB);
  EXPECT_EQ(remedy(verdict, "the model in bfloat16")->bytes, 15 * kMiB);
}

// What lies outside of blocks is gathered all the time.
TEST(Oom, AModelWithoutBlocksIsWholeOnEachRank) {
  Summary summary = failing(20 * kMiB);
  MarkSummary& oom = summary.steps[1].devices[0].marks[0];
  for (Cell& cell : oom.cells) {
    if (cell.role == Role::kParameter) cell.module = "fc";
  }
  const Verdict verdict = oom_verdict(summary).value();
  EXPECT_EQ(remedy(verdict, "FSDP (ZeRO-3), by formula")->bytes, 15 * kMiB / 2);
}

TEST(Oom, WhatDoesNotApplyIsNotListed) {
  Summary summary = failing();
  MarkSummary& oom = summary.steps[1].devices[0].marks[0];
  oom.roles = {};
  oom.cells.clear();
  oom.bytes = 0;
  put(oom, Role::kActivation, 50 * kMiB, "h.1");
  oom.phase = Phase::kBackward;
  summary.steps[1].devices[0].peak_blocks.clear();
  const Verdict verdict = oom_verdict(summary).value();
  ASSERT_EQ(verdict.remedies.size(), 2u);  // both of micro-batches
  EXPECT_THAT(verdict.remedies[0].text, StartsWith("micro-batches of 1/4"));
}

TEST(Oom, AnUpdateThatFailsAsksForAnotherKindOfUpdate) {
  Summary summary = failing();
  DeviceStep& device = summary.steps[1].devices[0];
  device.marks[0].phase = Phase::kOptimizer;
  put(device.marks[0], Role::kTemporaryOptimizer, 12 * kMiB);
  device.peak_blocks = {block(Role::kParameter, 2, "float32"), block(Role::kTemporaryOptimizer, 3, "float32")};
  const Verdict verdict = oom_verdict(summary).value();
  EXPECT_EQ(remedy(verdict, "an optimizer with fused=True")->bytes, 12 * kMiB);
  // The largest parameter's are twice as large as it.
  EXPECT_EQ(remedy(verdict, "an optimizer with foreach=False")->bytes, 8 * kMiB);
  EXPECT_EQ(remedy(verdict, "zero_grad"), nullptr);  // the update needs them
}

TEST(Oom, OnADeviceWhatAutogradSavesCanBeOffloaded) {
  Summary summary = failing();
  for (StepSummary& step : summary.steps) step.devices[0].device = "cuda:0";
  MarkSummary& oom = summary.steps[1].devices[0].marks[0];
  put(oom, Role::kActivation, 8 * kMiB, "h.2");
  put(oom, Role::kActivation, 3 * kMiB, "h.3.mlp");  // it runs
  const Verdict verdict = oom_verdict(summary).value();
  EXPECT_EQ(remedy(verdict, "offload")->bytes, 8 * kMiB);
  EXPECT_THAT(
      verdict.evidence,
      Contains(HasSubstr("11.0 MiB of activations are what the rules of the operators say")));
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
  summary.options = {{"cuda_allocator", "garbage_collection_threshold:0.8,expandable_segments:True"}};
  EXPECT_EQ(remedy(oom_verdict(summary).value(), "PYTORCH_CUDA"), nullptr);  // it is in use
  summary.options.clear();
  summary.steps[1].devices[0].marks[0].caching->largest_free_bytes = 9 * kMiB;
  EXPECT_EQ(remedy(oom_verdict(summary).value(), "PYTORCH_CUDA"), nullptr);
}

TEST(Oom, InTheFirstStepNothingIsPredicted) {
  Summary summary = failing();
  summary.steps.erase(summary.steps.begin());
  const Verdict verdict = oom_verdict(summary).value();
  EXPECT_THAT(verdict.evidence, Contains(StartsWith("it was the first step: no earlier one to compare with, and what")));
  EXPECT_EQ(remedy(verdict, "micro-batches"), nullptr);
}

}  // namespace
}  // namespace tally::analysis
