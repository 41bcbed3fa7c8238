// SPDX-License-Identifier: Apache-2.0
// What proves a parameter or a buffer.
#include "tests/support/event_script.h"

namespace tally::test {
namespace {

TEST(Parameters, AWatchedParameterIsAParameterFromTheStepsBeginning) {
  EventScript script;
  const Pointer weight = script.adopt(400);
  const uint32_t index = script.name_parameter("fc", "weight");
  const StepBooks books = script.step([&] { script.watch(weight, index); });
  for (const Mark mark : {Mark::kStart, Mark::kPeak, Mark::kEnd}) {
    EXPECT_EQ(bytes_of(mark_of(books, mark), Role::kParameter), 400);
    EXPECT_EQ(script.cell(mark_of(books, mark), Role::kParameter, "fc"), 400);
  }
  EXPECT_EQ(script.text(block_of(books, 400).name), "fc.weight");
}

TEST(Parameters, TiedWeightsAreOneBlockAndKeepTheFirstName) {
  EventScript script;
  const Pointer weight = script.parameter(400, "wte");
  script.watch(weight, script.name_parameter("lm_head", "weight"));
  const StepBooks books = script.step(kNothing);
  const MarkBook end = mark_of(books, Mark::kEnd);
  EXPECT_EQ(bytes_of(end, Role::kParameter), 400);
  EXPECT_EQ(script.cell(end, Role::kParameter, "wte"), 400);
  EXPECT_EQ(script.text(block_of(books, 400).name), "wte.weight");
}

TEST(Parameters, ALeafWithoutAWatchIsAnInferredParameter) {
  EventScript script;
  const Pointer weight = script.adopt(400);
  const StepBooks books = script.step([&] {
    script.op("aten::linear", {.reads = {weight}});
    script.backward({.saved = {weight}, .leaves = {weight}});
  });
  const MarkBook edge = mark_of(books, Mark::kForwardEdge);
  EXPECT_EQ(bytes_of(edge, Role::kParameter), 400);
  EXPECT_EQ(edge.saved_bytes, 0);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kStart), Role::kParameter), 400);
  EXPECT_EQ(script.text(block_of(books, 400).name), "");
}

TEST(Parameters, AnInferredParameterIsStillOneInAStepThatNeverReadsIt) {
  EventScript script;
  const Pointer weight = script.adopt(400);
  script.step([&] { script.backward({.leaves = {weight}}); });
  const StepBooks books = script.step(kNothing);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kEnd), Role::kParameter), 400);
}

TEST(Parameters, AWatchAfterInferenceGivesTheNameThenOn) {
  EventScript script;
  const Pointer weight = script.adopt(400);
  script.step([&] { script.backward({.leaves = {weight}}); });
  script.watch(weight, script.name_parameter("fc", "weight"));
  const StepBooks books = script.step(kNothing);
  EXPECT_EQ(script.cell(mark_of(books, Mark::kEnd), Role::kParameter, "fc"), 400);
}

TEST(Parameters, ALeafMadeInTheStepIsNoParameter) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] {
    Pointer x = 0;  // x.requires_grad_()
    script.op("aten::randn", {.mode = kData}, [&] { x = script.alloc(64); });
    script.op("aten::linear", {.reads = {x, weight}});
    script.backward({.saved = {x}, .leaves = {x, weight}});
  });
  const MarkBook edge = mark_of(books, Mark::kForwardEdge);
  EXPECT_EQ(bytes_of(edge, Role::kParameter), 400);
  EXPECT_EQ(bytes_of(edge, Role::kInput), 64);
}

TEST(Parameters, ALeafThatAnEarlierStepMadeAndTheProgramKeptIsNoParameter) {
  EventScript script;
  Pointer kept = 0;
  script.step([&] {
    script.op("aten::randn", {.mode = kForward}, [&] { kept = script.alloc(64); });
    script.backward({});
  });
  const StepBooks books = script.step([&] { script.backward({.leaves = {kept}}); });
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kEnd), Role::kParameter), 0);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kEnd), Role::kHeldOutput), 64);
}

TEST(Parameters, AFrozenParameterThatIsWatchedIsAParameterAndNoInput) {
  EventScript script;
  const Pointer frozen = script.parameter(400, "embed");
  const StepBooks books = script.step([&] {
    script.op("aten::embedding", {.mode = kForward, .reads = {frozen}});
    script.backward({.saved = {frozen}});
  });
  const MarkBook edge = mark_of(books, Mark::kForwardEdge);
  EXPECT_EQ(bytes_of(edge, Role::kParameter), 400);
  EXPECT_EQ(bytes_of(edge, Role::kInput), 0);
  EXPECT_EQ(edge.saved_parameter_bytes, 400);
}

TEST(Parameters, AFrozenParameterThatNobodyWatchesLooksLikeAnInput) {
  EventScript script;
  const Pointer frozen = script.adopt(400);
  const StepBooks books = script.step([&] { script.op("aten::linear", {.reads = {frozen}}); });
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kEnd), Role::kInput), 400);
}

TEST(Parameters, ABufferIsABufferAlsoWhenAutogradKeepsIt) {
  EventScript script;
  const Pointer mean = script.adopt(40);
  script.watch(mean, script.name_parameter("bn", "running_mean", true));
  const StepBooks books = script.step([&] {
    script.op("aten::batch_norm", {.reads = {mean}});
    script.backward({.saved = {mean}});
  });
  const MarkBook edge = mark_of(books, Mark::kForwardEdge);
  EXPECT_EQ(bytes_of(edge, Role::kBuffer), 40);
  EXPECT_EQ(script.cell(edge, Role::kBuffer, "bn"), 40);
  EXPECT_EQ(edge.saved_bytes, 40);  // autograd holds it, and it is no parameter
}

TEST(Parameters, AParameterAtANewAddressIsFoundWhereItIsNow) {
  EventScript script;
  const Pointer before = script.adopt(400);
  const uint32_t index = script.name_parameter("fc", "weight");
  script.step([&] { script.watch(before, index); });
  const StepBooks books = script.step([&] {
    Pointer now = 0;  // parameter.set_data(...)
    script.op("aten::clone", {.mode = kNoGrad, .reads = {before}},
              [&] { now = script.alloc(800); });
    script.free(before);
    script.watch(now, index);
  });
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kEnd), Role::kParameter), 800);
}

// A program that nobody watches builds its model inside the first step.
TEST(Parameters, AModelThatTheStepBuiltIsOneFromItsBeginning) {
  EventScript script({.infer_steps = true});
  Pointer weight = 0, gradient = 0, input = 0;
  const StepBooks first = script.step([&] {
    weight = script.alloc(400);
    input = script.alloc(30);
    script.op("aten::addmm", {.reads = {input, weight}});
    script.node("AccumulateGrad", [&] {
      script.edge({.saved = {input}, .leaves = {weight}});
      gradient = script.alloc(400);
      script.gradient(gradient, weight);
    });
    script.end_backward();
  });
  EXPECT_EQ(bytes_of(mark_of(first, Mark::kEnd), Role::kParameter), 400);
  EXPECT_EQ(bytes_of(mark_of(first, Mark::kEnd), Role::kGradient), 400);
  EXPECT_EQ(bytes_of(mark_of(first, Mark::kForwardEdge), Role::kParameter), 400);
}

// The detached input of a recomputation is a leaf as well; it stays what it was.
TEST(Parameters, TheInputOfARecomputationIsNone) {
  EventScript script({.infer_steps = true});
  const StepBooks books = script.step([&] {
    Pointer input = 0;
    script.op("aten::embedding", {}, [&] { input = script.alloc(100); });
    script.node("Checkpoint", [&] {
      script.edge({.saved = {input}});
      script.op("aten::linear", {.mode = kRecompute, .reads = {input}});
      script.node("AccumulateGrad", [&] {
        script.edge({.leaves = {input}, .nested = true});
        const Pointer gradient = script.alloc(100);
        script.gradient(gradient, input);
        script.free(gradient);
      });
      script.end_backward(/*nested=*/true);
    });
    script.end_backward();
  });
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kEnd), Role::kParameter), 0);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kEnd), Role::kActivation), 100);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kPeak), Role::kGradient), 0);
}

}  // namespace
}  // namespace tally::test
