// SPDX-License-Identifier: Apache-2.0
// What the hooks cost the program's threads, of all sources together.
#pragma once

#include <cstdint>

namespace tally {

int64_t now_ns() noexcept;  // steady clock
// Books a whole span, for the rare and long calls (the walk over a graph).
void add_hook_time(int64_t ns) noexcept;

// One call in kSampling is timed.
class HookTimer {
 public:
  static constexpr uint32_t kSampling = 64;
  HookTimer() noexcept {
    if (++calls_of_thread_ % kSampling == 0) [[unlikely]]
      begin_ns_ = now_ns();
  }
  ~HookTimer() {
    if (begin_ns_) [[unlikely]]
      add_hook_time((now_ns() - begin_ns_) * kSampling);
  }
  HookTimer(const HookTimer&) = delete;
  HookTimer& operator=(const HookTimer&) = delete;
  static int64_t total_ns() noexcept;

 private:
  __attribute__((tls_model("initial-exec"))) static inline thread_local constinit uint32_t
      calls_of_thread_ = 0;
  int64_t begin_ns_ = 0;
};

}  // namespace tally
