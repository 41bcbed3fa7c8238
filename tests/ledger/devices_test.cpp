// SPDX-License-Identifier: Apache-2.0
// Devices beside the CPU: events with a device, counts of the hook and of the allocator.
#include <gtest/gtest.h>

#include "profiler/core/event.h"
#include "profiler/ledger/ledger.h"

namespace tally {
namespace {

using namespace event_flags;

// Plays the hook of a card: it counts for itself.
class CardScript {
 public:
  void push(EventKind kind, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0, uint32_t id = 0,
            uint8_t flags = 0) {
    Event event;
    event.kind = kind;
    event.sequence = sequence_++;
    event.time_ns = static_cast<int64_t>(1000 + 10 * sequence_);
    event.a = a;
    event.b = b;
    event.c = c;
    event.id = id;
    event.flags = flags;
    ledger_.apply(event);
  }
  void segment(uint64_t address, int64_t bytes, DeviceIndex device = 1) {
    reserved_[device] += bytes;
    ++events_[device];
    push(EventKind::kSegment, address, static_cast<uint64_t>(bytes),
         static_cast<uint64_t>(reserved_[device]), device);
  }
  void alloc(uint64_t address, int64_t bytes, DeviceIndex device = 1, uint8_t flags = 0) {
    live_[device] += bytes;
    ++events_[device];
    push(EventKind::kAlloc, address, static_cast<uint64_t>(bytes),
         static_cast<uint64_t>(live_[device]), device, flags);
  }
  void free(uint64_t address, int64_t bytes, DeviceIndex device = 1) {
    live_[device] -= bytes;
    events_[device] += 2;
    push(EventKind::kFreeRequested, address, 0, 0, device);
    push(EventKind::kFree, address, static_cast<uint64_t>(bytes),
         static_cast<uint64_t>(live_[device]), device);
  }
  // What the allocator says: the first two as differences from the hook's counts.
  void statistics(int64_t requested, int64_t reserved, int64_t allocated, int64_t active,
                  int64_t used = -1, DeviceIndex device = 1) {
    push(EventKind::kAllocatorCount, static_cast<uint64_t>(requested),
         static_cast<uint64_t>(reserved), static_cast<uint64_t>(used), device);
    push(EventKind::kAllocatorUse, static_cast<uint64_t>(allocated), static_cast<uint64_t>(active),
         events_[device], device);
  }
  void step_begin() { push(EventKind::kStepBegin); }
  StepBooks step_end() {
    push(EventKind::kStepEnd);
    return ledger_.take_closed_steps().back();
  }
  Ledger& ledger() { return ledger_; }

 private:
  StringTable strings_;
  TensorTable tensors_{strings_};
  RunDirectory directory_;
  Ledger ledger_{strings_, tensors_, directory_, {}};
  uint64_t sequence_ = 0;
  int64_t live_[4] = {}, reserved_[4] = {};
  uint64_t events_[4] = {};
};

constexpr uint64_t kBase = uint64_t{1} << 40;
constexpr int64_t kSegment = 2 << 20;

const MarkBook& mark(const StepBooks& books, size_t device, Mark kind) {
  for (const MarkBook& book : books.devices.at(device).marks) {
    if (book.mark == kind) return book;
  }
  throw std::out_of_range("no such mark");
}

TEST(Devices, EachHasMarksOfItsOwn) {
  CardScript card;
  card.segment(kBase, kSegment, 1);
  card.segment(2 * kBase, kSegment, 2);
  card.step_begin();
  card.alloc(kBase, 1000, 1);
  card.alloc(2 * kBase, 3000, 2);
  card.free(kBase, 1000, 1);
  const StepBooks books = card.step_end();
  ASSERT_EQ(books.devices.size(), 3u);
  EXPECT_EQ(books.devices[1].device, 1);
  EXPECT_EQ(mark(books, 1, Mark::kPeak).bytes, 1000);
  EXPECT_EQ(mark(books, 1, Mark::kEnd).bytes, 0);
  EXPECT_EQ(mark(books, 2, Mark::kEnd).bytes, 3000);
  EXPECT_EQ(mark(books, 0, Mark::kEnd).bytes, 0);
  EXPECT_FALSE(mark(books, 0, Mark::kEnd).caching);
}

TEST(Devices, AMarkComparesWithTheAllocatorsStatistics) {
  CardScript card;
  card.step_begin();
  card.segment(kBase, kSegment);
  card.alloc(kBase, 1000);
  card.statistics(0, 0, 1024, 1024, kSegment + 777);
  const StepBooks books = card.step_end();
  const MarkBook& end = mark(books, 1, Mark::kEnd);
  EXPECT_EQ(end.allocator_bytes, 1000);
  EXPECT_EQ(end.caching->allocator_reserved_bytes, kSegment);
  EXPECT_EQ(end.caching->allocator_active_bytes, end.caching->active_bytes);
  EXPECT_EQ(end.caching->allocator_allocated_bytes, end.caching->allocated_bytes);
  EXPECT_EQ(end.caching->outside_bytes, 777);
  EXPECT_EQ(end.rounding_bytes(), 24);
  EXPECT_EQ(end.cached_bytes(), kSegment - 1024);
  EXPECT_EQ(books.devices[1].largest_difference, 0);
}

// Bytes that the allocator counts and no event told: the difference is shown, not hidden.
TEST(Devices, WhatTheHooksMissedIsADifference) {
  CardScript card;
  card.step_begin();
  card.segment(kBase, kSegment);
  card.alloc(kBase, 1000);
  card.statistics(512, 4096, 1536, 1536);
  const StepBooks books = card.step_end();
  const MarkBook& end = mark(books, 1, Mark::kEnd);
  EXPECT_EQ(end.bytes, 1000);
  EXPECT_EQ(end.allocator_bytes, 1512);
  EXPECT_EQ(end.caching->allocator_reserved_bytes, kSegment + 4096);
  EXPECT_EQ(books.devices[1].largest_difference, 512);
}

TEST(Devices, StatisticsOfAnotherMomentAreNotCompared) {
  CardScript card;
  card.step_begin();
  card.segment(kBase, kSegment);
  card.alloc(kBase, 1000);
  card.statistics(0, 0, 1024, 1024);
  card.alloc(kBase + 1024, 1000);
  const StepBooks books = card.step_end();
  EXPECT_EQ(mark(books, 1, Mark::kEnd).caching->allocator_active_bytes, -1);
  EXPECT_EQ(mark(books, 1, Mark::kEnd).allocator_bytes, 2000);
}

TEST(Devices, AFailedAllocationIsAMarkWithItsNumbers) {
  CardScript card;
  card.step_begin();
  card.segment(kBase, kSegment);
  card.alloc(kBase, 1000);
  for (int i = 0; i < 20; ++i) card.push(EventKind::kOutOfMemory, 5000, 100, 9000, 1);
  const StepBooks books = card.step_end();
  const MarkBook& oom = mark(books, 1, Mark::kOom);
  EXPECT_EQ(oom.bytes, 1000);
  EXPECT_EQ(oom.wanted_bytes, 5000);
  EXPECT_EQ(oom.limit_bytes, 9000);
  size_t ooms = 0;
  for (const MarkBook& book : books.devices[1].marks) ooms += book.mark == Mark::kOom;
  EXPECT_EQ(ooms, 8u);
  EXPECT_THROW(mark(books, 0, Mark::kOom), std::out_of_range);
}

TEST(Devices, AWorkspaceStaysOneFromStepToStep) {
  CardScript card;
  card.step_begin();
  card.segment(kBase, kSegment);
  card.alloc(kBase, 1000);
  card.push(EventKind::kWorkspace, kBase);
  card.step_end();
  card.step_begin();
  const StepBooks books = card.step_end();
  const auto workspace = static_cast<size_t>(Role::kWorkspace);
  EXPECT_EQ(mark(books, 1, Mark::kStart).roles[workspace], 1000);
  EXPECT_EQ(mark(books, 1, Mark::kEnd).roles[workspace], 1000);
}

TEST(Devices, WhatACollectiveWorksOnIsCommunicationUnlessItIsMore) {
  CardScript card;
  card.segment(kBase, kSegment);
  card.step_begin();
  card.alloc(kBase, 1000);
  card.alloc(kBase + 1024, 500);
  card.push(EventKind::kCommunication, kBase, 0, 1000);
  card.push(EventKind::kCommunication, kBase + 1024, 0, 500);
  card.push(EventKind::kInput, kBase + 1024, 0, 500);
  const StepBooks books = card.step_end();
  const MarkBook& end = mark(books, 1, Mark::kEnd);
  EXPECT_EQ(end.roles[static_cast<size_t>(Role::kCommunication)], 1000);
  EXPECT_EQ(end.roles[static_cast<size_t>(Role::kInput)], 500);
}

TEST(Devices, AdoptedBlocksKeepTheSizeTheyHave) {
  CardScript card;
  card.step_begin();
  card.segment(kBase, 20 << 20);
  card.push(EventKind::kPlaced, kBase, 20 << 20, 0, 1);
  card.alloc(kBase, (19 << 20) - 512, 1, kAdopted);
  const StepBooks books = card.step_end();
  const MarkBook& end = mark(books, 1, Mark::kEnd);
  EXPECT_EQ(end.caching->active_bytes, 20 << 20);
  EXPECT_EQ(end.roles[static_cast<size_t>(Role::kExternal)], (19 << 20) - 512);
  EXPECT_TRUE(end.caching->is_exact);
}

TEST(Devices, SavedBytesAreOfTheDeviceThatHoldsThem) {
  CardScript card;
  card.segment(kBase, kSegment);
  card.step_begin();
  card.alloc(kBase, 1000);
  card.push(EventKind::kAlloc, 0x10000, 500);
  const auto on_card = uint64_t{1} << 32;
  card.push(EventKind::kNodeEnter, 0, 0, 1, 0, kInGraphTask);
  card.push(EventKind::kEdgeBegin, 1);
  card.push(EventKind::kSaved, kBase, on_card, 1000);
  card.push(EventKind::kSaved, 0x10000, 0, 500);
  card.push(EventKind::kSaved, 3 * kBase, on_card, 70, 0, kForeign);
  card.push(EventKind::kEdgeEnd, 1, 1);
  card.push(EventKind::kNodeExit);
  card.push(EventKind::kBackwardEnd, 1);
  const StepBooks books = card.step_end();
  EXPECT_EQ(mark(books, 1, Mark::kForwardEdge).saved_bytes, 1070);
  EXPECT_EQ(mark(books, 0, Mark::kForwardEdge).saved_bytes, 500);
  EXPECT_EQ(books.devices[1].foreign_bytes, 70);
  EXPECT_EQ(books.devices[0].foreign_bytes, 0);
}

}  // namespace
}  // namespace tally
