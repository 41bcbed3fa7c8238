// SPDX-License-Identifier: Apache-2.0
// Verdicts on real programs: each has one that earns it and one that must not.
#include <torchtally/checkpoint.h>

#include <gmock/gmock.h>

#include "tests/support/profiled_run.h"

namespace tally::test {
namespace {

namespace nn = torch::nn;
using testing::StartsWith;

constexpr int64_t kWidth = 32, kBatch = 512, kBlocks = 4;
constexpr int64_t kHidden = kBatch * kWidth * 4;  // bytes of one hidden tensor

struct BlockImpl : nn::Module {
  BlockImpl() {
    first = register_module("first", nn::Linear(kWidth, kWidth));
    second = register_module("second", nn::Linear(kWidth, kWidth));
  }
  at::Tensor forward(const at::Tensor& x) { return second(torch::tanh(torch::tanh(first(x)))); }
  nn::Linear first{nullptr}, second{nullptr};
};
TORCH_MODULE(Block);

struct NetImpl : nn::Module {
  NetImpl() {
    input = register_module("input", nn::Linear(kWidth, kWidth));
    h = register_module("h", nn::ModuleList());
    for (int64_t i = 0; i < kBlocks; ++i) h->push_back(Block());
  }
  at::Tensor forward(at::Tensor x, bool checkpointed) {
    x = input(x);
    for (const auto& module : *h) {
      auto& block = *module->as<Block>();
      x = checkpointed ? tally::checkpoint(block, x) : block.forward(x);
    }
    return x;
  }
  nn::Linear input{nullptr};
  nn::ModuleList h{nullptr};
};
TORCH_MODULE(Net);

struct Trained {
  std::string checkpointing, accumulation;
  recording::Run run;
  std::vector<at::Tensor> parameters;
};

struct Way {
  bool checkpointed = false;
  int micro_steps = 1;
  bool keeps_outputs = false;
};

Trained train(const Way& way) {
  torch::manual_seed(3);
  const TemporaryFolder folder;
  Net net;
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.01));
  Options options;
  options.recording = folder / "run.tally";
  Profiler profiler(options);
  profiler.watch(*net);
  profiler.watch(optimizer);
  for (int i = 0; i < 3; ++i) {
    auto step = profiler.step();
    optimizer.zero_grad();
    std::vector<at::Tensor> kept;
    for (int m = 0; m < way.micro_steps; ++m) {
      auto out = net->forward(torch::ones({kBatch, kWidth}), way.checkpointed);
      if (way.keeps_outputs) kept.push_back(out);
      out.square().mean().backward();
    }
    optimizer.step();
  }
  profiler.stop();
  Trained trained{profiler.verdict("checkpointing"), profiler.verdict("accumulation"),
                  recording::read_run(options.recording), {}};
  expect_closed_books(trained.run);
  for (const auto& parameter : net->parameters()) trained.parameters.push_back(parameter.detach().clone());
  return trained;
}

TEST(Verdicts, APlainRunGetsOffersAndNoAlarm) {
  const Trained plain = train({});
  EXPECT_THAT(plain.checkpointing, StartsWith("not used: checkpointing h.0 to h.3 would bring the peak from"));
  EXPECT_EQ(plain.accumulation, "");
}

TEST(Verdicts, CheckpointingPaysAndItsBytesAreExact) {
  const Trained plain = train({});
  const Trained checkpointed = train({.checkpointed = true});
  EXPECT_THAT(checkpointed.checkpointing, StartsWith("pays"));
  ASSERT_EQ(plain.parameters.size(), checkpointed.parameters.size());
  for (size_t i = 0; i < plain.parameters.size(); ++i) {
    EXPECT_TRUE(torch::equal(plain.parameters[i], checkpointed.parameters[i]));
  }
  const auto& regions = checkpointed.run.steps.at(1).books.regions;
  ASSERT_EQ(regions.size(), static_cast<size_t>(kBlocks));
  for (const RegionRow& region : regions) {
    // Of a block autograd keeps both results of tanh; the checkpoint its input.
    EXPECT_EQ(region.avoided_bytes, 2 * kHidden);
    EXPECT_EQ(region.kept_bytes, kHidden);
    EXPECT_EQ(region.flops, 2.0 * 2 * kBatch * kWidth * kWidth);
  }
  EXPECT_EQ(checkpointed.run.text(regions.back().module), "h.0");
}

TEST(Verdicts, AccumulationThatLetsGoWorks) {
  EXPECT_THAT(train({.micro_steps = 3}).accumulation, StartsWith("works: 3 micro-steps need the memory of one"));
  EXPECT_THAT(train({.checkpointed = true, .micro_steps = 3}).accumulation, StartsWith("works"));
}

TEST(Verdicts, AccumulationThatKeepsOutputsCarriesThemOver) {
  EXPECT_THAT(train({.micro_steps = 3, .keeps_outputs = true}).accumulation, StartsWith("carries over 64.0 KiB"));
}

}  // namespace
}  // namespace tally::test
