// SPDX-License-Identifier: Apache-2.0
// Gradients and the optimizer's state.
#include "tests/support/event_script.h"

namespace tally::test {
namespace {

// One backward pass that gives `weight` a gradient of its own size; returns its block.
Pointer make_gradient(EventScript& script, Pointer weight) {
  Pointer gradient = 0;
  script.backward({.leaves = {weight}}, [&] {
    script.node("AccumulateGrad", [&] {
      gradient = script.alloc(script.size(weight));
      script.gradient(gradient, weight);
    });
  });
  return gradient;
}

TEST(Gradients, WhatAParameterHoldsAsItsGradIsAGradientInItsModule) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] { make_gradient(script, weight); });
  const MarkBook end = mark_of(books, Mark::kEnd);
  EXPECT_EQ(bytes_of(end, Role::kGradient), 400);
  EXPECT_EQ(script.cell(end, Role::kGradient, "fc"), 400);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kForwardEdge), Role::kGradient), 0);
}

TEST(Gradients, OneThatIsZeroedInPlaceIsCarriedIntoTheNextStep) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  script.step([&] { make_gradient(script, weight); });
  const StepBooks books = script.step(kNothing);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kStart), Role::kGradient), 400);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kEnd), Role::kGradient), 400);
}

TEST(Gradients, TheGradOfWhatIsNoParameterIsATemporary) {
  EventScript script;
  const StepBooks books = script.step([&] {
    Pointer x = 0;
    script.op("aten::randn", {.mode = kData}, [&] { x = script.alloc(64); });
    script.backward({.leaves = {x}}, [&] { script.gradient(script.alloc(64), x); });
  });
  const MarkBook end = mark_of(books, Mark::kEnd);
  EXPECT_EQ(bytes_of(end, Role::kGradient), 0);
  EXPECT_EQ(bytes_of(end, Role::kTemporaryBackward), 64);
}

TEST(Gradients, TheRootGradientIsATemporaryOfTheBackwardPass) {
  EventScript script;
  const StepBooks books = script.step([&] {
    script.op("aten::mse_loss", {.mode = kForward});
    Pointer root = 0;  // ones_like(loss), made before the pass begins
    script.op("aten::ones_like", {.mode = kNoGrad}, [&] { root = script.alloc(4); });
    script.node("MseLossBackward0", [&] {
      script.see(EventKind::kGradientFlow, root);
      script.edge({});
    });
    script.end_backward();
    script.free(root);
  });
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kForwardEdge), Role::kTemporaryBackward), 4);
}

TEST(OptimizerState, WhatTheOptimizerShowsIsItsState) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] {
    const Pointer gradient = make_gradient(script, weight);
    Pointer momentum = 0;
    script.op("aten::zeros_like", {.mode = kNoGrad, .reads = {weight, gradient}},
              [&] { momentum = script.alloc(400); });
    script.state(momentum, weight, "exp_avg");
  });
  const MarkBook end = mark_of(books, Mark::kEnd);
  EXPECT_EQ(bytes_of(end, Role::kOptimizerState), 400);
  EXPECT_EQ(script.cell(end, Role::kOptimizerState, "fc"), 400);
  const StepBooks next = script.step(kNothing);
  EXPECT_EQ(bytes_of(mark_of(next, Mark::kStart), Role::kOptimizerState), 400);
}

TEST(OptimizerState, SurvivorsOfTheUpdateAreStateWhenNoOptimizerIsWatched) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] {
    const Pointer gradient = make_gradient(script, weight);
    script.op("aten::zeros_like", {.mode = kNoGrad, .reads = {weight, gradient}},
              [&] { script.alloc(400); });
  });
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kEnd), Role::kOptimizerState), 400);
  const StepBooks next = script.step(kNothing);
  EXPECT_EQ(bytes_of(mark_of(next, Mark::kEnd), Role::kOptimizerState), 400);
}

TEST(OptimizerState, ASurvivorBesideWatchedStateIsUnattributed) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] {
    make_gradient(script, weight);
    script.op("aten::mul", {.mode = kNoGrad, .reads = {weight}}, [&] {
      script.state(script.alloc(400), weight, "momentum_buffer");
      script.alloc(16);
    });
  });
  const MarkBook end = mark_of(books, Mark::kEnd);
  EXPECT_EQ(bytes_of(end, Role::kOptimizerState), 400);
  EXPECT_EQ(bytes_of(end, Role::kUnattributed), 16);
}

TEST(OptimizerState, WhatTheUpdateMakesAndDropsIsATemporaryOfIt) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] {
    make_gradient(script, weight);
    script.op("aten::addcdiv", {.mode = kNoGrad, .reads = {weight}},
              [&] { script.free(script.alloc(1000)); });
  });
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kPeak), Role::kTemporaryOptimizer), 1000);
  EXPECT_EQ(books.devices[0].optimizer_temporary_peak, 1000);
  EXPECT_EQ(mark_of(books, Mark::kPeak).phase, Phase::kOptimizer);
  EXPECT_EQ(script.text(mark_of(books, Mark::kPeak).op), "aten::addcdiv");
  EXPECT_EQ(script.text(mark_of(books, Mark::kPeak).module), "fc");
}

// What an update has made when it fails is no state: that is there since an earlier update.
TEST(OptimizerState, AnUpdateThatFailsLeavesTemporariesOfIt) {
  for (const bool is_first : {true, false}) {
    EventScript script;
    const Pointer weight = script.parameter(400, "fc");
    const auto train = [&](const Body& update) {
      const Pointer gradient = script.alloc(400);
      script.backward({.leaves = {weight}}, [&] { script.gradient(gradient, weight); });
      update();
    };
    Pointer state = 0;
    if (!is_first) {
      script.step([&] {
        train([&] { script.op("aten::zeros_like", {.mode = kNoGrad, .reads = {weight}}, [&] { state = script.alloc(800); }); });
        script.state(state, weight, "exp_avg");
      });
    }
    script.step_begin();
    train([&] {
      script.op("aten::_foreach_sqrt", {.mode = kNoGrad, .reads = {weight}}, [&] { script.alloc(300); });
      script.push(EventKind::kOutOfMemory, 5000, 0, 2000, 0);
    });
    // The exception keeps it alive.
    script.push(EventKind::kStepEnd, 0, 0, 0, 0, event_flags::kException);
    const MarkBook oom = mark_of(script.ledger().take_closed_steps().back(), Mark::kOom);
    EXPECT_EQ(bytes_of(oom, Role::kTemporaryOptimizer), is_first ? 0 : 300);
    EXPECT_EQ(bytes_of(oom, Role::kOptimizerState), is_first ? 300 : 800);
  }
}

TEST(OptimizerState, AnExceptionInsideBackwardDoesNotHideTheUpdateAfterIt) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] {
    // Frames close while the exception passes; nothing says that the pass ended.
    script.node("MulBackward0", [&] { script.edge({.leaves = {weight}}); });
    script.op("aten::zeros_like", {.mode = kNoGrad, .reads = {weight}}, [&] { script.alloc(400); });
    script.op("aten::add_", {.mode = kNoGrad, .reads = {weight}},
              [&] { script.free(script.alloc(8)); });
  });
  EXPECT_EQ(count_marks(books, Mark::kBackwardEnd), 0u);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kEnd), Role::kOptimizerState), 400);
  EXPECT_EQ(books.devices[0].optimizer_temporary_peak, 8);
  EXPECT_EQ(books.phases.back().phase, Phase::kOptimizer);
}

}  // namespace
}  // namespace tally::test
