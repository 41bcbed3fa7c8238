// SPDX-License-Identifier: Apache-2.0
// What the hooks cost the program's threads, of all sources together.
#pragma once

#include <cstdint>

namespace tally {

// One call in kSampling is timed.
class HookTimer {
 public:
  static constexpr uint32_t kSampling = 64;
  HookTimer() noexcept;
  ~HookTimer();
  HookTimer(const HookTimer&) = delete;
  HookTimer& operator=(const HookTimer&) = delete;
  static int64_t total_ns() noexcept;

 private:
  int64_t begin_ns_ = 0;
};
// Books a whole span, for the rare and long calls (the walk over a graph).
void add_hook_time(int64_t ns) noexcept;
int64_t now_ns() noexcept;  // steady clock

}  // namespace tally
