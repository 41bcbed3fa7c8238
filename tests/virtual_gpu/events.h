// SPDX-License-Identifier: Apache-2.0
// The events of LibTorch's CUDA allocator, as they come, for tests of what they mean.
#pragma once

#include <c10/cuda/CUDACachingAllocator.h>
#include <torch/torch.h>
#include <unistd.h>

#include <mutex>
#include <vector>

namespace at::cuda {
void clearCublasWorkspaces();  // its own header wants those of more libraries
}

namespace tally::test {

namespace cuda_allocator = c10::cuda::CUDACachingAllocator;
using Action = c10::CachingDeviceAllocator::TraceEntry::Action;

struct AllocatorEvent {
  Action action;
  int device;
  size_t address;
  size_t size;
  void* stream;
  c10::MempoolId_t pool;
  int thread;
  bool has_context;
  // What the allocator's statistics said inside the callback.
  int64_t requested, allocated, active, reserved;
};

// One tracker and one observer a process: they cannot be taken off again.
class AllocatorEvents {
 public:
  struct OutOfMemory {
    int64_t device;
    size_t wanted, total, free;
    size_t events_before;
  };
  static AllocatorEvents& instance() {
    static auto* const events = new AllocatorEvents;
    return *events;
  }
  std::vector<AllocatorEvent> all() {
    const std::lock_guard lock(mutex_);
    return events_;
  }
  std::vector<AllocatorEvent> of(Action action) {
    std::vector<AllocatorEvent> found;
    for (const AllocatorEvent& event : all()) {
      if (event.action == action) found.push_back(event);
    }
    return found;
  }
  int64_t sum(Action action, int device = 0) {
    int64_t bytes = 0;
    for (const AllocatorEvent& event : of(action)) {
      if (event.device == device) bytes += static_cast<int64_t>(event.size);
    }
    return bytes;
  }
  std::vector<OutOfMemory> out_of_memory() {
    const std::lock_guard lock(mutex_);
    return out_of_memory_;
  }
  // Events from here on only.
  void clear() {
    const std::lock_guard lock(mutex_);
    events_.clear();
    out_of_memory_.clear();
  }
  void ask_statistics(bool asks) { asks_statistics_ = asks; }

 private:
  AllocatorEvents() {
    at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
    cuda_allocator::attachAllocatorTraceTracker([this](const cuda_allocator::TraceEntry& entry) {
      AllocatorEvent event{entry.action_,
                           entry.device_,
                           entry.addr_,
                           entry.size_,
                           entry.stream_,
                           entry.mempool_,
                           gettid(),
                           entry.context_ != nullptr,
                           0,
                           0,
                           0,
                           0};
      if (asks_statistics_) {
        const auto stats = cuda_allocator::getDeviceStats(entry.device_);
        event.requested = stats.requested_bytes[0].current;
        event.allocated = stats.allocated_bytes[0].current;
        event.active = stats.active_bytes[0].current;
        event.reserved = stats.reserved_bytes[0].current;
      }
      const std::lock_guard lock(mutex_);
      events_.push_back(event);
    });
    cuda_allocator::attachOutOfMemoryObserver(
        [this](int64_t device, size_t wanted, size_t total, size_t free) {
          const std::lock_guard lock(mutex_);
          out_of_memory_.push_back({device, wanted, total, free, events_.size()});
        });
  }
  std::mutex mutex_;
  std::vector<AllocatorEvent> events_;
  std::vector<OutOfMemory> out_of_memory_;
  bool asks_statistics_ = false;
};

inline int64_t requested_bytes(int device = 0) {
  return cuda_allocator::getDeviceStats(static_cast<c10::DeviceIndex>(device))
      .requested_bytes[0]
      .current;
}
inline int64_t reserved_bytes(int device = 0) {
  return cuda_allocator::getDeviceStats(static_cast<c10::DeviceIndex>(device))
      .reserved_bytes[0]
      .current;
}
inline int64_t allocated_bytes(int device = 0) {
  return cuda_allocator::getDeviceStats(static_cast<c10::DeviceIndex>(device))
      .allocated_bytes[0]
      .current;
}
inline int64_t active_bytes(int device = 0) {
  return cuda_allocator::getDeviceStats(static_cast<c10::DeviceIndex>(device))
      .active_bytes[0]
      .current;
}

// Gives back the workspaces of cuBLAS and cuBLASLt; returns their bytes on cuda:0.
inline int64_t clear_workspaces() {
  const int64_t before = requested_bytes();
  at::cuda::clearCublasWorkspaces();
  return before - requested_bytes();
}

inline at::Tensor bytes_on_card(int64_t bytes, int device = 0) {
  return torch::empty({bytes}, torch::TensorOptions()
                                   .dtype(torch::kByte)
                                   .device(torch::kCUDA, static_cast<c10::DeviceIndex>(device)));
}

}  // namespace tally::test
