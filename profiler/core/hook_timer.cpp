// SPDX-License-Identifier: Apache-2.0
#include "profiler/core/hook_timer.h"

#include <atomic>
#include <ctime>

namespace tally {
namespace {

std::atomic<int64_t> hook_ns{0};

}  // namespace

int64_t now_ns() noexcept {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{1'000'000'000} * now.tv_sec + now.tv_nsec;
}

int64_t HookTimer::total_ns() noexcept { return hook_ns.load(std::memory_order_relaxed); }
void add_hook_time(int64_t ns) noexcept { hook_ns.fetch_add(ns, std::memory_order_relaxed); }

}  // namespace tally
