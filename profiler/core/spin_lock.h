// SPDX-License-Identifier: Apache-2.0
// A lock for a few instructions, held by hooks: half the cost of a mutex that nobody else wants.
// Whoever waits longer than that gives its core away.
#pragma once

#include <sched.h>

#include <atomic>

namespace tally {

class SpinLock {
 public:
  void lock() noexcept {
    constexpr int kTriesAtOnce = 100;
    for (int tries = 0; locked_.exchange(true, std::memory_order_acquire); ++tries) {
      while (locked_.load(std::memory_order_relaxed)) {
        if (++tries > kTriesAtOnce) sched_yield();
      }
    }
  }
  void unlock() noexcept { locked_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> locked_{false};
};

}  // namespace tally
