// SPDX-License-Identifier: Apache-2.0
// Counted while it lives.
#pragma once

#include <atomic>

namespace tally {

class CountGuard {
 public:
  explicit CountGuard(std::atomic<int>& count) noexcept : count_(count) { ++count_; }
  ~CountGuard() { --count_; }
  CountGuard(const CountGuard&) = delete;
  CountGuard& operator=(const CountGuard&) = delete;

 private:
  std::atomic<int>& count_;
};

}  // namespace tally
