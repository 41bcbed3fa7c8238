// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "profiler/analysis/counterfactual.h"
#include "profiler/analysis/parts.h"

namespace tally::analysis {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

constexpr int64_t kParameters = 1000;
constexpr int64_t kHeld = 300;    // by autograd, of each block
constexpr int64_t kOutput = 50;   // of these, handed on
constexpr double kForward = 10;   // FLOPs of a block
constexpr int kBlocks = 3;

std::string block(int i) { return "h." + std::to_string(i); }

// Three blocks and a head, a second each: forward at 1, 2, 3, the head's logits at 4, backward of the
// blocks at 5, 6, 7, the update at 8.
struct Model {
  Summary summary;
  recording::Run run;

  explicit Model(int64_t logits = 100, int64_t update = 0) {
    run.strings = std::make_shared<StringTable>();
    StepSummary step;
    step.seconds = 9;
    step.micro_steps = 1;
    step.flops.forward = kBlocks * kForward;
    step.flops.backward = 2 * kBlocks * kForward;
    DeviceStep device;
    device.device = "cpu";
    int64_t held = 0;
    const auto point = [&](double seconds, Phase phase, Role role, int64_t bytes) {
      TimelinePoint at;
      at.seconds = seconds;
      at.phase = phase;
      at.roles[static_cast<size_t>(Role::kParameter)] = kParameters;
      at.roles[static_cast<size_t>(Role::kActivation)] = held;
      at.roles[static_cast<size_t>(role)] += bytes;
      device.timeline.push_back(at);
    };
    point(0, Phase::kData, Role::kInput, 0);
    for (int i = 0; i < kBlocks; ++i) {
      held += kHeld;
      point(1 + i, Phase::kForward, Role::kTemporaryForward, 20);
      step.units.push_back({block(i), 0, kHeld, kOutput, 1.5 + i, 5.0 + kBlocks - 1 - i, 5.9 + kBlocks - 1 - i});
      step.operators.push_back({Phase::kForward, block(i) + ".fc", "aten::addmm", 1, kForward, kForward, 0, 0.1});
    }
    point(4, Phase::kForward, Role::kTemporaryForward, logits);
    for (int i = 0; i < kBlocks; ++i) {
      point(5 + i, Phase::kBackward, Role::kTemporaryBackward, 30);
      held -= kHeld;
    }
    point(8, Phase::kOptimizer, Role::kTemporaryOptimizer, update);
    for (const TimelinePoint& at : device.timeline) {
      int64_t bytes = 0;
      for (const int64_t part : at.roles) bytes += part;
      if (bytes > device.peak.bytes) {
        device.peak.bytes = bytes;
        device.peak.phase = at.phase;
        device.peak.seconds = at.seconds;
      }
    }
    step.devices.push_back(device);
    summary.steps.push_back(step);
    summary.device = "cpu";
  }
  StepSummary& step() { return summary.steps[0]; }
  DeviceStep& device() { return step().devices[0]; }
  void region(const std::string& module, int64_t kept, int64_t avoided, double flops = kForward) {
    step().regions.push_back({0, module, "CheckpointBackward", kept, avoided, flops, 0.1, 0, 0});
    step().flops.recompute += flops;
    step().operators.push_back({Phase::kRecompute, module, "aten::addmm", 1, flops, flops, 0, 0.1});
  }
  Verdict verdict() {
    const auto found = checkpointing_verdict(run, summary);
    EXPECT_TRUE(found.has_value());
    return found.value_or(Verdict{});
  }
};

TEST(Counterfactual, CheckpointsTakeAwayWhatWaitsForTheBackwardPass) {
  Model model;
  const Counterfactual of(model.step(), model.device());
  ASSERT_EQ(of.units().size(), 3u);
  EXPECT_EQ(model.device().peak.bytes, kParameters + 3 * kHeld + 100);
  EXPECT_EQ(of.with_checkpoints({}).peak_bytes, model.device().peak.bytes);
  // At the logits only the outputs are left of all three; at the recomputation of the last block the
  // other two are still away, and its output is there twice.
  const Prediction all = of.with_checkpoints(of.uniform(1));
  const int64_t at_logits = kParameters + 3 * kOutput + 100;
  const int64_t at_last_block = kParameters + 3 * kHeld + 30 - 2 * (kHeld - kOutput) + kOutput;
  EXPECT_EQ(all.peak_bytes, std::max(at_logits, at_last_block));
  EXPECT_EQ(all.extra_flops, 3 * kForward);
}

const TradeOffRow& row_of(const std::vector<TradeOffRow>& rows, const std::string& checkpointing,
                          int parts, bool accumulated) {
  for (const TradeOffRow& row : rows) {
    if (row.checkpointing.starts_with(checkpointing) && row.parts == parts &&
        row.accumulated == accumulated) {
      return row;
    }
  }
  ADD_FAILURE() << checkpointing << ", 1/" << parts << ", " << accumulated;
  return rows.at(0);
}

TEST(TradeOff, SaysTheRecordedStepAndWhatOtherSettingsWouldNeed) {
  Model model;
  const auto rows = trade_off(model.summary);
  // Ways: none, each block, segments of the root of three; three sizes; accumulated or not.
  ASSERT_EQ(rows.size(), 3u * 3 * 2);
  const TradeOffRow& recorded = row_of(rows, "none", 1, false);
  EXPECT_TRUE(recorded.is_recorded);
  EXPECT_EQ(std::count_if(rows.begin(), rows.end(), [](auto& row) { return row.is_recorded; }), 1);
  EXPECT_EQ(recorded.peak_bytes, model.device().peak.bytes);
  EXPECT_EQ(recorded.extra_flops, 0);
  // All but the parameters grows with the batch here, and there are no gradients that wait.
  EXPECT_EQ(row_of(rows, "none", 2, false).peak_bytes, kParameters + (3 * kHeld + 100) / 2);
  EXPECT_EQ(row_of(rows, "none", 4, true).peak_bytes, kParameters + (3 * kHeld + 100) / 4);
  // Both at once: as CheckpointsTakeAwayWhatWaitsForTheBackwardPass has it, and half of that.
  const int64_t checkpointed = Counterfactual(model.step(), model.device())
                                   .with_checkpoints({{0, 0}, {1, 1}, {2, 2}})
                                   .peak_bytes;
  EXPECT_EQ(row_of(rows, "each of h.0 to h.2", 1, false).peak_bytes, checkpointed);
  EXPECT_EQ(row_of(rows, "each of h.0 to h.2", 2, false).peak_bytes,
            kParameters + (checkpointed - kParameters) / 2);
  EXPECT_DOUBLE_EQ(row_of(rows, "each", 1, false).extra_flops, 3 * kForward / (9 * kForward));
}

TEST(TradeOff, AccumulationKeepsTheGradientsThatOneMicroStepOnlyMakesInTheEnd) {
  Model model;
  model.device().timeline.back().roles[static_cast<size_t>(Role::kGradient)] = 400;
  const auto rows = trade_off(model.summary);
  EXPECT_EQ(row_of(rows, "none", 1, true).peak_bytes, kParameters + 3 * kHeld + 100 + 400);
  EXPECT_EQ(row_of(rows, "none", 1, false).peak_bytes, kParameters + 3 * kHeld + 100);
}

TEST(TradeOff, AStepWithoutABackwardPassHasNone) {
  Model model;
  model.step().flops.backward = 0;
  EXPECT_TRUE(trade_off(model.summary).empty());
}

TEST(Counterfactual, ASegmentComesBackAsAWhole) {
  Model model(1000);
  const Counterfactual of(model.step(), model.device());
  // One segment of all three keeps one output at the logits, and has everything back at the last
  // block's backward pass.
  EXPECT_EQ(of.with_checkpoints(of.uniform(3)).peak_bytes, kParameters + 1000 + kOutput);
  EXPECT_EQ(of.with_checkpoints(of.uniform(1)).peak_bytes, kParameters + 1000 + 3 * kOutput);
}

TEST(Counterfactual, GreedyLeavesOutWhatThePeakDoesNotNeed) {
  Model model(0);
  const Counterfactual of(model.step(), model.device());
  // Without logits the peak is the last block's own backward pass: its checkpoint gives nothing.
  const Plan plan = of.greedy();
  ASSERT_EQ(plan.size(), 2u);
  EXPECT_EQ(names_of(of, plan), "h.0, h.1");
  EXPECT_LE(of.with_checkpoints(plan).peak_bytes, of.with_checkpoints(of.uniform(1)).peak_bytes);
}

TEST(Counterfactual, OnlyRepeatedBlocksWithABackwardPassAreUnits) {
  Model model;
  model.step().units.push_back({"head", 0, 500, 0, 4, 4.5, 4.9});
  model.step().units.push_back({"h.9", 0, 500, 0, 4, 0, 0});
  EXPECT_EQ(Counterfactual(model.step(), model.device()).units().size(), 3u);
}

TEST(Checkpointing, WhereThereIsNoneItSaysWhatItWouldGive) {
  Model model;
  const Verdict verdict = model.verdict();
  EXPECT_EQ(verdict.tone, Tone::kOpen);
  EXPECT_THAT(verdict.verdict, StartsWith("not used: checkpointing h.0 to h.2 would bring the peak from 2.0 KiB"));
  EXPECT_THAT(verdict.verdict, HasSubstr("33.3 % more FLOPs"));
  ASSERT_FALSE(verdict.remedies.empty());
  const Counterfactual of(model.step(), model.device());
  EXPECT_EQ(verdict.remedies[0].bytes,
            model.device().peak.bytes - of.with_checkpoints(of.uniform(1)).peak_bytes);
}

TEST(Checkpointing, WhereThePeakIsElsewhereNothingIsPromised) {
  Model model(100, 5000);
  const Verdict verdict = model.verdict();
  EXPECT_THAT(verdict.verdict,
              StartsWith("not used, and would not lower the peak: it is the optimizer step"));
  EXPECT_TRUE(verdict.remedies.empty());
}

TEST(Checkpointing, AModelOfOneBlockIsNotJudged) {
  Model model;
  model.step().units.resize(1);
  EXPECT_FALSE(checkpointing_verdict(model.run, model.summary).has_value());
}

TEST(Checkpointing, PaysWhenThePeakIsMuchLower) {
  Model model;
  for (int i = kBlocks - 1; i >= 0; --i) model.region(block(i), kOutput, 1000);
  const Verdict verdict = model.verdict();
  EXPECT_EQ(verdict.tone, Tone::kGood);
  EXPECT_THAT(verdict.verdict, StartsWith("pays: the peak is"));
  // At the logits all three would still be there.
  EXPECT_EQ(verdict.bytes, 3 * 1000);
  EXPECT_THAT(verdict.evidence, testing::Contains(HasSubstr("h.0: keeps 50 B, avoids 1000 B, costs 11.1 % of FLOPs")));
}

TEST(Checkpointing, PaysLittleWhenTheFlopsBuyFewBytes) {
  Model model;
  for (int i = 0; i < kBlocks; ++i) model.region(block(i), 10, 50);
  EXPECT_THAT(model.verdict().verdict, StartsWith("pays little"));
}

TEST(Checkpointing, DoesNothingWhenThePeakIsElsewhere) {
  Model model(100, 50'000);
  for (int i = 0; i < kBlocks; ++i) model.region(block(i), kOutput, 1000);
  const Verdict verdict = model.verdict();
  EXPECT_EQ(verdict.tone, Tone::kBad);
  EXPECT_THAT(
      verdict.verdict,
      StartsWith("does nothing for the peak: it is the optimizer step; 33.3 % of recomputation"));
  ASSERT_EQ(verdict.remedies.size(), 1u);
  EXPECT_EQ(verdict.remedies[0].text, "drop the checkpoint of h.0, h.1, h.2: the peak stays");
  EXPECT_EQ(verdict.remedies[0].cost, "-33.3 % FLOPs");
}

TEST(Checkpointing, KeepsMoreThanItAvoids) {
  Model model;
  for (int i = 0; i < kBlocks; ++i) model.region(block(i), 500, 400);
  EXPECT_THAT(model.verdict().verdict, StartsWith("keeps more than it avoids: what h.2, h.1, h.0 keeps"));
}

TEST(Checkpointing, RecomputesTwice) {
  Model model;
  for (int i = 0; i < kBlocks; ++i) model.region(block(i), kOutput, 1000);
  EXPECT_THAT(model.verdict().verdict, StartsWith("pays"));
  model.region(block(1), kOutput, 1000);
  EXPECT_THAT(model.verdict().verdict, StartsWith("recomputes twice: the forward pass of h.1 ran again"));
}

// Two checkpoints run it, each once: the inner one of the block's part, the outer one of the block.
TEST(Checkpointing, ACheckpointInsideAnotherRecomputesTwice) {
  Model model;
  for (int i = 0; i < kBlocks; ++i) model.region(block(i), kOutput, 1000);
  model.region(block(2) + ".fc", kOutput, 10);
  EXPECT_THAT(model.verdict().verdict, StartsWith("recomputes twice: the forward pass of h.2"));
}

TEST(Checkpointing, SaysWhatThePeakIsNow) {
  Model logits;
  for (int i = kBlocks - 1; i >= 0; --i) logits.region(block(i), kOutput, 1000);
  EXPECT_THAT(logits.verdict().verdict,
              HasSubstr("; it is now the logits and the loss, after the last block"));

  Model update(100, 1500);
  for (int i = kBlocks - 1; i >= 0; --i) update.region(block(i), kOutput, 1000);
  EXPECT_THAT(update.verdict().verdict, HasSubstr("the optimizer step"));

  Model again;
  for (int i = kBlocks - 1; i >= 0; --i) again.region(block(i), kOutput, 1000);
  again.device().peak.phase = Phase::kBackward;
  again.device().peak.seconds = 6;
  again.device().peak.module = "h.1.fc";
  again.device().peak.roles[static_cast<size_t>(Role::kRecomputedActivation)] = 100;
  EXPECT_THAT(again.verdict().verdict, HasSubstr("; it is now one region's recomputation (h.1)"));
}

// The functions of torch.utils.checkpoint ran, and nothing ran again.
TEST(Checkpointing, WhereNoRegionEverRanInBackward) {
  Model model;
  auto strings = std::make_shared<StringTable>();
  ParameterInfo parameter;
  parameter.module = strings->intern("h.0.fc");
  parameter.trainable = true;
  model.run.info.parameters.push_back(parameter);
  model.run.strings = strings;
  model.step().units[0].backward_begin = model.step().units[0].backward_end = 0;
  EXPECT_THAT(model.verdict().verdict, StartsWith("not used"));  // an output that nothing uses
  model.step().operators.push_back({Phase::kForward, "", "CheckpointFunction", 1, 0, 0, 0, 0});
  EXPECT_THAT(model.verdict().verdict, StartsWith("never ran in backward: h.0 ran forward"));
  // What runs inside the function is seen as its operators alone.
  model.step().units.erase(model.step().units.begin());
  EXPECT_THAT(model.verdict().verdict, StartsWith("never ran in backward: h.0 ran forward"));
  // No backward pass at all: a step that failed before it proves nothing, one with an update does.
  model.step().flops.backward = 0;
  EXPECT_THAT(model.verdict().verdict, StartsWith("not used"));
  model.step().phases.push_back({Phase::kOptimizer, 0, 8, 9});
  EXPECT_THAT(model.verdict().verdict, StartsWith("never ran in backward: h.0 ran forward"));
}

TEST(Checkpointing, ARegionThatNeverRanInBackward) {
  Model model;
  model.region(block(2), kOutput, 1000);
  model.region(block(1), kOutput, 1000);
  auto strings = std::make_shared<StringTable>();
  ParameterInfo parameter;
  parameter.module = strings->intern("h.0.fc");
  parameter.trainable = true;
  model.run.info.parameters.push_back(parameter);
  model.run.strings = strings;
  EXPECT_THAT(model.verdict().verdict, StartsWith("pays"));  // h.0 runs backward without a checkpoint
  model.step().units[0].backward_begin = model.step().units[0].backward_end = 0;
  EXPECT_THAT(model.verdict().verdict, StartsWith("never ran in backward: h.0 ran forward"));
  model.run.info.parameters[0].trainable = false;
  EXPECT_THAT(model.verdict().verdict, StartsWith("pays"));
}

}  // namespace
}  // namespace tally::analysis
