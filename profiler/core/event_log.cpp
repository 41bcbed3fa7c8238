// SPDX-License-Identifier: Apache-2.0
#include "profiler/core/event_log.h"

#include <cstdlib>
#include <ctime>
#include <new>

namespace tally {
namespace {

int64_t steady_ns() noexcept {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{1'000'000'000} * now.tv_sec + now.tv_nsec;
}

std::atomic<uint64_t> next_identity{1};

}  // namespace

// What a thread remembers: its lane in the log it wrote to last. The first part is trivial, so it
// can still be read while the thread's other objects are being destroyed.
namespace {
struct CachedLane {
  uint64_t identity;
  void* lane;
  bool thread_ended;
};
// initial-exec: a plain load, also in a library; a few bytes, so that one that is loaded late has room.
__attribute__((tls_model("initial-exec"))) thread_local constinit CachedLane cached_lane{
    0, nullptr, false};

bool reads_clock(EventKind kind) noexcept {
  switch (kind) {
    case EventKind::kOpEnter:
    case EventKind::kOpExit:
    case EventKind::kNodeEnter:
    case EventKind::kNodeExit:
    case EventKind::kScopeEnter:
    case EventKind::kScopeExit:
    case EventKind::kEdgeBegin:
    case EventKind::kEdgeEnd:
    case EventKind::kBackwardEnd:
    case EventKind::kStepBegin:
    case EventKind::kMicroStep:
    case EventKind::kStepEnd: return true;
    default: return false;
  }
}
}  // namespace

struct LaneHolder {
  std::shared_ptr<EventLog::Lane> lane;
  ~LaneHolder() {
    if (lane) lane->in_use.store(false, std::memory_order_release);
    cached_lane = {0, nullptr, true};
  }
};
static thread_local LaneHolder lane_holder;

EventLog::EventLog() : identity_(next_identity.fetch_add(1)) {}

EventLog::~EventLog() {
  for (auto& lane : lanes_) {
    for (Chunk* chunk = lane->head; chunk;) {
      Chunk* next = chunk->next.load();
      std::free(chunk);
      chunk = next;
    }
  }
  for (Chunk* chunk : spare_) std::free(chunk);
}

EventLog::Ticket EventLog::take_tickets(uint64_t count, int64_t delta) noexcept {
  using Word = unsigned __int128;
  auto* word = reinterpret_cast<Word*>(&ticket_);
  // Two plain loads may tear; the compare and swap then fails and tells the true value.
  Word seen = (static_cast<Word>(static_cast<uint64_t>(
                   __atomic_load_n(&ticket_.allocator_bytes, __ATOMIC_RELAXED)))
               << 64) |
              __atomic_load_n(&ticket_.sequence, __ATOMIC_RELAXED);
  for (;;) {
    const uint64_t sequence = static_cast<uint64_t>(seen);
    const int64_t bytes = static_cast<int64_t>(static_cast<uint64_t>(seen >> 64)) + delta;
    const Word wanted =
        (static_cast<Word>(static_cast<uint64_t>(bytes)) << 64) | (sequence + count);
    const Word before = __sync_val_compare_and_swap(word, seen, wanted);
    if (before == seen) return {sequence, bytes};
    seen = before;
  }
}

uint64_t EventLog::numbered() const noexcept {
  return __atomic_load_n(&ticket_.sequence, __ATOMIC_ACQUIRE);
}

EventLog::Chunk* EventLog::new_chunk() {
  {
    const std::lock_guard lock(mutex_);
    if (!spare_.empty()) {
      Chunk* chunk = spare_.back();
      spare_.pop_back();
      return chunk;
    }
  }
  void* memory = std::malloc(sizeof(Chunk));
  if (!memory) std::abort();  // 200 KB: nothing in the process would survive this
  auto* chunk = static_cast<Chunk*>(memory);
  new (&chunk->written) std::atomic<uint32_t>{0};
  new (&chunk->next) std::atomic<Chunk*>{nullptr};
  const size_t now = bytes_.fetch_add(sizeof(Chunk)) + sizeof(Chunk);
  for (size_t seen = highest_bytes_.load(); seen < now;) {
    if (highest_bytes_.compare_exchange_weak(seen, now)) break;
  }
  return chunk;
}

void EventLog::recycle(Chunk* chunk) noexcept {
  constexpr size_t kKept = 16;
  chunk->written.store(0, std::memory_order_relaxed);
  chunk->next.store(nullptr, std::memory_order_relaxed);
  {
    const std::lock_guard lock(mutex_);
    if (spare_.size() < kKept) {
      spare_.push_back(chunk);
      return;
    }
  }
  bytes_.fetch_sub(sizeof(Chunk));
  std::free(chunk);
}

std::shared_ptr<EventLog::Lane> EventLog::find_lane() {
  {
    const std::lock_guard lock(mutex_);
    for (auto& lane : lanes_) {
      bool free = false;
      if (lane->in_use.compare_exchange_strong(free, true, std::memory_order_acquire)) {
        lane->last_time_ns = 0;  // that of a thread which is gone
        return lane;
      }
    }
  }
  auto lane = std::make_shared<Lane>();
  lane->head = lane->tail = new_chunk();
  const std::lock_guard lock(mutex_);
  lane->thread = static_cast<uint16_t>(lanes_.size());
  lanes_.push_back(lane);
  return lane;
}

EventLog::Lane* EventLog::lane() noexcept {
  if (cached_lane.identity != identity_) {
    if (cached_lane.thread_ended) return nullptr;
    if (lane_holder.lane) lane_holder.lane->in_use.store(false, std::memory_order_release);
    lane_holder.lane = find_lane();
    cached_lane = {identity_, lane_holder.lane.get(), false};
  }
  return static_cast<Lane*>(cached_lane.lane);
}

void EventLog::push(Event event, int64_t allocator_delta) noexcept {
  if (Lane* own = lane()) return append(*own, &event, 1, allocator_delta);
  const std::lock_guard lock(late_mutex_);
  if (!late_) late_ = find_lane();
  append(*late_, &event, 1, allocator_delta);
}

void EventLog::push_all(Event* events, size_t count) noexcept {
  if (count == 0) return;
  if (Lane* own = lane()) return append(*own, events, count, 0);
  const std::lock_guard lock(late_mutex_);
  if (!late_) late_ = find_lane();
  append(*late_, events, count, 0);
}

void EventLog::append(Lane& lane, Event* events, size_t count, int64_t allocator_delta) noexcept {
  Ticket ticket = take_tickets(count, allocator_delta);
  Chunk* chunk = lane.tail;
  uint32_t at = chunk->written.load(std::memory_order_relaxed);
  for (size_t i = 0; i < count; ++i) {
    Event& event = events[i];
    if (at == kChunkEvents) {
      chunk->written.store(at, std::memory_order_release);
      Chunk* fresh = new_chunk();
      chunk->next.store(fresh, std::memory_order_release);
      lane.tail = chunk = fresh;
      at = 0;
    }
    if (lane.last_time_ns == 0 || reads_clock(event.kind)) lane.last_time_ns = steady_ns();
    event.time_ns = lane.last_time_ns;
    event.thread = lane.thread;
    event.sequence = ticket.sequence++;
    event.allocator_bytes = ticket.allocator_bytes;
    chunk->events[at++] = event;
  }
  chunk->written.store(at, std::memory_order_release);
}

void EventLog::restart_count() noexcept {
  __atomic_store_n(&ticket_.allocator_bytes, 0, __ATOMIC_RELEASE);
}

std::vector<EventLog::Lane*> EventLog::consumer_lanes() {
  const std::lock_guard lock(mutex_);
  std::vector<Lane*> lanes;
  lanes.reserve(lanes_.size());
  for (const auto& lane : lanes_) lanes.push_back(lane.get());
  return lanes;
}

const Event* EventLog::peek(Lane& lane) noexcept {
  if (lane.read == kChunkEvents) {
    Chunk* next = lane.head->next.load(std::memory_order_acquire);
    if (!next) return nullptr;
    recycle(lane.head);
    lane.head = next;
    lane.read = 0;
  }
  if (lane.read == lane.head->written.load(std::memory_order_acquire)) return nullptr;
  return &lane.head->events[lane.read];
}

}  // namespace tally
