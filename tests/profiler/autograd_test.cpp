// SPDX-License-Identifier: Apache-2.0
// What programs do with autograd beside one forward and one backward: the books stay closed, and
// activations are what the graph holds.
#include <map>
#include <thread>

#include "tests/support/profiled_run.h"

namespace tally::test {
namespace {

namespace nn = torch::nn;
namespace autograd = torch::autograd;

// x = w * 2 makes a new tensor of 100 floats and saves a wrapped number.
at::Tensor leaf() { return torch::randn({100}, torch::requires_grad()); }

TEST(Autograd, SavedTensorsCountOnceAndWhole) {
  const auto run = profiled([](Profiler& profiler) {
    auto w = leaf();
    auto step = profiler.step();
    auto a = w.exp();                    // saves its result: 400 bytes
    auto b = a * a;                      // saves a twice: the same storage
    auto c = b.slice(0, 0, 10).exp();    // saves its result: 40 bytes; the slice saves nothing
    c.sum().backward();
  });
  const MarkBook edge = mark_of(run, 0, Mark::kForwardEdge);
  EXPECT_EQ(edge.saved_bytes, 400 + 40);
  EXPECT_EQ(edge.saved_bytes, edge.expected_saved_bytes);
  // b is held by its variable alone.
  EXPECT_EQ(bytes_of(edge, Role::kHeldOutput), 400 + 4);
  EXPECT_EQ(bytes_of(edge, Role::kActivation), 440);
}

TEST(Autograd, WrappedNumbersAndParametersStandApart) {
  const auto run = profiled([](Profiler& profiler) {
    auto w = leaf();
    auto step = profiler.step();
    auto two = c10::scalar_to_tensor(2.0);  // what Python makes of `w * 2`
    two.unsafeGetTensorImpl()->set_wrapped_number(true);
    (w * two * w).sum().backward();
  });
  const MarkBook edge = mark_of(run, 0, Mark::kForwardEdge);
  EXPECT_EQ(edge.saved_number_bytes, 8);
  EXPECT_EQ(edge.saved_parameter_bytes, 400);  // w
  EXPECT_EQ(edge.saved_bytes, 400);            // w * 2
}

TEST(Autograd, RetainedGraphHasAnEdgeForEachBackward) {
  const auto run = profiled([](Profiler& profiler) {
    auto w = leaf();
    for (int i = 0; i < 2; ++i) {
      auto step = profiler.step();
      auto loss = w.exp().sum();
      loss.backward({}, /*retain_graph=*/true);
      loss.backward();
      w.mutable_grad().reset();
    }
  });
  const auto edges = marks_of(run, 1, Mark::kForwardEdge);
  ASSERT_EQ(edges.size(), 2u);
  EXPECT_EQ(edges[0].saved_bytes, 400);
  EXPECT_EQ(edges[1].saved_bytes, 400);
  EXPECT_EQ(marks_of(run, 1, Mark::kBackwardEnd).size(), 2u);
  EXPECT_EQ(bytes_of(edges[1], Role::kGradient), 400);
}

TEST(Autograd, GradientsOfGradGoThroughTheGraph) {
  const auto run = profiled([](Profiler& profiler) {
    auto w = leaf();
    auto step = profiler.step();
    auto gradients = autograd::grad({w.exp().sum()}, {w});
    EXPECT_TRUE(gradients[0].defined());
    EXPECT_FALSE(w.grad().defined());
  });
  const MarkBook end = mark_of(run, 0, Mark::kBackwardEnd);
  EXPECT_EQ(bytes_of(end, Role::kGradient), 0);
  EXPECT_GE(bytes_of(end, Role::kTemporaryBackward), 400);
  expect_nothing_unattributed(run);
}

TEST(Autograd, DoubleBackward) {
  const auto run = profiled([](Profiler& profiler) {
    auto w = leaf();
    for (int i = 0; i < 2; ++i) {
      auto step = profiler.step();
      auto first = autograd::grad({w.pow(3).sum()}, {w}, {}, true, /*create_graph=*/true)[0];
      first.pow(2).sum().backward();
      w.mutable_grad().reset();
    }
  });
  const auto edges = marks_of(run, 1, Mark::kForwardEdge);
  ASSERT_EQ(edges.size(), 2u);
  EXPECT_GE(edges[1].saved_bytes, 400);
  // Made inside the first backward pass, kept for the second: activations, not recomputed ones.
  EXPECT_GE(bytes_of(edges[1], Role::kActivation), 400);
  EXPECT_EQ(bytes_of(edges[1], Role::kRecomputedActivation), 0);
  expect_nothing_unattributed(run);
}

struct ScaledExp : autograd::Function<ScaledExp> {
  static at::Tensor forward(autograd::AutogradContext* context, const at::Tensor& x, double k) {
    auto y = x.exp();
    context->save_for_backward({y});
    context->saved_data["k"] = k;
    context->saved_data["plain"] = y + 1;  // a tensor that is no SavedVariable
    return y * k;
  }
  static autograd::tensor_list backward(autograd::AutogradContext* context, autograd::tensor_list g) {
    return {g[0] * context->get_saved_variables()[0] * context->saved_data["k"].toDouble(), at::Tensor()};
  }
};

TEST(Autograd, CustomFunctionsAreReadInFull) {
  const auto run = profiled([](Profiler& profiler) {
    auto w = leaf();
    auto step = profiler.step();
    ScaledExp::apply(w, 2.0).sum().backward();
  });
  const MarkBook edge = mark_of(run, 0, Mark::kForwardEdge);
  EXPECT_EQ(edge.saved_bytes, 400);                        // what saved_tensors_hooks would show
  EXPECT_EQ(bytes_of(edge, Role::kActivation), 400 + 400);  // what the node really keeps
}

struct Anything : torch::CustomClassHolder {};

// Keeps what has no hash, before and after what it saves.
struct WithCapsule : autograd::Function<WithCapsule> {
  static at::Tensor forward(autograd::AutogradContext* context, const at::Tensor& x) {
    auto y = x.exp();
    context->save_for_backward({y, x});
    context->saved_data["a"] = c10::IValue::make_capsule(c10::make_intrusive<Anything>());
    context->saved_data["plain"] = std::vector<at::Tensor>{y + 1};
    context->saved_data["z"] = c10::IValue::make_capsule(c10::make_intrusive<Anything>());
    return y * 2;
  }
  static autograd::tensor_list backward(autograd::AutogradContext* context,
                                        autograd::tensor_list g) {
    return {g[0] * context->get_saved_variables()[0] * 2};
  }
};

TEST(Autograd, AFunctionIsReadInFullWhateverElseItKeeps) {
  const auto run = profiled([](Profiler& profiler) {
    auto w = leaf();
    auto step = profiler.step();
    auto y = w;
    for (int i = 0; i < 20; ++i) y = WithCapsule::apply(y * 0.5);
    y.sum().backward();
  });
  const MarkBook edge = mark_of(run, 0, Mark::kForwardEdge);
  // Of each call the input, the result of exp, and the tensor beside them.
  EXPECT_EQ(edge.saved_bytes, 20 * 800);
  EXPECT_EQ(bytes_of(edge, Role::kActivation), 20 * 1200);
  for (const std::string& note : run.end.notes)
    EXPECT_EQ(note.find("could not be read"), std::string::npos) << note;
  expect_nothing_unattributed(run);
}

// Checkpointing as C++ programs write it: keep the input, run forward again inside backward.
struct Checkpoint : autograd::Function<Checkpoint> {
  static at::Tensor forward(autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& w) {
    context->save_for_backward({x, w});
    return body(x, w);
  }
  static autograd::tensor_list backward(autograd::AutogradContext* context, autograd::tensor_list g) {
    auto saved = context->get_saved_variables();
    auto x = saved[0].detach().requires_grad_(true), w = saved[1].detach().requires_grad_(true);
    torch::AutoGradMode record(true);
    auto y = body(x, w);
    return autograd::grad({y}, {x, w}, {g[0]});
  }
  static at::Tensor body(const at::Tensor& x, const at::Tensor& w) { return (x * w).exp().tanh(); }
};

struct Product : autograd::Function<Product> {
  static at::Tensor forward(autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& w) {
    context->save_for_backward({x, w});
    return x.mm(w);
  }
  static autograd::tensor_list backward(autograd::AutogradContext* context, autograd::tensor_list g) {
    auto saved = context->get_saved_variables();
    auto x = saved[0].detach().requires_grad_(true), w = saved[1].detach().requires_grad_(true);
    torch::AutoGradMode record(true);
    return autograd::grad({x.mm(w)}, {x, w}, {g[0]});
  }
};

TEST(Autograd, RecomputationInBackwardIsAPhaseAndARoleOfItsOwn) {
  const auto run = profiled([](Profiler& profiler) {
    auto w = torch::randn({1000}, torch::requires_grad());
    for (int i = 0; i < 2; ++i) {
      auto step = profiler.step();
      auto x = torch::randn({1000});
      auto y = x * w;
      for (int layer = 0; layer < 3; ++layer) y = Checkpoint::apply(y, w);
      y.sum().backward();
      w.mutable_grad().reset();
    }
  });
  const MarkBook edge = mark_of(run, 1, Mark::kForwardEdge);
  EXPECT_EQ(edge.micro_step, 0);
  EXPECT_EQ(marks_of(run, 1, Mark::kForwardEdge).size(), 1u);  // nested passes are no micro-steps
  // x, and the inputs of the three checkpoints.
  EXPECT_EQ(edge.saved_bytes, 4 * 4000);
  int64_t recomputed = 0;
  for (const TimelinePoint& point : run.steps[1].books.devices[0].timeline) {
    recomputed = std::max(recomputed, point.roles[static_cast<size_t>(Role::kRecomputedActivation)]);
  }
  EXPECT_EQ(recomputed, 2 * 4000);  // the results of exp and tanh, of one layer at a time
  bool phase_seen = false;
  for (const PhaseSpan& span : run.steps[1].books.phases) phase_seen |= span.phase == Phase::kRecompute;
  EXPECT_TRUE(phase_seen);
  expect_nothing_unattributed(run);
}

// The forward passes of later micro-steps run without recording inside the checkpoint: they are no
// update, although a backward pass came before.
TEST(Autograd, CheckpointsOfLaterMicroStepsAreForwardPasses) {
  const auto run = profiled([](Profiler& profiler) {
    auto w = torch::randn({64, 64}, torch::requires_grad());
    torch::optim::Adam optimizer({w}, torch::optim::AdamOptions(1e-3));
    profiler.watch(optimizer);
    for (int i = 0; i < 2; ++i) {
      auto step = profiler.step();
      auto total = torch::zeros({});
      for (int micro = 0; micro < 2; ++micro) {
        auto x = torch::randn({64, 64});
        auto loss = Product::apply(x * w, w).sum();
        loss.backward();
        total = total + loss;  // records, between the backward pass and the update
      }
      optimizer.step();
    }
  });
  std::map<Phase, double> flops;
  std::map<Phase, double> elementwise;
  for (const OperatorRow& row : run.steps[1].books.operators) {
    flops[row.phase] += row.flops;
    elementwise[row.phase] += row.elementwise_flops;
  }
  constexpr double kProduct = 2.0 * 64 * 64 * 64;
  EXPECT_EQ(flops[Phase::kForward], 2 * kProduct);
  EXPECT_EQ(flops[Phase::kRecompute], 2 * kProduct);
  EXPECT_EQ(flops[Phase::kBackward], 2 * 2 * kProduct);
  EXPECT_EQ(flops[Phase::kOptimizer], 0);
  EXPECT_GT(elementwise[Phase::kOptimizer], 64 * 64 * 8);
}

TEST(Autograd, ViewsAndInPlaceOperators) {
  const auto run = profiled([](Profiler& profiler) {
    auto w = torch::randn({4, 100}, torch::requires_grad());
    auto step = profiler.step();
    auto y = w * 1;
    y.select(0, 1).add_(1);
    y.slice(0, 2, 4).mul_(torch::randn({2, 100}));  // saves the factor: 800 bytes
    y.relu_().t().contiguous().view({-1}).sum().backward();
  });
  const MarkBook edge = mark_of(run, 0, Mark::kForwardEdge);
  EXPECT_EQ(edge.saved_bytes, 800 + 4 * 400);  // and relu's result
  expect_nothing_unattributed(run);
}

TEST(Autograd, SeveralThreadsThatTrain) {
  const auto run = profiled([](Profiler& profiler) {
    for (int i = 0; i < 3; ++i) {
      auto step = profiler.step();
      std::vector<std::thread> threads;
      for (int t = 0; t < 4; ++t) {
        threads.emplace_back([] {
          for (int k = 0; k < 20; ++k) {
            auto model = nn::Sequential(nn::Linear(8, 16), nn::ReLU(), nn::Linear(16, 2));
            model->forward(torch::randn({4, 8})).sum().backward();
          }
        });
      }
      for (auto& thread : threads) thread.join();
    }
  });
  for (size_t step = 0; step < 3; ++step) {
    EXPECT_EQ(marks_of(run, step, Mark::kForwardEdge).size(), 80u);
    EXPECT_EQ(marks_of(run, step, Mark::kBackwardEnd).size(), 80u);
  }
}

TEST(Autograd, LossesKeptWithTheirGraphKeepTheirActivationsAlive) {
  const auto run = profiled([](Profiler& profiler) {
    auto w = leaf();
    std::vector<at::Tensor> losses;
    for (int i = 0; i < 4; ++i) {
      auto step = profiler.step();
      losses.push_back(w.exp().sum());
      losses.back().backward({}, /*retain_graph=*/true);
    }
  });
  // Each step leaves 400 bytes of saved result and a loss of 4 behind.
  for (size_t step = 1; step < 4; ++step) {
    const int64_t before = mark_of(run, step - 1, Mark::kEnd).bytes;
    const int64_t now = mark_of(run, step, Mark::kEnd).bytes;
    EXPECT_EQ(now - before, 404);
  }
  expect_nothing_unattributed(run);
}

}  // namespace
}  // namespace tally::test
