// SPDX-License-Identifier: Apache-2.0
// Phases, micro-steps, threads.
#include <gmock/gmock.h>

#include "tests/support/event_script.h"

namespace tally::test {
namespace {

using testing::ElementsAre;

std::vector<std::string> spans(const StepBooks& books) {
  std::vector<std::string> result;
  for (const PhaseSpan& span : books.phases) {
    result.push_back(std::string(key(span.phase)) + " " + std::to_string(span.micro_step));
  }
  return result;
}

void forward(EventScript& script) { script.op("aten::linear", {.mode = kForward}); }
void update(EventScript& script, Pointer weight) {
  script.op("aten::add_", {.mode = kNoGrad, .reads = {weight}});
}

TEST(Phases, AStepIsDataForwardBackwardOptimizerWithoutGaps) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] {
    script.op("aten::randn", {.mode = kData});
    forward(script);
    script.backward({.leaves = {weight}});
    script.op("aten::item", {.mode = kData});
    update(script, weight);
  });
  EXPECT_THAT(spans(books),
              ElementsAre("data 0", "forward 0", "backward 0", "other 0", "data 0", "optimizer 0"));
  EXPECT_EQ(books.phases.front().begin_ns, 0);
  EXPECT_EQ(books.phases.back().end_ns, books.duration_ns);
  for (size_t i = 1; i < books.phases.size(); ++i) {
    EXPECT_EQ(books.phases[i].begin_ns, books.phases[i - 1].end_ns);
  }
}

TEST(Phases, ARecomputationIsASpanInsideTheBackwardPass) {
  EventScript script;
  const StepBooks books = script.step([&] {
    forward(script);
    script.node("CheckpointBackward", [&] {
      script.edge({});
      script.op("aten::linear", {.mode = kRecompute});
      script.node("AddmmBackward0", [&] { script.edge({.nested = true}); });
      script.end_backward(/*nested=*/true);
      script.op("aten::mm", {.mode = kBackward});
    });
    script.end_backward();
  });
  EXPECT_THAT(spans(books), ElementsAre("data 0", "forward 0", "backward 0", "recompute 0",
                                        "backward 0", "other 0"));
}

TEST(Phases, WithoutABackwardPassReadingAParameterIsAForwardPass) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] { update(script, weight); });
  EXPECT_THAT(spans(books), ElementsAre("data 0", "forward 0"));
}

TEST(Phases, AnEvaluationAfterTheUpdateIsNotPartOfIt) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] {
    forward(script);
    script.backward({.leaves = {weight}});
    update(script, weight);
    forward(script);
  });
  EXPECT_EQ(spans(books).back(), "forward 1");
}

TEST(Phases, AnUpdateIsKnownByTheLeafItReadsAlsoWhenNothingIsWatched) {
  EventScript script;
  const StepBooks books = script.step([&] {
    forward(script);
    script.backward({});
    script.op("aten::add_", {.mode = event_flags::kNeedsGrad | event_flags::kReadsLeaf});
  });
  EXPECT_EQ(spans(books).back(), "optimizer 0");
}

TEST(Phases, AForwardPassInsideACustomFunctionIsAForwardPass) {
  EventScript script;
  const StepBooks books =
      script.step([&] { script.op("aten::mul", {.mode = event_flags::kNeedsGrad}); });
  EXPECT_EQ(spans(books).back(), "forward 0");
}

TEST(Phases, AScopeAroundTheWholeLoopChangesNoPhase) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const auto body = [&] {
    script.op("aten::empty", {.mode = kNoGrad}, [&] { script.free(script.alloc(8)); });
    forward(script);
    script.backward({.leaves = {weight}});
    update(script, weight);
  };
  script.scope("epoch", [&] {
    for (int step = 0; step < 3; ++step) {
      const StepBooks books = script.step(body);
      EXPECT_THAT(spans(books),
                  ElementsAre("data 0", "forward 0", "backward 0", "other 0", "optimizer 0"));
    }
  });
}

TEST(MicroSteps, EachBackwardPassIsOneAndItsMarksSayWhich) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] {
    for (int i = 0; i < 3; ++i) {
      Pointer hidden = 0;
      script.op("aten::linear", {.mode = kForward}, [&] { hidden = script.alloc(100 + i); });
      script.backward({.saved = {hidden}, .leaves = {weight}}, [&] { script.free(hidden); });
    }
    update(script, weight);
  });
  EXPECT_EQ(books.micro_steps, 3);
  for (uint16_t i = 0; i < 3; ++i) {
    EXPECT_EQ(mark_of(books, Mark::kForwardEdge, i).micro_step, i);
    EXPECT_EQ(mark_of(books, Mark::kForwardEdge, i).saved_bytes, 100 + i);
    EXPECT_EQ(mark_of(books, Mark::kBackwardEnd, i).micro_step, i);
  }
  EXPECT_EQ(mark_of(books, Mark::kPeak).micro_step, 2);
  EXPECT_THAT(spans(books),
              ElementsAre("data 0", "forward 0", "backward 0", "other 0", "forward 1", "backward 1",
                          "other 1", "forward 2", "backward 2", "other 2", "optimizer 2"));
}

TEST(MicroSteps, OneThatIsAnnouncedBeginsWithItsData) {
  EventScript script;
  const StepBooks books = script.step([&] {
    forward(script);
    script.backward({});
    script.micro_step();
    script.op("aten::randn", {.mode = kData});
    forward(script);
    script.backward({});
  });
  EXPECT_EQ(books.micro_steps, 2);
  EXPECT_THAT(spans(books), ElementsAre("data 0", "forward 0", "backward 0", "other 0", "data 1",
                                        "forward 1", "backward 1", "other 1"));
}

TEST(MicroSteps, ABackwardPassOutsideAnyStepIsNoneOfThem) {
  EventScript script;
  script.op("aten::linear", {.mode = kForward});
  script.backward({});
  const StepBooks books = script.step(kNothing);
  EXPECT_EQ(books.micro_steps, 0);
  EXPECT_EQ(count_marks(books, Mark::kForwardEdge), 0u);
}

TEST(Tokens, TheLargestEmbeddingOfEachMicroStepCounts) {
  EventScript script;
  const StepBooks books = script.step([&] {
    for (int i = 0; i < 2; ++i) {
      script.op("aten::embedding", {.sequence_number = 2 * i, .indices = 1024});
      script.op("aten::embedding", {.sequence_number = 2 * i + 1, .indices = 256});
      script.backward({});
    }
  });
  EXPECT_EQ(books.tokens, 2048);
}

TEST(Tokens, AStepWithoutABackwardPassCountsItsOwnToo) {
  EventScript script;
  const auto evaluate = [&] {
    script.op("aten::embedding", {.sequence_number = 1, .indices = 64});
  };
  EXPECT_EQ(script.step(evaluate).tokens, 64);
  EXPECT_EQ(script.step(kNothing).tokens, 0);
}

TEST(Threads, EachHasItsOwnOperatorsAndPhase) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] {
    forward(script);
    script.on_thread(1).push(EventKind::kOpEnter, 0, 0, 0, script.id("aten::randn"), kData);
    script.on_thread(0).push(EventKind::kOpEnter, 0, 0, 0, script.id("aten::linear"), kForward);
    const Pointer data = script.on_thread(1).alloc(32);
    const Pointer hidden = script.on_thread(0).alloc(100);
    script.on_thread(1).push(EventKind::kOpExit);
    script.on_thread(0).push(EventKind::kOpExit);
    script.backward({.saved = {hidden}, .leaves = {weight}});
    script.on_thread(1).free(data);
    script.on_thread(0);
  });
  EXPECT_EQ(script.row(books, Phase::kData, "", "aten::randn").calls, 1u);
  EXPECT_EQ(script.row(books, Phase::kForward, "", "aten::linear").calls, 2u);
  EXPECT_EQ(script.text(block_of(books, 32).op), "aten::randn");
  EXPECT_EQ(block_of(books, 32).phase, Phase::kData);
  EXPECT_EQ(script.text(block_of(books, 100).op), "aten::linear");
  EXPECT_EQ(block_of(books, 100).phase, Phase::kForward);
}

TEST(Threads, TheSpansAreThoseOfTheThreadThatSteps) {
  EventScript script;
  const StepBooks books = script.step([&] {
    script.on_thread(3).op("aten::linear", {.mode = kForward});
    script.on_thread(0);
  });
  EXPECT_THAT(spans(books), ElementsAre("data 0"));
}

TEST(Threads, ABlockMayDieOnAnotherThreadThanItWasBornOn) {
  EventScript script;
  const StepBooks books = script.step([&] {
    const Pointer block = script.alloc(100);
    script.on_thread(1).free(block);
    script.on_thread(0);
  });
  EXPECT_EQ(mark_of(books, Mark::kEnd).bytes, 0);
  EXPECT_EQ(books.unmatched_frees, 0u);
}

TEST(Threads, AStepMayEndOnAnotherThread) {
  EventScript script;
  script.on_thread(2).step_begin();
  script.on_thread(5);
  EXPECT_EQ(script.step_end().index, 0u);
}

TEST(Frames, AnEndWithoutABeginningIsIgnored) {
  EventScript script;
  script.push(EventKind::kOpExit);
  const StepBooks books = script.step([&] {
    script.push(EventKind::kNodeExit);
    script.push(EventKind::kScopeExit);
    forward(script);
  });
  EXPECT_EQ(script.row(books, Phase::kForward, "", "aten::linear").calls, 1u);
}

TEST(Frames, AnOperatorThatIsOpenAcrossAStepsEndIsCountedWhereItEnds) {
  EventScript script;
  script.step_begin();
  script.push(EventKind::kOpEnter, 12, 0, 0, script.id("aten::linear"), kForward);
  EXPECT_TRUE(script.step_end().operators.empty());
  const StepBooks books = script.step([&] { script.push(EventKind::kOpExit); });
  EXPECT_EQ(script.row(books, Phase::kForward, "", "aten::linear").flops, 12);
}

TEST(Frames, AScopeAndAnOperatorMayOverlapInTime) {
  EventScript script;
  const StepBooks books = script.step([&] {
    script.push(EventKind::kScopeEnter, 0, 0, 0, script.id("loss"));
    script.push(EventKind::kOpEnter, 5, 0, 0, script.id("aten::mul"), kForward);
    script.push(EventKind::kScopeExit);  // the wrong way round: closes what is innermost
    script.push(EventKind::kOpExit);
    forward(script);
  });
  EXPECT_EQ(script.row(books, Phase::kForward, "loss", "aten::mul").flops, 5);
  EXPECT_EQ(script.row(books, Phase::kForward, "", "aten::linear").calls, 1u);
}

}  // namespace
}  // namespace tally::test
