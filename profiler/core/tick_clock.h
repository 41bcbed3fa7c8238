// SPDX-License-Identifier: Apache-2.0
// A clock that costs a few nanoseconds to read: the processor's time stamp counter where it runs at
// one rate on every core, the steady clock elsewhere. Producers read ticks; the consumer turns them
// into nanoseconds of the steady clock.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace tally {

class TickClock {
 public:
  TickClock() noexcept;

  // Any thread.
  static int64_t ticks() noexcept {
#if defined(__x86_64__)
    if (counts_cycles_) [[likely]]
      return static_cast<int64_t>(__rdtsc());
#endif
    return steady_ns();
  }
  // Whether ticks are those of the counter; else they are nanoseconds already.
  static bool counts_cycles() noexcept { return counts_cycles_; }

  // One thread. Takes a new pair of times, so that neither the rate's error nor a drift adds up.
  void synchronize() noexcept;
  // Steady nanoseconds of `ticks`.
  int64_t nanoseconds(int64_t ticks) const noexcept;

 private:
  struct Pair {
    int64_t ticks = 0;
    int64_t ns = 0;
  };
  static Pair now() noexcept;
  static int64_t steady_ns() noexcept;
  static const bool counts_cycles_;
  Pair first_;  // the rate is that since this pair
  Pair base_;   // the newest: times are counted from here
  double ns_per_tick_ = 1;
};

}  // namespace tally
