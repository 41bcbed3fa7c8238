// SPDX-License-Identifier: Apache-2.0
#include "hooks/cuda/allocator_events.h"

#include <pthread.h>

#include <array>
#include <atomic>
#include <bit>
#include <cmath>

#include "profiler/core/hook_timer.h"

namespace tally::hooks::cuda {
namespace {

// What happens to a device's events.
enum class Mode : uint8_t {
  kIgnore,    // no session
  kSnapshot,  // a session begins: ignored until its snapshot is taken
  kKeep,      // the snapshot is being told; what happens meanwhile is kept
  kTell,      // to the log
};

// An event that waits until the snapshot is told.
struct Kept {
  TraceEntry::Action action;
  uint64_t address;
  int64_t bytes;
};

// The allocator calls back under the device's lock; everything here but the atomics is guarded by
// it.
struct alignas(64) Device {
  std::atomic<Mode> mode{Mode::kIgnore};
  // Written under the lock, read by tell_statistics() without.
  std::atomic<int64_t> live_bytes{0};
  std::atomic<int64_t> reserved_bytes{0};
  std::atomic<uint64_t> events{0};
  std::atomic<int64_t> used_bytes{-1};  // of the device, by whomever; -1: not asked yet
  std::vector<Kept> kept;
};

constexpr size_t kMostDevices = 120;  // as c10 has it
std::array<Device, kMostDevices>& devices() {
  static auto* const all = new std::array<Device, kMostDevices>;  // trackers outlive static objects
  return *all;
}
std::atomic<Context*> context_of_session{nullptr};
// A snapshot that this thread takes; the program may take others. Each device calls back once, in
// their order, and the entry names device 0 whichever it is.
thread_local bool takes_snapshot = false;
thread_local size_t snapshots_told = 0;

DeviceIndex index_of(size_t ordinal) { return static_cast<DeviceIndex>(1 + ordinal); }

Event event_of(EventKind kind, size_t ordinal) {
  Event event;
  event.kind = kind;
  event.id = index_of(ordinal);
  return event;
}

// One event of the device, with the counts that include it.
void push(Context& context, size_t ordinal, EventKind kind, uint64_t address, int64_t bytes,
          uint8_t flags = 0) noexcept {
  Device& device = devices()[ordinal];
  const auto add = [](auto& counter, auto by) {
    const auto now = counter.load(std::memory_order_relaxed) + by;
    counter.store(now, std::memory_order_relaxed);
    return now;
  };
  Event event = event_of(kind, ordinal);
  event.flags = flags;
  event.a = address;
  event.b = static_cast<uint64_t>(bytes);
  switch (kind) {
    case EventKind::kAlloc:
    case EventKind::kFree:
      event.c =
          static_cast<uint64_t>(add(device.live_bytes, kind == EventKind::kAlloc ? bytes : -bytes));
      break;
    case EventKind::kSegment:
      event.c = static_cast<uint64_t>(
          add(device.reserved_bytes, flags & event_flags::kGone ? -bytes : bytes));
      break;
    default:
      break;
  }
  context.log.push(event);
  add(device.events, uint64_t{1});
}

void tell(Context& context, size_t ordinal, const Kept& entry) noexcept {
  using namespace event_flags;
  switch (entry.action) {
    case TraceEntry::ALLOC:
      push(context, ordinal, EventKind::kAlloc, entry.address, entry.bytes);
      if (const auto made = context.devices.block_made.load(std::memory_order_relaxed)) {
        made(context, entry.address, entry.bytes);
      }
      return;
    case TraceEntry::FREE_REQUESTED:
      return push(context, ordinal, EventKind::kFreeRequested, entry.address, 0);
    case TraceEntry::FREE_COMPLETED:
      return push(context, ordinal, EventKind::kFree, entry.address, entry.bytes);
    case TraceEntry::SEGMENT_ALLOC:
      return push(context, ordinal, EventKind::kSegment, entry.address, entry.bytes);
    case TraceEntry::SEGMENT_FREE:
      return push(context, ordinal, EventKind::kSegment, entry.address, entry.bytes, kGone);
    case TraceEntry::SEGMENT_MAP:
      return push(context, ordinal, EventKind::kSegment, entry.address, entry.bytes, kMapped);
    case TraceEntry::SEGMENT_UNMAP:
      return push(context, ordinal, EventKind::kSegment, entry.address, entry.bytes,
                  kGone | kMapped);
    case TraceEntry::SNAPSHOT:
    case TraceEntry::OOM:
      return;
  }
}

// The program's snapshots and its own trackers change nothing here: only a snapshot of this
// thread's moves a device on.
void on_snapshot(Context& context) noexcept {
  if (!takes_snapshot || snapshots_told >= kMostDevices) return;
  const size_t ordinal = snapshots_told++;
  Device& device = devices()[ordinal];
  if (device.mode.load() == Mode::kSnapshot) {
    device.mode.store(Mode::kKeep);
  } else if (device.mode.load() == Mode::kKeep) {
    for (const Kept& entry : device.kept) tell(context, ordinal, entry);
    std::vector<Kept>().swap(device.kept);
    device.mode.store(Mode::kTell);
  }
}

void on_entry(const TraceEntry& entry) noexcept {
  if (entry.device_ < 0 || static_cast<size_t>(entry.device_) >= kMostDevices) return;
  const auto ordinal = static_cast<size_t>(entry.device_);
  Device& device = devices()[ordinal];
  const Mode mode = device.mode.load(std::memory_order_relaxed);
  if (mode == Mode::kIgnore) return;
  Context* context = context_of_session.load(std::memory_order_acquire);
  if (!context) return;
  if (entry.action_ == TraceEntry::SNAPSHOT) return on_snapshot(*context);
  const Kept told{entry.action_, entry.addr_, static_cast<int64_t>(entry.size_)};
  if (mode == Mode::kTell) {
    const HookTimer timer;
    tell(*context, ordinal, told);
  } else if (mode == Mode::kKeep) {
    device.kept.push_back(told);
  }
}

void tell_device(Context& context, Allocator& allocator, size_t ordinal) {
  Device& device = devices()[ordinal];
  if (device.events.load() == 0) return;
  // When no event came in between, the statistics are those of exactly so many events.
  constexpr int kMostTries = 8;
  for (int tries = 0; tries < kMostTries; ++tries) {
    const uint64_t before = device.events.load();
    const int64_t live = device.live_bytes.load();
    const int64_t reserved = device.reserved_bytes.load();
    const DeviceStats stats = allocator.getDeviceStats(static_cast<c10::DeviceIndex>(ordinal));
    if (device.events.load() != before) continue;
    EventLog::Batch batch(context.log);
    Event& count = batch.add(EventKind::kAllocatorCount);
    count.id = index_of(ordinal);
    count.a = static_cast<uint64_t>(stats.requested_bytes[0].current - live);
    count.b = static_cast<uint64_t>(stats.reserved_bytes[0].current - reserved);
    count.c = static_cast<uint64_t>(device.used_bytes.load());
    Event& use = batch.add(EventKind::kAllocatorUse);
    use.id = index_of(ordinal);
    use.a = static_cast<uint64_t>(stats.allocated_bytes[0].current);
    use.b = static_cast<uint64_t>(stats.active_bytes[0].current);
    use.c = before;
    return;
  }
}

// Called after the allocator gave back its cache and before it throws. Workspaces are not listed:
// an allocation of one may be what failed, under the lock of their list.
void on_out_of_memory(int64_t ordinal, size_t wanted, size_t limit, size_t free_bytes) noexcept {
  Context* context = context_of_session.load(std::memory_order_acquire);
  if (!context || ordinal < 0 || static_cast<size_t>(ordinal) >= kMostDevices) return;
  if (devices()[static_cast<size_t>(ordinal)].mode.load() != Mode::kTell) return;
  try {
    tell_device(*context, *find_allocator(), static_cast<size_t>(ordinal));
  } catch (...) {  // the mark has no statistics
  }
  if (const auto failed = context->devices.allocation_failed.load()) failed(*context);
  Event event = event_of(EventKind::kOutOfMemory, static_cast<size_t>(ordinal));
  event.a = wanted;
  event.b = free_bytes;
  event.c = limit;
  context->log.push(event);
  context->settle();
}

// 4 bits for each power of two from 1 MiB on: the parts between it and the next, as a power of two.
uint64_t rounding_codes(const std::vector<size_t>& divisions) {
  uint64_t codes = 0;
  for (size_t i = 0; i < divisions.size() && i < 16; ++i) {
    if (divisions[i] > 1)
      codes |= static_cast<uint64_t>(std::bit_width(divisions[i]) - 1) << (4 * i);
  }
  return codes;
}

void tell_segments(Context& context,
                   const c10::cuda::CUDACachingAllocator::SnapshotInfo& snapshot) {
  using namespace event_flags;
  std::array<bool, kMostDevices> has_rules{};
  for (const auto& segment : snapshot.segments) {
    const auto ordinal = static_cast<size_t>(segment.device);
    if (!has_rules[ordinal]) {
      has_rules[ordinal] = true;
      Event rules = event_of(EventKind::kAllocatorRules, ordinal);
      rules.a = snapshot.config_metadata.max_split_size;
      rules.b = rounding_codes(snapshot.config_metadata.roundup_power2_divisions);
      context.log.push(rules);
    }
    push(context, ordinal, EventKind::kSegment, segment.address,
         static_cast<int64_t>(segment.total_size), segment.is_expandable ? kMapped : 0);
    uint64_t address = segment.address;
    for (const auto& block : segment.blocks) {
      if (block.allocated || block.active) {
        push(context, ordinal, EventKind::kPlaced, address, static_cast<int64_t>(block.size));
        push(context, ordinal, EventKind::kAlloc, address,
             static_cast<int64_t>(block.requested_size), kAdopted);
        if (!block.allocated) push(context, ordinal, EventKind::kFreeRequested, address, 0);
      }
      address += block.size;
    }
  }
  // Devices without a segment yet follow the same rules.
  for (size_t ordinal = 0; ordinal < kMostDevices; ++ordinal) {
    if (has_rules[ordinal] || devices()[ordinal].mode.load() == Mode::kSnapshot) continue;
    if (snapshot.config_metadata.max_split_size == ~size_t{0} &&
        rounding_codes(snapshot.config_metadata.roundup_power2_divisions) == 0) {
      break;  // the rules that a device begins with
    }
    Event rules = event_of(EventKind::kAllocatorRules, ordinal);
    rules.a = snapshot.config_metadata.max_split_size;
    rules.b = rounding_codes(snapshot.config_metadata.roundup_power2_divisions);
    context.log.push(rules);
  }
}

}  // namespace

bool begin(Context& context, Allocator& allocator) {
  if (!allocator.initialized()) return false;
  static const bool attached = [&allocator] {
    allocator.attachAllocatorTraceTracker([](const TraceEntry& entry) { on_entry(entry); });
    allocator.attachOutOfMemoryObserver(
        [](int64_t device, size_t wanted, size_t limit, size_t free_bytes) {
          on_out_of_memory(device, wanted, limit, free_bytes);
        });
    // The bookkeeper does not come along into a forked child: it records nothing.
    pthread_atfork(nullptr, nullptr, [] { end(); });
    return true;
  }();
  (void)attached;
  for (Device& device : devices()) {
    device.live_bytes = device.reserved_bytes = 0;
    device.events = 0;
    device.used_bytes = -1;
    device.mode.store(Mode::kSnapshot);
  }
  context_of_session.store(&context, std::memory_order_release);
  takes_snapshot = true;
  snapshots_told = 0;
  // The first snapshot draws a line under each device's lock: what came before is in it, what comes
  // after is kept. The second one, under the lock again, tells what was kept and opens the way.
  tell_segments(context, allocator.snapshot({0, 0}, false));
  snapshots_told = 0;
  allocator.snapshot({0, 0}, false);
  takes_snapshot = false;
  return true;
}

void end() noexcept {
  context_of_session.store(nullptr, std::memory_order_release);
  for (Device& device : devices()) device.mode.store(Mode::kIgnore);
}

void tell_statistics(Context& context, Allocator& allocator) noexcept {
  if (!context_of_session.load(std::memory_order_acquire)) return;  // a forked child
  const int64_t begin_ns = now_ns();
  try {
    for (size_t ordinal = 0; ordinal < kMostDevices; ++ordinal) {
      if (devices()[ordinal].mode.load() == Mode::kTell) tell_device(context, allocator, ordinal);
    }
    std::vector<uint64_t> workspaces;
    list_workspaces(workspaces);
    for (const uint64_t pointer : workspaces) {
      Event event;
      event.kind = EventKind::kWorkspace;
      event.a = pointer;
      context.log.push(event);
    }
  } catch (...) {  // this mark has no statistics
  }
  add_hook_time(now_ns() - begin_ns);
}

void ask_devices(Allocator& allocator) noexcept {
  for (size_t ordinal = 0; ordinal < kMostDevices; ++ordinal) {
    Device& device = devices()[ordinal];
    if (device.mode.load() != Mode::kTell || device.reserved_bytes.load() == 0) continue;
    try {
      const auto [free_bytes, total] =
          allocator.getMemoryInfo(static_cast<c10::DeviceIndex>(ordinal));
      device.used_bytes.store(static_cast<int64_t>(total - free_bytes));
    } catch (...) {  // it stays what it was
    }
  }
}

}  // namespace tally::hooks::cuda
