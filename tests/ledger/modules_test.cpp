// SPDX-License-Identifier: Apache-2.0
// Whose work and whose bytes: modules, scopes, and the way back from a node to its forward
// operator.
#include "tests/support/event_script.h"

namespace tally::test {
namespace {

TEST(Modules, AnOperatorBelongsToTheModuleWhoseParameterItReads) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const Pointer other = script.parameter(40, "other");
  const StepBooks books = script.step([&] {
    script.op("aten::linear", {.reads = {weight, other}, .flops = 7}, [&] { script.alloc(100); });
  });
  EXPECT_EQ(script.row(books, Phase::kForward, "fc", "aten::linear").flops, 7);
  EXPECT_EQ(script.text(block_of(books, 100).module), "fc");
  EXPECT_EQ(script.text(block_of(books, 100).op), "aten::linear");
}

TEST(Modules, ABufferNamesItsModuleToo) {
  EventScript script;
  const Pointer mean = script.adopt(40);
  script.watch(mean, script.name_parameter("bn", "running_mean", true));
  const StepBooks books = script.step([&] { script.op("aten::add_", {.reads = {mean}}); });
  EXPECT_EQ(script.row(books, Phase::kForward, "bn", "aten::add_").calls, 1u);
}

TEST(Modules, WithoutAParameterTheInnermostScopeIsTheModule) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] {
    script.scope("outer", [&] {
      script.scope("loss", [&] {
        script.op("aten::mul", {}, [&] { script.alloc(100); });
        script.op("aten::linear", {.reads = {weight}});
      });
      script.op("aten::sum", {});
    });
  });
  EXPECT_EQ(script.row(books, Phase::kForward, "loss", "aten::mul").calls, 1u);
  EXPECT_EQ(script.row(books, Phase::kForward, "fc", "aten::linear").calls, 1u);
  EXPECT_EQ(script.row(books, Phase::kForward, "outer", "aten::sum").calls, 1u);
  EXPECT_EQ(script.text(block_of(books, 100).module), "loss");
}

TEST(Modules, WithoutAnyOfThemItIsAfterTheLastModule) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] {
    script.op("aten::randn", {.mode = kData});
    script.op("aten::linear", {.reads = {weight}});
    script.op("aten::gelu", {}, [&] { script.alloc(100); });
  });
  EXPECT_EQ(script.row(books, Phase::kData, "", "aten::randn").calls, 1u);
  EXPECT_EQ(script.row(books, Phase::kForward, "after fc", "aten::gelu").calls, 1u);
  EXPECT_EQ(script.text(block_of(books, 100).module), "after fc");
  // Each step starts anew.
  const StepBooks next = script.step([&] { script.op("aten::gelu", {}); });
  EXPECT_EQ(script.row(next, Phase::kForward, "", "aten::gelu").calls, 1u);
}

TEST(Modules, ANodeBelongsToTheModuleOfItsForwardOperator) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] {
    script.op("aten::linear", {.reads = {weight}, .sequence_number = 11});
    script.op("aten::gelu", {.sequence_number = 12});
    script.node(
        "GeluBackward0",
        [&] {
          script.edge({});
          script.op("aten::gelu_backward", {.mode = kBackward, .elementwise = 3});
        },
        12);
    script.node(
        "AddmmBackward0",
        [&] { script.op("aten::mm", {.mode = kBackward, .flops = 5}, [&] { script.alloc(100); }); },
        11);
    script.node(
        "SumBackward0", [&] { script.op("aten::expand", {.mode = kBackward}); }, 99);
    script.end_backward();
  });
  EXPECT_EQ(
      script.row(books, Phase::kBackward, "after fc", "aten::gelu_backward").elementwise_flops, 3);
  EXPECT_EQ(script.row(books, Phase::kBackward, "fc", "aten::mm").flops, 5);
  EXPECT_EQ(script.row(books, Phase::kBackward, "fc", "AddmmBackward0").calls, 1u);
  EXPECT_EQ(script.row(books, Phase::kBackward, "", "aten::expand").calls, 1u);
  EXPECT_EQ(script.text(block_of(books, 100).module), "fc");
}

TEST(Modules, AGraphFromTheStepBeforeStillKnowsItsModules) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  script.step([&] { script.op("aten::linear", {.reads = {weight}, .sequence_number = 11}); });
  const StepBooks books = script.step([&] {
    script.node(
        "AddmmBackward0", [&] { script.edge({}); }, 11);
  });
  EXPECT_EQ(script.row(books, Phase::kBackward, "fc", "AddmmBackward0").calls, 1u);
}

TEST(Modules, AccumulateGradWorksForTheModuleOfItsParameter) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] {
    script.backward({.leaves = {weight}});
    script.node("AccumulateGrad", [&] {
      const Pointer gradient = script.alloc(400);
      script.gradient(gradient, weight);
    });
  });
  EXPECT_EQ(script.row(books, Phase::kBackward, "fc", "AccumulateGrad").calls, 1u);
}

TEST(Modules, ARecomputationFindsItsModulesByTheirParameters) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] {
    script.op("aten::checkpoint", {.sequence_number = 1});
    script.node(
        "CheckpointBackward",
        [&] {
          script.edge({});
          script.op("aten::linear", {.mode = kRecompute, .reads = {weight}, .flops = 5});
          script.op("aten::gelu", {.mode = kRecompute, .elementwise = 2});
        },
        1);
  });
  EXPECT_EQ(script.row(books, Phase::kRecompute, "fc", "aten::linear").flops, 5);
  EXPECT_EQ(script.row(books, Phase::kRecompute, "after fc", "aten::gelu").elementwise_flops, 2);
}

TEST(Modules, AnUpdateBelongsToTheModuleOfItsParameter) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] {
    script.backward({.leaves = {weight}});
    script.op("aten::add_", {.mode = kNoGrad, .reads = {weight}, .elementwise = 100});
  });
  EXPECT_EQ(script.row(books, Phase::kOptimizer, "fc", "aten::add_").elementwise_flops, 100);
}

TEST(Flops, AreSummedByPhaseModuleAndOperator) {
  EventScript script;
  const Pointer a = script.parameter(400, "a");
  const Pointer b = script.parameter(400, "b");
  const StepBooks books = script.step([&] {
    for (int i = 0; i < 3; ++i) {
      script.op("aten::linear", {.reads = {a}, .flops = 10, .torch_flops = 8, .elementwise = 1});
    }
    script.op("aten::linear", {.reads = {b}, .flops = 100});
    script.op("aten::relu", {.elementwise = 4});
  });
  const OperatorRow row = script.row(books, Phase::kForward, "a", "aten::linear");
  EXPECT_EQ(row.calls, 3u);
  EXPECT_EQ(row.flops, 30);
  EXPECT_EQ(row.torch_flops, 24);
  EXPECT_EQ(row.elementwise_flops, 3);
  EXPECT_EQ(script.row(books, Phase::kForward, "b", "aten::linear").flops, 100);
  EXPECT_EQ(script.row(books, Phase::kForward, "after b", "aten::relu").elementwise_flops, 4);
}

TEST(Flops, AnOperatorInsideAnotherIsARowOfItsOwn) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] {
    script.op("aten::linear", {.reads = {weight}}, [&] { script.work_inside("aten::addmm", 50); });
  });
  EXPECT_EQ(script.row(books, Phase::kForward, "fc", "aten::addmm").flops, 50);
  EXPECT_EQ(script.row(books, Phase::kForward, "fc", "aten::linear").flops, 0);
}

TEST(Flops, WorkOutsideAnyStepIsInNoBooks) {
  EventScript script;
  script.op("aten::linear", {.flops = 10});
  EXPECT_TRUE(script.step(kNothing).operators.empty());
}

TEST(Times, OfAnOuterFrameLeaveOutTheFramesInside) {
  EventScript script;
  script.set_pace(10);
  const StepBooks books = script.step([&] {
    script.node("MulBackward0", [&] {               // enters at t
      script.op("aten::mul", {.mode = kBackward});  // t + 10 .. t + 20
    });                                             // exits at t + 30
  });
  EXPECT_EQ(script.row(books, Phase::kBackward, "", "aten::mul").nanoseconds, 10);
  EXPECT_EQ(script.row(books, Phase::kBackward, "", "MulBackward0").nanoseconds, 20);
}

}  // namespace
}  // namespace tally::test
