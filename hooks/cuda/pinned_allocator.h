// SPDX-License-Identifier: Apache-2.0
// An at::HostAllocator around the one that LibTorch's CUDA half registered: it tells each block of
// pinned host memory to the log and leaves the rest to the other. Once installed, the object stays
// for good, because the deleters of live tensors point to it.
//
// LibTorch caches whole blocks, each of a power of two: it never splits them, and tells nobody of
// them. A block is known by its context, which stays while LibTorch keeps it; so one that is not
// known is new, or it is of those that were there before anybody looked: the unnamed.
#pragma once

#include <ATen/core/CachingHostAllocator.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <unordered_map>

#include "profiler/core/source.h"

namespace tally::hooks::cuda {

class PinnedAllocator final : public at::HostAllocator {
 public:
  // The one of this process.
  static PinnedAllocator& instance();

  // "", or the sentence that says why it cannot.
  std::string install();
  // Removes itself if it is still the current one; its blocks keep their deleter.
  bool uninstall();
  void begin_session(Context& context);
  void end_session();
  // Just before a mark.
  void tell_statistics() noexcept;
  // The device of a storage in host memory; 0: it is none of ours. A block that was alive before
  // the session becomes one of ours. Any thread; the caller holds a reference to the storage.
  DeviceIndex device_of(c10::DataPtr& data, int64_t bytes) noexcept;
  int64_t table_bytes();

  c10::DataPtr allocate(size_t bytes) override;
  void empty_cache() override;
  void reset_accumulated_stats() override;

  // ---- the rest is theirs
  bool record_event(void* pointer, void* block, c10::Stream stream) override {
    return previous_->record_event(pointer, block, stream);
  }
  at::HostStats get_stats() override { return previous_->get_stats(); }
  void reset_peak_stats() override { previous_->reset_peak_stats(); }
  void begin_allocate_to_pool(c10::MempoolId_t pool,
                              std::function<bool(c10::Stream)> filter) override {
    previous_->begin_allocate_to_pool(pool, std::move(filter));
  }
  void end_allocate_to_pool(c10::MempoolId_t pool) override {
    previous_->end_allocate_to_pool(pool);
  }
  void release_pool(c10::MempoolId_t pool) override { previous_->release_pool(pool); }
  c10::DeleterFnPtr raw_deleter() const override { return previous_->raw_deleter(); }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    previous_->copy_data(to, from, bytes);
  }

 private:
  static constexpr uint8_t kPriority = 0;
  struct Block {
    uint64_t address = 0;
    int64_t bytes = 0;      // of the block
    int64_t requested = 0;  // of the storage in it
    bool is_live = false;
  };
  struct SessionState {
    Context* context = nullptr;
    uint64_t events = 0;
    int64_t live = 0;          // requested bytes
    int64_t reserved = 0;      // of blocks
    int64_t unnamed = 0;       // the part of it that nobody can name
    bool has_unnamed = false;  // it was not always 0
    int64_t given = 0;         // bytes of blocks given out, each time
    int64_t given_back = 0;
    int64_t given_before = 0;  // what the statistics had of it when it was 0
  };

  static void free_watched(void* block) { instance().free_block(block); }
  void free_block(void* block);
  // From now on its end comes to us first. False: it is no block, or ours already.
  bool watch(c10::DataPtr& data) const;

  // ---- under the lock
  void find_device();
  void push(EventKind kind, uint64_t address, int64_t bytes, uint8_t flags = 0, int64_t count = 0);
  void tell_block(Block& block, uint8_t flags);
  void set_unnamed(int64_t bytes);

  void tell_alloc(const c10::DataPtr& data, int64_t bytes, uint8_t flags) noexcept;
  void tell_failure(size_t bytes) noexcept;

  at::HostAllocator* previous_ = nullptr;
  c10::DeleterFnPtr theirs_ = nullptr;  // as long as the process lives
  std::atomic<bool> is_recording_{false};
  std::atomic<DeviceIndex> device_{0};  // of the session; 0: it has none yet
  std::atomic<int> in_flight_{0};       // allocations that LibTorch knows and we perhaps not yet
  std::mutex adoption_;
  std::mutex mutex_;                         // of what follows
  std::unordered_map<void*, Block> blocks_;  // that LibTorch keeps, as far as they are known
  SessionState session_;
};

}  // namespace tally::hooks::cuda
