// SPDX-License-Identifier: Apache-2.0
// What the ledger keeps of one device: its live bytes, what its allocator says of them, and the
// books of the open step.
#pragma once

#include <cstdint>
#include <optional>

#include "profiler/ledger/caching_allocator.h"
#include "profiler/ledger/device_step.h"

namespace tally {

struct DeviceLedger {
  explicit DeviceLedger(size_t timeline_points) : step(timeline_points) {}

  DeviceIndex index = 0;
  int64_t live_bytes = 0;
  int64_t peak_outside_steps = 0;
  bool over_budget = false;  // in the open step
  int oom_marks = 0;         // of allocations that failed, in the open step
  DeviceStep step;

  // ---- of devices beside the CPU
  int64_t hook_bytes = 0;     // the hook's count of live bytes, at the device's last event
  int64_t hook_reserved = 0;  // the same of bytes in segments
  uint64_t events = 0;        // of the device so far
  CachingAllocator caching;
  // The allocator's own statistics, less the hook's counts at the same event; 0 when all was seen.
  int64_t bytes_correction = 0;
  int64_t reserved_correction = 0;
  bool has_statistics = false;
  int64_t allocated_bytes = 0;  // by the statistics, when the device had had so many events:
  int64_t active_bytes = 0;
  uint64_t statistics_at = 0;
  int64_t outside_bytes = -1;

  bool is_cpu() const { return index == 0; }
  // The allocator's own count at `event`. On the CPU each event carries it.
  int64_t allocator_bytes(int64_t cpu_bytes) const {
    return is_cpu() ? cpu_bytes : hook_bytes + bytes_correction;
  }
  std::optional<CachingBook> caching_book() const {
    if (is_cpu()) return std::nullopt;
    CachingBook book;
    book.reserved_bytes = caching.reserved_bytes();
    book.active_bytes = caching.active_bytes();
    book.allocated_bytes = caching.allocated_bytes();
    book.largest_free_bytes = caching.largest_free_bytes();
    book.is_exact = caching.is_exact();
    book.outside_bytes = outside_bytes;
    if (has_statistics) book.allocator_reserved_bytes = hook_reserved + reserved_correction;
    if (has_statistics && statistics_at == events) {
      book.allocator_active_bytes = active_bytes;
      book.allocator_allocated_bytes = allocated_bytes;
    }
    return book;
  }
};

}  // namespace tally
