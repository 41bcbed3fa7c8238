// SPDX-License-Identifier: Apache-2.0
// Inputs, outputs that the program holds, temporaries, and blocks that nothing explains.
#include "tests/support/event_script.h"

namespace tally::test {
namespace {

TEST(Inputs, WhatTheDataPhaseMadeAndTheForwardPassReadsIsAnInput) {
  EventScript script;
  const StepBooks books = script.step([&] {
    Pointer x = 0;
    script.op("aten::randn", {.mode = kData}, [&] { x = script.alloc(64); });
    script.op("aten::linear", {.mode = kForward, .reads = {x}});
    script.backward({.saved = {x}});  // stronger than an activation
  });
  const MarkBook edge = mark_of(books, Mark::kForwardEdge);
  EXPECT_EQ(bytes_of(edge, Role::kInput), 64);
  EXPECT_EQ(edge.saved_bytes, 64);
  EXPECT_TRUE(block_of(books, 64).saved);
}

TEST(Inputs, ABatchFromBeforeTheStepIsAnInputWhenForwardReadsIt) {
  EventScript script;
  const Pointer batch = script.alloc(64);
  const StepBooks books =
      script.step([&] { script.op("aten::linear", {.mode = kForward, .reads = {batch}}); });
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kStart), Role::kInput), 64);
}

TEST(Inputs, WhatTheForwardPassItselfMadeIsNoInput) {
  EventScript script;
  const StepBooks books = script.step([&] {
    script.op("aten::linear", {.mode = kForward});
    Pointer mask = 0;
    script.op("aten::ones", {.mode = kData}, [&] { mask = script.alloc(64); });
    script.op("aten::mul", {.mode = kForward, .reads = {mask}});
    script.backward({.saved = {mask}});
  });
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kForwardEdge), Role::kInput), 0);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kForwardEdge), Role::kActivation), 64);
}

TEST(Inputs, RawDataThatIsStillAliveWhenForwardBeginsIsAnInput) {
  EventScript script;
  const StepBooks books = script.step([&] {
    Pointer raw = 0;
    Pointer gone = 0;
    script.op("aten::randint", {.mode = kData}, [&] { raw = script.alloc(64); });
    script.op("aten::randint", {.mode = kData}, [&] { gone = script.alloc(32); });
    script.op("aten::to", {.mode = kData, .reads = {raw, gone}});
    script.free(gone);
    script.op("aten::linear", {.mode = kForward});
  });
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kPeak), Role::kInput), 64);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kPeak), Role::kTemporaryForward), 32);
  const StepBooks next = script.step(kNothing);
  EXPECT_EQ(bytes_of(mark_of(next, Mark::kStart), Role::kInput), 64);
}

TEST(Inputs, ATensorThatTheProgramNamesIsAnInput) {
  EventScript script;
  const StepBooks books = script.step([&] {
    const Pointer x = script.alloc(64);
    script.see(EventKind::kInput, x);
    script.see_foreign(EventKind::kInput, 0x10, 500);
  });
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kEnd), Role::kInput), 64);
  EXPECT_EQ(books.devices[0].foreign_bytes, 500);
}

// The batch of `for (auto& x : loader)` lives on until the next one takes its place.
TEST(Inputs, OneThatOutlivesItsStepIsDataStill) {
  EventScript script;
  Pointer x = 0;
  script.step([&] { script.see(EventKind::kInput, x = script.alloc(64)); });
  const StepBooks books = script.step(kNothing);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kEnd), Role::kInput), 64);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kEnd), Role::kUnattributed), 0);
}

TEST(Temporaries, EachPhaseHasItsOwn) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] {
    script.op("aten::linear", {.mode = kForward}, [&] { script.free(script.alloc(1)); });
    script.backward({.leaves = {weight}}, [&] {
      script.op("aten::mm", {.mode = kBackward}, [&] { script.free(script.alloc(20)); });
    });
    script.op("aten::mul", {.mode = kNoGrad, .reads = {weight}},
              [&] { script.free(script.alloc(300)); });
  });
  EXPECT_EQ(books.devices[0].forward_temporary_peak, 1);
  EXPECT_EQ(books.devices[0].backward_temporary_peak, 20);
  EXPECT_EQ(books.devices[0].optimizer_temporary_peak, 300);
}

TEST(Temporaries, WhatARecomputationDropsIsOneOfTheBackwardPass) {
  EventScript script;
  const StepBooks books = script.step([&] {
    script.node("CheckpointBackward", [&] {
      script.edge({});
      script.op("aten::relu", {.mode = kRecompute}, [&] { script.free(script.alloc(20)); });
    });
  });
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kPeak), Role::kTemporaryBackward), 20);
  EXPECT_EQ(mark_of(books, Mark::kPeak).phase, Phase::kRecompute);
}

TEST(HeldOutputs, AliveAtTheEdgeAndNotInTheGraphIsHeldByTheProgram) {
  EventScript script;
  Pointer loss = 0;
  const StepBooks books = script.step([&] {
    script.op("aten::cross_entropy", {.mode = kForward}, [&] { loss = script.alloc(4); });
    script.backward({});
  });
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kForwardEdge), Role::kHeldOutput), 4);
  // Kept from step to step, it stays what it is.
  const StepBooks next = script.step(kNothing);
  EXPECT_EQ(bytes_of(mark_of(next, Mark::kStart), Role::kHeldOutput), 4);
  EXPECT_EQ(bytes_of(mark_of(next, Mark::kEnd), Role::kHeldOutput), 4);
}

TEST(HeldOutputs, AnActivationThatOutlivesItsStepIsHeldByTheProgramAfterwards) {
  EventScript script;
  Pointer hidden = 0;
  const StepBooks books = script.step([&] {
    script.op("aten::linear", {.mode = kForward}, [&] { hidden = script.alloc(100); });
    script.backward({.saved = {hidden}});
  });
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kEnd), Role::kActivation), 100);
  const StepBooks next = script.step(kNothing);
  EXPECT_EQ(bytes_of(mark_of(next, Mark::kStart), Role::kHeldOutput), 100);
  const StepBooks third = script.step([&] { script.backward({.saved = {hidden}}); });
  EXPECT_EQ(bytes_of(mark_of(third, Mark::kEnd), Role::kActivation), 100);
  EXPECT_EQ(mark_of(third, Mark::kForwardEdge).saved_bytes, 100);
}

TEST(HeldOutputs, WithoutRecordingWhatStaysIsHeldByTheProgram) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] {
    script.op("aten::linear", {.mode = kNoGrad, .reads = {weight}}, [&] {
      script.alloc(100);
      script.free(script.alloc(30));
    });
  });
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kEnd), Role::kHeldOutput), 100);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kPeak), Role::kTemporaryForward), 30);
  EXPECT_EQ(books.phases.back().phase, Phase::kForward);
}

TEST(HeldOutputs, DataThatNobodyReadsAndThatStaysIsHeldByTheProgram) {
  EventScript script;
  const StepBooks books =
      script.step([&] { script.op("aten::randn", {.mode = kData}, [&] { script.alloc(64); }); });
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kEnd), Role::kHeldOutput), 64);
}

TEST(Unattributed, AForwardPassWithoutABackwardPassLeavesNoEvidence) {
  EventScript script;
  const StepBooks books = script.step(
      [&] { script.op("aten::linear", {.mode = kForward}, [&] { script.alloc(100); }); });
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kEnd), Role::kUnattributed), 100);
}

TEST(Unattributed, WhatWasMadeBetweenStepsAndIsNeverReadIsUnattributed) {
  EventScript script;
  script.alloc(100);
  const StepBooks books = script.step(kNothing);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kEnd), Role::kUnattributed), 100);
}

TEST(External, ABlockFromBeforeTheSessionThatNothingExplainsIsExternal) {
  EventScript script;
  script.adopt(100);
  const StepBooks books = script.step(kNothing);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kStart), Role::kExternal), 100);
  const StepBooks next = script.step(kNothing);
  EXPECT_EQ(bytes_of(mark_of(next, Mark::kEnd), Role::kExternal), 100);
}

TEST(External, ABlockAdoptedInTheMiddleOfAStepIsInTheBooksFromThenOn) {
  EventScript script;
  const StepBooks books = script.step([&] {
    script.op("aten::linear", {.mode = kForward}, [&] { script.free(script.alloc(1000)); });
    script.adopt(100);
    script.backward({});
  });
  EXPECT_EQ(mark_of(books, Mark::kPeak).bytes, 1000);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kPeak), Role::kExternal), 0);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kStart), Role::kExternal), 0);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kForwardEdge), Role::kExternal), 100);
}

TEST(External, EvidenceTurnsAnAdoptedBlockIntoWhatItIs) {
  EventScript script;
  const Pointer x = script.adopt(100);
  const StepBooks books =
      script.step([&] { script.op("aten::linear", {.mode = kForward, .reads = {x}}); });
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kStart), Role::kInput), 100);
}

// The order of strength: each block gets all evidence up to its own line.
TEST(Strength, AStrongerProofWinsWhateverComesLast) {
  EventScript script;
  const Pointer of = script.parameter(8, "m");
  const uint32_t parameter = script.name_parameter("m", "other");
  const uint32_t buffer = script.name_parameter("m", "buffer", true);
  struct Case {
    Role role;
    Pointer block;
  };
  std::vector<Case> cases;
  const StepBooks books = script.step([&] {
    const auto prove = [&](Pointer block, int strength) {
      if (strength >= 6) script.watch(block, parameter);
      if (strength >= 5) script.watch(block, buffer);
      if (strength >= 4) script.state(block, of, "exp_avg");
      if (strength >= 3) script.gradient(block, of);
      if (strength >= 2) script.see(EventKind::kInput, block);
    };
    const Role roles[] = {Role::kActivation,     Role::kInput,  Role::kGradient,
                          Role::kOptimizerState, Role::kBuffer, Role::kParameter};
    Graph graph;
    for (int strength = 1; strength <= 6; ++strength) {
      script.op("aten::linear", {.mode = kForward}, [&] {
        const Pointer block = script.alloc(int64_t{1} << strength * 4);
        cases.push_back({roles[strength - 1], block});
        graph.saved.push_back(block);
        prove(block, strength);
      });
    }
    script.backward(graph);
  });
  for (const Case& expected : cases) {
    EXPECT_EQ(block_of(books, script.size(expected.block)).role, expected.role)
        << key(expected.role);
  }
}

// ---- threads that train at the same time

TEST(Threads, ABackwardPassSaysNothingOfAForwardPassThatGoesOnElsewhere) {
  EventScript script;
  const Pointer w = script.parameter(1, "net");
  const StepBooks books = script.step([&] {
    Pointer mine = 0;
    Pointer temporary = 0;
    Pointer other = 0;
    script.on_thread(1).scope("net", [&] {
      script.op("aten::mul", {.reads = {w}}, [&] { temporary = script.alloc(10); });
      script.op("aten::mul", {.reads = {w}}, [&] { other = script.alloc(100); });
      script.on_thread(0).op("aten::mul", {.reads = {w}}, [&] { mine = script.alloc(1000); });
      script.backward({.saved = {}, .leaves = {w}});
      script.on_thread(1).free(temporary);
    });
    script.backward({.saved = {other}, .leaves = {w}});
    script.on_thread(0);
  });
  const MarkBook first = mark_of(books, Mark::kForwardEdge, 0);
  EXPECT_EQ(bytes_of(first, Role::kTemporaryForward), 10);
  EXPECT_EQ(bytes_of(first, Role::kActivation), 100);
  EXPECT_EQ(bytes_of(first, Role::kHeldOutput), 1000);
}

TEST(Threads, EachJudgesWhatItMadeItself) {
  EventScript script;
  const Pointer w = script.parameter(1, "net");
  const auto pass = [&](uint16_t thread, int64_t bytes) {
    script.on_thread(thread).op("aten::mul", {.reads = {w}}, [&] { script.alloc(bytes); });
  };
  const auto end = [&](uint16_t thread) {
    script.on_thread(thread).backward({.saved = {}, .leaves = {w}});
  };
  script.step([&] {
    pass(0, 1);
    end(0);
    pass(1, 1);
    end(1);
    script.on_thread(0);
  });
  const StepBooks books = script.step([&] {
    Pointer temporary = 0;
    script.on_thread(1).op("aten::mul", {.reads = {w}}, [&] { temporary = script.alloc(10); });
    pass(0, 100);
    end(0);
    script.on_thread(1).free(temporary);
    pass(1, 1000);
    end(1);
    script.on_thread(0);
  });
  const MarkBook first = mark_of(books, Mark::kForwardEdge, 0);
  EXPECT_EQ(bytes_of(first, Role::kTemporaryForward), 10);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kEnd), Role::kHeldOutput), 1 + 1 + 100 + 1000);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kEnd), Role::kUnattributed), 0);
}

// As DataParallel does it: the threads have no backward pass of their own, and end before it.
TEST(Threads, ThatOnlyRunForwardAreJudgedByThePassOfAnother) {
  EventScript script;
  const Pointer w = script.parameter(1, "net");
  const StepBooks books = script.step([&] {
    script.op("aten::mul", {.reads = {w}});
    Pointer saved[2];
    for (const uint16_t thread : {1, 2}) {
      script.on_thread(thread).op("aten::mul", {.reads = {w}}, [&] {
        saved[thread - 1] = script.alloc(10);
        script.alloc(100);
      });
    }
    script.on_thread(0).backward({.saved = {saved[0], saved[1]}, .leaves = {w}});
  });
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kEnd), Role::kActivation), 20);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kEnd), Role::kHeldOutput), 200);
}

TEST(Threads, AForwardPassElsewhereMakesNoInputOfWhatIsGone) {
  EventScript script;
  const StepBooks books = script.step([&] {
    script.on_thread(1);
    const Pointer raw = script.alloc(10);
    const Pointer kept = script.alloc(100);
    script.op("aten::to", {.mode = kData, .reads = {raw, kept}});
    script.on_thread(0).op("aten::linear", {.mode = kForward});
    script.on_thread(1).free(raw);
    script.op("aten::linear", {.mode = kForward});
    script.on_thread(0);
  });
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kPeak), Role::kTemporaryForward), 10);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kPeak), Role::kInput), 100);
}

// ---- evidence of Python's ways

TEST(Checkpoints, WhatASelectiveOneKeepsIsAnActivationButNotSaved) {
  EventScript script;
  const StepBooks books = script.step([&] {
    Pointer kept = 0;
    Pointer gone = 0;
    script.op("aten::mm", {.mode = kForward}, [&] {
      kept = script.alloc(10);
      gone = script.alloc(100);
    });
    for (const Pointer pointer : {kept, gone}) script.push(EventKind::kKept, pointer);
    script.free(gone);
    script.backward({});
  });
  const MarkBook edge = mark_of(books, Mark::kForwardEdge);
  EXPECT_EQ(bytes_of(edge, Role::kActivation), 10);
  EXPECT_EQ(edge.saved_bytes, 0);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kPeak), Role::kTemporaryForward), 100);
}

TEST(Checkpoints, AnOperatorWhoseResultWasKeptDoesNoWork) {
  EventScript script;
  const StepBooks books = script.step([&] {
    script.backward({}, [&] {
      script.op("aten::mm", {.mode = kRecompute, .flops = 8},
                [&] { script.push(EventKind::kReused); });
      script.op("aten::linear", {.mode = kRecompute, .flops = 2}, [&] {
        script.work_inside("aten::addmm", 16);
        script.push(EventKind::kReused);
        script.push(EventKind::kReused);  // of its second result
      });
      script.op("aten::mm", {.mode = kRecompute, .flops = 32});
    });
  });
  EXPECT_EQ(script.row(books, Phase::kRecompute, "", "aten::mm").flops, 32);
  EXPECT_EQ(script.row(books, Phase::kRecompute, "", "aten::addmm").flops, 0);
  EXPECT_EQ(script.row(books, Phase::kRecompute, "", "aten::linear").flops, 2);
  ASSERT_EQ(books.regions.size(), 1u);
  EXPECT_EQ(books.regions[0].flops, 34);
}

TEST(Autocast, TheCopyOfAParameterSaysWhoseItIs) {
  EventScript script;
  const Pointer w = script.parameter(4, "net");
  const StepBooks books = script.step([&] {
    Pointer copy = 0;
    script.op("aten::linear", {.mode = kForward, .reads = {w}}, [&] {
      script.push(EventKind::kCast, w);
      copy = script.alloc(2);
      script.alloc(8);
    });
    script.backward({.saved = {copy}, .leaves = {w}});
  });
  EXPECT_EQ(script.text(block_of(books, 2).name), "autocast copy of net.weight");
  EXPECT_EQ(script.text(block_of(books, 8).name), "");
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kForwardEdge), Role::kActivation), 2);
}

}  // namespace
}  // namespace tally::test
