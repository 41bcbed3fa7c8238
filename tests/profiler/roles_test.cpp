// SPDX-License-Identifier: Apache-2.0
// Every role that exists on a CPU, proved against a walk over the program's own objects: each
// optimizer of torch::optim, watched and not, and what programs do beside the plain loop.
#include <algorithm>
#include <optional>
#include <set>

#include "tests/support/profiled_run.h"

namespace tally::test {
namespace {

namespace nn = torch::nn;
namespace optim = torch::optim;
namespace F = torch::nn::functional;

nn::Sequential make_model() {
  return nn::Sequential(nn::Linear(16, 32), nn::Tanh(), nn::LayerNorm(nn::LayerNormOptions({32})),
                        nn::Linear(32, 4));
}

int64_t storage_bytes(const std::vector<at::Tensor>& tensors) {
  int64_t bytes = 0;
  for (const at::Tensor& tensor : tensors) {
    if (tensor.defined()) bytes += static_cast<int64_t>(tensor.storage().nbytes());
  }
  return bytes;
}
int64_t gradient_bytes(const std::vector<at::Tensor>& parameters) {
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : parameters) gradients.push_back(parameter.grad());
  return storage_bytes(gradients);
}

at::Tensor loss_of(nn::Sequential& model, const at::Tensor& x, const at::Tensor& y) {
  return F::cross_entropy(model->forward(x), y);
}

struct OptimizerCase {
  const char* name;
  std::function<std::unique_ptr<optim::Optimizer>(std::vector<at::Tensor>)> make;
  int state_factor;  // bytes of state a byte of parameter
};

class EveryOptimizer : public testing::TestWithParam<OptimizerCase> {};

TEST_P(EveryOptimizer, IsAttributedToTheByteWhenWatched) {
  torch::manual_seed(0);
  int64_t parameters = 0;
  const auto run = profiled([&](Profiler& profiler) {
    auto model = make_model();
    auto optimizer = GetParam().make(model->parameters());
    profiler.watch(*model);
    profiler.watch(*optimizer);
    for (int i = 0; i < 4; ++i) {
      auto step = profiler.step();
      auto x = torch::randn({8, 16}), y = torch::randint(4, {8});
      optimizer->zero_grad();
      loss_of(model, x, y).backward();
      optimizer->step();
      EXPECT_EQ(gradient_bytes(model->parameters()), storage_bytes(model->parameters()));
    }
    parameters = storage_bytes(model->parameters());
  });
  expect_nothing_unattributed(run);
  for (size_t step = 0; step < 4; ++step) {
    const MarkBook end = mark_of(run, step, Mark::kEnd);
    EXPECT_EQ(bytes_of(end, Role::kParameter), parameters);
    EXPECT_EQ(bytes_of(end, Role::kGradient), parameters);
    EXPECT_EQ(bytes_of(end, Role::kOptimizerState), GetParam().state_factor * parameters);
    const MarkBook edge = mark_of(run, step, Mark::kForwardEdge);
    EXPECT_EQ(bytes_of(edge, Role::kParameter), parameters);
    EXPECT_EQ(bytes_of(edge, Role::kGradient), 0);  // set to None
    EXPECT_EQ(bytes_of(edge, Role::kOptimizerState),
              step == 0 && std::string(GetParam().name) != "adagrad"
                  ? 0
                  : GetParam().state_factor * parameters);
    if (step < 2) {
      EXPECT_EQ(edge.saved_bytes, edge.expected_saved_bytes);
    }
  }
  ASSERT_EQ(run.info.optimizers.size(), 1u);
  EXPECT_EQ(run.text(run.info.optimizers[0].recipe), GetParam().name);
}

TEST_P(EveryOptimizer, HasTheSameTotalsAndInferredRolesWhenNothingIsWatched) {
  torch::manual_seed(0);
  int64_t parameters = 0;
  const auto run = profiled([&](Profiler& profiler) {
    auto model = make_model();
    auto optimizer = GetParam().make(model->parameters());
    for (int i = 0; i < 4; ++i) {
      auto step = profiler.step();
      auto x = torch::randn({8, 16}), y = torch::randint(4, {8});
      optimizer->zero_grad();
      loss_of(model, x, y).backward();
      optimizer->step();
    }
    parameters = storage_bytes(model->parameters());
  });
  const MarkBook end = mark_of(run, 3, Mark::kEnd);
  EXPECT_EQ(bytes_of(end, Role::kParameter), parameters);
  EXPECT_EQ(bytes_of(end, Role::kGradient), parameters);
  if (std::string(GetParam().name) != "adagrad") {  // made in the constructor: nothing shows it
    EXPECT_EQ(bytes_of(end, Role::kOptimizerState), GetParam().state_factor * parameters);
    EXPECT_EQ(bytes_of(end, Role::kUnattributed), 0);
  }
}

template <typename Optimizer, typename OptionsType>
auto maker(OptionsType options) {
  return [options](std::vector<at::Tensor> parameters) {
    return std::make_unique<Optimizer>(std::move(parameters), options);
  };
}
INSTANTIATE_TEST_SUITE_P(
    Torch, EveryOptimizer,
    testing::Values(
        OptimizerCase{"sgd", maker<optim::SGD>(optim::SGDOptions(0.1)), 0},
        OptimizerCase{"sgd-momentum", maker<optim::SGD>(optim::SGDOptions(0.1).momentum(0.9)), 1},
        OptimizerCase{"adam", maker<optim::Adam>(optim::AdamOptions(1e-3)), 2},
        OptimizerCase{"adamw", maker<optim::AdamW>(optim::AdamWOptions(1e-3)), 2},
        OptimizerCase{"adamw-amsgrad", maker<optim::AdamW>(optim::AdamWOptions(1e-3).amsgrad(true)), 3},
        OptimizerCase{"rmsprop", maker<optim::RMSprop>(optim::RMSpropOptions(1e-3)), 1},
        OptimizerCase{"rmsprop-momentum-centered",
                      maker<optim::RMSprop>(optim::RMSpropOptions(1e-3).momentum(0.9).centered(true)), 3},
        OptimizerCase{"adagrad", maker<optim::Adagrad>(optim::AdagradOptions(1e-2)), 1}),
    [](const auto& instance) {
      std::string name = instance.param.name;
      std::replace(name.begin(), name.end(), '-', '_');
      return name;
    });

TEST(Roles, LbfgsStateIsWhatItsObjectHolds) {
  torch::manual_seed(0);
  int64_t truth = 0;
  const auto run = profiled([&](Profiler& profiler) {
    auto model = make_model();
    optim::LBFGS optimizer(model->parameters(), optim::LBFGSOptions(0.1).max_iter(4).history_size(3));
    profiler.watch(*model);
    profiler.watch(optimizer);
    auto x = torch::randn({8, 16}), y = torch::randint(4, {8});
    for (int i = 0; i < 3; ++i) {
      auto step = profiler.step();
      optimizer.step([&] {
        optimizer.zero_grad();
        auto loss = loss_of(model, x, y);
        loss.backward();
        return loss;
      });
      // Truth: unique storages of the one state.
      std::set<const void*> seen;
      truth = 0;
      auto add = [&](const at::Tensor& t) {
        if (t.defined() && seen.insert(t.storage().data()).second) {
          truth += static_cast<int64_t>(t.storage().nbytes());
        }
      };
      for (auto& [key, state] : optimizer.state()) {
        auto& lbfgs = dynamic_cast<optim::LBFGSParamState&>(*state);
        add(lbfgs.d());
        add(lbfgs.H_diag());
        add(lbfgs.prev_flat_grad());
        for (auto& t : lbfgs.old_dirs()) add(t);
        for (auto& t : lbfgs.old_stps()) add(t);
        for (auto& t : lbfgs.ro()) add(t);
        if (lbfgs.al()) {
          for (auto& t : *lbfgs.al()) add(t);
        }
      }
      for (auto& p : model->parameters()) {  // a single parameter's gradient may be shared
        if (p.grad().defined() && seen.count(p.grad().storage().data())) {
          truth -= static_cast<int64_t>(p.grad().storage().nbytes());
        }
      }
    }
  });
  EXPECT_EQ(bytes_of(mark_of(run, 2, Mark::kEnd), Role::kOptimizerState), truth);
  EXPECT_GT(truth, 0);
}

// Two models and two optimizers, as a GAN trains them.
TEST(Roles, TwoModelsAndTwoOptimizers) {
  int64_t parameters = 0;
  const auto run = profiled([&](Profiler& profiler) {
    auto generator = make_model();
    auto critic = nn::Sequential(nn::Linear(4, 8), nn::ReLU(), nn::Linear(8, 1));
    optim::Adam first(generator->parameters(), optim::AdamOptions(1e-3));
    optim::SGD second(critic->parameters(), optim::SGDOptions(1e-2).momentum(0.5));
    profiler.watch(*generator, "generator");
    profiler.watch(*critic, "critic");
    profiler.watch(first);
    profiler.watch(second);
    for (int i = 0; i < 3; ++i) {
      auto step = profiler.step();
      auto x = torch::randn({8, 16});
      second.zero_grad();
      critic->forward(generator->forward(x).detach()).mean().backward();
      second.step();
      first.zero_grad();
      critic->forward(generator->forward(x)).mean().backward();
      first.step();
    }
    parameters = storage_bytes(generator->parameters()) + storage_bytes(critic->parameters());
  });
  expect_nothing_unattributed(run);
  const MarkBook end = mark_of(run, 2, Mark::kEnd);
  EXPECT_EQ(bytes_of(end, Role::kParameter), parameters);
  EXPECT_EQ(bytes_of(end, Role::kGradient), parameters);
  EXPECT_EQ(marks_of(run, 2, Mark::kForwardEdge).size(), 2u);
  EXPECT_EQ(run.steps[2].books.micro_steps, 2);
}

TEST(Roles, TiedWeightsCountOnce) {
  const auto run = profiled([&](Profiler& profiler) {
    auto embedding = nn::Embedding(50, 16);
    profiler.watch(*embedding, "wte");
    profiler.watch(*embedding, "lm_head");  // the same storage under a second name
    optim::SGD optimizer(embedding->parameters(), optim::SGDOptions(0.1));
    profiler.watch(optimizer);
    for (int i = 0; i < 2; ++i) {
      auto step = profiler.step();
      auto tokens = torch::randint(50, {4, 8});
      optimizer.zero_grad();
      auto hidden = embedding->forward(tokens);
      torch::matmul(hidden, embedding->weight.t()).logsumexp(-1).mean().backward();
      optimizer.step();
    }
  });
  expect_nothing_unattributed(run);
  const MarkBook end = mark_of(run, 1, Mark::kEnd);
  EXPECT_EQ(bytes_of(end, Role::kParameter), 50 * 16 * 4);
  EXPECT_EQ(bytes_of(end, Role::kGradient), 50 * 16 * 4);
  ASSERT_EQ(run.info.parameters.size(), 2u);
  EXPECT_FALSE(run.info.parameters[0].shared);
  EXPECT_TRUE(run.info.parameters[1].shared);
}

TEST(Roles, FrozenParametersAndBuffers) {
  const auto run = profiled([&](Profiler& profiler) {
    auto model = nn::Sequential(nn::Linear(16, 32), nn::BatchNorm1d(32), nn::Linear(32, 4));
    for (auto& parameter : model[0]->as<nn::Linear>()->parameters()) parameter.set_requires_grad(false);
    profiler.watch(*model);
    optim::SGD optimizer(model->parameters(), optim::SGDOptions(0.1));
    profiler.watch(optimizer);
    for (int i = 0; i < 2; ++i) {
      auto step = profiler.step();
      auto x = torch::randn({8, 16});
      optimizer.zero_grad();
      model->forward(x).pow(2).mean().backward();
      optimizer.step();
    }
  });
  expect_nothing_unattributed(run);
  const MarkBook end = mark_of(run, 1, Mark::kEnd);
  EXPECT_EQ(bytes_of(end, Role::kParameter), (16 * 32 + 32 + 32 + 32 + 32 * 4 + 4) * 4);
  EXPECT_EQ(bytes_of(end, Role::kGradient), (32 + 32 + 32 * 4 + 4) * 4);
  EXPECT_EQ(bytes_of(end, Role::kBuffer), 32 * 4 + 32 * 4 + 8);  // mean, variance, batches seen
}

TEST(Roles, SparseGradients) {
  const auto run = profiled([&](Profiler& profiler) {
    auto embedding = nn::Embedding(nn::EmbeddingOptions(100, 8).sparse(true));
    profiler.watch(*embedding);
    optim::SGD optimizer(embedding->parameters(), optim::SGDOptions(0.1));
    auto step = profiler.step();
    embedding->forward(torch::tensor({1, 2, 3})).sum().backward();
    optimizer.step();
  });
  // Three indices of 8 bytes, three rows of 8 floats.
  EXPECT_EQ(bytes_of(mark_of(run, 0, Mark::kBackwardEnd), Role::kGradient), 3 * 8 + 3 * 8 * 4);
}

TEST(Roles, AccumulationKeepsGradientsAndNumbersItsMicroSteps) {
  int64_t parameters = 0;
  const auto run = profiled([&](Profiler& profiler) {
    auto model = make_model();
    optim::AdamW optimizer(model->parameters(), optim::AdamWOptions(1e-3));
    profiler.watch(*model);
    profiler.watch(optimizer);
    parameters = storage_bytes(model->parameters());
    for (int i = 0; i < 2; ++i) {
      auto step = profiler.step();
      optimizer.zero_grad();
      for (int micro = 0; micro < 3; ++micro) {
        auto x = torch::randn({8, 16}), y = torch::randint(4, {8});
        (loss_of(model, x, y) / 3).backward();
      }
      optimizer.step();
    }
  });
  expect_nothing_unattributed(run);
  const auto edges = marks_of(run, 1, Mark::kForwardEdge);
  ASSERT_EQ(edges.size(), 3u);
  for (size_t micro = 0; micro < 3; ++micro) {
    EXPECT_EQ(edges[micro].micro_step, micro);
    EXPECT_EQ(bytes_of(edges[micro], Role::kGradient), micro == 0 ? 0 : parameters);
    EXPECT_EQ(edges[micro].saved_bytes, edges[0].saved_bytes);
  }
}

TEST(Roles, GradientsKeptAsZerosStayGradients) {
  int64_t parameters = 0;
  const auto run = profiled([&](Profiler& profiler) {
    auto model = make_model();
    optim::SGD optimizer(model->parameters(), optim::SGDOptions(0.1));
    profiler.watch(*model);
    parameters = storage_bytes(model->parameters());
    for (int i = 0; i < 3; ++i) {
      auto step = profiler.step();
      optimizer.zero_grad(/*set_to_none=*/false);
      model->forward(torch::randn({8, 16})).sum().backward();
      optimizer.step();
    }
  });
  EXPECT_EQ(bytes_of(mark_of(run, 2, Mark::kStart), Role::kGradient), parameters);
  EXPECT_EQ(bytes_of(mark_of(run, 2, Mark::kForwardEdge), Role::kGradient), parameters);
}

TEST(Roles, OutputsAndLossesThatAProgramKeepsAreHeldOutputs) {
  std::vector<at::Tensor> kept;
  const auto run = profiled([&](Profiler& profiler) {
    auto model = make_model();
    profiler.watch(*model);
    for (int i = 0; i < 3; ++i) {
      auto step = profiler.step();
      auto out = model->forward(torch::randn({8, 16}));
      auto loss = out.sum();  // keeps nothing of `out`
      loss.backward();
      kept.push_back(out.detach());
      kept.push_back(loss);
    }
  });
  const MarkBook edge = mark_of(run, 2, Mark::kForwardEdge);
  // Of each step before: an output of 8 x 4 floats and a loss; of this one as well.
  EXPECT_EQ(bytes_of(edge, Role::kHeldOutput), 3 * (8 * 4 * 4 + 4));
  expect_nothing_unattributed(run);
  kept.clear();
}

TEST(Roles, InferenceHasNoActivations) {
  for (const bool inference_mode : {false, true}) {
    const auto run = profiled([&](Profiler& profiler) {
      auto model = make_model();
      profiler.watch(*model);
      for (int i = 0; i < 2; ++i) {
        auto step = profiler.step();
        std::optional<torch::NoGradGuard> no_grad;
        std::optional<torch::InferenceMode> inference;
        if (inference_mode) {
          inference.emplace();
        } else {
          no_grad.emplace();
        }
        auto x = torch::randn({8, 16});
        auto out = model->forward(x);
        EXPECT_EQ(out.numel(), 32);
      }
    });
    for (size_t step = 0; step < 2; ++step) {
      EXPECT_TRUE(marks_of(run, step, Mark::kForwardEdge).empty());
      const MarkBook peak = mark_of(run, step, Mark::kPeak);
      EXPECT_EQ(bytes_of(peak, Role::kActivation), 0);
      EXPECT_EQ(peak.phase, Phase::kForward);
      EXPECT_EQ(bytes_of(peak, Role::kInput), 8 * 16 * 4) << describe(run, step);
    }
    expect_nothing_unattributed(run);
  }
}

// A collective, as c10d's operators appear to an observer; outside and inside a backward pass.
TEST(Roles, OperandsOfACollectiveAreCommunication) {
  const auto run = profiled([](Profiler& profiler) {
    torch::nn::Linear layer(16, 16);
    profiler.watch(*layer);
    auto bucket = torch::Tensor();
    for (int i = 0; i < 2; ++i) {
      const auto step = profiler.step();
      layer->forward(torch::ones({4, 16})).sum().backward();
      bucket = torch::zeros({1000});
      std::vector<c10::IValue> operands;
      operands.emplace_back(std::vector<torch::Tensor>{bucket});
      RECORD_FUNCTION("c10d::allreduce_",
                      c10::ArrayRef<const c10::IValue>(operands.data(), operands.size()));
    }
  });
  EXPECT_EQ(bytes_of(mark_of(run, 1, Mark::kEnd), Role::kCommunication), 4000);
}

}  // namespace
}  // namespace tally::test
