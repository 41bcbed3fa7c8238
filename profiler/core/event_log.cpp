// SPDX-License-Identifier: Apache-2.0
#include "profiler/core/event_log.h"

#include <cstdlib>
#include <cstring>
#include <new>

namespace tally {
namespace {

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
// initial-exec: a plain load, also in a library; a few bytes, so that one that is loaded late has
// room.
__attribute__((tls_model("initial-exec"))) thread_local constinit CachedLane cached_lane{0, nullptr,
                                                                                         false};

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
    case EventKind::kStepEnd:
      return true;
    default:
      return false;
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
        lane->last_ticks = 0;  // that of a thread which is gone
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

EventLog::Lane& EventLog::enter() noexcept {
  if (cached_lane.identity == identity_) [[likely]]
    return *static_cast<Lane*>(cached_lane.lane);
  if (!cached_lane.thread_ended) return *make_own_lane();
  late_mutex_.lock();
  if (!late_) late_ = find_lane();
  return *late_;
}

void EventLog::leave(Lane& lane) noexcept {
  if (cached_lane.thread_ended && &lane == late_.get()) [[unlikely]]
    late_mutex_.unlock();
}

EventLog::Lane* EventLog::make_own_lane() {
  if (lane_holder.lane) lane_holder.lane->in_use.store(false, std::memory_order_release);
  lane_holder.lane = find_lane();
  cached_lane = {identity_, lane_holder.lane.get(), false};
  return lane_holder.lane.get();
}

void EventLog::start_chunk(Lane& lane) noexcept {
  if (lane.open == kChunkEvents) publish(lane, 0);
  Chunk* fresh = new_chunk();
  std::memcpy(fresh->events, lane.tail->events + lane.at, lane.open * sizeof(Event));
  lane.tail->next.store(fresh, std::memory_order_release);
  lane.tail = fresh;
  lane.at = 0;
}

Event& EventLog::add(Lane& lane, EventKind kind) noexcept {
  if (lane.at + lane.open == kChunkEvents) [[unlikely]]
    start_chunk(lane);
  if (lane.last_ticks == 0 || reads_clock(kind)) lane.last_ticks = TickClock::ticks();
  Event& event = lane.tail->events[lane.at + lane.open++];
  // The lines were last in the consumer's cache, and a locked instruction would wait for them.
  __builtin_prefetch(&event + kPrefetchedEvents, 1);
  event = Event{};
  event.kind = kind;
  event.thread = lane.thread;
  event.time_ns = lane.last_ticks;
  return event;
}

void EventLog::publish(Lane& lane, int64_t allocator_delta) noexcept {
  if (lane.open == 0) return;
  const Ticket ticket = take_tickets(lane.open, allocator_delta);
  Event* events = lane.tail->events + lane.at;
  for (uint32_t i = 0; i < lane.open; ++i) {
    events[i].sequence = ticket.sequence + i;
    events[i].allocator_bytes = ticket.allocator_bytes;
  }
  lane.at += lane.open;
  lane.open = 0;
  lane.tail->written.store(lane.at, std::memory_order_release);
}

void EventLog::push(const Event& event, int64_t allocator_delta) noexcept {
  Lane& lane = enter();
  publish(lane, 0);
  Event& written = add(lane, event.kind);
  written.a = event.a;
  written.b = event.b;
  written.c = event.c;
  written.id = event.id;
  written.flags = event.flags;
  publish(lane, allocator_delta);
  leave(lane);
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
