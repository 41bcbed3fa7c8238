// SPDX-License-Identifier: Apache-2.0
// The books of one device in the open step: marks, the peak, the timeline. Blocks are booked when
// they are settled, into everything that they lived through.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "profiler/core/flat_map.h"
#include "profiler/ledger/block_table.h"
#include "profiler/ledger/books.h"
#include "profiler/ledger/timeline.h"

namespace tally {

class DeviceStep {
 public:
  explicit DeviceStep(size_t timeline_points) : timeline_(timeline_points) {}

  // `where.time_ns` is since the step began, which was at `step_begin_ns` of the steady clock.
  void begin(int64_t bytes, int64_t allocator_bytes, const Timeline::Where& where,
             uint64_t sequence, int64_t step_begin_ns,
             const std::optional<CachingBook>& caching = {});
  // A block appeared or went; `bytes` is the state after it. Returns the position in the timeline.
  uint32_t memory_event(int64_t bytes, int64_t allocator_bytes, const Timeline::Where& where,
                        uint64_t sequence, const std::optional<CachingBook>& caching = {});
  MarkBook& add_mark(Mark mark, int64_t bytes, int64_t allocator_bytes,
                     const Timeline::Where& where);
  uint32_t next_mark() const { return static_cast<uint32_t>(marks_.size()); }

  // Books a block that died at `death` (Timeline::kForever: it outlives the step).
  void settle(const Block& block, Role role, uint32_t death);
  int64_t peak_bytes() const { return peak_.bytes; }
  size_t bytes() const { return timeline_.bytes() + at_peak_.capacity() * sizeof(AtPeak); }

  // Everything settled: the finished books. Peak blocks only when `detailed`.
  DeviceBooks finish(bool detailed, const TensorTable& tensors);

 private:
  struct CellIndex {
    std::vector<Cell> cells;
    FlatMap<uint32_t> index;
    void add(Role role, StringId module, int64_t bytes);
  };
  struct AtPeak {
    Block block;
    Role role;
  };

  Timeline timeline_;
  std::vector<MarkBook> marks_;
  std::vector<CellIndex> cells_;  // one a mark
  MarkBook peak_;
  int64_t step_begin_ns_ = 0;
  uint64_t peak_sequence_ = 0;
  size_t peak_after_mark_ = 0;    // marks that were set before the peak
  std::vector<AtPeak> at_peak_;   // settled blocks that were alive at the peak so far
  DeviceBooks books_;             // its counters
};

}  // namespace tally
