// SPDX-License-Identifier: Apache-2.0
// The live bytes of a step over time, thinned while it is written, without losing an extreme.
//
// Each memory event is a position 1, 2, 3, ... (0 is the step's start). Which positions are kept
// depends on totals alone, which are known at once; what a block was is known only when it is
// settled, often long after. So a kept point holds differences by role, and a settled block adds
// its bytes at the first kept point at or after its birth and takes them away at its death.
// Dropping a point hands its differences to the next one: sums at the kept points stay exact.
//
// Positions are cut into stretches of equal length, which doubles whenever the timeline is full; of
// each the highest and the lowest moment stay. So the resolution is the same over the whole step.
#pragma once

#include <cstdint>
#include <vector>

#include "profiler/ledger/books.h"

namespace tally {

class Timeline {
 public:
  explicit Timeline(size_t capacity = 4096) : capacity_(capacity), thin_at_(2 * capacity) {}

  struct Where {
    int64_t time_ns = 0;
    Phase phase = Phase::kOther;
    uint16_t micro_step = 0;
    StringId module;
    StringId op;
    StringId source;  // of the block that appears, where known; in no point
    // Of a caching allocator, else 0.
    int64_t reserved_bytes = 0;
    int64_t active_bytes = 0;
    int64_t largest_free_bytes = 0;
  };
  // The state after the next memory event. Returns its position.
  uint32_t add(int64_t total, const Where& where);
  // The newest point stays, whatever is thinned away.
  void protect_last() { points_.back().is_protected = true; }
  // `death` is kForever for a block that outlives the step.
  static constexpr uint32_t kForever = ~uint32_t{0};
  void settle(Role role, int64_t bytes, uint32_t birth, uint32_t death);
  // The points with bytes by role, in the order of time. The timeline is empty afterwards.
  std::vector<TimelinePoint> finish();
  size_t bytes() const { return points_.capacity() * sizeof(Point); }

 private:
  struct Point {
    uint32_t position = 0;
    bool is_protected = false;
    int64_t total = 0;
    Where where;
    RoleBytes difference{};
  };
  size_t at_or_after(uint32_t position) const;
  void close_last_but_newest();
  void thin();

  size_t capacity_;
  size_t thin_at_;               // number of points that starts a thinning
  std::vector<Point> points_;
  uint32_t next_position_ = 0;
  uint32_t stretch_ = 2;         // positions in a stretch
  size_t open_ = 0;              // the first point of the stretch that is being written
};

}  // namespace tally
