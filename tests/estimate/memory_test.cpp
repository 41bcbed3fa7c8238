// SPDX-License-Identifier: Apache-2.0
#include "tests/estimate/helpers.h"

namespace tally::estimate {
namespace {
using testing::error_of;
using ::testing::HasSubstr;
using testing::real;
using testing::row_bytes;
using testing::small_gpt;

// Bytes a parameter by recipe: formulas of ZeRO, Megatron and torch.optim.
TEST(ModelState, FollowsRecipeAndOptimizer) {
  struct Case {
    const char *recipe, *optimizer;
    double weights, gradients, state;
  };
  for (const Case& c :
       {Case{"fp32", "sgd", 4, 4, 0},       {"fp32", "sgd-momentum", 4, 4, 4},
        {"fp32", "rmsprop", 4, 4, 4},       {"fp32", "adagrad", 4, 4, 4},
        {"fp32", "lion", 4, 4, 4},          {"fp32", "asgd", 4, 4, 4},
        {"fp32", "adam", 4, 4, 8},          {"fp32", "adamw", 4, 4, 8},
        {"fp32", "lamb", 4, 4, 8},          {"fp32", "nadam", 4, 4, 8},
        {"fp32", "radam", 4, 4, 8},         {"fp32", "adamax", 4, 4, 8},
        {"fp32", "adadelta", 4, 4, 8},      {"fp32", "rprop", 4, 4, 8},
        {"fp32", "adam-amsgrad", 4, 4, 12}, {"fp32", "rmsprop-momentum-centered", 4, 4, 12},
        {"autocast", "adam", 4, 4, 8},      {"pure-16", "adamw", 2, 2, 4},
        {"mixed-16", "adamw", 2, 2, 12},    {"mixed-18", "adamw", 2, 4, 12},
        {"mixed-20", "adamw", 2, 6, 12},    {"mixed-16", "sgd", 2, 2, 4}}) {
    const ModelSpec m = find_model("gpt2");
    const double n = real(count_parameters(m).total);
    TrainingConfig config;
    config.recipe = c.recipe;
    config.optimizer = c.optimizer;
    const StateBytes s = state_bytes(m, config);
    EXPECT_EQ(real(s.parameters), c.weights * n) << c.recipe << " " << c.optimizer;
    EXPECT_EQ(real(s.gradients), c.gradients * n) << c.recipe << " " << c.optimizer;
    EXPECT_EQ(real(s.optimizer_state), c.state * n) << c.recipe << " " << c.optimizer;
  }
}

TEST(ModelState, EightBitAdamKeepsSmallTensorsWhole) {
  const ModelSpec m = find_model("llama-7b");
  TrainingConfig config;
  config.optimizer = "adam8bit";
  const double n = real(count_parameters(m).total);
  EXPECT_NEAR(real(state_bytes(m, config).optimizer_state) / n, 2 + 8.0 / 256, 1e-4);
  ModelSpec tiny = small_gpt();
  tiny.d_model = 16, tiny.ffn = 0, tiny.head_dim = 0, tiny.vocab = 100, tiny.positions = 0;
  complete(tiny);
  EXPECT_EQ(real(state_bytes(tiny, config).optimizer_state),
            8 * real(count_parameters(tiny).total));
}

TEST(ModelState, AdafactorKeepsRowsAndColumns) {
  TrainingConfig config;
  config.optimizer = "adafactor";
  EXPECT_NEAR(real(state_bytes(find_model("llama-65b"), config).optimizer_state) / 1e6, 55.6, 0.05);
  ModelSpec unknown;
  unknown.given_parameters = 1'000'000;
  EXPECT_THAT(error_of([&] { estimate_memory(unknown, config); }), HasSubstr("--optimizer"));
}

TEST(ModelState, LoraTrainsOnlyItsAdapters) {
  const ModelSpec m = find_model("llama-7b");
  TrainingConfig config;
  config.dtype = Dtype::kBf16;
  config.recipe = "lora";
  config.lora_rank = 8;
  config.lora_attention_only = true;
  // q and v of 32 layers: 2 x 8 x (4096 + 4096) each, the 4.2 million of the LoRA paper's setting.
  const StateBytes s = state_bytes(m, config);
  const Integer adapters = Integer{32} * 2 * 8 * (4096 + 4096);
  EXPECT_EQ(s.gradients, 4 * adapters);
  EXPECT_EQ(s.optimizer_state, 8 * adapters);
  EXPECT_EQ(s.parameters, 2 * count_parameters(m).total + 4 * adapters);
  config.recipe = "qlora";
  const double per_weight = 0.5 + 1.0 / 64 + 4.0 / (64 * 256);
  const ParameterCount count = count_parameters(m);
  const double embeddings = real(count.embedding);
  EXPECT_NEAR(real(state_bytes(m, config).parameters),
              per_weight * (real(count.total) - embeddings) + 2 * embeddings + 4 * real(adapters),
              1e6);
}

TEST(Inference, IsWeightsAndCache) {
  const ModelSpec m = find_model("llama-2-70b");
  TrainingConfig config;
  config.recipe = "inference";
  config.dtype = Dtype::kBf16;
  config.batch = 3;
  const MemoryEstimate memory = estimate_memory(m, config);
  EXPECT_EQ(memory.group(Group::kParameters), 2 * count_parameters(m).total);
  EXPECT_EQ(memory.group(Group::kGradients), 0);
  EXPECT_EQ(memory.group(Group::kOptimizerState), 0);
  EXPECT_EQ(row_bytes(memory, "kv_cache"), Integer{2} * 2 * 80 * 8 * 128 * 4096 * 3);
}

// Korthikanti et al. Table 2, tensor by tensor, against the closed form.
TEST(Activations, MatchKorthikantiUnderTensorParallelism) {
  ModelSpec m = find_model("megatron-145.6b");
  m.masks_scores = false;  // a kernel's mask, not a tensor
  TrainingConfig config;
  config.dtype = Dtype::kFp16;
  config.dropout = 0.1;
  for (const int64_t t : {1, 2, 8}) {
    for (const bool sp : {false, true}) {
      config.tp = t;
      config.sequence_parallel = sp;
      const double statistics = 16.0 * 2048 / (sp ? static_cast<double>(t) : 1);
      const double expected =
          korthikanti_layer(2048, 1, 12288, 96, static_cast<double>(t), sp, Recompute::kNone);
      EXPECT_NEAR(real(layer_activation_bytes(m, config)), expected + statistics, 1) << t << sp;
    }
  }
}

TEST(Activations, CausalMaskIsOneALayer) {
  TrainingConfig config;
  const ModelSpec m = small_gpt();
  EXPECT_EQ(row_bytes(estimate_memory(m, config), "attention.mask"), Integer{4} * 32 * 32);
}

TEST(Activations, EveryFamilyPrecisionAndKernelHasRows) {
  for (const char* name :
       {"gpt2", "llama-3-8b", "mixtral-8x7b", "palm-8b", "chinchilla-70b", "megatron-1.7b"}) {
    for (const Dtype dtype : {Dtype::kFp32, Dtype::kTf32, Dtype::kBf16, Dtype::kFp16,
                              Dtype::kAmpBf16, Dtype::kAmpFp16}) {
      Integer eager = 0;
      for (const Attention attention : {Attention::kEager, Attention::kSdpa, Attention::kFlash}) {
        TrainingConfig config;
        config.dtype = dtype;
        config.attention = attention;
        config.dropout = 0.1;
        const MemoryEstimate memory = estimate_memory(find_model(name), config);
        EXPECT_GT(memory.group(Group::kActivations), 0) << name;
        if (attention == Attention::kEager)
          eager = memory.group(Group::kActivations);
        else
          EXPECT_LT(memory.group(Group::kActivations), eager) << name;
      }
    }
  }
}

TEST(Peak, IsOneOfTheMoments) {
  for (const int64_t batch : {1, 2, 64}) {
    TrainingConfig config;
    config.batch = batch;
    const MemoryEstimate memory = estimate_memory(find_model("gpt2"), config);
    ASSERT_LT(memory.peak_moment, memory.moments.size());
    EXPECT_EQ(memory.moments[memory.peak_moment].bytes, memory.peak);
    for (const Moment& moment : memory.moments) EXPECT_LE(moment.bytes, memory.peak) << moment.key;
  }
}

TEST(Peak, AllThreeKindsOfMomentCanBeIt) {
  TrainingConfig config;
  ModelSpec m = small_gpt();
  m.vocab = 100'000;
  config.batch = 64;
  const auto peak_key = [&] {
    const MemoryEstimate memory = estimate_memory(m, config);
    return std::string(memory.moments[memory.peak_moment].key);
  };
  EXPECT_EQ(peak_key(), "loss");
  m.vocab = 10;
  m.context = m.positions = 2048;
  EXPECT_EQ(peak_key(), "attention_backward");
  config.batch = 1;
  config.sequence = 1;
  EXPECT_EQ(peak_key(), "optimizer_step");
}

TEST(Allocator, RoundsEveryTensor) {
  TrainingConfig config;
  const MemoryEstimate memory = estimate_memory(find_model("gpt2"), config);
  EXPECT_GE(memory.rounded, memory.total);
  EXPECT_LT(real(memory.rounded), 1.001 * real(memory.total));
  EXPECT_GE(memory.reserved, memory.rounded);
}

TEST(Device, BringsItsWorkspaceAndContext) {
  TrainingConfig config;
  config.device = "A100";
  EXPECT_EQ(row_bytes(estimate_memory(find_model("gpt2"), config), "cublas_workspace"),
            cublas_workspace(false));
  config.device = "H100";
  const MemoryEstimate memory = estimate_memory(find_model("gpt2"), config);
  EXPECT_EQ(row_bytes(memory, "cublas_workspace"), cublas_workspace(true));
  EXPECT_EQ(memory.context, cuda_context());
  config.device = "MI300X";
  EXPECT_EQ(row_bytes(estimate_memory(find_model("gpt2"), config), "cublas_workspace"), 0);
}

TEST(Device, NeededIsRoundedUp) {
  TrainingConfig config;
  const ModelSpec m = find_model("gpt2");
  const Integer total = estimate_memory(m, config).total;
  config.device_memory = total;
  EXPECT_EQ(estimate(m, config).device.needed, 1);
  config.device_memory = total - 1;
  EXPECT_EQ(estimate(m, config).device.needed, 2);
}

}  // namespace
}  // namespace tally::estimate
