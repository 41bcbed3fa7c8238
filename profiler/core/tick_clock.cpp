// SPDX-License-Identifier: Apache-2.0
#include "profiler/core/tick_clock.h"

#include <ctime>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace tally {
namespace {

bool has_invariant_counter() noexcept {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kPowerLeaf = 0x80000007, kInvariantTsc = 1u << 8;
  return __get_cpuid(kPowerLeaf, &a, &b, &c, &d) && (d & kInvariantTsc);
#else
  return false;
#endif
}

}  // namespace

const bool TickClock::counts_cycles_ = has_invariant_counter();

int64_t TickClock::steady_ns() noexcept {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{1'000'000'000} * now.tv_sec + now.tv_nsec;
}

// The closest of a few tries: another thread may run between the two readings.
TickClock::Pair TickClock::now() noexcept {
  Pair best;
  int64_t closest = INT64_MAX;
  for (int tries = 0; tries < 3; ++tries) {
    const int64_t before = ticks();
    const int64_t ns = steady_ns();
    const int64_t after = ticks();
    if (after - before < closest) {
      closest = after - before;
      best = {before + (after - before) / 2, ns};
    }
  }
  return best;
}

TickClock::TickClock() noexcept : first_(now()), base_(first_) {
  if (!counts_cycles_) return;
  // A first guess, until synchronize() is called: the rate over some microseconds.
  Pair later = now();
  while (later.ns - first_.ns < 20'000) later = now();
  ns_per_tick_ =
      static_cast<double>(later.ns - first_.ns) / static_cast<double>(later.ticks - first_.ticks);
}

void TickClock::synchronize() noexcept {
  if (!counts_cycles_) return;
  const Pair pair = now();
  // Over less than this the rate would be less exact than the one known.
  if (pair.ns - first_.ns > 1'000'000) {
    ns_per_tick_ =
        static_cast<double>(pair.ns - first_.ns) / static_cast<double>(pair.ticks - first_.ticks);
  }
  base_ = pair;
}

int64_t TickClock::nanoseconds(int64_t ticks) const noexcept {
  if (!counts_cycles_) return ticks;
  return base_.ns + static_cast<int64_t>(static_cast<double>(ticks - base_.ticks) * ns_per_tick_);
}

}  // namespace tally
