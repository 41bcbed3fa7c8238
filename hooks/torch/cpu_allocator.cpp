// SPDX-License-Identifier: Apache-2.0
#include "hooks/torch/cpu_allocator.h"

#include <c10/core/CPUAllocator.h>
#include <pthread.h>

#include <array>
#include <atomic>
#include <mutex>
#include <optional>

#include "hooks/torch/runtime.h"
#include "hooks/torch/source_lines.h"
#include "profiler/core/error.h"
#include "profiler/core/flat_map.h"
#include "profiler/core/host_memory.h"
#include "profiler/core/spin_lock.h"

namespace tally::hooks {
namespace {

// Sizes of the live blocks, by address, in shards of one lock each. A block belongs to the session
// whose number it carries; frees of older sessions' blocks are no events of this one.
struct LiveBlock {
  int64_t bytes : 47;
  uint64_t session : 17;
};
static_assert(sizeof(LiveBlock) == 8);

class CpuAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    Context* context = recording();
    c10::DataPtr data = context ? allocate_watched(*context, bytes) : previous_->allocate(bytes);
    if (!context || !data.get()) return data;  // of 0 bytes there is no block
    if (!data.compare_exchange_deleter(previous_deleter_, &free_watched_block)) return data;
    tell_source_line(*context, static_cast<int64_t>(bytes));
    const HookTimer timer;
    add(*context, data.get(), static_cast<int64_t>(bytes), 0);
    return data;
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_watched_block; }
  bool is_simple_data_ptr(const c10::DataPtr& data) const override {
    return data.get() == data.get_context();
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  // nullptr, or the sentence that says why it cannot.
  const char* install() {
    c10::Allocator* current = c10::GetCPUAllocator();
    if (current != this) {
      if (!current->raw_deleter()) return "the CPU allocator in use has no plain deleter to wrap";
      previous_ = current;
      previous_deleter_ = current->raw_deleter();
      c10::SetCPUAllocator(this, kPriority);
      if (c10::GetCPUAllocator() != this) return "another CPU allocator of higher priority is installed";
    }
    return nullptr;
  }
  // Blocks of the sessions before become blocks of this one.
  void begin_session(Context& context, int64_t stop_at_bytes) {
    stop_at_bytes_.store(stop_at_bytes > 0 ? stop_at_bytes : INT64_MAX);
    const uint64_t session = session_.load() % kMostSessions + 1;
    session_.store(session);
    context.log.restart();
    for (Shard& shard : shards_) {
      const std::lock_guard lock(shard.mutex);
      shard.live.for_each([&](uint64_t pointer, LiveBlock& block) {
        block.session = session;
        push(context, EventKind::kAlloc, pointer, block.bytes, event_flags::kAdopted);
      });
    }
  }
  // Removes itself if it is still the current one; its blocks keep their deleter.
  bool uninstall() {
    if (c10::GetCPUAllocator() != this) return false;
    c10::SetCPUAllocator(previous_, kPriority);
    return c10::GetCPUAllocator() == previous_;
  }

  Watched adopt(c10::DataPtr& data, size_t bytes) noexcept {
    const c10::DeleterFnPtr deleter = data.get_deleter();
    if (deleter == &free_watched_block) return Watched::kOurs;
    if (deleter != previous_deleter_ || !previous_deleter_) return Watched::kForeign;
    Context* context = recording();
    if (!context) return Watched::kForeign;
    const std::lock_guard lock(adoption_);
    if (!data.compare_exchange_deleter(previous_deleter_, &free_watched_block)) {
      return data.get_deleter() == &free_watched_block ? Watched::kOurs : Watched::kForeign;
    }
    add(*context, data.get(), static_cast<int64_t>(bytes), event_flags::kAdopted);
    return Watched::kAdopted;
  }

  void free_block(void* pointer) {
    if (pointer) {  // oneDNN really frees nullptr
      const HookTimer timer;
      Shard& shard = shard_of(pointer);
      const std::lock_guard lock(shard.mutex);
      const auto key = reinterpret_cast<uint64_t>(pointer);
      // Forgotten before the real free: the address may be given out again at once.
      const std::optional<LiveBlock> gone = shard.live.take(key);
      Context* context = recording();
      if (gone && context && gone->session == session_.load(std::memory_order_relaxed)) {
        push(*context, EventKind::kFree, key, gone->bytes, 0);
      }
    }
    previous_deleter_(pointer);
  }

  int64_t table_bytes() {
    size_t bytes = 0;
    for (Shard& shard : shards_) {
      const std::lock_guard lock(shard.mutex);
      bytes += shard.live.bytes();
    }
    return static_cast<int64_t>(bytes);
  }

  // A fork while another thread holds a shard would leave it locked in the child.
  void lock_all() {
    for (Shard& shard : shards_) shard.mutex.lock();
  }
  void unlock_all() {
    for (Shard& shard : shards_) shard.mutex.unlock();
  }

 private:
  static constexpr uint8_t kPriority = 0;
  struct alignas(64) Shard {
    SpinLock mutex;
    FlatMap<LiveBlock> live;
  };

  c10::DataPtr allocate_watched(Context& context, size_t bytes) {
    const int64_t limit = stop_at_bytes_.load(std::memory_order_relaxed);
    const int64_t alive = context.log.allocator_bytes();
    if (alive + static_cast<int64_t>(bytes) > limit) [[unlikely]] {
      tell_failure(context, bytes, limit - alive, limit);
      TORCH_CHECK_WITH(OutOfMemoryError, false, "the budget of ", limit, " bytes (TORCHTALLY_BUDGET) is spent: ",
                       alive, " are alive, and ", bytes,
                       " more were asked for. The recording says what is alive; without "
                       "TORCHTALLY_BUDGET_ACTION=stop the program goes on.");
    }
    try {
      return previous_->allocate(bytes);
    } catch (...) {
      tell_failure(context, bytes, 0, host_bytes());
      throw;
    }
  }
  static void tell_failure(Context& context, size_t wanted, int64_t free_bytes, int64_t limit) noexcept {
    tell_source_line_of_failure(context);
    Event event;
    event.kind = EventKind::kOutOfMemory;
    event.a = wanted;
    event.b = static_cast<uint64_t>(free_bytes);
    event.c = static_cast<uint64_t>(limit);
    context.log.push(event);
    context.settle();
  }

  Shard& shard_of(const void* pointer) {
    const auto address = reinterpret_cast<uintptr_t>(pointer);
    return shards_[((address >> 6) ^ (address >> 14)) % shards_.size()];
  }
  void push(Context& context, EventKind kind, uint64_t pointer, int64_t bytes, uint8_t flags) {
    Event event;
    event.kind = kind;
    event.flags = flags;
    event.a = pointer;
    event.b = static_cast<uint64_t>(bytes);
    context.log.push(event, kind == EventKind::kAlloc ? bytes : -bytes);
  }
  void add(Context& context, void* pointer, int64_t bytes, uint8_t flags) noexcept {
    const auto key = reinterpret_cast<uint64_t>(pointer);
    Shard& shard = shard_of(pointer);
    const std::lock_guard lock(shard.mutex);
    try {
      shard.live.prepare_insert(key);
    } catch (const std::bad_alloc&) {
      context.log.count_lost();  // its free will not be known either: the block is in no books
      return;
    }
    push(context, EventKind::kAlloc, key, bytes, flags);
    *shard.live.insert(key).first = {bytes, session_.load(std::memory_order_relaxed)};
  }

  c10::Allocator* previous_ = nullptr;
  c10::DeleterFnPtr previous_deleter_ = nullptr;
  std::array<Shard, 64> shards_;
  static constexpr uint64_t kMostSessions = (1 << 17) - 2;  // then the numbers begin again
  std::atomic<uint64_t> session_{0};
  std::atomic<int64_t> stop_at_bytes_{INT64_MAX};
  std::mutex adoption_;
};

CpuAllocator& allocator() {
  static auto* const instance = [] {
    auto* made = new CpuAllocator;  // never destroyed: see the header
    pthread_atfork([] { allocator().lock_all(); }, [] { allocator().unlock_all(); },
                   [] {
                     allocator().unlock_all();
                     // The bookkeeper did not come along: the child records nothing.
                     active_context().store(nullptr);
                   });
    return made;
  }();
  return *instance;
}


class CpuAllocatorSource final : public Source {
 public:
  explicit CpuAllocatorSource(CpuAllocatorOptions options) : options_(options) {}
  std::string_view name() const override { return "torch.cpu_allocator"; }
  Availability availability() const override { return {true, {}}; }
  void start(Context& context) override {
    if (const char* reason = allocator().install()) {
      throw Error("the CPU allocator cannot be watched: {}", reason);
    }
    allocator().begin_session(context, options_.stop_at_bytes);
    watch_source_lines(options_.source_lines_bytes);
    active_context().store(&context, std::memory_order_release);
    replaced_ = false;
  }
  void stop() noexcept override {
    active_context().store(nullptr, std::memory_order_release);
    replaced_ = !allocator().uninstall();
  }
  SourceStatistics statistics() const override {
    SourceStatistics statistics;
    statistics.nanoseconds = HookTimer::total_ns();
    statistics.bytes = allocator().table_bytes();
    if (replaced_) {
      statistics.notes.push_back(
          "Another CPU allocator was installed while recording; what it allocated is not in the books.");
    }
    return statistics;
  }

 private:
  const CpuAllocatorOptions options_;
  bool replaced_ = false;
};

}  // namespace

std::unique_ptr<Source> make_cpu_allocator_source(CpuAllocatorOptions options) {
  return std::make_unique<CpuAllocatorSource>(options);
}

void free_watched_block(void* pointer) { allocator().free_block(pointer); }

Watched adopt(c10::DataPtr& data, size_t bytes) noexcept { return allocator().adopt(data, bytes); }

}  // namespace tally::hooks
