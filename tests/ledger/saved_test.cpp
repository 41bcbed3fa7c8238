// SPDX-License-Identifier: Apache-2.0
// What autograd keeps: activations, and the bytes it holds at each forward edge.
#include "tests/support/event_script.h"

namespace tally::test {
namespace {

Pointer forward(EventScript& script, int64_t bytes, std::string_view op = "aten::linear") {
  Pointer output = 0;
  script.op(op, {.mode = kForward}, [&] { output = script.alloc(bytes); });
  return output;
}

TEST(Saved, ABlockInTheGraphIsAnActivationAlsoAtMarksBeforeTheEdge) {
  EventScript script({.budget_bytes = 150});
  const StepBooks books = script.step([&] {
    const Pointer hidden = forward(script, 100);
    const Pointer dropped = forward(script, 60);  // crosses the budget: a mark before the edge
    script.free(dropped);
    script.backward({.saved = {hidden}});
    script.free(hidden);
  });
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kOom), Role::kActivation), 100);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kOom), Role::kTemporaryForward), 60);
  const MarkBook edge = mark_of(books, Mark::kForwardEdge);
  EXPECT_EQ(bytes_of(edge, Role::kActivation), 100);
  EXPECT_EQ(edge.saved_bytes, 100);
  EXPECT_TRUE(block_of(books, 100).saved);
  EXPECT_FALSE(block_of(books, 60).saved);
}

TEST(Saved, AStorageThatIsSavedTwiceCountsOnce) {
  EventScript script;
  const StepBooks books = script.step([&] {
    const Pointer hidden = forward(script, 100);
    const Pointer view_only = forward(script, 40);
    script.backward({.saved = {hidden, view_only, hidden, hidden}});
  });
  EXPECT_EQ(mark_of(books, Mark::kForwardEdge).saved_bytes, 140);
}

TEST(Saved, ParametersAndNumbersAreCountedApart) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] {
    const Pointer hidden = forward(script, 100);
    const Pointer number = forward(script, 8);
    script.node("MulBackward0", [&] {
      script.walk([&] {
        script.see(EventKind::kSaved, hidden);
        script.see(EventKind::kSaved, weight);
        script.see(EventKind::kSaved, number, event_flags::kNumber);
      });
    });
  });
  const MarkBook edge = mark_of(books, Mark::kForwardEdge);
  EXPECT_EQ(edge.saved_bytes, 100);
  EXPECT_EQ(edge.saved_parameter_bytes, 400);
  EXPECT_EQ(edge.saved_number_bytes, 8);
}

TEST(Saved, APlainTensorOfANodeIsAnActivationButNoSavedBytes) {
  EventScript script;
  const StepBooks books = script.step([&] {
    const Pointer hidden = forward(script, 100);
    script.node("MyFunctionBackward", [&] {
      script.walk([&] { script.see(EventKind::kSaved, hidden, event_flags::kPlain); });
    });
  });
  const MarkBook edge = mark_of(books, Mark::kForwardEdge);
  EXPECT_EQ(bytes_of(edge, Role::kActivation), 100);
  EXPECT_EQ(edge.saved_bytes, 0);
  EXPECT_FALSE(block_of(books, 100).saved);
}

TEST(Saved, APlainTensorThatAnotherNodeSavedCounts) {
  for (const bool plain_first : {true, false}) {
    EventScript script;
    const StepBooks books = script.step([&] {
      const Pointer hidden = forward(script, 100);
      script.node("MyFunctionBackward", [&] {
        script.walk([&] {
          script.see(EventKind::kSaved, hidden, plain_first ? event_flags::kPlain : 0);
          script.see(EventKind::kSaved, hidden, plain_first ? 0 : event_flags::kPlain);
        });
      });
    });
    EXPECT_EQ(mark_of(books, Mark::kForwardEdge).saved_bytes, 100);
  }
}

TEST(Saved, ForeignStoragesAreHeldOnceAndInNoRole) {
  EventScript script;
  const StepBooks books = script.step([&] {
    script.node("MulBackward0", [&] {
      script.walk([&] {
        script.see_foreign(EventKind::kSaved, 0x10, 300);
        script.see_foreign(EventKind::kSaved, 0x10, 300);
        script.see_foreign(EventKind::kSaved, 0x20, 7);
      });
    });
  });
  EXPECT_EQ(mark_of(books, Mark::kForwardEdge).saved_bytes, 307);
  EXPECT_EQ(mark_of(books, Mark::kForwardEdge).bytes, 0);
  EXPECT_EQ(books.devices[0].foreign_bytes, 307);
}

TEST(Saved, WhatANestedEdgeFindsMadeAgainIsARecomputedActivation) {
  EventScript script;
  const StepBooks books = script.step([&] {
    const Pointer checkpoint = forward(script, 10);
    script.node("CheckpointBackward", [&] {
      script.edge({.saved = {checkpoint}});
      Pointer again = 0;
      script.op("aten::linear", {.mode = kRecompute}, [&] { again = script.alloc(100); });
      script.node("AddmmBackward0", [&] {
        script.edge({.saved = {again, checkpoint}, .nested = true});
      });
      script.end_backward(/*nested=*/true);
      script.free(again);
    });
    script.end_backward();
  });
  EXPECT_EQ(count_marks(books, Mark::kForwardEdge), 1u);
  EXPECT_EQ(count_marks(books, Mark::kBackwardEnd), 1u);
  EXPECT_EQ(books.micro_steps, 1);
  const MarkBook peak = mark_of(books, Mark::kPeak);
  EXPECT_EQ(bytes_of(peak, Role::kRecomputedActivation), 100);
  EXPECT_EQ(bytes_of(peak, Role::kActivation), 10);
  EXPECT_EQ(peak.phase, Phase::kRecompute);
  EXPECT_EQ(mark_of(books, Mark::kForwardEdge).saved_bytes, 10);
}

TEST(Saved, AGraphThatIsRetainedIsHeldAtBothEdges) {
  EventScript script;
  const StepBooks books = script.step([&] {
    const Pointer hidden = forward(script, 100);
    script.backward({.saved = {hidden}});
    script.backward({.saved = {hidden}});
  });
  EXPECT_EQ(mark_of(books, Mark::kForwardEdge, 0).saved_bytes, 100);
  EXPECT_EQ(mark_of(books, Mark::kForwardEdge, 1).saved_bytes, 100);
  EXPECT_EQ(mark_of(books, Mark::kForwardEdge, 1).micro_step, 1);
}

TEST(Saved, WhatABackwardPassMakesForASecondOneIsAnActivation) {
  EventScript script;
  const StepBooks books = script.step([&] {
    const Pointer hidden = forward(script, 100);
    Pointer gradient = 0;
    // create_graph: nodes run with gradients on, and their operators record.
    script.node(
        "MulBackward0",
        [&] {
          script.edge({.saved = {hidden}});
          script.op("aten::mul", {.mode = kRecompute}, [&] { gradient = script.alloc(50); });
        },
        -1, kBackward | event_flags::kGradMode);
    script.end_backward();
    script.backward({.saved = {gradient, hidden}});
  });
  const MarkBook second = mark_of(books, Mark::kForwardEdge, 1);
  EXPECT_EQ(bytes_of(second, Role::kActivation), 150);
  EXPECT_EQ(bytes_of(second, Role::kRecomputedActivation), 0);
  EXPECT_EQ(second.saved_bytes, 150);
  EXPECT_EQ(script.row(books, Phase::kBackward, "", "aten::mul").calls, 1u);
}

TEST(Saved, ThePeakOfABackwardPassHasWhatItsEdgeHeld) {
  EventScript script({.budget_bytes = 110});
  const StepBooks books = script.step([&] {
    const Pointer hidden = forward(script, 100);
    script.backward({.saved = {hidden}}, [&] {
      script.alloc(20);  // crosses the budget: a mark between the edge and the peak
      script.alloc(5);
    });
  });
  EXPECT_EQ(mark_of(books, Mark::kPeak).bytes, 125);
  EXPECT_EQ(mark_of(books, Mark::kPeak).saved_bytes, 100);
}

TEST(Saved, WhatTheRulesExpectStandsBesideWhatWasFound) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] {
    const Pointer hidden = forward(script, 100);
    script.see(EventKind::kExpectedSave, hidden);
    script.see(EventKind::kExpectedSave, hidden);
    script.see(EventKind::kExpectedSave, weight);
    script.backward({.saved = {hidden}});
    script.backward({.saved = {hidden}});  // no rule ran for this one
  });
  EXPECT_EQ(mark_of(books, Mark::kForwardEdge, 0).expected_saved_bytes, 100);
  EXPECT_EQ(mark_of(books, Mark::kForwardEdge, 1).expected_saved_bytes, -1);
}

TEST(Saved, ExpectationsOfAStepWithoutBackwardDoNotReachTheNext) {
  EventScript script;
  script.step([&] { script.see(EventKind::kExpectedSave, forward(script, 100)); });
  const StepBooks books = script.step([&] { script.backward({}); });
  EXPECT_EQ(mark_of(books, Mark::kForwardEdge).expected_saved_bytes, -1);
}

TEST(Saved, ExpectationsFromBeforeTheStepDoNotReachIt) {
  EventScript script;
  script.see(EventKind::kExpectedSave, forward(script, 100));
  const StepBooks books = script.step([&] { script.backward({}); });
  EXPECT_EQ(mark_of(books, Mark::kForwardEdge).expected_saved_bytes, -1);
}

TEST(Saved, TwoThreadsWalkTheirGraphsAtTheSameTime) {
  EventScript script;
  const StepBooks books = script.step([&] {
    const Pointer shared = forward(script, 1000);
    const Pointer own = forward(script, 100);
    const auto begin = [&](uint16_t thread) {
      script.on_thread(thread).push(EventKind::kNodeEnter, 0, 0, thread, 0, kBackward);
      script.push(EventKind::kEdgeBegin, thread);
    };
    const auto end = [&](uint16_t thread) {
      script.on_thread(thread).push(EventKind::kEdgeEnd, thread, 1);
      script.push(EventKind::kNodeExit);
    };
    begin(0);
    script.see(EventKind::kSaved, shared);
    begin(1);
    script.on_thread(0).see(EventKind::kSaved, shared);
    script.see(EventKind::kSaved, own);
    script.on_thread(1).see(EventKind::kSaved, shared);
    end(1);
    end(0);
    script.on_thread(0);
  });
  EXPECT_EQ(mark_of(books, Mark::kForwardEdge, 0).saved_bytes, 1000);
  EXPECT_EQ(mark_of(books, Mark::kForwardEdge, 1).saved_bytes, 1100);
}

}  // namespace
}  // namespace tally::test
