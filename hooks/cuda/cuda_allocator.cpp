// SPDX-License-Identifier: Apache-2.0
#include "hooks/cuda/cuda_allocator.h"

#include <fmt/format.h>

#include <atomic>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

#include "hooks/cuda/allocator_events.h"
#include "hooks/cuda/torch_cuda.h"
#include "profiler/core/hook_timer.h"
#include "profiler/core/units.h"

namespace tally::hooks {
namespace {

constexpr std::string_view kName = "cuda.allocator";

class CudaAllocatorSource;
std::atomic<CudaAllocatorSource*> source_of_session{nullptr};

class CudaAllocatorSource final : public Source {
 public:
  ~CudaAllocatorSource() override { stop(); }
  std::string_view name() const override { return kName; }

  Availability availability() const override {
    cuda::Allocator* allocator = cuda::find_allocator();
    if (!allocator) return {false, "this program has not loaded LibTorch's CUDA half"};
    if (std::string reason = cuda::why_no_device(); !reason.empty())
      return {false, std::move(reason)};
    if (allocator->name() == "cudaMallocAsync") {
      return {
          false,
          "memory on CUDA devices comes from cudaMallocAsync, and LibTorch says 'cudaMallocAsync "
          "does not yet support attachAllocatorTraceTracker': it is not in the books. Take "
          "backend:cudaMallocAsync out of PYTORCH_ALLOC_CONF to have it there"};
    }
    if (std::getenv("PYTORCH_NO_CUDA_MEMORY_CACHING") ||
        std::getenv("PYTORCH_NO_HIP_MEMORY_CACHING")) {
      return {
          false,
          "caching is switched off (PYTORCH_NO_CUDA_MEMORY_CACHING), and LibTorch then tells of no "
          "allocation on CUDA devices: they are not in the books"};
    }
    return {true, {}};
  }

  void start(Context& context) override {
    context_ = &context;
    allocator_ = cuda::find_allocator();
    source_of_session.store(this);
    context.devices.before_mark[DeviceWatch::kCuda].store([](Context&) noexcept {
      if (CudaAllocatorSource* self = source_of_session.load()) self->before_mark();
    });
    context.devices.cuda_is_used.store([](Context&) noexcept {
      if (CudaAllocatorSource* self = source_of_session.load()) self->begin_if_used();
    });
    begin_if_used();
  }
  void step_begin() noexcept override {
    if (begin_if_used()) cuda::ask_devices(*allocator_);
  }
  void step_end() noexcept override {
    if (begin_if_used()) cuda::ask_devices(*allocator_);
    if (!context_) note_statistics();
  }

  void stop() noexcept override {
    if (!context_) return;
    context_->devices.watches_cuda.store(false);
    context_->devices.before_mark[DeviceWatch::kCuda].store(nullptr);
    context_->devices.cuda_is_used.store(nullptr);
    source_of_session.store(nullptr);
    cuda::end();
    if (!began_.load()) explain(refusal_.empty() ? "the program did not use CUDA" : refusal_);
    context_ = nullptr;
  }
  // Its time is in the CPU allocator's.
  SourceStatistics statistics() const override {
    SourceStatistics statistics;
    const std::lock_guard lock(mutex_);
    for (const auto& [device, peak] : peaks_) {
      statistics.notes.push_back(fmt::format(
          "cuda:{}: LibTorch's statistics say that at most {} were allocated and {} reserved; for "
          "what is "
          "not known.",
          device, format_bytes(peak.allocated_bytes), format_bytes(peak.reserved_bytes)));
    }
    return statistics;
  }

 private:
  // Whether the devices are watched. The first caller after the program has initialised CUDA
  // begins.
  bool begin_if_used() noexcept {
    if (!context_) return false;  // not available
    if (began_.load(std::memory_order_acquire)) return true;
    if (!refusal_.empty() || !allocator_->initialized()) return false;
    const std::lock_guard lock(mutex_);
    if (began_.load() || !refusal_.empty()) return began_.load();
    const int64_t begin_ns = now_ns();
    try {
      context_->directory.update([](RunInfo& info) { cuda::register_devices(info); });
      if (!cuda::begin(*context_, *allocator_)) return false;
      cuda::ask_devices(*allocator_);
      began_.store(true, std::memory_order_release);
      context_->devices.watches_cuda.store(true, std::memory_order_release);
    } catch (const std::exception& error) {
      const std::string_view what = error.what();
      refusal_ = fmt::format("LibTorch's CUDA allocator takes no trackers: {}",
                             what.substr(0, what.find('\n')));
    }
    add_hook_time(now_ns() - begin_ns);
    return began_.load();
  }
  void before_mark() noexcept {
    if (begin_if_used()) cuda::tell_statistics(*context_, *allocator_);
  }
  // Where an allocator takes no trackers: what its statistics say of the device that steps.
  void note_statistics() noexcept {
    try {
      cuda::Allocator* allocator = cuda::find_allocator();
      if (!allocator || !allocator->initialized() || allocator->name() != "cudaMallocAsync") return;
      const int device = cuda::current_device();
      const auto stats = allocator->getDeviceStats(static_cast<c10::DeviceIndex>(device));
      const std::lock_guard lock(mutex_);
      peaks_[device] = {stats.allocated_bytes[0].peak, stats.reserved_bytes[0].peak};
    } catch (...) {  // it says nothing
    }
  }
  // What the recording says of this source.
  void explain(const std::string& reason) noexcept {
    try {
      context_->directory.update([&reason](RunInfo& info) {
        for (SourceInfo& source : info.sources) {
          if (source.name == kName) source = {std::string(kName), false, reason};
        }
      });
    } catch (...) {  // the list keeps what it said at the start
    }
  }

  Context* context_ = nullptr;
  cuda::Allocator* allocator_ = nullptr;
  struct Peak {
    int64_t allocated_bytes;
    int64_t reserved_bytes;
  };
  mutable std::mutex mutex_;   // of the beginning, and of what follows
  std::map<int, Peak> peaks_;  // by device
  std::atomic<bool> began_{false};
  std::string refusal_;
};

}  // namespace

std::unique_ptr<Source> make_cuda_allocator_source() {
  return std::make_unique<CudaAllocatorSource>();
}

}  // namespace tally::hooks
