// SPDX-License-Identifier: Apache-2.0
// Runs a piece of LibTorch code under the profiler and reads its recording back, with the checks
// that every recording must pass.
#pragma once

#include <gtest/gtest.h>
#include <torch/torch.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>

#include "profiler/recording/reader.h"
#include "tests/support/temporary_folder.h"
#include "torchtally/profiler.h"

namespace tally::test {


inline int64_t bytes_of(const MarkBook& mark, Role role) {
  return mark.roles[static_cast<size_t>(role)];
}

// The marks of a kind in a step, in their order.
inline std::vector<MarkBook> marks_of(const recording::Run& run, size_t step, Mark kind,
                                      size_t device = 0) {
  std::vector<MarkBook> marks;
  for (const MarkBook& mark : run.steps.at(step).books.devices.at(device).marks) {
    if (mark.mark == kind) marks.push_back(mark);
  }
  return marks;
}
inline MarkBook mark_of(const recording::Run& run, size_t step, Mark kind, size_t which = 0,
                        size_t device = 0) {
  return marks_of(run, step, kind, device).at(which);
}

// The first promise, at every mark and every kept moment.
inline void expect_closed_device(const DeviceBooks& device) {
  EXPECT_EQ(device.largest_difference, 0);
  int64_t peak = -1;
  for (const MarkBook& mark : device.marks) {
    SCOPED_TRACE(std::string(key(mark.mark)));
    EXPECT_EQ(sum(mark.roles), mark.bytes);
    EXPECT_EQ(mark.allocator_bytes, mark.bytes);
    if (mark.mark == Mark::kPeak) peak = mark.bytes;
    if (!mark.cells.empty()) {
      int64_t cells = 0;
      for (const Cell& cell : mark.cells) cells += cell.bytes;
      EXPECT_EQ(cells, mark.bytes);
    }
    EXPECT_EQ(mark.caching.has_value(), device.device != 0);
    if (!mark.caching) continue;
    const CachingBook& caching = *mark.caching;
    EXPECT_TRUE(caching.is_exact);
    // A device that is used first in the middle of a step was not asked before.
    const bool is_new = caching.allocator_reserved_bytes < 0;
    EXPECT_TRUE(!is_new || mark.mark == Mark::kStart || mark.mark == Mark::kPeak);
    if (is_new) continue;
    EXPECT_EQ(caching.allocator_reserved_bytes, caching.reserved_bytes);
    EXPECT_GE(mark.rounding_bytes(), 0);
    EXPECT_GE(mark.cached_bytes(), caching.largest_free_bytes);
    // The statistics of the allocator are asked just before a mark; a peak is only known afterwards.
    if (mark.mark == Mark::kPeak) continue;
    EXPECT_EQ(caching.allocator_active_bytes, caching.active_bytes);
    EXPECT_EQ(caching.allocator_allocated_bytes, caching.allocated_bytes);
  }
  for (const TimelinePoint& point : device.timeline) {
    EXPECT_LE(sum(point.roles), peak);
    EXPECT_GE(sum(point.roles), 0);
  }
}

// Of every step.
inline void expect_closed_books(const recording::Run& run) {
  ASSERT_FALSE(run.steps.empty());
  for (const auto& step : run.steps) {
    SCOPED_TRACE("step " + std::to_string(step.books.index));
    EXPECT_EQ(step.books.unmatched_frees, 0u);
    ASSERT_FALSE(step.books.devices.empty());
    for (const DeviceBooks& device : step.books.devices) {
      SCOPED_TRACE(run.info.devices.at(device.device).id);
      expect_closed_device(device);
    }
  }
}

inline void expect_nothing_unattributed(const recording::Run& run) {
  for (const auto& step : run.steps) {
    for (const MarkBook& mark : step.books.devices.at(0).marks) {
      EXPECT_EQ(bytes_of(mark, Role::kUnattributed), 0)
          << "step " << step.books.index << " " << key(mark.mark);
    }
  }
}

// The blocks at the peak, for the message of a failing test.
inline std::string describe(const recording::Run& run, size_t step) {
  std::string text;
  for (const BlockRow& row : run.steps.at(step).books.devices.at(0).peak_blocks) {
    text += std::to_string(row.bytes) + " x" + std::to_string(row.count) + " " +
            std::string(key(row.role)) + " made in " + std::string(key(row.phase)) + " by " +
            run.text(row.op) + " " + run.text(row.shape) + " " + run.text(row.module) + "\n";
  }
  return text;
}

inline recording::Run read_all(const std::string& path) {
  recording::ReadOptions options;
  options.load = recording::Load::kAll;
  return recording::read_run(path, options);
}

// Calls body(profiler) while recording, and returns the recording with its books checked.
inline recording::Run profiled(const std::function<void(Profiler&)>& body, Options options = {}) {
  const TemporaryFolder folder;
  options.recording = folder / "run.tally";
  {
    Profiler profiler(options);
    body(profiler);
  }
  recording::Run run = read_all(options.recording);
  EXPECT_EQ(run.end.ended, "clean");
  EXPECT_EQ(run.end.dropped_events, 0u);
  expect_closed_books(run);
  return run;
}

}  // namespace tally::test
