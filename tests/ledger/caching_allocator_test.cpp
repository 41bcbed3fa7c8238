// SPDX-License-Identifier: Apache-2.0
// The rules of LibTorch's caching allocator as the ledger replays them. That they are the
// allocator's own is shown by tests/profiler/cuda_programs_test.cpp, against its statistics.
#include "profiler/ledger/caching_allocator.h"

#include <gtest/gtest.h>

namespace tally {
namespace {

constexpr int64_t kMiB = 1 << 20;
constexpr uint64_t kBase = 1 << 30;

TEST(CachingAllocator, ASmallRequestIsRoundedTo512AndTheRestStaysFree) {
  CachingAllocator allocator;
  allocator.add_segment(kBase, 2 * kMiB, false);
  allocator.alloc(kBase, 1000);
  EXPECT_EQ(allocator.active_bytes(), 1024);
  EXPECT_EQ(allocator.largest_free_bytes(), 2 * kMiB - 1024);
  allocator.alloc(kBase + 1024, 1);
  EXPECT_EQ(allocator.active_bytes(), 1024 + 512);
  EXPECT_EQ(allocator.reserved_bytes(), 2 * kMiB);
  EXPECT_TRUE(allocator.is_exact());
}

TEST(CachingAllocator, ALargeBlockIsSplitOnlyWhenMoreThanAMebibyteIsLeft) {
  CachingAllocator allocator;
  allocator.add_segment(kBase, 20 * kMiB, false);
  allocator.alloc(kBase, 19 * kMiB);  // 1 MiB is left: not more
  EXPECT_EQ(allocator.active_bytes(), 20 * kMiB);
  allocator.request_free(kBase);
  allocator.complete_free(kBase);
  allocator.alloc(kBase, 19 * kMiB - 512);
  EXPECT_EQ(allocator.active_bytes(), 19 * kMiB - 512);
  EXPECT_EQ(allocator.largest_free_bytes(), kMiB + 512);
}

TEST(CachingAllocator, ExpandableSegmentsSplitWhatIsAtLeast512) {
  CachingAllocator allocator;
  allocator.add_segment(kBase, 20 * kMiB, true);
  allocator.alloc(kBase, 20 * kMiB - 512);
  EXPECT_EQ(allocator.active_bytes(), 20 * kMiB - 512);
  EXPECT_EQ(allocator.largest_free_bytes(), 512);
}

TEST(CachingAllocator, FreeNeighboursOfASegmentJoin) {
  CachingAllocator allocator;
  allocator.add_segment(kBase, 2 * kMiB, false);
  for (uint64_t i = 0; i < 3; ++i) allocator.alloc(kBase + i * 512, 512);
  for (const uint64_t i : {0, 2, 1}) {
    allocator.request_free(kBase + i * 512);
    allocator.complete_free(kBase + i * 512);
  }
  EXPECT_EQ(allocator.largest_free_bytes(), 2 * kMiB);
  EXPECT_EQ(allocator.active_bytes(), 0);
}

TEST(CachingAllocator, SegmentsSideBySideDoNotJoinUnlessTheyAreMapped) {
  CachingAllocator plain;
  plain.add_segment(kBase, 2 * kMiB, false);
  plain.add_segment(kBase + 2 * kMiB, 2 * kMiB, false);
  EXPECT_EQ(plain.largest_free_bytes(), 2 * kMiB);
  CachingAllocator mapped;
  mapped.add_segment(kBase, 20 * kMiB, true);
  mapped.add_segment(kBase + 20 * kMiB, 20 * kMiB, true);
  EXPECT_EQ(mapped.largest_free_bytes(), 40 * kMiB);
}

TEST(CachingAllocator, APieceIsUnmappedFromTheMiddle) {
  CachingAllocator allocator;
  allocator.add_segment(kBase, 60 * kMiB, true);
  allocator.remove_segment(kBase + 20 * kMiB, 20 * kMiB, true);
  EXPECT_EQ(allocator.reserved_bytes(), 40 * kMiB);
  EXPECT_EQ(allocator.largest_free_bytes(), 20 * kMiB);
  EXPECT_TRUE(allocator.is_exact());
}

TEST(CachingAllocator, AFreeThatWaitsIsActiveAndNotAllocated) {
  CachingAllocator allocator;
  allocator.add_segment(kBase, 2 * kMiB, false);
  allocator.alloc(kBase, 512);
  allocator.request_free(kBase);
  EXPECT_EQ(allocator.allocated_bytes(), 0);
  EXPECT_EQ(allocator.active_bytes(), 512);
  EXPECT_EQ(allocator.largest_free_bytes(), 2 * kMiB - 512);
  allocator.complete_free(kBase);
  EXPECT_EQ(allocator.active_bytes(), 0);
}

TEST(CachingAllocator, APlacedBlockHasTheSizeThatWasTold) {
  CachingAllocator allocator;
  allocator.add_segment(kBase, 20 * kMiB, false);
  allocator.place(kBase + 4 * kMiB, 16 * kMiB);
  allocator.alloc(kBase + 4 * kMiB, 12 * kMiB);  // its adoption: no second block
  EXPECT_EQ(allocator.active_bytes(), 16 * kMiB);
  EXPECT_EQ(allocator.largest_free_bytes(), 4 * kMiB);
  EXPECT_TRUE(allocator.is_exact());
}

TEST(CachingAllocator, RoundsToPartsOfAPowerOfTwo) {
  const uint64_t quarters = 0x2222222222222222;  // 4 parts everywhere
  EXPECT_EQ(CachingAllocator::rounded(1, quarters), 512);
  EXPECT_EQ(CachingAllocator::rounded(1000, quarters), 1024);  // not more than 4 x 512
  EXPECT_EQ(CachingAllocator::rounded(5000, quarters), 5120);  // 4096, 5120, 6144, 7168
  EXPECT_EQ(CachingAllocator::rounded(8192, quarters), 8192);
  EXPECT_EQ(CachingAllocator::rounded(5 * kMiB + 1, quarters), 6 * kMiB);
  EXPECT_EQ(CachingAllocator::rounded(5 * kMiB + 1, 0), 5 * kMiB + 512);
  const uint64_t from_four_mebibytes = 0x0000000000000300;  // 8 parts between 4 and 8 MiB only
  EXPECT_EQ(CachingAllocator::rounded(3 * kMiB + 1, from_four_mebibytes), 3 * kMiB + 512);
  EXPECT_EQ(CachingAllocator::rounded(5 * kMiB + 1, from_four_mebibytes), 5 * kMiB + kMiB / 2);
}

TEST(CachingAllocator, BlocksOfTheLargestSizeThatMayBeSplitAreNot) {
  CachingAllocator allocator;
  allocator.set_rules(64 * kMiB, 0);
  allocator.add_segment(kBase, 100 * kMiB, false);
  allocator.alloc(kBase, 64 * kMiB);
  EXPECT_EQ(allocator.active_bytes(), 100 * kMiB);
}

TEST(CachingAllocator, WhatDoesNotFitItsRulesIsNotExact) {
  CachingAllocator unknown_block;
  unknown_block.alloc(kBase, 512);
  EXPECT_FALSE(unknown_block.is_exact());
  CachingAllocator unknown_free;
  unknown_free.complete_free(kBase);
  EXPECT_FALSE(unknown_free.is_exact());
  CachingAllocator segment_in_use;
  segment_in_use.add_segment(kBase, 2 * kMiB, false);
  segment_in_use.alloc(kBase, 512);
  segment_in_use.remove_segment(kBase, 2 * kMiB, false);
  EXPECT_FALSE(segment_in_use.is_exact());
}

}  // namespace
}  // namespace tally
