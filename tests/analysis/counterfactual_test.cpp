// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <random>

#include <gtest/gtest.h>

#include "profiler/analysis/counterfactual.h"
#include "profiler/analysis/heights.h"

namespace tally::analysis {
namespace {

TimelinePoint point(double seconds, int64_t activations) {
  TimelinePoint at;
  at.seconds = seconds;
  at.roles[static_cast<size_t>(Role::kActivation)] = activations;
  return at;
}

TEST(Heights, AreThoseOfEveryPointLookedAtByItself) {
  std::mt19937 random(7);
  for (const int count : {0, 1, 2, 3, 7, 64, 100}) {
    std::vector<Heights::Point> points;
    for (int i = 0; i < count; ++i) {
      // Not in order, and some at the same time.
      points.push_back({static_cast<double>(random() % 50), static_cast<int64_t>(random() % 1000)});
    }
    Heights heights(points);
    for (int change = 0; change < 200; ++change) {
      const double begin = static_cast<double>(random() % 54) - 2;
      const double end = begin - 2 + static_cast<double>(random() % 30);
      const int64_t more = static_cast<int64_t>(random() % 400) - 200;
      heights.add(begin, end, more);
      int64_t highest = 0;
      for (Heights::Point& point : points) {
        if (point.seconds >= begin && point.seconds < end) point.bytes += more;
        highest = std::max(highest, point.bytes);
      }
      ASSERT_EQ(heights.highest(), highest) << count << " points, change " << change;
    }
  }
}

// Blocks that keep their activations from the forward to the backward pass; the later ones more.
struct Blocks {
  StepSummary step;
  DeviceStep device;

  explicit Blocks(int count) {
    device.device = "cpu";
    int64_t live = 0;
    const auto bytes_of = [](int i) { return int64_t{1000} + i % 7; };
    for (int i = 0; i < count; ++i) {
      const std::string name = "h." + std::to_string(i);
      live += bytes_of(i);
      device.timeline.push_back(point(i + 0.25, live));
      step.units.push_back(
          {name, 0, bytes_of(i), 100, i + 0.5, 2.0 * count - i, 2.0 * count - i + 0.5});
      step.operators.push_back({Phase::kForward, name, "aten::mm", 1, 10, 10, 0, 0.1});
    }
    for (int i = count; i-- > 0;) {
      device.timeline.push_back(point(2.0 * count - i + 0.1, live));
      live -= bytes_of(i);
    }
  }
};

TEST(Counterfactual, EveryUnitIsTriedAgainForEachThatIsTaken) {
  const Blocks blocks(60);
  const Counterfactual counterfactual(blocks.step, blocks.device);
  const Plan plan = counterfactual.greedy();
  const int64_t peak = counterfactual.with_checkpoints(plan).peak_bytes;
  EXPECT_LT(peak, counterfactual.with_checkpoints({}).peak_bytes);
  // Nothing that is left out would lower it further.
  for (size_t u = 0; u < counterfactual.units().size(); ++u) {
    const bool taken =
        std::any_of(plan.begin(), plan.end(), [u](const Segment& s) { return s.first == u; });
    if (taken) continue;
    Plan more = plan;
    more.push_back({u, u});
    EXPECT_GE(counterfactual.with_checkpoints(more).peak_bytes, peak) << "unit " << u;
  }
}

TEST(Counterfactual, ThirtyThousandUnitsTakeNoLongerThanFiveHundredAndTheRest) {
  const auto seconds_of = [](int count) {
    const Blocks blocks(count);
    const auto begin = std::chrono::steady_clock::now();
    const Counterfactual counterfactual(blocks.step, blocks.device);
    EXPECT_EQ(counterfactual.units().size(), static_cast<size_t>(count));
    EXPECT_LE(counterfactual.greedy().size(), Counterfactual::kMostTried);
    counterfactual.with_checkpoints(counterfactual.uniform(1));
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  const double few = seconds_of(500);
  EXPECT_LT(seconds_of(30'000), 60 * few + 2);
}

}  // namespace
}  // namespace tally::analysis
