// SPDX-License-Identifier: Apache-2.0
// Checkpointed regions, and what each unit of a model holds for its backward pass.
#include "tests/support/event_script.h"

namespace tally::test {
namespace {

UnitRow unit_of(const EventScript& script, const StepBooks& books, std::string_view name) {
  for (const UnitRow& row : books.units) {
    if (script.text(row.unit) == name) return row;
  }
  ADD_FAILURE() << "no unit " << name;
  return {};
}

TEST(Regions, AReentrantCheckpointKeepsItsInputAndAvoidsWhatItSavesAgain) {
  EventScript script;
  const Pointer weight = script.parameter(400, "h.0.fc");
  const StepBooks books = script.step([&] {
    Pointer input = 0, again = 0, dropped = 0;
    script.op("aten::embedding", {}, [&] { input = script.alloc(10); });
    script.node("CheckpointBackward", [&] {
      script.edge({.saved = {input}});
      script.op("aten::addmm", {.mode = kRecompute, .reads = {input, weight}, .flops = 70}, [&] {
        again = script.alloc(100);
        dropped = script.alloc(30);
        script.work_inside("aten::mm", 5);
      });
      script.free(dropped);
      script.node("AddmmBackward0", [&] {
        script.edge({.saved = {again, input, again}, .nested = true});
        script.free(script.alloc(1000));  // within the region's backward pass
      });
      script.end_backward(/*nested=*/true);
      script.free(again);
    });
    script.free(script.alloc(5000));  // after it
    script.end_backward();
  });
  ASSERT_EQ(books.regions.size(), 1u);
  const RegionRow& region = books.regions[0];
  EXPECT_EQ(script.text(region.module), "h.0.fc");
  EXPECT_EQ(script.text(region.node), "CheckpointBackward");
  EXPECT_EQ(region.kept_bytes, 10);
  EXPECT_EQ(region.avoided_bytes, 100);
  EXPECT_EQ(region.flops, 75);
  EXPECT_EQ(region.begin_bytes, 410);
  EXPECT_EQ(region.peak_bytes, 400 + 10 + 100 + 1000);
}

TEST(Regions, WrappedNumbersAreNotAvoided) {
  EventScript script;
  const StepBooks books = script.step([&] {
    Pointer again = 0, number = 0;
    script.op("aten::embedding", {});
    script.node("CheckpointBackward", [&] {
      script.edge({});
      script.op("aten::div", {.mode = kRecompute}, [&] {
        again = script.alloc(100);
        number = script.alloc(8);  // the 2 of x / 2
      });
      script.node("DivBackward0", [&] {
        script.walk(
            [&] {
              script.see(EventKind::kSaved, again);
              script.see(EventKind::kSaved, number, event_flags::kNumber);
            },
            /*nested=*/true);
      });
      script.end_backward(/*nested=*/true);
    });
    script.end_backward();
  });
  ASSERT_EQ(books.regions.size(), 1u);
  EXPECT_EQ(books.regions[0].avoided_bytes, 100);
}

TEST(Regions, WithoutABackwardPassOfItsOwnWhatIsLeftOfTheRecomputationWasAvoided) {
  EventScript script;
  const StepBooks books = script.step([&] {
    Pointer input = 0, first = 0, second = 0, dropped = 0;
    script.op("aten::embedding", {}, [&] { input = script.alloc(10); });
    // The first node that asks for its saved tensor runs the forward pass again.
    script.node("MulBackward0", [&] {
      script.edge({.saved = {input}});
      script.op("aten::linear", {.mode = kRecompute, .reads = {input}}, [&] { first = script.alloc(100); });
      script.op("aten::relu", {.mode = kRecompute}, [&] {
        dropped = script.alloc(30);
        second = script.alloc(60);
      });
      script.free(dropped);
      script.op("aten::mul", {.mode = kBackward}, [&] { script.free(script.alloc(7)); });
    });
    script.node("AddmmBackward0", [&] { script.free(first); });
    script.free(second);
    script.end_backward();
  });
  ASSERT_EQ(books.regions.size(), 1u);
  EXPECT_EQ(books.regions[0].avoided_bytes, 160);
  EXPECT_EQ(books.regions[0].kept_bytes, 10);
  EXPECT_EQ(bytes_of(mark_of(books, Mark::kPeak), Role::kRecomputedActivation), 160);
}

// As a checkpoint does it: by an exception, in the middle of an operator, as soon as all is there.
TEST(Regions, ARecomputationThatStopsEarlyDidNotDoItsLastProduct) {
  EventScript script;
  const StepBooks books = script.step([&] {
    Pointer input = 0;
    script.op("aten::embedding", {}, [&] { input = script.alloc(10); });
    script.node("MulBackward0", [&] {
      script.edge({.saved = {input}});
      script.op("aten::addmm", {.mode = kRecompute, .flops = 7},
                [&] { script.free(script.alloc(100)); });
      script.op("aten::linear", {.mode = kRecompute, .failed = true}, [&] {
        script.work_inside("aten::addmm", 30);
        script.work_inside("aten::addmm", 30, true);
      });
    });
    script.node("SecondBackward", [&] {
      script.op("aten::addmm", {.mode = kRecompute, .flops = 500, .failed = true});
    });
    script.end_backward();
  });
  ASSERT_EQ(books.regions.size(), 2u);
  EXPECT_EQ(books.regions[0].flops, 7);
  EXPECT_EQ(books.regions[1].flops, 0);
  EXPECT_EQ(script.row(books, Phase::kRecompute, "", "aten::addmm").flops, 7);
}

TEST(Regions, AnOperatorThatFailsAfterItMadeItsResultDidItsWork) {
  EventScript script;
  const StepBooks books = script.step([&] {
    script.op("aten::embedding", {});
    script.node("MulBackward0", [&] {
      script.edge({});
      script.op("aten::attention", {.mode = kRecompute, .failed = true}, [&] {
        script.work_inside("aten::_attention", 30);
        script.free(script.alloc(100));  // the result; then it is saved, and the exception comes
        script.work_inside("aten::_attention", 30, true);
      });
      script.op("aten::mm", {.mode = kRecompute, .flops = 4, .failed = true},
                [&] { script.free(script.alloc(8)); });
    });
    script.end_backward();
  });
  ASSERT_EQ(books.regions.size(), 1u);
  EXPECT_EQ(books.regions[0].flops, 34);
}

TEST(Regions, WhatASelectiveCheckpointStoresIsKeptByItsRegion) {
  EventScript script;
  const Pointer weight = script.parameter(8, "h.0.fc");
  const Pointer other = script.parameter(8, "h.1.fc");
  const StepBooks books = script.step([&] {
    Pointer input = 0, stored = 0, elsewhere = 0, gone = 0;
    script.op("aten::embedding", {}, [&] { input = script.alloc(10); });
    script.op("aten::mm", {.reads = {input, weight}}, [&] { stored = script.alloc(100); });
    script.see(EventKind::kSaved, stored, event_flags::kPlain);
    script.op("aten::mm", {.reads = {input, weight}}, [&] { gone = script.alloc(40); });
    script.see(EventKind::kSaved, gone, event_flags::kPlain);
    script.free(gone);
    script.op("aten::mm", {.reads = {stored, other}}, [&] { elsewhere = script.alloc(1000); });
    script.see(EventKind::kSaved, elsewhere, event_flags::kPlain);
    script.node("MulBackward0", [&] {
      script.edge({.saved = {input}});
      script.op("aten::mm", {.mode = kRecompute, .reads = {input, weight}});
      script.free(stored);  // its last use is in here
    });
    script.end_backward();
    script.free(elsewhere);
  });
  ASSERT_EQ(books.regions.size(), 1u);
  EXPECT_EQ(script.text(books.regions[0].module), "h.0.fc");
  EXPECT_EQ(books.regions[0].kept_bytes, 10 + 100);
  const MarkBook edge = mark_of(books, Mark::kForwardEdge);
  EXPECT_EQ(bytes_of(edge, Role::kActivation), 10 + 100 + 1000);
  EXPECT_EQ(edge.saved_bytes, 10);  // what saved_tensors_hooks shows
}

TEST(Regions, APartThatDoesNotRecordEndsNoRecomputation) {
  EventScript script;
  const StepBooks books = script.step([&] {
    Pointer hidden = 0, saved = 0;
    script.op("aten::embedding", {});
    script.node("MulBackward0", [&] {
      script.edge({});
      script.op("aten::linear", {.mode = kRecompute}, [&] { hidden = script.alloc(100); });
      script.op("aten::arange", {.mode = kBackward});  // in torch.no_grad()
      script.op("aten::relu", {.mode = kRecompute}, [&] { saved = script.alloc(60); });
      script.free(hidden);
      script.op("aten::mul", {.mode = kBackward});
    });
    script.free(saved);
    script.end_backward();
  });
  ASSERT_EQ(books.regions.size(), 1u);
  EXPECT_EQ(books.regions[0].avoided_bytes, 60);
}

// A reentrant checkpoint inside another: its forward pass does not record, and runs again all the
// same.
TEST(Regions, WhatAModuleDoesInsideANodeIsRecomputation) {
  EventScript script;
  const StepBooks books = script.step([&] {
    script.op("aten::embedding", {});
    script.node("CheckpointFunctionBackward", [&] {
      script.edge({});
      script.push(EventKind::kScopeEnter, 0, 0, 0, script.id("h.0"), event_flags::kForwardPass);
      script.op("aten::linear", {.mode = kRecompute, .flops = 5});
      script.op("aten::linear", {.mode = kBackward, .flops = 7});
      script.push(EventKind::kScopeExit);
      script.op("aten::mm", {.mode = kBackward, .flops = 11});
    });
    script.end_backward();
  });
  ASSERT_EQ(books.regions.size(), 1u);
  EXPECT_EQ(books.regions[0].flops, 12);
  EXPECT_EQ(script.row(books, Phase::kBackward, "", "aten::mm").flops, 11);
}

TEST(Regions, TheModuleIsWhatItsOperatorsHaveInCommon) {
  EventScript script;
  const Pointer attention = script.parameter(8, "h.12.attn.c_attn");
  const Pointer norm = script.parameter(8, "h.12.ln_1");
  const Pointer other = script.parameter(8, "h.1.ln_1");
  const StepBooks books = script.step([&] {
    script.op("aten::embedding", {});
    script.node("One", [&] {
      script.edge({});
      script.op("aten::addmm", {.mode = kRecompute, .reads = {attention}});
      script.op("aten::native_layer_norm", {.mode = kRecompute, .reads = {norm}});
    });
    script.node("Two", [&] {
      script.op("aten::addmm", {.mode = kRecompute, .reads = {attention}});
      script.op("aten::native_layer_norm", {.mode = kRecompute, .reads = {other}});
    });
    script.end_backward();
  });
  ASSERT_EQ(books.regions.size(), 2u);
  EXPECT_EQ(script.text(books.regions[0].module), "h.12");
  EXPECT_EQ(script.text(books.regions[1].module), "h");
}

TEST(Regions, ACheckpointInsideACheckpointIsARegionOfItsOwn) {
  EventScript script;
  const StepBooks books = script.step([&] {
    script.op("aten::embedding", {});
    script.node("Outer", [&] {
      script.edge({});
      script.op("aten::linear", {.mode = kRecompute, .flops = 1});
      script.node("Inner", [&] {
        script.edge({.nested = true});
        script.op("aten::linear", {.mode = kRecompute, .flops = 2});
      });
      script.end_backward(/*nested=*/true);
    });
    script.end_backward();
  });
  ASSERT_EQ(books.regions.size(), 2u);
  EXPECT_EQ(script.text(books.regions[0].node), "Inner");
  EXPECT_EQ(books.regions[0].flops, 2);
  EXPECT_EQ(script.text(books.regions[1].node), "Outer");
  EXPECT_EQ(books.regions[1].flops, 1);
}

TEST(Regions, AUnitHoldsItsActivationsAndHandsOnItsOutput) {
  EventScript script;
  const Pointer first = script.parameter(8, "h.0.fc");
  const Pointer second = script.parameter(8, "h.1.fc");
  const Pointer head = script.parameter(8, "head");
  Pointer inner = 0, output = 0, last = 0;
  const StepBooks books = script.step([&] {
    script.op("aten::addmm", {.reads = {first}, .sequence_number = 1}, [&] { inner = script.alloc(100); });
    script.op("aten::relu", {.reads = {inner}}, [&] { output = script.alloc(40); });
    script.op("aten::addmm", {.reads = {output, second}}, [&] { last = script.alloc(70); });
    script.op("aten::addmm", {.reads = {last, head}});
    script.node("AddmmBackward0", [&] { script.edge({.saved = {inner, output, last, first}}); }, 1);
    script.end_backward();
  });
  const UnitRow h0 = unit_of(script, books, "h.0");
  EXPECT_EQ(h0.activation_bytes, 140);
  EXPECT_EQ(h0.output_bytes, 40);
  EXPECT_GT(h0.forward_end_ns, 0);
  EXPECT_GT(h0.backward_begin_ns, h0.forward_end_ns);
  EXPECT_GE(h0.backward_end_ns, h0.backward_begin_ns);
  const UnitRow h1 = unit_of(script, books, "h.1");
  EXPECT_EQ(h1.activation_bytes, 70);
  EXPECT_EQ(h1.output_bytes, 70);
  EXPECT_EQ(h1.backward_begin_ns, 0);
}

TEST(Regions, EachMicroStepHasItsOwnUnits) {
  EventScript script;
  const Pointer weight = script.parameter(8, "h.0.fc");
  const StepBooks books = script.step([&] {
    for (const int64_t bytes : {100, 60}) {
      Pointer hidden = 0;
      script.op("aten::addmm", {.reads = {weight}}, [&] { hidden = script.alloc(bytes); });
      script.backward({.saved = {hidden}, .leaves = {weight}});
      script.free(hidden);
    }
  });
  ASSERT_EQ(books.units.size(), 2u);
  EXPECT_EQ(books.units[0].micro_step, 0);
  EXPECT_EQ(books.units[0].activation_bytes, 100);
  EXPECT_EQ(books.units[1].micro_step, 1);
  EXPECT_EQ(books.units[1].activation_bytes, 60);
}

TEST(Regions, OnlyDetailedStepsKeepThem) {
  EventScript script({.detailed_steps = 1});
  const Pointer weight = script.parameter(8, "h.0.fc");
  const auto body = [&] {
    script.op("aten::addmm", {.reads = {weight}}, [&] { script.free(script.alloc(100)); });
    script.node("Checkpoint", [&] {
      script.edge({});
      script.op("aten::addmm", {.mode = kRecompute, .reads = {weight}});
    });
    script.end_backward();
  };
  const StepBooks first = script.step(body);
  const StepBooks second = script.step(body);
  EXPECT_EQ(first.regions.size(), 1u);
  EXPECT_FALSE(first.units.empty());
  EXPECT_TRUE(second.regions.empty());
  EXPECT_TRUE(second.units.empty());
}

}  // namespace
}  // namespace tally::test
