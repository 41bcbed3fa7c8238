// SPDX-License-Identifier: Apache-2.0
// Why tensor cores executed more or less than the formulas say: each cause with its exact FLOPs,
// and together the whole difference.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

#include "profiler/analysis/build.h"
#include "tests/support/synthetic_run.h"

namespace tally::analysis {
namespace {

class Executed : public testing::Test {
 protected:
  Executed() {
    test::SyntheticRun made = test::make_synthetic_run();
    names_ = made.strings.get();
    run_ = std::move(made).as_recorded();
    for (recording::RecordedStep& step : run_.steps) step.books.operators.clear();
  }
  StringId id(const std::string& text) { return names_->intern(text); }
  // An operator of step 1 with what it executed on tensor cores.
  tally::OperatorRow& op(const std::string& name, double formula, double tensor,
                         Phase phase = Phase::kForward) {
    return add(1, name, formula, tensor, phase);
  }
  tally::OperatorRow& add(size_t step, const std::string& name, double formula, double tensor,
                          Phase phase = Phase::kForward) {
    tally::OperatorRow row;
    row.phase = phase;
    row.op = id(name);
    row.calls = 1;
    row.flops = row.range_flops = formula;
    row.tensor_flops = tensor;
    run_.steps[step].books.operators.push_back(row);
    return run_.steps[step].books.operators.back();
  }
  void kernel(const std::string& op, const std::string& name) {
    tally::KernelRow row;
    row.phase = Phase::kForward;
    row.op = id(op);
    row.kernel = id(name);
    run_.steps[0].books.kernels.push_back(row);
  }
  Utilization use() {
    const Utilization u = build_summary(run_, {.step = 1}).utilization;
    if (u.executed_difference) {
      double sum = 0;
      for (const ExecutedCause& cause : u.executed_difference->causes) {
        EXPECT_FALSE(cause.why.empty());
        EXPECT_FALSE(cause.title.empty());
        sum += cause.flops;
      }
      EXPECT_EQ(sum, u.executed_difference->executed - u.executed_difference->model);
    }
    return u;
  }
  // Exactly one cause, with these FLOPs.
  ExecutedCause only(const std::string& cause, double flops) {
    const auto difference = use().executed_difference;
    if (!difference || difference->causes.size() != 1) {
      ADD_FAILURE() << (difference ? difference->causes.size() : 0) << " causes";
      return {};
    }
    EXPECT_EQ(difference->causes[0].cause, cause);
    EXPECT_EQ(difference->causes[0].flops, flops);
    return difference->causes[0];
  }
  recording::Run run_;
  StringTable* names_ = nullptr;  // of the run, still to be added to
};

TEST_F(Executed, WhatTheFormulasSayHasNoCause) {
  op("aten::mm", 1000, 1000);
  const Utilization u = use();
  EXPECT_TRUE(u.executed_difference->causes.empty());
  EXPECT_EQ(u.executed_cause, "each operator executed what its formula says");
  EXPECT_EQ(*u.executed_ratio, 1);
}

TEST_F(Executed, RecomputationIsBesideTheModel) {
  op("aten::mm", 1000, 1000);
  op("aten::mm", 300, 300, Phase::kRecompute);
  const ExecutedCause cause = only("recompute", 300);
  EXPECT_TRUE(cause.is_proved);
  EXPECT_EQ(use().executed_difference->model, 1000);
  EXPECT_EQ(use().executed_difference->executed, 1300);
}

TEST_F(Executed, OperatorsWithoutAFormulaAreNamed) {
  op("aten::mm", 1000, 1000);
  op("mine::kernel", 0, 40);
  op("mine::kernel", 0, 2, Phase::kBackward);
  op("mine::other", 0, 5);
  const ExecutedCause cause = only("no_formula", 47);
  EXPECT_TRUE(cause.is_proved);
  EXPECT_THAT(cause.operators, testing::ElementsAre(testing::Pair("mine::kernel", 42),
                                                    testing::Pair("mine::other", 5)));
}

// linear() has no formula, the product inside it has one: nothing is unknown.
TEST_F(Executed, FormulasOfPartsStandBesideTheWhole) {
  tally::OperatorRow& part = op("aten::addmm", 1000, 0);
  part.range_flops = 0;
  op("aten::linear", 0, 1000).range_flops = 1000;
  EXPECT_TRUE(use().executed_difference->causes.empty());
}

TEST_F(Executed, PaddingIsProvedByTheTileAndTheSizes) {
  op("aten::mm", 1000, 1280).alignment = 32;
  kernel("aten::mm",
         "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x64x64_warpgroupsize1x1x1");
  op("aten::bmm", 10, 12).alignment = 8;
  kernel("aten::bmm", "cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_128x256_32x3_nn_align8");
  const ExecutedCause cause = only("padding", 282);
  EXPECT_TRUE(cause.is_proved);
  EXPECT_EQ(cause.why, "tiles of 128x64, sizes that are multiples of 32 at most");
  EXPECT_THAT(cause.operators,
              testing::ElementsAre(testing::Pair("aten::mm", 280), testing::Pair("aten::bmm", 2)));
}

TEST_F(Executed, MoreThanTheFormulaIsTheRestWhereNothingProvesPadding) {
  op("aten::mm", 1000, 1280).alignment = 256;  // fills its tile
  kernel("aten::mm", "nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_TNT");
  EXPECT_FALSE(only("more", 280).is_proved);
  EXPECT_THAT(only("more", 280).why, testing::HasSubstr("fill the tiles of 128x256"));
  run_.steps[0].books.kernels.clear();
  EXPECT_THAT(only("more", 280).why, testing::HasSubstr("no recorded name"));
  run_.steps[1].books.operators[0].alignment = 0;  // a convolution
  EXPECT_THAT(only("more", 280).why, testing::HasSubstr("not recorded"));
}

TEST_F(Executed, CausalAttentionLeavesOut) {
  op("aten::scaled_dot_product_attention", 1000, 520).causal_flops = 1000;
  const ExecutedCause cause = only("causal", -480);
  EXPECT_TRUE(cause.is_proved);
  EXPECT_EQ(use().executed_cause,
            "left out by causal attention -480 FLOP, all in aten::scaled_dot_product_attention");
  run_.steps[1].books.operators[0].causal_flops = 0;
  EXPECT_FALSE(only("less", -480).is_proved);
}

TEST_F(Executed, WhatAnotherStepCountedIsNoRiddle) {
  op("aten::mm", 1000, 1000);
  op("aten::bmm", 64, 0);
  EXPECT_FALSE(only("less", -64).is_proved);
  // The set of scalar instructions, on the same work.
  add(2, "aten::bmm", 64, 0).scalar_flops = 80;
  EXPECT_TRUE(only("scalar", -64).is_proved);
  EXPECT_THAT(only("scalar", -64).why, testing::HasSubstr("step 2 counted 80 FLOP"));
  run_.steps[2].books.operators[0].range_flops = 65;  // other work
  only("less", -64);
  run_.steps[2].books.operators[0] = run_.steps[1].books.operators[1];
  run_.steps[2].books.operators[0].tensor_flops = 64;
  EXPECT_TRUE(only("other_counters", -64).is_proved);
}

TEST_F(Executed, WorkOutsideOfRangesWasNotCounted) {
  op("aten::mm", 1000, 1000);
  op("aten::bmm", 64, 0).range_flops = 0;
  EXPECT_TRUE(only("not_counted", -64).is_proved);
}

TEST_F(Executed, AllTogetherAddUp) {
  op("aten::mm", 1e15, 1.25e15).alignment = 16;
  kernel("aten::mm", "ampere_bf16_s16816gemm_bf16_128x128_ldg8_f2f_stages_32x5_tn");
  op("aten::mm", 1e14, 1e14, Phase::kRecompute);
  op("mine::kernel", 0, 3e13);
  op("aten::_flash", 4e14, 2.1e14).causal_flops = 4e14;
  op("aten::bmm", 2e13, 0);
  const ExecutedDifference d = *use().executed_difference;
  EXPECT_EQ(d.model, 1e15 + 4e14 + 2e13);
  EXPECT_EQ(d.executed, 1.25e15 + 1e14 + 3e13 + 2.1e14);
  std::vector<std::string> causes;
  for (const ExecutedCause& cause : d.causes) causes.push_back(cause.cause);
  EXPECT_THAT(causes, testing::ElementsAre("padding", "causal", "recompute", "no_formula", "less"));
}

TEST_F(Executed, AnOldRecordingDoesNotGuess) {
  op("aten::mm", 1000, 1280).range_flops = 0;
  const Utilization u = use();
  EXPECT_FALSE(u.executed_difference);
  EXPECT_THAT(u.executed_cause, testing::StartsWith("not known"));
  EXPECT_EQ(*u.executed_ratio, 1.28);
}

}  // namespace
}  // namespace tally::analysis
