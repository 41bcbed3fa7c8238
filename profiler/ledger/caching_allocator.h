// SPDX-License-Identifier: Apache-2.0
// LibTorch's caching allocator, replayed from its events: which bytes of its segments are blocks
// and which are free. No event tells where it splits and merges; both follow from its rules:
//
//   A request is rounded up to 512 bytes, or to a part of a power of two where a setting says so.
//   The free block that serves it is split when the rest is at least 512 bytes (small blocks up to
//   1 MiB, and expandable segments) or more than 1 MiB (large blocks; and the block is smaller than
//   the largest that may be split). A block that is free joins its free neighbours of the segment.
//
// One thread, the bookkeeper's. What does not fit the rules is noted in is_exact(), never guessed.
#pragma once

#include <cstdint>
#include <map>
#include <set>

#include "profiler/core/flat_map.h"

namespace tally {

class CachingAllocator {
 public:
  // `max_split_bytes`: larger blocks are not split. `roundings`: 16 times 4 bits, the lowest first:
  // for requests from 1 MiB, 2 MiB, 4 MiB ... on, n says that the interval to the next power of two
  // has 2^n parts (0: rounded to 512).
  void set_rules(uint64_t max_split_bytes, uint64_t roundings);

  void add_segment(uint64_t address, int64_t bytes, bool is_mapped);
  void remove_segment(uint64_t address, int64_t bytes, bool is_mapped);
  // A living block of a known size, as the allocator told it: it follows no rule.
  void place(uint64_t address, int64_t block_bytes);
  void alloc(uint64_t address, int64_t requested_bytes);
  void request_free(uint64_t address);
  void complete_free(uint64_t address);

  int64_t reserved_bytes() const { return reserved_; }
  int64_t active_bytes() const { return active_; }
  int64_t allocated_bytes() const { return allocated_; }
  int64_t largest_free_bytes() const { return free_sizes_.empty() ? 0 : *free_sizes_.rbegin(); }
  bool is_exact() const { return is_exact_; }
  // Bytes that this object holds, about.
  size_t bytes() const;

  static int64_t rounded(int64_t bytes, uint64_t roundings);

 private:
  struct Area {
    int64_t bytes;
    uint64_t segment;  // its address; all mapped ones share one number
  };
  struct Live {
    int64_t bytes;
    uint64_t segment;
    bool is_pending;  // its free was requested
  };
  using Free = std::map<uint64_t, Area>;  // by address
  static constexpr uint64_t kMapped = 1;  // of `segment`; no address is so low

  void add_free(uint64_t address, Area area);
  Area take(Free::iterator area);
  Free::iterator free_around(uint64_t address);

  uint64_t max_split_bytes_ = ~uint64_t{0};
  uint64_t roundings_ = 0;
  FlatMap<Live> live_;
  Free free_;
  std::multiset<int64_t> free_sizes_;
  int64_t reserved_ = 0;
  int64_t active_ = 0;
  int64_t allocated_ = 0;
  bool is_exact_ = true;
};

}  // namespace tally
