// SPDX-License-Identifier: Apache-2.0
// What the profiler says against truths that share no code with it: an allocator that counts by
// itself below ours, closed forms of what autograd keeps, published counts of parameters.
#include <ATen/record_function.h>

#include <array>
#include <atomic>
#include <map>
#include <optional>
#include <tuple>

#include "samples/gpt.h"
#include "tests/support/journal_allocator.h"
#include "tests/support/profiled_run.h"

namespace tally::test {
namespace {

namespace nn = torch::nn;
namespace F = torch::nn::functional;

TEST(Truth, AnAllocatorBelowOursCountsTheSame) {
  auto& journal = JournalAllocator::instance();
  journal.install();
  const int64_t before = journal.live();
  std::vector<int64_t> starts, ends, peaks;
  const auto run = profiled([&](Profiler& profiler) {
    auto model = nn::Sequential(nn::Conv2d(nn::Conv2dOptions(3, 8, 3)), nn::BatchNorm2d(8), nn::ReLU(),
                                nn::MaxPool2d(2), nn::Flatten(), nn::Linear(8 * 7 * 7, 10));
    torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(1e-3));
    profiler.watch(*model);
    profiler.watch(optimizer);
    for (int i = 0; i < 4; ++i) {
      starts.push_back(journal.live() - before);
      journal.take_peak();
      {
        auto step = profiler.step();
        auto x = torch::randn({4, 3, 16, 16}), y = torch::randint(10, {4});
        optimizer.zero_grad();
        F::cross_entropy(model->forward(x), y).backward();
        optimizer.step();
        ends.push_back(journal.live() - before);
      }
      peaks.push_back(journal.take_peak() - before);
    }
  });
  journal.uninstall();
  for (size_t step = 0; step < 4; ++step) {
    EXPECT_EQ(mark_of(run, step, Mark::kStart).bytes, starts[step]);
    EXPECT_EQ(mark_of(run, step, Mark::kPeak).bytes, peaks[step]);
  }
  // x and y are gone by the end of the scope, but alive when the journal was read.
  const int64_t batch = 4 * 3 * 16 * 16 * 4 + 4 * 8;
  for (size_t step = 0; step < 4; ++step) {
    EXPECT_EQ(mark_of(run, step, Mark::kEnd).bytes, ends[step] - batch);
  }
  expect_nothing_unattributed(run);
}

// Linear saves its input, GELU its input, the loss one tensor of log-probabilities.
TEST(Truth, MlpKeepsWhatTheFormulasSay) {
  constexpr int64_t kBatch = 16, kWidth = 32, kClasses = 10;
  const auto run = profiled([&](Profiler& profiler) {
    auto model = nn::Sequential(nn::Linear(kWidth, 4 * kWidth), nn::GELU(), nn::Linear(4 * kWidth, kClasses));
    profiler.watch(*model);
    auto step = profiler.step();
    auto x = torch::randn({kBatch, kWidth}), y = torch::randint(kClasses, {kBatch});
    F::cross_entropy(model->forward(x), y).backward();
  });
  const int64_t expected = kBatch * kWidth * 4          // x, the first layer's input
                           + kBatch * 4 * kWidth * 4    // GELU's input
                           + kBatch * 4 * kWidth * 4    // GELU's result, the second layer's input
                           + kBatch * kClasses * 4      // log-probabilities
                           + kBatch * 8 + 4;            // targets, total weight
  EXPECT_EQ(mark_of(run, 0, Mark::kForwardEdge).saved_bytes, expected);
  EXPECT_EQ(mark_of(run, 0, Mark::kForwardEdge).expected_saved_bytes, expected);
}

// One pre-LN GPT-2 block as the formulas have it: 64 sbh + 4 a b s^2 + 16 bs + s^2 bytes.
struct Block : nn::Module {
  Block(int64_t width, int64_t head_count, bool fused) : heads(head_count), sdpa(fused) {
    ln_1 = register_module("ln_1", nn::LayerNorm(nn::LayerNormOptions({width})));
    c_attn = register_module("c_attn", nn::Linear(width, 3 * width));
    c_proj = register_module("c_proj", nn::Linear(width, width));
    ln_2 = register_module("ln_2", nn::LayerNorm(nn::LayerNormOptions({width})));
    c_fc = register_module("c_fc", nn::Linear(width, 4 * width));
    out = register_module("out", nn::Linear(4 * width, width));
  }
  at::Tensor forward(at::Tensor x) {
    const int64_t b = x.size(0), s = x.size(1), h = x.size(2);
    auto qkv = c_attn(ln_1(x)).view({b, s, 3, heads, h / heads}).permute({2, 0, 3, 1, 4});
    auto q = qkv[0], k = qkv[1], v = qkv[2];
    at::Tensor context;
    if (sdpa) {
      context = at::scaled_dot_product_attention(q, k, v, {}, 0.0, true);
    } else {
      auto scores = torch::matmul(q, k.transpose(-2, -1)).div(std::sqrt(static_cast<double>(h / heads)));
      auto mask = torch::ones({s, s}, torch::kBool).triu(1);
      context = torch::matmul(scores.masked_fill(mask, -1e9).softmax(-1), v);
    }
    x = x + c_proj(context.transpose(1, 2).reshape({b, s, h}));
    return x + out(torch::gelu(c_fc(ln_2(x))));
  }
  int64_t heads;
  bool sdpa;
  nn::LayerNorm ln_1{nullptr}, ln_2{nullptr};
  nn::Linear c_attn{nullptr}, c_proj{nullptr}, c_fc{nullptr}, out{nullptr};
};

class GptBlock : public testing::TestWithParam<bool> {};

TEST_P(GptBlock, KeepsWhatTheFormulasSay) {
  constexpr int64_t b = 2, s = 16, h = 32, a = 4;
  const auto run = profiled([&](Profiler& profiler) {
    auto embedding = torch::randn({b, s, h}, torch::requires_grad());
    Block block(h, a, GetParam());
    profiler.watch(block);
    auto step = profiler.step();
    auto x = embedding * torch::ones({1});  // so that the block's input is made in the step
    block.forward(x).sum().backward();
  });
  const int64_t sbh = s * b * h;
  const int64_t eager = 64 * sbh + 4 * a * b * s * s + 16 * b * s + s * s;
  const int64_t flash = 64 * sbh + 16 * b * s + 4 * a * b * s;  // log-sum-exp instead of scores
  const MarkBook edge = mark_of(run, 0, Mark::kForwardEdge);
  EXPECT_EQ(edge.saved_bytes, (GetParam() ? flash : eager) + 4);  // + the factor of the input
  EXPECT_EQ(edge.saved_bytes, edge.expected_saved_bytes);
  expect_nothing_unattributed(run);
}
INSTANTIATE_TEST_SUITE_P(Attention, GptBlock, testing::Bool(),
                         [](const auto& which) { return which.param ? "sdpa" : "eager"; });

// The whole step of a GPT in fp32 with eager attention: its peak, where the loss is the peak, and
// what autograd keeps, are exact. One tensor of log-probabilities and two of gradients a logit,
// and the logits themselves where the program still holds them.
class GptPeak : public testing::TestWithParam<bool> {};

TEST_P(GptPeak, IsWhereAndAsHighAsTheFormulasSay) {
  const bool keep_logits = GetParam();
  constexpr int64_t L = 2, h = 32, a = 2, b = 4, s = 32, V = 512;
  sample::GptConfig config;
  config.layers = L, config.width = h, config.heads = a, config.context = s, config.vocabulary = V;
  int64_t parameters = 0;
  const auto run = profiled([&](Profiler& profiler) {
    sample::Gpt model(config);
    torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(1e-3));
    profiler.watch(*model);
    profiler.watch(optimizer);
    for (const auto& parameter : model->parameters()) parameters += parameter.numel();
    for (int i = 0; i < 3; ++i) {
      auto step = profiler.step();
      auto tokens = torch::randint(V, {b, s}), targets = torch::randint(V, {b, s});
      optimizer.zero_grad();
      auto logits = model(tokens).flatten(0, 1);
      auto loss = torch::cross_entropy_loss(logits, targets.flatten());
      if (!keep_logits) logits.reset();
      loss.backward();
      optimizer.step();
    }
  });
  EXPECT_EQ(parameters, V * h + s * h + L * (12 * h * h + 13 * h) + 2 * h);
  const int64_t sbh = s * b * h;
  const int64_t layer = 64 * sbh + 4 * a * b * s * s + 16 * b * s + s * s;
  const int64_t activations = L * layer + 8 * sbh + 8 * b * s;
  const int64_t indices = 8 * b * s + 8 * b * s + 8 * s;  // tokens, targets, positions
  const int64_t scalars = 4 + 4;                          // the loss's total weight; the loss
  for (size_t step = 1; step < 3; ++step) {
    const MarkBook edge = mark_of(run, step, Mark::kForwardEdge);
    EXPECT_EQ(edge.saved_bytes, activations + 4 * b * s * V + indices + 4);
    const MarkBook peak = mark_of(run, step, Mark::kPeak);
    EXPECT_EQ(peak.bytes, 12 * parameters + activations + (keep_logits ? 16 : 12) * b * s * V +
                              indices + scalars);
    EXPECT_EQ(peak.phase, Phase::kBackward);
    EXPECT_EQ(bytes_of(peak, Role::kHeldOutput), 4 + (keep_logits ? 4 * b * s * V : 0));
  }
  expect_nothing_unattributed(run);
}
INSTANTIATE_TEST_SUITE_P(Logits, GptPeak, testing::Bool(),
                         [](const auto& which) { return which.param ? "kept" : "dropped"; });

TEST(Truth, RecurrentNetworksAndEmbeddings) {
  const auto run = profiled([&](Profiler& profiler) {
    auto embedding = nn::Embedding(50, 16);
    auto lstm = nn::LSTM(nn::LSTMOptions(16, 32).num_layers(2));
    profiler.watch(*embedding, "embedding");
    profiler.watch(*lstm, "lstm");
    for (int i = 0; i < 2; ++i) {
      auto step = profiler.step();
      auto tokens = torch::randint(50, {7, 4});
      std::get<0>(lstm->forward(embedding->forward(tokens))).sum().backward();
    }
  });
  for (size_t step = 0; step < 2; ++step) {
    const MarkBook edge = mark_of(run, step, Mark::kForwardEdge);
    EXPECT_EQ(edge.saved_bytes, edge.expected_saved_bytes);
    EXPECT_GT(edge.saved_bytes, 7 * 4 * 16 * 4);
  }
  EXPECT_EQ(run.steps[0].books.tokens, 28);
  expect_nothing_unattributed(run);
}

// The counts of FLOPs that a lecture gives: a sum of vectors n, a dot product 2n, a product 2nmp.
TEST(Truth, ElementaryFlops) {
  constexpr int64_t n = 64, m = 32, p = 16;
  const auto run = profiled([&](Profiler& profiler) {
    auto a = torch::randn({n}), b = torch::randn({n});
    auto x = torch::randn({m, p}), y = torch::randn({p, n});
    auto step = profiler.step();
    (void)(a + b);
    (void)a.dot(b);
    (void)x.mm(y);
  });
  std::map<std::string, OperatorRow> rows;
  for (const OperatorRow& row : run.steps[0].books.operators) rows[run.text(row.op)] = row;
  EXPECT_EQ(rows["aten::add"].elementwise_flops, n);
  EXPECT_EQ(rows["aten::dot"].flops, 2 * n);
  EXPECT_EQ(rows["aten::mm"].flops, 2 * n * m * p);
}

// Where nothing else asks for operators, LibTorch does not call the profiler in parts of a kernel
// that say nothing; beside a callback of someone else's it does. The books must be the same.
TEST(Truth, BooksAreTheSameWithAndWithoutCallsInPartsOfKernels) {
  struct Told {
    std::map<std::tuple<Phase, std::string, std::string>, std::array<double, 4>> operators;
    std::vector<std::pair<Mark, decltype(MarkBook::roles)>> marks;
  };
  static std::atomic<size_t> seen_by_another{0};
  const auto train = [](bool beside_another) {
    std::optional<at::CallbackHandle> another;
    seen_by_another = 0;
    const auto run = profiled([&](Profiler& profiler) {
      torch::manual_seed(3);
      nn::Sequential model(nn::Conv2d(nn::Conv2dOptions(3, 8, 3)), nn::BatchNorm2d(8), nn::ReLU(),
                           nn::Flatten(), nn::Linear(8 * 36, 16), nn::GELU(), nn::Linear(16, 16));
      torch::optim::AdamW optimizer(model->parameters());
      profiler.watch(*model);
      profiler.watch(optimizer);
      if (beside_another) {
        another = at::addGlobalCallback(at::RecordFunctionCallback(
            [](const at::RecordFunction&) -> std::unique_ptr<at::ObserverContext> {
              ++seen_by_another;
              return nullptr;
            }));
      }
      for (int i = 0; i < 5; ++i) {
        auto step = profiler.step();
        optimizer.zero_grad();
        auto y = model->forward(torch::randn({4, 3, 8, 8}));
        // In place in the graph, a product in a graph of a gradient, a view of a view.
        auto loss = y.clone().mul_(y).sum() + y.t().mm(y).t().mean();
        auto of_input = torch::autograd::grad({loss}, {y}, {}, true, true)[0];
        (loss + of_input.pow(2).sum()).backward();
        optimizer.step();
        torch::NoGradGuard no_grad;
        y.mm(y.t()).mul_(2).add_(y.slice(1, 0, 4).sum());
      }
      if (another) at::removeCallback(*another);
    });
    std::vector<Told> told;
    for (const auto& step : run.steps) {
      Told& of_step = told.emplace_back();
      for (const OperatorRow& row : step.books.operators) {
        of_step.operators[{row.phase, run.text(row.module), run.text(row.op)}] = {
            static_cast<double>(row.calls), row.flops, row.torch_flops, row.elementwise_flops};
      }
      for (const MarkBook& mark : step.books.devices.at(0).marks) {
        of_step.marks.emplace_back(mark.mark, mark.roles);
      }
    }
    return told;
  };
  const auto alone = train(false);
  const auto beside = train(true);
  EXPECT_GT(seen_by_another.load(), 5u * 300);
  ASSERT_EQ(alone.size(), beside.size());
  for (size_t i = 0; i < alone.size(); ++i) {
    EXPECT_EQ(alone[i].operators, beside[i].operators) << "step " << i;
    EXPECT_EQ(alone[i].marks, beside[i].marks) << "step " << i;
  }
}

TEST(Truth, ForwardAndBackwardFlopsOfAModel) {
  constexpr int64_t kBatch = 8, kIn = 16, kHidden = 32, kOut = 4;
  const auto run = profiled([&](Profiler& profiler) {
    auto model = nn::Sequential(nn::Linear(kIn, kHidden), nn::ReLU(), nn::Linear(kHidden, kOut));
    profiler.watch(*model);
    auto step = profiler.step();
    model->forward(torch::randn({kBatch, kIn})).sum().backward();
  });
  std::map<Phase, double> flops;
  std::map<std::string, double> backward_of;
  for (const OperatorRow& row : run.steps[0].books.operators) {
    flops[row.phase] += row.flops;
    if (row.phase == Phase::kBackward) backward_of[run.text(row.module)] += row.flops;
  }
  EXPECT_EQ(flops[Phase::kForward], 2 * kBatch * (kIn * kHidden + kHidden * kOut));
  // The first layer needs no gradient of its input.
  EXPECT_EQ(flops[Phase::kBackward], 2 * kBatch * (kIn * kHidden + 2 * kHidden * kOut));
  EXPECT_EQ(backward_of["0"], 2 * kBatch * kIn * kHidden);
  EXPECT_EQ(backward_of["2"], 2 * 2 * kBatch * kHidden * kOut);
}

}  // namespace
}  // namespace tally::test
