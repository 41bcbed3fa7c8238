// SPDX-License-Identifier: Apache-2.0
// An allocator that counts by itself, as independent truth: installed below the profiler's, shares
// no code with it. Every block has its size in front of it, so it needs no table.
#pragma once

#include <c10/core/CPUAllocator.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

namespace tally::test {

class JournalAllocator final : public c10::Allocator {
 public:
  static JournalAllocator& instance() {
    static auto* const allocator = new JournalAllocator;  // outlives every tensor
    return *allocator;
  }
  // Everything allocated from now on is counted; call before the profiler starts.
  void install() { c10::SetCPUAllocator(this, 0); }
  void uninstall() { c10::SetCPUAllocator(c10::GetDefaultCPUAllocator(), 0); }

  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &release, c10::Device(c10::DeviceType::CPU)};
    // 64 in front keep the alignment that kernels expect.
    char* block = static_cast<char*>(std::aligned_alloc(64, (bytes + 64 + 63) / 64 * 64));
    std::memcpy(block, &bytes, sizeof bytes);
    const int64_t now = live_.fetch_add(static_cast<int64_t>(bytes)) + static_cast<int64_t>(bytes);
    for (int64_t seen = peak_.load(); seen < now && !peak_.compare_exchange_weak(seen, now);) {
    }
    void* data = block + 64;
    return {data, data, &release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  int64_t live() const { return live_.load(); }
  // Highest count since the last call.
  int64_t take_peak() { return peak_.exchange(live_.load()); }

 private:
  static void release(void* data) {
    if (!data) return;
    char* block = static_cast<char*>(data) - 64;
    size_t bytes = 0;
    std::memcpy(&bytes, block, sizeof bytes);
    instance().live_.fetch_sub(static_cast<int64_t>(bytes));
    std::free(block);
  }

  std::atomic<int64_t> live_{0};
  std::atomic<int64_t> peak_{0};
};

}  // namespace tally::test
