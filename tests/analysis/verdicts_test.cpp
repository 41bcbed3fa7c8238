// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "profiler/analysis/build.h"
#include "tests/support/synthetic_run.h"

namespace tally::analysis {
namespace {

Verdict leak_of(const test::SyntheticOptions& options) {
  const Summary summary = build_summary(test::make_synthetic_run(options).as_recorded());
  EXPECT_EQ(summary.verdicts.size(), 1u);
  EXPECT_EQ(summary.verdicts[0].kind, "leak");
  return summary.verdicts[0];
}

TEST(Leak, SteadyStepsAreNone) {
  test::SyntheticOptions options;
  options.steps = 6;
  const Verdict verdict = leak_of(options);
  EXPECT_EQ(verdict.bytes, 0);
  EXPECT_THAT(verdict.verdict, testing::StartsWith("no growth"));
}

TEST(Leak, GrowthIsNamedByRoleAndModule) {
  test::SyntheticOptions options;
  options.steps = 6;
  options.leak_bytes = 4096;
  const Verdict verdict = leak_of(options);
  // Step 0 made the optimizer's state; from then on a step leaves 4096 B behind.
  EXPECT_THAT(verdict.verdict, testing::HasSubstr("grew in each of the last 5 steps"));
  EXPECT_EQ(verdict.bytes, 4096);
  ASSERT_EQ(verdict.evidence.size(), 1u);
  EXPECT_EQ(
      verdict.evidence[0],
      "held outputs: 4.0 KiB at the end of step 0, 24.0 KiB at the end of step 5 (in the last "
      "step: after lm_head +4.0 KiB)");
}

TEST(Leak, WhatWasThereBeforeAndIsUsedForTheFirstTimeIsNone) {
  test::SyntheticOptions options;
  options.steps = 6;
  options.leak_bytes = 4096;
  recording::Run run = test::make_synthetic_run(options).as_recorded();
  for (recording::RecordedStep& step : run.steps) step.books.devices[0].adopted_bytes = 4096;
  const Verdict none = build_summary(run).verdicts[0];
  EXPECT_THAT(none.verdict, testing::StartsWith("no growth"));
  EXPECT_EQ(none.evidence.back(),
            "20.0 KiB were there before the recording and were used for the first time in it");
  for (recording::RecordedStep& step : run.steps) step.books.devices[0].adopted_bytes = 4000;
  EXPECT_EQ(build_summary(run).verdicts[0].bytes, 96);
}

TEST(Leak, AFewStepsAreNotJudged) {
  test::SyntheticOptions options;
  options.steps = 3;
  options.leak_bytes = 4096;
  const Verdict verdict = leak_of(options);
  EXPECT_EQ(verdict.bytes, 0);
  EXPECT_EQ(verdict.verdict, "not judged: 3 steps recorded, growth is judged over 4 or more");
}

TEST(Leak, OneStepThatShrinksEndsTheSeries) {
  test::SyntheticOptions options;
  options.steps = 8;
  options.leak_bytes = 4096;
  recording::Run run = test::make_synthetic_run(options).as_recorded();
  for (MarkBook& mark : run.steps[6].books.devices[0].marks) {
    if (mark.mark == Mark::kEnd) mark.bytes -= 1 << 20;
  }
  EXPECT_THAT(build_summary(run).verdicts[0].verdict, testing::StartsWith("no growth"));
}

}  // namespace
}  // namespace tally::analysis
