// SPDX-License-Identifier: Apache-2.0
#include "profiler/core/event_log.h"

#include <sys/mman.h>
#include <time.h>

#include <cstdlib>
#include <cstring>
#include <new>

namespace tally {
namespace {

std::atomic<uint64_t> next_identity{1};

}  // namespace

struct LaneHolder {
  std::shared_ptr<EventLog::Lane> lane;
  ~LaneHolder() {
    if (lane) lane->in_use.store(false, std::memory_order_release);
    EventLog::cached_lane_ = {0, nullptr, true};
  }
};
static thread_local LaneHolder lane_holder;

EventLog::EventLog() : identity_(next_identity.fetch_add(1)), shared_(find_lane()) {
  if (!shared_) throw std::bad_alloc();
  spare_.reserve(kKeptChunks);
}

EventLog::~EventLog() {
  for (auto& lane : lanes_) {
    for (Chunk* chunk = lane->head; chunk;) {
      Chunk* next = chunk->next.load();
      munmap(chunk, sizeof(Chunk));
      chunk = next;
    }
  }
  for (Chunk* chunk : spare_) munmap(chunk, sizeof(Chunk));
}

uint64_t EventLog::numbered() const noexcept {
  return __atomic_load_n(&ticket_.sequence, __ATOMIC_ACQUIRE);
}

EventLog::Chunk* EventLog::map_chunk() noexcept {
  // Not from malloc: a chunk on top of the program's heap would keep all that is freed below it
  // from going back to the system.
  void* memory =
      mmap(nullptr, sizeof(Chunk), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  auto* chunk = static_cast<Chunk*>(memory);
  new (&chunk->written) std::atomic<uint32_t>{0};
  new (&chunk->next) std::atomic<Chunk*>{nullptr};
  const size_t now = bytes_.fetch_add(sizeof(Chunk)) + sizeof(Chunk);
  for (size_t seen = highest_bytes_.load(); seen < now;) {
    if (highest_bytes_.compare_exchange_weak(seen, now)) break;
  }
  return chunk;
}

EventLog::Chunk* EventLog::take_spare(size_t kept) noexcept {
  const std::lock_guard lock(mutex_);
  if (spare_.size() <= kept) return nullptr;
  Chunk* chunk = spare_.back();
  spare_.pop_back();
  return chunk;
}

EventLog::Chunk* EventLog::new_chunk() noexcept {
  if (Chunk* chunk = take_spare(kReserve)) return chunk;
  if (Chunk* chunk = map_chunk()) return chunk;
  // The bookkeeper looks every 80 ms at least. Nobody waits for it twice in vain.
  const int tries = starved_.load() ? 1 : 100;
  for (int i = 0; i < tries; ++i) {
    if (Chunk* chunk = take_spare(0)) return chunk;
    const timespec a_millisecond{0, 1'000'000};
    if (tries > 1) nanosleep(&a_millisecond, nullptr);
  }
  starved_.store(true);
  return nullptr;
}

void EventLog::recycle(Chunk* chunk) noexcept {
  chunk->written.store(0, std::memory_order_relaxed);
  chunk->next.store(nullptr, std::memory_order_relaxed);
  {
    const std::lock_guard lock(mutex_);
    starved_.store(false);
    if (spare_.size() < kKeptChunks) {
      spare_.push_back(chunk);
      return;
    }
  }
  bytes_.fetch_sub(sizeof(Chunk));
  munmap(chunk, sizeof(Chunk));
}

std::shared_ptr<EventLog::Lane> EventLog::find_lane() noexcept try {
  {
    const std::lock_guard lock(mutex_);
    for (auto& lane : lanes_) {
      bool free = false;
      if (lane->in_use.compare_exchange_strong(free, true, std::memory_order_acquire)) {
        lane->last_ticks = TickClock::ticks();  // it was that of a thread which is gone
        return lane;
      }
    }
  }
  auto lane = std::make_shared<Lane>();
  lane->head = new_chunk();
  if (!lane->head) return nullptr;
  begin_chunk(*lane, lane->head);
  lane->last_ticks = TickClock::ticks();
  const std::lock_guard lock(mutex_);
  lane->thread = static_cast<uint16_t>(lanes_.size());
  lanes_.push_back(lane);
  return lane;
} catch (const std::bad_alloc&) {
  return nullptr;
}

void EventLog::begin_chunk(Lane& lane, Chunk* chunk) noexcept {
  lane.tail = chunk;
  lane.next = chunk->events + lane.open;
  lane.end = chunk->events + kChunkEvents;
}

EventLog::Lane& EventLog::enter_slowly() noexcept {
  if (!cached_lane_.shares) {
    if (Lane* own = make_own_lane()) return *own;
    cached_lane_.shares = true;
  }
  shared_mutex_.lock();
  return *shared_;
}

void EventLog::leave_shared(Lane& lane) noexcept {
  if (&lane == shared_.get()) shared_mutex_.unlock();
}

EventLog::Lane* EventLog::make_own_lane() noexcept {
  if (lane_holder.lane) lane_holder.lane->in_use.store(false, std::memory_order_release);
  lane_holder.lane = find_lane();
  if (!lane_holder.lane) return nullptr;
  cached_lane_ = {identity_, lane_holder.lane.get(), false};
  return lane_holder.lane.get();
}

Event& EventLog::add_to_new_chunk(Lane& lane, EventKind kind) noexcept {
  if (lane.open == kChunkEvents) publish(lane, 0);
  Chunk* fresh = new_chunk();
  if (!fresh) {
    lost_.fetch_add(1, std::memory_order_relaxed);
    return lane.lost;
  }
  std::memcpy(fresh->events, lane.next - lane.open, lane.open * sizeof(Event));
  lane.tail->next.store(fresh, std::memory_order_release);
  begin_chunk(lane, fresh);
  return add(lane, kind);
}

void EventLog::restart() noexcept {
  __atomic_store_n(&ticket_.allocator_bytes, 0, __ATOMIC_RELEASE);
  lost_.store(0, std::memory_order_relaxed);
  starved_.store(false);
  for (size_t missing = kReserve; missing > 0; --missing) {
    {
      const std::lock_guard lock(mutex_);
      if (spare_.size() >= kReserve) return;
    }
    if (Chunk* chunk = map_chunk()) recycle(chunk);
  }
}

std::vector<EventLog::Lane*> EventLog::consumer_lanes() {
  const std::lock_guard lock(mutex_);
  std::vector<Lane*> lanes;
  lanes.reserve(lanes_.size());
  for (const auto& lane : lanes_) lanes.push_back(lane.get());
  return lanes;
}

Event* EventLog::peek(Lane& lane) noexcept {
  while (lane.read == lane.readable) {
    Chunk* next = lane.head->next.load(std::memory_order_acquire);
    // What was published before `next` was set is seen now, at the latest.
    lane.readable = lane.head->written.load(std::memory_order_acquire);
    if (lane.read != lane.readable) break;
    if (!next) return nullptr;
    recycle(lane.head);
    lane.head = next;
    lane.read = lane.readable = 0;
  }
  return &lane.head->events[lane.read];
}

}  // namespace tally
