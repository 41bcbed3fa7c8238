// SPDX-License-Identifier: Apache-2.0
#include "hooks/cuda/pinned_allocator.h"

#include <pthread.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "hooks/cuda/torch_cuda.h"
#include "profiler/core/count_guard.h"
#include "profiler/core/hook_timer.h"
#include "profiler/core/host_memory.h"

namespace tally::hooks::cuda {
namespace {

constexpr auto kCuda = c10::DeviceType::CUDA;
// Stands for the blocks that nobody can name; no address of a program.
constexpr uint64_t kUnnamed = uint64_t{1} << 63;

}  // namespace

PinnedAllocator& PinnedAllocator::instance() {
  static auto* const only = [] {
    auto* made = new PinnedAllocator;  // never destroyed: see the header
    pthread_atfork([] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); },
                   [] {
                     instance().mutex_.unlock();
                     // The bookkeeper did not come along: the child records nothing.
                     instance().end_session();
                   });
    return made;
  }();
  return *only;
}

std::string PinnedAllocator::install() {
  at::HostAllocator* current = at::getHostAllocator(kCuda);
  if (!current) return "LibTorch's CUDA half has no allocator of pinned host memory";
  if (current == this) return "";
  // Of no bytes there is no block, but its end would be theirs.
  const c10::DeleterFnPtr deleter = current->allocate(0).get_deleter();
  if (!deleter || (theirs_ && theirs_ != deleter)) {
    return "the allocator of pinned host memory in use has no plain deleter to wrap";
  }
  previous_ = current;
  theirs_ = deleter;
  at::setHostAllocator(kCuda, this, kPriority);
  if (at::getHostAllocator(kCuda) == this) return "";
  return "another allocator of pinned host memory of higher priority is installed";
}

bool PinnedAllocator::uninstall() {
  if (at::getHostAllocator(kCuda) != this) return false;
  at::setHostAllocator(kCuda, previous_, kPriority);
  return at::getHostAllocator(kCuda) == previous_;
}

void PinnedAllocator::begin_session(Context& context) {
  const std::lock_guard lock(mutex_);
  session_ = {};
  session_.context = &context;
  device_.store(0);
  is_recording_.store(true, std::memory_order_release);
  std::erase_if(blocks_, [](const auto& each) { return !each.second.is_live; });
  const at::HostStats stats = previous_->get_stats();
  session_.given_before = stats.active_bytes.allocated;
  if (stats.allocated_bytes.current == 0) return;
  // What lives, or waits in LibTorch's cache.
  find_device();
  int64_t known = 0;
  for (auto& [context_of_block, block] : blocks_) {
    known += block.bytes;
    push(EventKind::kSegment, block.address, block.bytes);
    tell_block(block, event_flags::kAdopted);
  }
  session_.given += known;
  session_.given_before -= known;
  set_unnamed(stats.allocated_bytes.current - known);
}

void PinnedAllocator::end_session() {
  is_recording_.store(false, std::memory_order_release);
  const std::lock_guard lock(mutex_);
  session_ = {};
}

bool PinnedAllocator::watch(c10::DataPtr& data) const {
  return data.get() && data.get_context() && data.compare_exchange_deleter(theirs_, &free_watched);
}

c10::DataPtr PinnedAllocator::allocate(size_t bytes) {
  if (!is_recording_.load(std::memory_order_acquire)) return previous_->allocate(bytes);
  try {
    const CountGuard in_flight(in_flight_);
    c10::DataPtr data = previous_->allocate(bytes);
    if (watch(data)) {
      const HookTimer timer;
      tell_alloc(data, static_cast<int64_t>(bytes), 0);
    }
    return data;
  } catch (...) {
    tell_failure(bytes);
    throw;
  }
}

DeviceIndex PinnedAllocator::device_of(c10::DataPtr& data, int64_t bytes) noexcept {
  const c10::DeleterFnPtr deleter = data.get_deleter();
  if (deleter == &free_watched) return device_.load(std::memory_order_relaxed);
  if (deleter != theirs_ || !is_recording_.load(std::memory_order_acquire)) return 0;
  const std::lock_guard lock(adoption_);
  if (watch(data)) tell_alloc(data, bytes, event_flags::kAdopted);
  return device_.load(std::memory_order_relaxed);
}

void PinnedAllocator::free_block(void* context_of_block) {
  {
    const HookTimer timer;
    const std::lock_guard lock(mutex_);
    const auto found = blocks_.find(context_of_block);
    // Told before the real free: the block may be given out again at once.
    if (found != blocks_.end() && found->second.is_live) {
      Block& block = found->second;
      block.is_live = false;
      session_.given_back += block.bytes;
      session_.live -= block.requested;
      push(EventKind::kFree, block.address, block.requested, 0, session_.live);
    }
  }
  theirs_(context_of_block);
}

void PinnedAllocator::empty_cache() {
  // Under the lock: a new block may have the context of one that is gone.
  const std::lock_guard lock(mutex_);
  previous_->empty_cache();
  if (!session_.context) return;
  int64_t kept = 0;
  for (auto each = blocks_.begin(); each != blocks_.end();) {
    const Block& block = each->second;
    if (block.is_live) {
      kept += block.bytes;
      ++each;
      continue;
    }
    push(EventKind::kSegment, block.address, block.bytes, event_flags::kGone);
    each = blocks_.erase(each);
  }
  // Blocks whose copies still run stay; which, it does not say.
  set_unnamed(previous_->get_stats().allocated_bytes.current - kept);
}

void PinnedAllocator::reset_accumulated_stats() {
  const std::lock_guard lock(mutex_);
  previous_->reset_accumulated_stats();
  session_.given_before = -session_.given;
}

void PinnedAllocator::tell_statistics() noexcept {
  try {
    const std::lock_guard lock(mutex_);
    if (!session_.context || session_.events == 0) return;
    const int before = in_flight_.load();
    const at::HostStats stats = previous_->get_stats();
    if (before != 0 || in_flight_.load() != 0) return;
    // What threads at the same time may have confused: the sum of those that are named is right.
    if (session_.has_unnamed) {
      set_unnamed(stats.allocated_bytes.current - (session_.reserved - session_.unnamed));
    }
    EventLog::Batch batch(session_.context->log);
    Event& count = batch.add(EventKind::kAllocatorCount);
    count.id = device_.load();
    count.b = static_cast<uint64_t>(stats.allocated_bytes.current - session_.reserved);
    count.c = ~uint64_t{0};
    // In 2.11 its count of bytes in use is not lowered by a free. That of bytes given out is right.
    const int64_t given = stats.active_bytes.allocated - session_.given_before;
    Event& use = batch.add(EventKind::kAllocatorUse);
    use.id = device_.load();
    use.a = use.b = static_cast<uint64_t>(given - session_.given_back);
    use.c = session_.events;
  } catch (...) {  // this mark has no statistics
  }
}

int64_t PinnedAllocator::table_bytes() {
  const std::lock_guard lock(mutex_);
  using Node = decltype(blocks_)::value_type;
  return static_cast<int64_t>(blocks_.size() * (sizeof(Node) + 2 * sizeof(void*)));
}

// Our device gets its index when it is needed: CUDA is in use then.
void PinnedAllocator::find_device() {
  if (device_.load() != 0) return;
  session_.context->directory.update([this](RunInfo& info) {
    register_devices(info);
    device_.store(static_cast<DeviceIndex>(info.devices.size()));
    info.devices.push_back({"pinned", "pinned host memory", host_bytes()});
  });
}

void PinnedAllocator::push(EventKind kind, uint64_t address, int64_t bytes, uint8_t flags,
                           int64_t count) {
  if (!session_.context) return;
  Event event;
  event.kind = kind;
  event.id = device_.load(std::memory_order_relaxed);
  event.flags = flags;
  event.a = address;
  event.b = static_cast<uint64_t>(bytes);
  event.c = static_cast<uint64_t>(count);
  if (kind == EventKind::kSegment) {
    session_.reserved += flags & event_flags::kGone ? -bytes : bytes;
    event.c = static_cast<uint64_t>(session_.reserved);
  }
  session_.context->log.push(event);
  ++session_.events;
}

void PinnedAllocator::tell_block(Block& block, uint8_t flags) {
  block.is_live = true;
  session_.live += block.requested;
  push(EventKind::kPlaced, block.address, block.bytes);
  push(EventKind::kAlloc, block.address, block.requested, flags, session_.live);
}

void PinnedAllocator::set_unnamed(int64_t bytes) {
  bytes = std::max<int64_t>(bytes, 0);
  if (bytes == session_.unnamed) return;
  if (session_.unnamed > 0)
    push(EventKind::kSegment, kUnnamed, session_.unnamed, event_flags::kGone);
  session_.unnamed = bytes;
  session_.has_unnamed = true;
  if (bytes > 0) push(EventKind::kSegment, kUnnamed, bytes);
}

void PinnedAllocator::tell_alloc(const c10::DataPtr& data, int64_t bytes, uint8_t flags) noexcept {
  const auto address = reinterpret_cast<uint64_t>(data.get());
  const bool is_adopted = (flags & event_flags::kAdopted) != 0;
  Context* context = nullptr;
  try {
    const std::lock_guard lock(mutex_);
    const auto [found, is_new] = blocks_.try_emplace(data.get_context());
    Block& block = found->second;
    const auto size = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(bytes)));
    block = {address, size, bytes, true};
    context = session_.context;
    if (!context) return;
    find_device();
    if (is_new) {
      // It was there before, if LibTorch has not taken more of the host since.
      if (session_.unnamed >= size &&
          (is_adopted || previous_->get_stats().allocated_bytes.current <= session_.reserved)) {
        set_unnamed(session_.unnamed - size);
      }
      push(EventKind::kSegment, address, size);
    }
    session_.given += size;
    if (is_adopted) session_.given_before -= size;
    tell_block(block, flags);
  } catch (...) {  // no memory for our table: the block is not in the books
    return;
  }
  if (is_adopted) return;
  if (const auto made = context->devices.block_made.load(std::memory_order_relaxed)) {
    made(*context, address, bytes);
  }
}

void PinnedAllocator::tell_failure(size_t bytes) noexcept {
  try {
    Context* context = nullptr;
    {
      const std::lock_guard lock(mutex_);
      context = session_.context;
      if (!context) return;
      find_device();
    }
    tell_statistics();
    if (const auto failed = context->devices.allocation_failed.load()) failed(*context);
    Event event;
    event.kind = EventKind::kOutOfMemory;
    event.id = device_.load();
    event.a = bytes;
    event.c = static_cast<uint64_t>(host_bytes());
    context->log.push(event);
    context->settle();
  } catch (...) {  // the failure itself is what counts
  }
}

}  // namespace tally::hooks::cuda
