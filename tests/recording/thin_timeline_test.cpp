// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>

#include "profiler/recording/books_codec.h"

namespace tally::recording {
namespace {

std::vector<TimelinePoint> noisy(size_t count, int64_t nanoseconds) {
  std::vector<TimelinePoint> points(count);
  uint64_t state = 7;
  for (size_t i = 0; i < count; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    points[i].time_ns = static_cast<int64_t>(i + 1) * nanoseconds;
    points[i].roles[0] = 1000;
    points[i].roles[4] = static_cast<int64_t>(state >> 40);
  }
  return points;
}

int64_t highest(const std::vector<TimelinePoint>& points) {
  int64_t most = 0;
  for (const auto& p : points) most = std::max(most, sum(p.roles));
  return most;
}

TEST(ThinTimeline, ShortOnesStayWhole) {
  EXPECT_EQ(thin_timeline(noisy(600, 10), {}, 600).size(), 600u);
}

TEST(ThinTimeline, EveryExtremeOfEveryStretchStays) {
  auto points = noisy(4096, 10);
  points[1234].roles[4] = int64_t{1} << 40;  // alive for one event
  points[3210].roles[4] = -900;
  const auto thin = thin_timeline(points, {}, 600);
  EXPECT_LE(thin.size(), 600u);
  EXPECT_GT(thin.size(), 500u);
  EXPECT_EQ(highest(thin), (int64_t{1} << 40) + 1000);
  EXPECT_EQ(thin.front().time_ns, points.front().time_ns);
  EXPECT_EQ(thin.back().time_ns, points.back().time_ns);
  EXPECT_TRUE(
      std::any_of(thin.begin(), thin.end(), [](const auto& p) { return sum(p.roles) == 100; }));
  EXPECT_TRUE(std::is_sorted(thin.begin(), thin.end(),
                             [](const auto& a, const auto& b) { return a.time_ns < b.time_ns; }));
  // Four tenths of the way: the highest of that tenth is the highest that was there.
  const auto in_tenth = [](const std::vector<TimelinePoint>& all) {
    int64_t most = 0;
    for (const auto& p : all) {
      if (p.time_ns > 16384 && p.time_ns <= 20480) most = std::max(most, sum(p.roles));
    }
    return most;
  };
  EXPECT_EQ(in_tenth(thin), in_tenth(points));
}

TEST(ThinTimeline, MarksStayAlsoWhenEventsShareANanosecond) {
  auto points = noisy(4096, 10);
  for (size_t i = 2000; i < 2005; ++i) points[i].time_ns = points[2000].time_ns;
  std::vector<MarkBook> marks(1);
  marks[0].time_ns = points[2003].time_ns;
  marks[0].bytes = sum(points[2003].roles);
  const auto thin = thin_timeline(points, marks, 8);
  EXPECT_LE(thin.size(), 8u);
  EXPECT_TRUE(std::any_of(thin.begin(), thin.end(), [&](const auto& p) {
    return p.time_ns == marks[0].time_ns && sum(p.roles) == marks[0].bytes;
  }));
}

TEST(ThinTimeline, TheSameBytesAtOtherTimesKeepTheSamePoints) {
  EXPECT_EQ(encode_timeline(thin_timeline(noisy(4096, 10), {}, 600)),
            encode_timeline(thin_timeline(noisy(4096, 17), {}, 600)));
}

}  // namespace
}  // namespace tally::recording
