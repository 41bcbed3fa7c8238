// SPDX-License-Identifier: Apache-2.0
#include "hooks/cuda/pinned_memory.h"

#include <fmt/format.h>

#include <utility>

#include "hooks/cuda/pinned_allocator.h"
#include "hooks/cuda/torch_cuda.h"

namespace tally::hooks {
namespace {

constexpr std::string_view kName = "cuda.pinned_memory";

cuda::PinnedAllocator& allocator() { return cuda::PinnedAllocator::instance(); }

class PinnedMemorySource final : public Source {
 public:
  ~PinnedMemorySource() override { stop(); }
  std::string_view name() const override { return kName; }
  Availability availability() const override {
    if (!cuda::find_allocator()) {
      return {false, "this program has not loaded LibTorch's CUDA half"};
    }
    std::string reason = cuda::why_no_device();
    return {reason.empty(), std::move(reason)};
  }

  void start(Context& context) override {
    if (const std::string reason = install(); !reason.empty()) {
      context.directory.update([&reason](RunInfo& info) {
        for (SourceInfo& source : info.sources) {
          if (source.name == kName) source = {std::string(kName), false, reason};
        }
      });
      return;
    }
    context_ = &context;
    is_installed_ = true;
    allocator().begin_session(context);
    context.devices.before_mark[DeviceWatch::kPinned].store(
        [](Context&) noexcept { allocator().tell_statistics(); });
    context.devices.pinned_device.store([](void* data, int64_t bytes) noexcept {
      return allocator().device_of(*static_cast<c10::DataPtr*>(data), bytes);
    });
  }
  void stop() noexcept override {
    if (!context_) return;
    context_->devices.pinned_device.store(nullptr);
    context_->devices.before_mark[DeviceWatch::kPinned].store(nullptr);
    context_ = nullptr;
    allocator().end_session();
    replaced_ = !allocator().uninstall();
  }

  // Its time is in the CPU allocator's.
  SourceStatistics statistics() const override {
    SourceStatistics statistics;
    if (is_installed_) statistics.bytes = allocator().table_bytes();
    if (replaced_) {
      statistics.notes.push_back(
          "Another allocator of pinned host memory was installed while recording; what it "
          "allocated is not in the books.");
    }
    return statistics;
  }

 private:
  static std::string install() {
    try {
      return allocator().install();
    } catch (const std::exception& error) {
      const std::string_view what = error.what();
      return fmt::format("LibTorch has no allocator of pinned host memory to watch: {}",
                         what.substr(0, what.find('\n')));
    }
  }

  Context* context_ = nullptr;
  bool is_installed_ = false;
  bool replaced_ = false;
};

}  // namespace

std::unique_ptr<Source> make_pinned_memory_source() {
  return std::make_unique<PinnedMemorySource>();
}

}  // namespace tally::hooks
