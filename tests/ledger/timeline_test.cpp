// SPDX-License-Identifier: Apache-2.0
// The timeline under heavy thinning: what is kept is exact, and the extremes are kept.
#include "profiler/ledger/timeline.h"

#include <algorithm>
#include <map>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/event_script.h"

namespace tally::test {
namespace {

Timeline::Where at(int64_t time_ns, Phase phase = Phase::kOther) {
  Timeline::Where where;
  where.time_ns = time_ns;
  where.phase = phase;
  return where;
}

TEST(Timeline, KeepsAFewPointsWhole) {
  Timeline timeline(64);
  const uint32_t start = timeline.add(0, at(0));
  const uint32_t birth = timeline.add(100, at(1));
  const uint32_t death = timeline.add(0, at(2, Phase::kForward));
  EXPECT_LT(start, birth);
  timeline.settle(Role::kActivation, 100, birth, death);
  const std::vector<TimelinePoint> points = timeline.finish();
  ASSERT_EQ(points.size(), 3u);
  EXPECT_EQ(sum(points[0].roles), 0);
  EXPECT_EQ(points[1].roles[static_cast<size_t>(Role::kActivation)], 100);
  EXPECT_EQ(sum(points[2].roles), 0);
  EXPECT_EQ(points[2].phase, Phase::kForward);
}

TEST(Timeline, StartsAgainAfterItWasTaken) {
  Timeline timeline(64);
  timeline.settle(Role::kInput, 5, timeline.add(5, {}), Timeline::kForever);
  timeline.finish();
  timeline.add(0, {});
  EXPECT_EQ(sum(timeline.finish().at(0).roles), 0);
}

TEST(Timeline, ABlockBetweenTwoKeptPointsShowsInNeither) {
  Timeline timeline(4);
  std::map<int64_t, int64_t> truth;
  for (int64_t time = 0; time < 1000; ++time) {
    const uint32_t birth = timeline.add(1, at(2 * time));
    const uint32_t death = timeline.add(0, at(2 * time + 1));
    truth[2 * time] = 1;
    truth[2 * time + 1] = 0;
    timeline.settle(Role::kTemporaryForward, 1, birth, death);
  }
  for (const TimelinePoint& point : timeline.finish()) {
    EXPECT_EQ(sum(point.roles), truth.at(point.time_ns));
  }
}

TEST(Timeline, APointThatIsProtectedStays) {
  Timeline timeline(16);
  int64_t time = 0;
  for (int i = 0; i < 10'000; ++i) {
    timeline.add(i % 7, at(time++));
    if (i == 1234) timeline.protect_last();
  }
  const std::vector<TimelinePoint> points = timeline.finish();
  EXPECT_LE(points.size(), 17u);
  EXPECT_TRUE(std::any_of(points.begin(), points.end(),
                          [](const TimelinePoint& point) { return point.time_ns == 1234; }));
}

TEST(Timeline, HasTheSameResolutionFromTheStepsBeginningToItsEnd) {
  Timeline timeline(64);
  std::mt19937 random(2);
  for (int64_t time = 0; time < 100'000; ++time) timeline.add(random() % 1000, at(time));
  int per_tenth[10] = {};
  for (const TimelinePoint& point : timeline.finish()) ++per_tenth[point.time_ns / 10'000];
  for (const int points : per_tenth) {
    EXPECT_GE(points, 3);
    EXPECT_LE(points, 14);
  }
}

TEST(Timeline, ProtectedPointsBeyondItsCapacityAllStay) {
  Timeline timeline(16);
  for (int64_t time = 0; time < 2000; ++time) {
    timeline.add(time % 3, at(time));
    if (time % 4 == 0) timeline.protect_last();
  }
  const std::vector<TimelinePoint> points = timeline.finish();
  int protected_ones = 0;
  for (const TimelinePoint& point : points) protected_ones += point.time_ns % 4 == 0;
  EXPECT_EQ(protected_ones, 500);
  EXPECT_LT(points.size(), 600u);
}

// A thread that was idle has an old clock until something begins or ends on it.
TEST(Timeline, AnOldClockOfAnotherThreadDoesNotTurnItBack) {
  StringTable strings;
  TensorTable tensors(strings);
  RunDirectory directory;
  Ledger ledger(strings, tensors, directory, {});
  Event event;
  const auto push = [&](EventKind kind, uint16_t thread, int64_t time_ns, uint64_t pointer = 0) {
    event.kind = kind;
    event.thread = thread;
    event.time_ns = time_ns;
    event.a = pointer;
    event.b = 10;
    ++event.sequence;
    ledger.apply(event);
  };
  push(EventKind::kStepBegin, 0, 1000);
  push(EventKind::kAlloc, 1, 20, 64);
  push(EventKind::kOpEnter, 0, 2000);
  push(EventKind::kAlloc, 0, 2000, 128);
  push(EventKind::kAlloc, 1, 20, 192);
  push(EventKind::kStepEnd, 0, 3000);
  const std::vector<StepBooks> closed = ledger.take_closed_steps();
  ASSERT_EQ(closed.size(), 1u);
  std::vector<int64_t> times;
  for (const TimelinePoint& point : closed[0].devices[0].timeline) times.push_back(point.time_ns);
  EXPECT_EQ(times, (std::vector<int64_t>{0, 0, 0, 1000, 1000, 2000}));
  EXPECT_EQ(mark_of(closed[0], Mark::kPeak).time_ns, 1000);
  EXPECT_EQ(closed[0].duration_ns, 2000);
}

// 100,000 memory events in a step, room for 64 points.
TEST(Timeline, ExtremesOutliveHeavyThinning) {
  EventScript script({.timeline_points = 64});
  std::mt19937 random(1);
  std::vector<Pointer> alive;
  int64_t lowest = 0;
  int64_t highest = 0;
  const StepBooks books = script.step([&] {
    for (int i = 0; i < 100'000; ++i) {
      // One deep valley and one high summit, both for a single moment.
      if (i == 33'333) {
        while (alive.size() > 1) {
          script.free(alive.back());
          alive.pop_back();
        }
      } else if (i == 77'777) {
        script.free(script.alloc(1 << 20));
      }
      if (alive.size() > 20 && (alive.size() > 60 || random() % 2)) {
        std::swap(alive[random() % alive.size()], alive.back());
        script.free(alive.back());
        alive.pop_back();
      } else {
        alive.push_back(script.alloc(1 + random() % 1000));
      }
      if (i == 33'333) lowest = script.bytes();
    }
    for (const auto& [time, bytes] : script.truth()) highest = std::max(highest, bytes);
  });
  const std::vector<TimelinePoint>& points = books.devices[0].timeline;
  EXPECT_LE(points.size(), 128u);
  EXPECT_GE(points.size(), 30u);
  int64_t kept_highest = 0;
  int64_t kept_lowest = 1 << 30;
  for (const TimelinePoint& point : points) {
    kept_highest = std::max(kept_highest, sum(point.roles));
    if (point.time_ns > 10'000 * 10) kept_lowest = std::min(kept_lowest, sum(point.roles));
  }
  EXPECT_GE(highest, 1 << 20);
  EXPECT_EQ(kept_highest, highest);
  EXPECT_LE(kept_lowest, lowest);
}

}  // namespace
}  // namespace tally::test
