// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "profiler/analysis/parts.h"

namespace tally::analysis {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

constexpr int64_t kParameters = 1 << 20;
constexpr int64_t kActivations = 4 << 20;

// A step of accumulation: in each micro-step the forward edge with its activations, then the end of
// backward with its gradients.
struct Steps {
  Summary summary;
  recording::Run run;

  explicit Steps(int count = 3) {
    run.strings = std::make_shared<StringTable>();
    ParameterInfo parameter;
    parameter.bytes = kParameters;
    parameter.trainable = true;
    run.info.parameters.push_back(parameter);
    StepSummary step;
    step.micro_steps = count;
    step.tokens = 96;
    DeviceStep device;
    device.device = "cpu";
    summary.device = "cpu";
    for (int m = 0; m < count; ++m) {
      add(device, Mark::kForwardEdge, m, m > 0 ? kParameters : 0, kActivations);
      add(device, Mark::kBackwardEnd, m, kParameters, 0);
    }
    step.devices.push_back(device);
    summary.steps.push_back(step);
    settle();
  }
  static void add(DeviceStep& device, Mark mark, int micro_step, int64_t gradients, int64_t activations) {
    MarkSummary out;
    out.mark = mark;
    out.micro_step = micro_step;
    out.phase = mark == Mark::kForwardEdge ? Phase::kForward : Phase::kBackward;
    out.roles[static_cast<size_t>(Role::kParameter)] = kParameters;
    out.roles[static_cast<size_t>(Role::kGradient)] = gradients;
    out.roles[static_cast<size_t>(Role::kActivation)] = activations;
    device.marks.push_back(out);
  }
  DeviceStep& device() { return summary.steps[0].devices[0]; }
  MarkSummary& mark(Mark mark, int micro_step) {
    for (MarkSummary& found : device().marks) {
      if (found.mark == mark && found.micro_step == micro_step) return found;
    }
    throw std::out_of_range("no such mark");
  }
  // A timeline and a peak that fit the marks.
  void settle() {
    device().timeline.clear();
    device().peak = {};
    double seconds = 0;
    for (MarkSummary& mark : device().marks) {
      mark.bytes = 0;
      for (const int64_t part : mark.roles) mark.bytes += part;
      if (mark.bytes > device().peak.bytes) device().peak = mark;
      TimelinePoint point;
      point.seconds = seconds += 1;
      point.roles = mark.roles;
      point.phase = mark.phase;
      point.micro_step = mark.micro_step;
      device().timeline.push_back(point);
    }
  }
  Verdict verdict() {
    settle();
    const auto found = accumulation_verdict(run, summary);
    EXPECT_TRUE(found.has_value());
    return found.value_or(Verdict{});
  }
};

TEST(Accumulation, OneMicroStepIsNone) {
  Steps steps(1);
  EXPECT_FALSE(accumulation_verdict(steps.run, steps.summary).has_value());
}

TEST(Accumulation, WorksWhenOnlyGradientsWait) {
  Steps steps;
  const Verdict verdict = steps.verdict();
  EXPECT_EQ(verdict.tone, Tone::kGood);
  EXPECT_EQ(verdict.verdict, "works: 3 micro-steps need the memory of one, and 1.0 MiB for the gradients that wait");
  EXPECT_EQ(verdict.bytes, 0);
  EXPECT_THAT(verdict.evidence, testing::Contains("highest peak 6.0 MiB; one micro-batch and all gradients would be 6.0 MiB"));
  EXPECT_THAT(verdict.evidence, testing::Contains("effective batch: 96 tokens, 32 a micro-step"));
  ASSERT_EQ(verdict.remedies.size(), 2u);
  EXPECT_EQ(verdict.remedies[0].bytes, kActivations / 2);
  EXPECT_EQ(verdict.remedies[1].bytes, kActivations * 3 / 4);
}

TEST(Accumulation, WhatIsCarriedOverIsNamed) {
  Steps steps;
  for (int m = 1; m < 3; ++m) {
    MarkSummary& end = steps.mark(Mark::kBackwardEnd, m);
    end.roles[static_cast<size_t>(Role::kHeldOutput)] = m * (1 << 20);
    end.cells.push_back({Role::kHeldOutput, "head", m * (1 << 20), 1});
  }
  const Verdict verdict = steps.verdict();
  EXPECT_THAT(verdict.verdict, StartsWith("carries over 1.0 MiB from micro-step to micro-step"));
  EXPECT_EQ(verdict.bytes, 2 << 20);
  EXPECT_THAT(verdict.evidence, testing::Contains("alive after the last backward pass: held outputs of head 2.0 MiB"));
  EXPECT_THAT(verdict.evidence,
              testing::Contains(StartsWith("most of it is outputs that the program stores")));
}

TEST(Accumulation, AKeptGraphIsToldFromStoredOutputs) {
  Steps steps;
  steps.mark(Mark::kBackwardEnd, 2).roles[static_cast<size_t>(Role::kActivation)] = 2 << 20;
  EXPECT_THAT(steps.verdict().evidence,
              testing::Contains(StartsWith(
                  "most of it is what autograd held in its micro-step: a graph that is kept")));
}

TEST(Accumulation, BucketsThatAreNoViewsHoldGradientsTwice) {
  Steps steps;
  for (MarkSummary& mark : steps.device().marks)
    mark.roles[static_cast<size_t>(Role::kCommunication)] = kParameters;
  const Verdict verdict = steps.verdict();
  EXPECT_EQ(verdict.verdict,
            "holds gradients twice: 1.0 MiB in .grad and 1.0 MiB in buckets for communication");
  ASSERT_FALSE(verdict.remedies.empty());
  EXPECT_EQ(verdict.remedies[0].bytes, kParameters);
  for (MarkSummary& mark : steps.device().marks)
    mark.roles[static_cast<size_t>(Role::kCommunication)] = 1 << 10;
  EXPECT_THAT(steps.verdict().verdict, StartsWith("works"));  // a loss that is reduced for the log
}

// In no_sync() DDP's buckets wait while gradients of their own are made; the last pass joins them.
TEST(Accumulation, GradientsBesideTheBucketsThatTheyWereViewsOf) {
  Steps steps;
  for (const int m : {0, 1}) steps.mark(Mark::kBackwardEnd, m).roles[static_cast<size_t>(Role::kGradient)] *= 2;
  steps.mark(Mark::kForwardEdge, 0).roles[static_cast<size_t>(Role::kGradient)] = kParameters;
  EXPECT_EQ(steps.verdict().verdict, "holds gradients twice: 2.0 MiB in .grad for 1.0 MiB of trainable parameters");
  OperatorRow row;
  row.op = "c10d::allreduce_";
  steps.summary.steps[0].operators.push_back(row);
  const Verdict verdict = steps.verdict();
  EXPECT_EQ(verdict.verdict, "holds gradients twice: 2.0 MiB in .grad and the buckets of DDP for 1.0 MiB of trainable parameters");
  EXPECT_THAT(verdict.remedies.at(0).text, StartsWith("zero_grad(set_to_none=False)"));
  EXPECT_EQ(verdict.remedies[0].bytes, kParameters);
  EXPECT_THAT(verdict.evidence, testing::Not(testing::Contains(HasSubstr("zero_grad(set_to_none) would"))));
}

TEST(Accumulation, ASecondCopyOfTheGradients) {
  Steps steps;
  for (const int m : {1, 2}) steps.mark(Mark::kBackwardEnd, m).roles[static_cast<size_t>(Role::kGradient)] *= 2;
  const Verdict verdict = steps.verdict();
  EXPECT_EQ(verdict.verdict, "holds gradients twice: 2.0 MiB in .grad for 1.0 MiB of trainable parameters");
  EXPECT_EQ(verdict.bytes, kParameters);
}

TEST(Accumulation, OptimizerStateBeforeTheUpdate) {
  Steps steps;
  steps.mark(Mark::kForwardEdge, 2).roles[static_cast<size_t>(Role::kOptimizerState)] = 2 << 20;
  EXPECT_EQ(steps.verdict().verdict, "holds optimizer state early: 2.0 MiB of it was made before the last backward pass");
}

TEST(Accumulation, AMicroStepThatPeaksHigherThanTheoryGrows) {
  Steps steps;
  steps.mark(Mark::kForwardEdge, 2).roles[static_cast<size_t>(Role::kActivation)] += 3 << 20;
  const Verdict verdict = steps.verdict();
  EXPECT_EQ(verdict.verdict, "grows: micro-step 2 peaks at 9.0 MiB, one micro-batch and the gradients explain 6.0 MiB");
  EXPECT_EQ(verdict.bytes, 3 << 20);
  EXPECT_THAT(verdict.evidence,
              testing::Contains(StartsWith("its micro-batch is not larger: autograd holds 0 B")));
  steps.mark(Mark::kForwardEdge, 2).saved_bytes = 7 << 20;
  steps.mark(Mark::kForwardEdge, 0).saved_bytes = 4 << 20;
  EXPECT_THAT(
      steps.verdict().evidence,
      testing::Contains(
          "its micro-batch is larger: autograd holds 7.0 MiB for it, 4.0 MiB for the first"));
}

TEST(Accumulation, GradientsThatWaitThroughTheFirstForwardPass) {
  Steps steps;
  steps.mark(Mark::kForwardEdge, 0).roles[static_cast<size_t>(Role::kGradient)] = kParameters;
  EXPECT_THAT(steps.verdict().evidence, testing::Contains(HasSubstr("zero_grad(set_to_none) would give them back")));
}

TEST(Accumulation, AnUnfinishedBackwardPassIsNotJudged) {
  Steps steps;
  steps.device().marks.pop_back();
  EXPECT_THAT(steps.verdict().verdict, StartsWith("not judged"));
}

}  // namespace
}  // namespace tally::analysis
