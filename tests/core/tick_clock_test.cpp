// SPDX-License-Identifier: Apache-2.0
#include "profiler/core/tick_clock.h"

#include <gtest/gtest.h>

#include <chrono>

namespace tally {
namespace {

int64_t steady_ns() {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Wide enough for a machine that takes the processor away between two readings of one pair.
constexpr int64_t kTolerance = 2'000'000;

TEST(TickClock, ATickIsPlacedWhereTheSteadyClockWas) {
  TickClock clock;
  for (int round = 0; round < 20; ++round) {
    const int64_t before = steady_ns();
    const int64_t ticks = TickClock::ticks();
    const int64_t after = steady_ns();
    while (steady_ns() - before < 500'000) {
    }
    if (round % 5 == 4) clock.synchronize();
    const int64_t ns = clock.nanoseconds(ticks);
    EXPECT_GE(ns, before - kTolerance);
    EXPECT_LE(ns, after + kTolerance);
  }
}

TEST(TickClock, LaterTicksAreLaterTimes) {
  TickClock clock;
  int64_t last = 0;
  for (int i = 0; i < 1000; ++i) {
    const int64_t ns = clock.nanoseconds(TickClock::ticks());
    EXPECT_GE(ns, last);
    last = ns;
  }
}

}  // namespace
}  // namespace tally
