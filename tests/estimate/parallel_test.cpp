// SPDX-License-Identifier: Apache-2.0
#include "tests/estimate/helpers.h"

namespace tally::estimate {
namespace {
using testing::error_of;
using ::testing::HasSubstr;
using testing::real;
using testing::row_bytes;

TrainingConfig mixed() {
  TrainingConfig config;
  config.dtype = Dtype::kBf16;
  config.recipe = "mixed-16";
  return config;
}

TEST(Zero, ShardsStateThenGradientsThenParameters) {
  const ModelSpec m = find_model("gpt2-xl");
  TrainingConfig config = mixed();
  config.dp = 8;
  const double n = real(count_parameters(m).total);
  for (const auto& [stage, w, g, o] : {std::tuple{0, 2.0, 2.0, 12.0},
                                       {1, 2.0, 2.0, 1.5},
                                       {2, 2.0, 0.25, 1.5},
                                       {3, 0.25, 0.25, 1.5}}) {
    config.zero = stage;
    const MemoryEstimate memory = estimate_memory(m, config);
    EXPECT_NEAR(real(memory.group(Group::kParameters)), w * n, 100) << stage;
    EXPECT_NEAR(real(memory.group(Group::kGradients)), g * n, 100) << stage;
    EXPECT_NEAR(real(memory.group(Group::kOptimizerState)), o * n, 100) << stage;
    EXPECT_EQ(row_bytes(memory, "ddp_buckets") > 0, stage == 0);
    EXPECT_EQ(row_bytes(memory, "gathered") > 0, stage == 3);
  }
}

TEST(Pipeline, StagesHoldWhatIsInFlight) {
  ModelSpec m = find_model("megatron-145.6b");  // 80 layers
  TrainingConfig config = mixed();
  config.pp = 8;
  config.accumulate = 64;
  const MemoryEstimate memory = estimate_memory(m, config);
  ASSERT_EQ(memory.stage_totals.size(), 8U);
  EXPECT_EQ(memory.worst_stage, 0U);  // 1F1B: p micro-batches of L/p layers
  const Integer whole = row_bytes(memory, "attention.context");
  config.pp = 1;
  EXPECT_EQ(whole, row_bytes(estimate_memory(m, config), "attention.context"));
  // Interleaved: L (1 + (p-1)/(p m)), Korthikanti et al. section 4.2.3.
  config.pp = 8;
  config.interleave = 5;
  EXPECT_NEAR(real(row_bytes(estimate_memory(m, config), "attention.context")) / real(whole),
              interleave_factor(8, 5), 1e-9);
}

TEST(Pipeline, FewMicroBatchesHoldLess) {
  ModelSpec m = find_model("gpt2");
  m.vocab = 10;  // so that the first stage is the worst, not the one with the logits
  TrainingConfig config;
  config.pp = 4;
  config.accumulate = 2;
  const Integer two = row_bytes(estimate_memory(m, config), "attention.context");
  config.accumulate = 4;
  EXPECT_EQ(row_bytes(estimate_memory(m, config), "attention.context"), 2 * two);
  config.accumulate = 100;
  EXPECT_EQ(row_bytes(estimate_memory(m, config), "attention.context"), 2 * two);
}

TEST(Experts, AreSpreadOverDataParallelRanks) {
  const ModelSpec m = find_model("mixtral-8x7b");
  TrainingConfig config = mixed();
  config.dp = 8;
  config.zero = 1;
  config.ep = 8;
  const MemoryEstimate memory = estimate_memory(m, config);
  const Integer experts = Integer{32} * 8 * 3 * 4096 * 14336;
  const Integer dense = count_parameters(m).total - experts;
  EXPECT_EQ(memory.group(Group::kParameters), 2 * (dense + experts / 8));
  // ep ranks share the experts already: nothing of dp is left to shard their state.
  EXPECT_NEAR(real(memory.group(Group::kOptimizerState)), 12 * real(dense / 8 + experts / 8), 200);
}

TEST(Context, DividesTheTokens) {
  const ModelSpec m = find_model("llama-3.1-8b");
  TrainingConfig config = mixed();
  config.attention = Attention::kFlash;
  config.sequence = 8192;
  const Integer one = estimate_memory(m, config).group(Group::kActivations);
  config.cp = 4;
  EXPECT_EQ(estimate_memory(m, config).group(Group::kActivations) * 4, one);
}

TEST(Tensor, KeyAndValueHeadsAreNotCut) {
  const ModelSpec m = find_model("palm-8b");  // one key and value head
  TrainingConfig config = mixed();
  config.tp = 16;
  const Integer sharded = estimate_memory(m, config).group(Group::kParameters);
  EXPECT_GT(sharded * 16, 2 * count_parameters(m).total);
}

TEST(Parallel, WhatDoesNotFitIsNamed) {
  const ModelSpec m = find_model("gpt2");
  const auto error = [&](auto change) {
    TrainingConfig config;
    change(config);
    return error_of([&] { estimate(m, config); });
  };
  EXPECT_THAT(error([](auto& c) { c.tp = 5; }), HasSubstr("--tp"));
  EXPECT_THAT(error([](auto& c) { c.cp = 3; }), HasSubstr("--cp"));
  EXPECT_THAT(error([](auto& c) { c.pp = 13; }), HasSubstr("--pp"));
  EXPECT_THAT(error([](auto& c) { c.pp = 4, c.interleave = 4; }), HasSubstr("--interleave"));
  EXPECT_THAT(error([](auto& c) { c.interleave = 2; }), HasSubstr("--interleave"));
  EXPECT_THAT(error([](auto& c) { c.ep = 2, c.dp = 2; }), HasSubstr("--ep"));
  EXPECT_THAT(error([](auto& c) { c.zero = 4; }), HasSubstr("--zero"));
  EXPECT_THAT(error([](auto& c) { c.dp = 0; }), HasSubstr("--dp"));
}

}  // namespace
}  // namespace tally::estimate
