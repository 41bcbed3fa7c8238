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
inline std::vector<MarkBook> marks_of(const recording::Run& run, size_t step, Mark kind) {
  std::vector<MarkBook> marks;
  for (const MarkBook& mark : run.steps.at(step).books.devices.at(0).marks) {
    if (mark.mark == kind) marks.push_back(mark);
  }
  return marks;
}
inline MarkBook mark_of(const recording::Run& run, size_t step, Mark kind, size_t which = 0) {
  return marks_of(run, step, kind).at(which);
}

// The first promise, at every mark and every kept moment of every step.
inline void expect_closed_books(const recording::Run& run) {
  ASSERT_FALSE(run.steps.empty());
  for (const auto& step : run.steps) {
    SCOPED_TRACE("step " + std::to_string(step.books.index));
    EXPECT_EQ(step.books.unmatched_frees, 0u);
    const DeviceBooks& device = step.books.devices.at(0);
    EXPECT_EQ(device.largest_difference, 0);
    for (const MarkBook& mark : device.marks) {
      SCOPED_TRACE(std::string(key(mark.mark)));
      EXPECT_EQ(sum(mark.roles), mark.bytes);
      EXPECT_EQ(mark.allocator_bytes, mark.bytes);
      if (mark.cells.empty()) continue;
      int64_t cells = 0;
      for (const Cell& cell : mark.cells) cells += cell.bytes;
      EXPECT_EQ(cells, mark.bytes);
    }
    const MarkBook peak = mark_of(run, step.books.index, Mark::kPeak);
    for (const TimelinePoint& point : device.timeline) {
      EXPECT_LE(sum(point.roles), peak.bytes);
      EXPECT_GE(sum(point.roles), 0);
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
