// SPDX-License-Identifier: Apache-2.0
// The books of a step: marks, peak, blocks at the peak, counters.
#include <gmock/gmock.h>

#include "tests/support/event_script.h"

namespace tally::test {
namespace {

using testing::ElementsAre;

std::vector<std::string> names(const StepBooks& books) {
  std::vector<std::string> result;
  for (const MarkBook& mark : books.devices[0].marks) result.emplace_back(key(mark.mark));
  return result;
}

TEST(Marks, StandInTheOrderOfTimeThePeakAmongThem) {
  EventScript script;
  const StepBooks books = script.step([&] {
    script.op("aten::linear", {.mode = kForward}, [&] { script.alloc(100); });
    script.backward({}, [&] { script.free(script.alloc(50)); });
  });
  EXPECT_THAT(names(books), ElementsAre("start", "forward_edge", "peak", "backward_end", "end"));
  int64_t before = 0;
  for (const MarkBook& mark : books.devices[0].marks) {
    EXPECT_GE(mark.time_ns, before);
    before = mark.time_ns;
  }
}

TEST(Marks, SayWhichOperatorAndModuleRan) {
  EventScript script;
  const Pointer weight = script.parameter(400, "fc");
  const StepBooks books = script.step([&] {
    script.op("aten::linear", {.reads = {weight}}, [&] { script.free(script.alloc(100)); });
  });
  const MarkBook peak = mark_of(books, Mark::kPeak);
  EXPECT_EQ(script.text(peak.op), "aten::linear");
  EXPECT_EQ(script.text(peak.module), "fc");
  EXPECT_EQ(peak.phase, Phase::kForward);
}

TEST(Marks, TheNextStepStartsWhereTheLastEnded) {
  EventScript script;
  script.parameter(400, "fc");
  const StepBooks first =
      script.step([&] { script.op("aten::randn", {.mode = kData}, [&] { script.alloc(64); }); });
  const StepBooks second = script.step(kNothing);
  const MarkBook end = mark_of(first, Mark::kEnd);
  const MarkBook start = mark_of(second, Mark::kStart);
  EXPECT_EQ(start.bytes, end.bytes);
  EXPECT_EQ(start.roles, end.roles);
  EXPECT_EQ(second.index, first.index + 1);
  EXPECT_GE(second.start_ns, first.start_ns + first.duration_ns);
}

TEST(Marks, ADifferenceToTheAllocatorIsKeptAndShown) {
  StringTable strings;
  TensorTable tensors(strings);
  RunDirectory directory;
  Ledger ledger(strings, tensors, directory, {});
  Event event;
  const auto push = [&](EventKind kind, uint64_t a, uint64_t b, int64_t allocator_bytes) {
    event.kind = kind;
    event.a = a;
    event.b = b;
    event.allocator_bytes = allocator_bytes;
    ++event.sequence;
    ++event.time_ns;
    ledger.apply(event);
  };
  push(EventKind::kStepBegin, 0, 0, 0);
  push(EventKind::kAlloc, 64, 100, 130);  // 30 bytes that no event told of
  push(EventKind::kAlloc, 128, 10, 110);
  push(EventKind::kStepEnd, 0, 0, 110);
  const std::vector<StepBooks> closed = ledger.take_closed_steps();
  ASSERT_EQ(closed.size(), 1u);
  EXPECT_EQ(closed[0].devices[0].largest_difference, 30);
  EXPECT_EQ(mark_of(closed[0], Mark::kEnd).bytes, 110);
  EXPECT_EQ(mark_of(closed[0], Mark::kEnd).allocator_bytes, 110);
}

TEST(Peak, OfEqualPeaksTheFirstCounts) {
  EventScript script;
  const StepBooks books = script.step([&] {
    script.op("aten::first", {.mode = kForward}, [&] { script.free(script.alloc(100)); });
    script.op("aten::second", {.mode = kForward}, [&] { script.free(script.alloc(100)); });
  });
  EXPECT_EQ(script.text(mark_of(books, Mark::kPeak).op), "aten::first");
  ASSERT_EQ(books.devices[0].peak_blocks.size(), 1u);
  EXPECT_EQ(script.text(books.devices[0].peak_blocks[0].op), "aten::first");
}

TEST(Peak, MayBeTheVeryBeginning) {
  EventScript script;
  const Pointer before = script.alloc(100);
  const StepBooks books = script.step([&] { script.free(before); });
  EXPECT_EQ(mark_of(books, Mark::kPeak).bytes, 100);
  EXPECT_EQ(mark_of(books, Mark::kPeak).time_ns, 0);
}

TEST(PeakBlocks, AlikeOnesAreOneRowLargestFirst) {
  EventScript script;
  constexpr int64_t kShape[] = {4, 25};
  const TensorId tensor = script.tensors().intern(TensorTable::hash(1, kShape), 1, kShape);
  const StepBooks books = script.step([&] {
    Graph graph;
    for (int i = 0; i < 3; ++i) {
      script.op("aten::linear", {.mode = kForward}, [&] {
        const Pointer block = script.alloc(100);
        script.see(EventKind::kRead, block, 0, tensor);
        graph.saved.push_back(block);
      });
    }
    script.op("aten::relu", {.mode = kForward}, [&] {
      graph.saved.push_back(script.alloc(100));
      graph.saved.push_back(script.alloc(900));
    });
    script.backward(graph);
  });
  const std::vector<BlockRow>& rows = books.devices[0].peak_blocks;
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].bytes, 900);
  for (const BlockRow& row : rows) {
    EXPECT_EQ(row.role, Role::kActivation);
    EXPECT_TRUE(row.saved);
    if (script.text(row.op) != "aten::linear") continue;
    EXPECT_EQ(row.count, 3u);
    EXPECT_EQ(script.text(row.shape), "[4, 25]");
  }
}

TEST(PeakBlocks, HaveTheAgeOfTheirOldest) {
  EventScript script;
  script.set_pace(100);
  const StepBooks books = script.step([&] {
    script.alloc(64);
    script.alloc(64);  // 100 ns later: the peak
  });
  ASSERT_EQ(books.devices[0].peak_blocks.size(), 1u);
  EXPECT_EQ(books.devices[0].peak_blocks[0].count, 2u);
  EXPECT_EQ(books.devices[0].peak_blocks[0].age_ns, 100);
}

TEST(DetailedSteps, AreTheFirstAndEachNewHighestPeakByMoreThanAHundredth) {
  EventScript script({.detailed_steps = 2});
  const auto step_with_peak = [&](int64_t bytes) {
    return script.step([&] { script.free(script.alloc(bytes)); });
  };
  EXPECT_TRUE(step_with_peak(1000).detailed);
  EXPECT_TRUE(step_with_peak(500).detailed);
  const StepBooks third = step_with_peak(1010);
  EXPECT_FALSE(third.detailed);
  EXPECT_TRUE(third.devices[0].peak_blocks.empty());
  const StepBooks fourth = step_with_peak(1011);
  EXPECT_TRUE(fourth.detailed);
  EXPECT_EQ(fourth.devices[0].peak_blocks.size(), 1u);
  EXPECT_FALSE(step_with_peak(1011).detailed);
}

TEST(Budget, TheFirstCrossingOfAStepSetsAMarkWithTheBlockInIt) {
  EventScript script({.budget_bytes = 100});
  const auto cross = [&] {
    script.op("aten::linear", {.mode = kForward}, [&] {
      const Pointer exactly = script.alloc(100);  // not over it
      const Pointer over = script.alloc(1);
      script.free(over);
      script.free(exactly);
      script.free(script.alloc(200));
    });
  };
  for (int i = 0; i < 2; ++i) {
    const StepBooks books = script.step(cross);
    ASSERT_EQ(count_marks(books, Mark::kOom), 1u);
    EXPECT_EQ(mark_of(books, Mark::kOom).bytes, 101);
    EXPECT_EQ(script.text(mark_of(books, Mark::kOom).op), "aten::linear");
  }
}

TEST(Counters, AllocationsFreesAndEventsOfAStep) {
  EventScript script;
  const Pointer before = script.alloc(8);
  const StepBooks books = script.step([&] {
    script.free(before);
    script.free(script.alloc(8));
    script.alloc(8);
  });
  EXPECT_EQ(books.devices[0].allocations, 2u);
  EXPECT_EQ(books.devices[0].frees, 2u);
  EXPECT_EQ(books.events, 6u);
}

TEST(Counters, AFreeOfNoKnownBlockIsCountedAndChangesNoBytes) {
  EventScript script;
  const StepBooks books = script.step([&] { script.push(EventKind::kFree, 0x123, 50); });
  EXPECT_EQ(books.unmatched_frees, 1u);
  EXPECT_EQ(script.ledger().live_bytes(), 0);
}

TEST(Counters, AnAddressThatIsGivenOutTwiceHadAFreeThatWasNotSeen) {
  EventScript script;
  script.step([&] {
    const Pointer block = script.alloc(100);
    EXPECT_EQ(script.ledger().unmatched_frees(), 0u);
    EXPECT_EQ(script.ledger().live_bytes(), 100);
    script.free(block);
    script.alloc_at(block, 30);  // given out again in order: nothing is missing
    EXPECT_EQ(script.ledger().unmatched_frees(), 0u);
  });
  Event event;
  event.kind = EventKind::kAlloc;
  event.a = 0x10000 + 64;  // the block above
  event.b = 50;
  script.ledger().apply(event);
  EXPECT_EQ(script.ledger().unmatched_frees(), 1u);
  EXPECT_EQ(script.ledger().live_bytes(), 50);
  EXPECT_EQ(script.ledger().live_blocks(), 1u);
}

TEST(Counters, ForeignStoragesAreListedOnceAndInNoSum) {
  EventScript script;
  const StepBooks books = script.step([&] {
    script.see_foreign(EventKind::kRead, 0x10, 100);
    script.see_foreign(EventKind::kRead, 0x10, 100);
    script.see_foreign(EventKind::kParameter, 0x20, 20);
    script.see_foreign(EventKind::kLeaf, 0x30, 3);
  });
  EXPECT_EQ(books.devices[0].foreign_bytes, 123);
  EXPECT_EQ(mark_of(books, Mark::kPeak).bytes, 0);
  EXPECT_EQ(script.step(kNothing).devices[0].foreign_bytes, 0);
}

TEST(Counters, NodesThatCouldNotBeReadAddUp) {
  EventScript script;
  script.step([&] {
    script.push(EventKind::kEdgeBegin, 1);
    script.push(EventKind::kEdgeEnd, 1, 10, 2);
  });
  EXPECT_EQ(script.ledger().unreadable_nodes(), 2u);
}

TEST(Counters, TheHooksOwnTimeStandsInTheStepsEnd) {
  EventScript script;
  script.step_begin();
  script.push(EventKind::kStepEnd, 12345);
  EXPECT_EQ(script.ledger().take_closed_steps().at(0).profiler_ns, 12345);
}

TEST(Steps, ASecondBeginningInsideAStepIsIgnored) {
  EventScript script;
  script.step_begin();
  const int64_t began = script.time_ns();
  script.push(EventKind::kStepBegin);
  script.push(EventKind::kStepEnd);
  script.push(EventKind::kStepEnd);
  const std::vector<StepBooks> closed = script.ledger().take_closed_steps();
  ASSERT_EQ(closed.size(), 1u);
  EXPECT_EQ(closed[0].start_ns, began);
}

TEST(Steps, ThePeakBetweenThemIsKnown) {
  EventScript script;
  script.free(script.alloc(500));
  script.step(kNothing);
  EXPECT_EQ(script.ledger().peak_outside_steps(), 500);
}

TEST(Books, WhatAFailureUnwindsWasNoTemporary) {
  EventScript script;
  script.step_begin();
  Pointer held = 0, later = 0;
  script.op("aten::addmm", {}, [&] { held = script.alloc(100); });
  script.push(EventKind::kOutOfMemory, 5000, 0, 100, 0);
  script.op("aten::relu", {}, [&] { later = script.alloc(30); });
  script.free(held);
  script.free(later);
  script.step_begin();  // ignored: the step is open
  script.push(EventKind::kStepEnd, 0, 0, 0, 0, event_flags::kException);
  const StepBooks books = script.ledger().take_closed_steps().back();
  EXPECT_EQ(mark_of(books, Mark::kOom).roles[static_cast<size_t>(Role::kUnattributed)], 100);
  const MarkBook peak = mark_of(books, Mark::kPeak);
  EXPECT_EQ(peak.bytes, 130);
  EXPECT_EQ(peak.roles[static_cast<size_t>(Role::kTemporaryForward)], 30);
}

// Before any backward pass nothing proves what autograd holds; the rules of the operators say it.
TEST(Books, AFailureInTheForwardPassHasWhatTheRulesSayIsKept) {
  EventScript script;
  script.step_begin();
  Pointer kept = 0, other = 0;
  script.op("aten::relu", {}, [&] { kept = script.alloc(100); });
  const Pointer gone = script.alloc(40);
  for (const Pointer pointer : {kept, gone}) script.see(EventKind::kExpectedSave, pointer);
  script.free(gone);
  script.op("aten::add", {}, [&] {
    other = script.alloc(7);
    script.alloc_at(gone, 40);  // another block, at the address of one that was expected
  });
  script.push(EventKind::kOutOfMemory, 5000, 0, 147, 0);
  const MarkBook oom = mark_of(script.ledger().take_closed_steps().at(0), Mark::kOom);
  EXPECT_EQ(bytes_of(oom, Role::kActivation), 100);
  EXPECT_EQ(bytes_of(oom, Role::kUnattributed), 47);
  script.free(kept);
  script.free(other);
  script.push(EventKind::kStepEnd, 0, 0, 0, 0, event_flags::kException);
  const MarkBook at_end = mark_of(script.ledger().take_closed_steps().back(), Mark::kOom);
  EXPECT_EQ(bytes_of(at_end, Role::kActivation), 100);
}

TEST(Books, AFailedAllocationWritesDownTheOpenStep) {
  EventScript script;
  const Pointer weight = script.parameter(400, "h.0.fc");
  script.step_begin();
  Pointer saved = 0;
  script.op("aten::addmm", {.reads = {weight}}, [&] { saved = script.alloc(100); });
  script.push(EventKind::kOutOfMemory, 5000, 30, 530, 0);
  const std::vector<StepBooks> so_far = script.ledger().take_closed_steps();
  ASSERT_EQ(so_far.size(), 1u);
  EXPECT_TRUE(so_far[0].provisional);
  const MarkBook oom = mark_of(so_far[0], Mark::kOom);
  EXPECT_EQ(oom.wanted_bytes, 5000);
  EXPECT_EQ(oom.limit_bytes, 530);
  EXPECT_EQ(oom.bytes, 500);
  EXPECT_EQ(oom.allocator_bytes, 500);
  EXPECT_EQ(oom.roles[static_cast<size_t>(Role::kParameter)], 400);
  // No backward pass began: that autograd holds it is not proved.
  EXPECT_EQ(oom.roles[static_cast<size_t>(Role::kUnattributed)], 100);
  // The step goes on, and its books tell more.
  script.backward({.saved = {saved}});
  const StepBooks books = script.step_end();
  EXPECT_FALSE(books.provisional);
  EXPECT_EQ(books.index, so_far[0].index);
  EXPECT_EQ(mark_of(books, Mark::kOom).roles[static_cast<size_t>(Role::kActivation)], 100);
}

// A line is told before the block that it makes; of a device's block, after it.
TEST(SourceLines, BelongToTheNextBlockOfTheirThreadOrToOneThatIsNamed) {
  EventScript script;
  const StepBooks books = script.step([&] {
    script.op("aten::randn", {.mode = kData}, [&] {
      script.push(EventKind::kSource, 0, 0, 0, script.id("train.py:1"));
      script.on_thread(1).alloc(10);  // another thread's
      script.on_thread(0).alloc(100);
      script.alloc(1000);  // too small to be asked for
      const Pointer later = script.alloc(10'000);
      script.push(EventKind::kSource, later, 0, 0, script.id("train.py:2"));
      script.push(EventKind::kSource, 0xDEAD, 0, 0, script.id("train.py:3"));  // gone by now
    });
  });
  const auto line = [&](int64_t bytes) { return script.text(block_of(books, bytes).source); };
  EXPECT_EQ(line(10), "");
  EXPECT_EQ(line(100), "train.py:1");
  EXPECT_EQ(line(1000), "");
  EXPECT_EQ(line(10'000), "train.py:2");
}

TEST(SourceLines, ThePeakAndAFailureKnowTheirs) {
  EventScript script(LedgerOptions{.budget_bytes = 500});
  script.step_begin();
  script.op("aten::randn", {.mode = kData}, [&] {
    script.push(EventKind::kSource, 0, 0, 0, script.id("train.py:4"));
    script.alloc(1000);
    script.push(EventKind::kSource, 0, 0, 0, script.id("train.py:5"));
    script.push(EventKind::kOutOfMemory, 2000, 0, 3000);
    script.ledger().take_closed_steps();
    script.free(script.alloc(10));  // the line was the failure's
  });
  const StepBooks books = script.step_end();
  EXPECT_EQ(script.text(mark_of(books, Mark::kOom, 0).source), "train.py:4");
  EXPECT_EQ(script.text(mark_of(books, Mark::kOom, 1).source), "train.py:5");
  EXPECT_EQ(script.text(mark_of(books, Mark::kPeak).source), "");
  const StepBooks next = script.step([&] {
    script.op("aten::randn", {.mode = kData}, [&] {
      script.push(EventKind::kSource, 0, 0, 0, script.id("train.py:6"));
      script.alloc(4000);
    });
  });
  EXPECT_EQ(script.text(mark_of(next, Mark::kPeak).source), "train.py:6");
}

}  // namespace
}  // namespace tally::test
