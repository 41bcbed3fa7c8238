// SPDX-License-Identifier: Apache-2.0
// What must hold for any shape: sums, monotony, and shards that cover the whole.
#include <algorithm>
#include <random>

#include "tests/estimate/helpers.h"

namespace tally::estimate {
namespace {

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int64_t from(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(engine_);
  }
  template <typename T>
  T one_of(std::initializer_list<T> values) {
    return *(values.begin() + from(0, static_cast<int64_t>(values.size()) - 1));
  }

 private:
  std::mt19937_64 engine_;
};

ModelSpec random_model(Random& random) {
  ModelSpec m = family_model(
      random.one_of<const char*>({"gpt", "llama", "moe", "palm", "gopher", "megatron"}));
  m.name = "random " + m.family;
  m.layers = random.from(1, 40);
  m.heads = 1 << random.from(0, 5);
  m.head_dim = 8 * random.from(1, 24);
  m.d_model = m.heads * 8 * random.from(1, 24);
  m.kv_heads = m.kv_heads == 1 ? 1 : std::max<int64_t>(1, m.heads >> random.from(0, 2));
  if (m.family == "gpt" || m.family == "megatron" || m.family == "gopher") m.kv_heads = m.heads;
  m.ffn = 8 * random.from(4, 4000);
  m.vocab = random.from(2, 300'000);
  m.context = 64 * random.from(1, 64);
  if (m.experts > 0) m.experts = 1 << random.from(0, 4), m.top_k = random.from(1, m.experts);
  m.tied = random.from(0, 1) == 1;
  complete(m);
  return m;
}

TrainingConfig random_config(Random& random) {
  TrainingConfig c;
  c.batch = random.from(1, 16);
  c.accumulate = random.from(1, 8);
  c.dtype = random.one_of(
      {Dtype::kFp32, Dtype::kTf32, Dtype::kBf16, Dtype::kFp16, Dtype::kAmpBf16, Dtype::kAmpFp16});
  c.recipe = random.one_of<const char*>({"auto", "fp32", "autocast", "pure-16", "mixed-16",
                                         "mixed-18", "mixed-20", "lora", "qlora", "inference"});
  c.optimizer = optimizers()[static_cast<size_t>(
                                 random.from(0, static_cast<int64_t>(optimizers().size()) - 1))]
                    .name;
  c.attention = random.one_of({Attention::kEager, Attention::kSdpa, Attention::kFlash});
  c.dropout = random.one_of({0.0, 0.1});
  c.fused_norm = random.from(0, 1) == 1;
  c.fused_mlp = random.from(0, 1) == 1;
  c.checkpoint = random.one_of({Checkpoint::kNone, Checkpoint::kSelective, Checkpoint::kFull,
                                Checkpoint::kEvery, Checkpoint::kSqrt});
  c.checkpoint_every = random.from(1, 8);
  c.keep_logits = random.from(0, 1) == 1;
  c.foreach_optimizer = random.from(0, 1) == 1;
  c.cpu = random.from(0, 1) == 1;
  return c;
}

constexpr int kRounds = 400;

TEST(Properties, RowsAddUpToGroupsAndGroupsToTheTotal) {
  Random random(1);
  for (int i = 0; i < kRounds; ++i) {
    const ModelSpec m = random_model(random);
    const MemoryEstimate memory = estimate_memory(m, random_config(random));
    Integer sum = 0;
    std::array<Integer, kGroupCount> groups{};
    for (const Row& row : memory.rows) {
      EXPECT_GT(row.bytes, 0) << row.key;
      EXPECT_FALSE(row.formula.empty()) << row.key;
      EXPECT_FALSE(row.source.empty()) << row.key;
      sum += row.bytes;
      groups[static_cast<size_t>(row.group)] += row.bytes;
    }
    EXPECT_EQ(sum, memory.total);
    EXPECT_EQ(groups, memory.groups);
    EXPECT_GE(memory.rounded, memory.total);
    EXPECT_GE(memory.reserved, memory.rounded);
    for (const Moment& moment : memory.moments)
      EXPECT_GT(moment.bytes, 0) << m.name << " " << moment.key;
  }
}

// A larger dimension never needs less.
TEST(Properties, MonotoneInEachDimension) {
  Random random(2);
  for (int i = 0; i < kRounds; ++i) {
    const ModelSpec m = random_model(random);
    TrainingConfig c = random_config(random);
    if (c.checkpoint == Checkpoint::kSqrt)
      c.checkpoint = Checkpoint::kFull;  // its stride jumps with the layers
    if (c.optimizer == "adam8bit" || c.optimizer == "adamw8bit")
      c.optimizer = "adamw";  // tensors of 4096 elements turn to 8 bits
    const MemoryEstimate memory = estimate_memory(m, c);
    const FlopEstimate flops = estimate_flops(m, c);
    const auto larger = [&](const char* what, auto change) {
      ModelSpec more = m;
      TrainingConfig config = c;
      change(more, config);
      const MemoryEstimate grown = estimate_memory(more, config);
      EXPECT_GE(grown.total, memory.total) << what << " of " << m.name;
      EXPECT_GE(grown.peak, memory.peak)
          << what << " of " << m.name << " " << grown.moments[grown.peak_moment].key << " against "
          << memory.moments[memory.peak_moment].key;
      EXPECT_GE(estimate_flops(more, config).step, flops.step) << what << " of " << m.name;
      EXPECT_GE(count_parameters(more).total, count_parameters(m).total)
          << what << " of " << m.name;
    };
    larger("layers", [](ModelSpec& s, TrainingConfig&) { s.layers += 1; });
    larger("d_model", [](ModelSpec& s, TrainingConfig&) { s.d_model += 8; });
    larger("ffn", [](ModelSpec& s, TrainingConfig&) { s.ffn += 8; });
    larger("vocab", [](ModelSpec& s, TrainingConfig&) { s.vocab += 64; });
    larger("head_dim", [](ModelSpec& s, TrainingConfig&) { s.head_dim += 8; });
    larger("heads", [](ModelSpec& s, TrainingConfig&) { s.heads *= 2; });
    larger("sequence", [](ModelSpec& s, TrainingConfig& t) { t.sequence = s.context + 64; });
    larger("batch",
           [](ModelSpec&, TrainingConfig& t) { t.batch = t.batch == 1 ? 3 : t.batch + 1; });
  }
}

// The worst rank times the ranks covers the unsharded whole, part by part.
TEST(Properties, ShardsCoverTheWhole) {
  Random random(3);
  for (int i = 0; i < kRounds; ++i) {
    ModelSpec m = random_model(random);
    TrainingConfig c = random_config(random);
    if (c.optimizer.rfind("adafactor", 0) == 0) c.optimizer = "adamw";
    c.accumulate = 1;
    const MemoryEstimate whole = estimate_memory(m, c);
    c.dp = 1 << random.from(0, 3);
    c.zero = random.from(0, 3);
    c.tp = random.from(0, 1) ? std::min<int64_t>(m.heads, 4) : 1;
    c.sequence_parallel = random.from(0, 1) == 1;
    c.pp = random.from(1, std::min<int64_t>(4, m.layers));
    c.cp = 1 << random.from(0, 2);
    const MemoryEstimate rank = estimate_memory(m, c);
    EXPECT_GE(rank.total * c.world(), whole.total)
        << m.name << " dp " << c.dp << " zero " << c.zero << " tp " << c.tp << " pp " << c.pp
        << " cp " << c.cp;
    EXPECT_EQ(*std::max_element(rank.stage_totals.begin(), rank.stage_totals.end()), rank.total);
    Integer stages = 0;
    for (const Integer total : rank.stage_totals) stages += total;
    EXPECT_GE(stages * c.dp * c.tp * c.cp, whole.total) << m.name;
  }
}

TEST(Properties, MoreShardingNeverNeedsMoreState) {
  Random random(4);
  for (int i = 0; i < kRounds; ++i) {
    const ModelSpec m = random_model(random);
    TrainingConfig c = random_config(random);
    c.dp = 1 << random.from(1, 4);
    Integer before = -1;
    for (c.zero = 0; c.zero <= 3; ++c.zero) {
      const MemoryEstimate memory = estimate_memory(m, c);
      const Integer state = memory.group(Group::kParameters) + memory.group(Group::kGradients) +
                            memory.group(Group::kOptimizerState);
      if (before >= 0) {
        EXPECT_LE(state, before);
      }
      before = state;
    }
  }
}

TEST(Properties, ExtremesDoNotOverflow) {
  ModelSpec m = family_model("llama");
  m.name = "huge";
  m.layers = 1000, m.d_model = 100'000, m.heads = 1000, m.vocab = 1'000'000, m.context = 1'000'000;
  m.ffn = 1'000'000;
  complete(m);
  TrainingConfig c;
  c.batch = 10'000;
  const Estimate e = estimate(m, c);
  EXPECT_GT(e.memory.total, Integer{1} << 63);
  EXPECT_GT(e.memory.peak, 0);
  EXPECT_GT(e.flops.step, e.flops.forward);
  c.batch = 1'000'000'000;
  c.accumulate = 1'000'000'000;
  EXPECT_THAT(testing::error_of([&] { estimate(m, c); }), ::testing::HasSubstr("--batch"));
}

}  // namespace
}  // namespace tally::estimate
