// SPDX-License-Identifier: Apache-2.0
#include "tests/estimate/helpers.h"

namespace tally::estimate {
namespace {
using testing::real;
using testing::row_bytes;

const CheckpointPlan& plan(const std::vector<CheckpointPlan>& plans, std::string_view key) {
  for (const CheckpointPlan& p : plans) {
    if (p.key == key) return p;
  }
  throw std::runtime_error("no plan " + std::string(key));
}

TEST(Checkpoint, TheLecturesCornersOfLlama) {
  const auto plans = checkpoint_tradeoffs(find_model("llama-65b"), TrainingConfig{});
  const double sbh = 2048.0 * 8192;
  EXPECT_NEAR(real(plan(plans, "none").kept), 147 * 80 * sbh, 1e8);
  EXPECT_EQ(real(plan(plans, "full").kept), 4 * 80 * sbh);
  EXPECT_EQ(plan(plans, "nothing").kept, plan(plans, "full").kept / 80);
  EXPECT_EQ(plan(plans, "nothing").extra_layer_forwards + 80, quadratic_forwards(80));
  EXPECT_EQ(plan(plans, "selective").extra_flops, Integer{4} * 80 * 2048 * 2048 * 8192);
  const Integer best = plan(plans, "sqrt").kept + plan(plans, "sqrt").recomputed;
  for (const CheckpointPlan& each : plans) {
    if (each.segments > 1) {
      EXPECT_LE(best, each.kept + each.recomputed) << each.key;
    }
  }
}

TEST(Checkpoint, SquareRootIsTheBestStride) {
  for (const int64_t layers : {1, 2, 7, 48, 96, 1000}) {
    ModelSpec m = find_model("gpt2");
    m.layers = layers;
    TrainingConfig config;
    config.checkpoint = Checkpoint::kSqrt;
    const MemoryEstimate best = estimate_memory(m, config);
    const auto cost = [&](const MemoryEstimate& e) {
      return e.group(Group::kActivations) + row_bytes(e, "recomputed");
    };
    config.checkpoint = Checkpoint::kEvery;
    for (int64_t k = 1; k <= std::min<int64_t>(layers, 40); ++k) {
      config.checkpoint_every = k;
      EXPECT_GE(cost(estimate_memory(m, config)), cost(best)) << layers << " layers, every " << k;
    }
  }
}

TEST(Checkpoint, EveryOneIsFull) {
  const ModelSpec m = find_model("llama-7b");
  TrainingConfig config;
  config.checkpoint = Checkpoint::kFull;
  const MemoryEstimate full = estimate_memory(m, config);
  config.checkpoint = Checkpoint::kEvery;
  const MemoryEstimate every = estimate_memory(m, config);
  EXPECT_EQ(full.total, every.total);
  EXPECT_EQ(full.peak, every.peak);
  EXPECT_EQ(row_bytes(full, "checkpoints"), Integer{32} * 4 * 2048 * 4096);
}

TEST(Checkpoint, SelectiveIsFlashWithoutItsLogSumExp) {
  const ModelSpec m = find_model("llama-7b");
  TrainingConfig config;
  config.checkpoint = Checkpoint::kSelective;
  const Integer selective = estimate_memory(m, config).group(Group::kActivations);
  config.checkpoint = Checkpoint::kNone;
  config.attention = Attention::kFlash;
  const MemoryEstimate flash = estimate_memory(m, config);
  EXPECT_EQ(selective, flash.group(Group::kActivations) - row_bytes(flash, "attention.logsumexp"));
}

TEST(Checkpoint, RevolveCountsAreBinomial) {
  EXPECT_EQ(revolve_steps(5, 3), 56);
  EXPECT_EQ(revolve_steps(1, 0), 1);
  EXPECT_EQ(to_string(revolve_steps(30, 30)), "118264581564861424");
}

}  // namespace
}  // namespace tally::estimate
