// SPDX-License-Identifier: Apache-2.0
// What a set of hooks looks like to a session. A source that cannot work here is still an object:
// it says why, and the sentence reaches the report.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "profiler/core/event_log.h"
#include "profiler/core/ids.h"
#include "profiler/core/run_info.h"
#include "profiler/core/tensor_table.h"

namespace tally {

struct Context;

// Writes down what happened so far, before a program may come to its end.
class Settler {
 public:
  // From any thread that holds no lock of a watched allocator; waits a second at most.
  virtual void settle() noexcept = 0;

 protected:
  ~Settler() = default;
};

// How sources of memory beside the CPU and everybody else meet, without knowing each other.
struct DeviceWatch {
  using Callback = void (*)(Context&) noexcept;
  // Called just before a mark is pushed: an allocator that keeps a count of its own tells it now.
  enum Allocator : uint8_t { kCuda, kPinned };
  std::array<std::atomic<Callback>, 2> before_mark{};
  // Called when a tensor on a CUDA device is seen and nobody watches those yet.
  std::atomic<Callback> cuda_is_used{nullptr};
  // Who knows lines of the program is told of a block, perhaps under its allocator's lock, and of
  // an allocation that failed, never under it.
  using BlockCallback = void (*)(Context&, uint64_t pointer, int64_t bytes) noexcept;
  std::atomic<BlockCallback> block_made{nullptr};
  std::atomic<Callback> allocation_failed{nullptr};
  // The device of a storage of the host that is not of the CPU's allocator: pinned memory that is
  // watched. 0: it is not. `data` is its c10::DataPtr.
  using PinnedCallback = DeviceIndex (*)(void* data, int64_t bytes) noexcept;
  std::atomic<PinnedCallback> pinned_device{nullptr};
  // Storages on CUDA devices are blocks in the books.
  std::atomic<bool> watches_cuda{false};

  void tell_mark(Context& context) noexcept {
    for (const auto& each : before_mark) {
      if (const Callback callback = each.load(std::memory_order_acquire)) callback(context);
    }
  }
};

// What a source writes to; lives as long as the process.
struct Context {
  EventLog& log;
  StringTable& strings;
  TensorTable& tensors;
  RunDirectory& directory;
  DeviceWatch devices{};
  std::atomic<Settler*> settler{nullptr};  // while a session records

  // After an allocation failed: the program may end by it.
  void settle() noexcept {
    if (Settler* const found = settler.load(std::memory_order_acquire)) found->settle();
  }
};

struct Availability {
  bool yes = false;
  std::string reason;  // a sentence: why not, or what is limited
};

struct SourceStatistics {
  uint64_t events = 0;
  int64_t nanoseconds = 0;         // spent in hooks on the program's threads, estimated by sampling
  int64_t bytes = 0;               // held by tables of the source
  std::vector<std::string> notes;  // sentences for "what this report does not know"
};

class Source {
 public:
  virtual ~Source() = default;
  virtual std::string_view name() const = 0;
  virtual Availability availability() const = 0;
  // Loud: throws Error when it cannot start although it is available.
  virtual void start(Context& context) = 0;
  // A step begins or ends on the calling thread: what can be looked at is looked at now.
  virtual void step_begin() noexcept {}
  virtual void step_end() noexcept {}
  // A step begins where another has just ended: nothing ran since step_end().
  virtual void next_step() noexcept { step_begin(); }
  virtual void stop() noexcept = 0;
  virtual SourceStatistics statistics() const = 0;
};

}  // namespace tally
