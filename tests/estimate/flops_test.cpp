// SPDX-License-Identifier: Apache-2.0
#include "tests/estimate/helpers.h"

namespace tally::estimate {
namespace {
using testing::real;

const FlopMethod& method(const FlopEstimate& f, std::string_view key) {
  for (const FlopMethod& m : f.methods) {
    if (m.key == key) return m;
  }
  throw std::runtime_error("no method " + std::string(key));
}

TEST(Flops, OperatorsAddUp) {
  for (const char* name : {"gpt2", "llama-65b", "mixtral-8x7b", "palm-540b"}) {
    const FlopEstimate f = estimate_flops(find_model(name), TrainingConfig{});
    Integer forward = 0, backward = 0;
    for (const OperatorRow& row : f.operators) forward += row.forward, backward += row.backward;
    EXPECT_EQ(forward, f.forward) << name;
    EXPECT_EQ(backward, f.backward) << name;
    EXPECT_EQ(f.backward, 2 * f.forward) << name;
    EXPECT_EQ(f.step, f.forward + f.backward + f.recompute + f.optimizer) << name;
  }
}

// BL(24 N D^2 + 4 N^2 D) + 2 B N D V, exactly.
TEST(Flops, GptForwardIsTheClosedForm) {
  const ModelSpec m = find_model("gpt3-175b");
  TrainingConfig config;
  config.batch = 3;
  const Integer B = 3, L = 96, N = 2048, D = 12288, V = 50257;
  EXPECT_EQ(estimate_flops(m, config).forward,
            B * L * (24 * N * D * D + 4 * N * N * D) + 2 * B * N * D * V);
}

TEST(Flops, RecomputationIsWhatTheCheckpointDropped) {
  const ModelSpec m = find_model("megatron-145.6b");
  TrainingConfig config;
  const FlopEstimate none = estimate_flops(m, config);
  config.checkpoint = Checkpoint::kFull;
  const FlopEstimate full = estimate_flops(m, config);
  config.checkpoint = Checkpoint::kSelective;
  const FlopEstimate selective = estimate_flops(m, config);
  const double s = 2048, l = 80, h = 12288, V = 51200;
  EXPECT_EQ(none.recompute, 0);
  EXPECT_DOUBLE_EQ(real(none.forward + none.backward),
                   megatron_step(1, s, l, h, V, Recompute::kNone));
  EXPECT_DOUBLE_EQ(real(full.forward + full.backward + full.recompute),
                   megatron_step(1, s, l, h, V, Recompute::kFull));
  // One more forward of the scores; the paper's own formula for it (s/3h) adds three.
  EXPECT_DOUBLE_EQ(real(selective.recompute), 4 * l * s * s * h);
  EXPECT_DOUBLE_EQ(megatron_step(1, s, l, h, V, Recompute::kSelective) -
                       megatron_step(1, s, l, h, V, Recompute::kNone),
                   3 * real(selective.recompute));
  EXPECT_EQ(method(none, "megatron").step, none.forward + none.backward);
}

TEST(Flops, CausalCountsTheTriangle) {
  const ModelSpec m = find_model("gpt2");
  TrainingConfig config;
  const FlopEstimate full = estimate_flops(m, config);
  config.causal_half = true;
  const FlopEstimate half = estimate_flops(m, config);
  const Integer square = Integer{4} * 12 * 1024 * 1024 * 768;
  EXPECT_EQ(full.forward - half.forward, square - Integer{2} * 12 * 1024 * 1025 * 768);
  EXPECT_EQ(full.counter_forward, half.counter_forward);  // the counter discounts nothing
}

TEST(Flops, TheCounterSeesFiveProductsInAFusedBackward) {
  const ModelSpec m = find_model("gpt2");
  TrainingConfig config;
  config.attention = Attention::kFlash;
  const FlopEstimate f = estimate_flops(m, config);
  const Integer attention = Integer{4} * 12 * 1024 * 1024 * 768;
  EXPECT_EQ(f.counter_backward - f.backward, attention / 2);
}

TEST(Flops, OfAMixtureAreOfTheActiveExperts) {
  const ModelSpec m = find_model("mixtral-8x7b");
  TrainingConfig config;
  config.sequence = 1;
  const FlopEstimate f = estimate_flops(m, config);
  EXPECT_EQ(f.six_nd, 6 * count_parameters(m).active);
  EXPECT_NEAR(real(f.forward), 2 * real(count_parameters(m).active), 0.02 * real(f.forward));
}

TEST(Flops, OfTheWholeJob) {
  const ModelSpec m = find_model("gpt2");
  TrainingConfig config;
  const FlopEstimate one = estimate_flops(m, config);
  config.batch = 2, config.accumulate = 3, config.dp = 5;
  const FlopEstimate many = estimate_flops(m, config);
  EXPECT_EQ(many.forward, 30 * one.forward);
  EXPECT_EQ(many.tokens, 30 * one.tokens);
  EXPECT_EQ(many.optimizer, one.optimizer);
}

TEST(Flops, LoraNeedsNoGradientsOfFrozenWeights) {
  const ModelSpec m = find_model("llama-7b");
  TrainingConfig config;
  config.recipe = "lora";
  const FlopEstimate f = estimate_flops(m, config);
  EXPECT_LT(real(f.backward), 1.3 * real(f.forward));
  EXPECT_GT(real(f.backward), real(f.forward));
}

TEST(Flops, BeyondSixtyFourBits) {
  ModelSpec m;
  m.given_parameters = parse_count("1e13", "");
  TrainingConfig config;
  config.sequence = 1'000'000;
  config.batch = 1'000'000;
  EXPECT_EQ(to_string(estimate_flops(m, config).six_nd), "60000000000000000000000000");
  ModelSpec large = find_model("megatron-1008.0b");
  large.layers *= 10;  // 1e13 parameters, by dimensions
  config.sequence = 0;
  const FlopEstimate f = estimate_flops(large, config);
  const Integer expected =
      (Integer{24} * 2048 * 25600 * 25600 + Integer{4} * 2048 * 2048 * 25600) * 1280 * 1'000'000 +
      Integer{2} * 2048 * 25600 * 51200 * 1'000'000;
  EXPECT_EQ(to_string(f.forward), to_string(expected));
}

// PaLM Table 22 and LLaMA section 2.4: tokens per second to utilisation and days.
TEST(Time, FollowsFromTokensPerSecond) {
  TrainingConfig config;
  config.device = "A100";
  config.dtype = Dtype::kBf16;
  config.devices = 2048;
  config.tokens = parse_count("1.4T", "");
  config.tokens_per_second = 380.0 * 2048;
  const Estimate e = estimate(find_model("llama-65b"), config);
  EXPECT_NEAR(*e.time.days, 20.8, 0.05);
  EXPECT_NEAR(*e.time.mfu, 0.4967, 0.002);
  EXPECT_FALSE(e.time.from_assumed_mfu);
}

TEST(Time, IsUnknownWithoutARate) {
  const Estimate e = estimate(find_model("gpt2"), TrainingConfig{});
  EXPECT_FALSE(e.time.seconds_per_step);
  EXPECT_FALSE(e.time.days);
}

}  // namespace
}  // namespace tally::estimate
