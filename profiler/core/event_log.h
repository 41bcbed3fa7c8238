// SPDX-License-Identifier: Apache-2.0
// Carries events from the program's threads to the one bookkeeper, in one order, without losing
// any. Producers: any thread; no lock, and no allocation but a chunk of about 200 KB from the
// system now and then. Where the system has none left, producers go on with a reserve that the
// bookkeeper gives back; if it is too slow, events are lost, and lost() counts them. Consumer: one
// thread at a time.
//
// Each event takes a ticket: one atomic step on {sequence, allocator bytes}, so the allocator's
// count that an event carries belongs exactly to its place in the order, whatever other threads do.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "profiler/core/event.h"
#include "profiler/core/tick_clock.h"

namespace tally {

class EventLog {
 public:
  EventLog();
  ~EventLog();
  EventLog(const EventLog&) = delete;
  EventLog& operator=(const EventLog&) = delete;

  // Appends `event`, giving it a sequence number, its thread and a time. The clock is read where an
  // operator, node, scope, pass or step begins or ends; what comes between has the time before it.
  // `allocator_delta` is added to the allocator's count in the same atomic step.
  [[gnu::always_inline]] void push(const Event& event, int64_t allocator_delta = 0) noexcept;

  // Several events of this thread in a row, written where they stay and numbered together by one
  // atomic step when the batch ends, so that they stand together (unless they are more than a chunk
  // holds). A push of the same thread in between numbers what the batch has so far, with itself.
  class Batch;

  // Hands every event that is next in order to `handle`, and returns how many. Stops at the first
  // number that its producer has taken but not yet written; call again.
  template <typename Handle>
  size_t drain(Handle&& handle);

  // A new session begins: the allocator's count starts again from 0, and the reserve is filled.
  void restart() noexcept;

  // The allocator's count now.
  int64_t allocator_bytes() const noexcept {
    return __atomic_load_n(&ticket_.allocator_bytes, __ATOMIC_RELAXED);
  }
  // Events that are numbered so far; all of them are drained when drained() has reached it.
  uint64_t numbered() const noexcept;
  uint64_t drained() const noexcept { return next_.load(std::memory_order_acquire); }
  // Events that found no memory. The allocator's count has their bytes.
  uint64_t lost() const noexcept { return lost_.load(std::memory_order_relaxed); }
  // One that its hook had no memory for.
  void count_lost() noexcept { lost_.fetch_add(1, std::memory_order_relaxed); }
  // Bytes in chunks now, and the most there ever were.
  size_t bytes() const noexcept { return bytes_.load(std::memory_order_relaxed); }
  size_t highest_bytes() const noexcept { return highest_bytes_.load(std::memory_order_relaxed); }

 private:
  static constexpr bool reads_clock(EventKind kind) noexcept {
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
  static constexpr size_t kPrefetchedEvents = 5;
  static constexpr size_t kChunkEvents = 3657;  // of 56 bytes: a chunk of 50 pages
  static constexpr size_t kReserve = 4;         // chunks kept for a host without memory
  static constexpr size_t kKeptChunks = kReserve + 16;
  struct Chunk {
    std::atomic<uint32_t> written{0};  // published; no more will come once `next` is set
    std::atomic<Chunk*> next{nullptr};
    Event events[kChunkEvents];
  };
  // One a thread, which holds its lane until it ends; then the next new thread takes it over. The
  // producer's fields and the consumer's are a cache line apart.
  struct Lane {
    Event* next = nullptr;   // where the next event goes, in the tail
    Event* end = nullptr;    // of the tail's events
    uint32_t open = 0;       // events just before `next` that are not yet numbered
    int64_t last_ticks = 0;  // of the last event that read the clock
    Chunk* tail = nullptr;
    uint16_t thread = 0;
    std::atomic<bool> in_use{true};
    Event lost;  // written to instead, where there is no chunk

    alignas(64) Chunk* head = nullptr;
    uint32_t read = 0;
    uint32_t readable = 0;     // what `written` of the head was when last asked
    int64_t read_time_ns = 0;  // of the last event that was read
  };
  friend struct LaneHolder;

  // What a thread remembers: its lane in the log it wrote to last. Trivial, so it can still be read
  // while the thread's other objects are being destroyed; initial-exec: a plain load, also in a
  // library, and a few bytes, so that one that is loaded late has room.
  struct CachedLane {
    uint64_t identity;
    Lane* lane;
    bool shares;  // the shared lane: the thread is past its own end, or had no memory for a lane
  };
  __attribute__((
      tls_model("initial-exec"))) static inline thread_local constinit CachedLane cached_lane_{
      0, nullptr, false};

  // The calling thread's lane, or the one that some share; to be left again.
  Lane& enter() noexcept {
    if (cached_lane_.identity == identity_) [[likely]]
      return *cached_lane_.lane;
    return enter_slowly();
  }
  void leave(Lane& lane) noexcept {
    if (cached_lane_.shares) [[unlikely]]
      leave_shared(lane);
  }
  Lane& enter_slowly() noexcept;
  void leave_shared(Lane& lane) noexcept;
  std::shared_ptr<Lane> find_lane() noexcept;  // nullptr: no memory
  Lane* make_own_lane() noexcept;
  Event& add(Lane& lane, EventKind kind) noexcept;
  void publish(Lane& lane, int64_t allocator_delta) noexcept;
  // For an event that finds no room in the lane's chunk: a new one, which takes the open events
  // along. Without memory the event is lost, and written to where nobody reads.
  Event& add_to_new_chunk(Lane& lane, EventKind kind) noexcept;
  static void begin_chunk(Lane& lane, Chunk* chunk) noexcept;
  Chunk* new_chunk() noexcept;  // nullptr: no memory
  Chunk* take_spare(size_t kept) noexcept;
  Chunk* map_chunk() noexcept;
  void recycle(Chunk* chunk) noexcept;
  Event* peek(Lane& lane) noexcept;
  std::vector<Lane*> consumer_lanes();

  // {sequence, allocator bytes}, changed together by a 16-byte compare and swap.
  struct alignas(16) Ticket {
    uint64_t sequence = 0;
    int64_t allocator_bytes = 0;
  };
  // The first of `count` numbers, and the bytes after the step.
  Ticket take_tickets(uint64_t count, int64_t delta) noexcept;

  alignas(64) Ticket ticket_;
  alignas(64) std::atomic<uint64_t> next_{0};  // sequence number that drain() waits for
  std::atomic<size_t> bytes_{0};
  std::atomic<size_t> highest_bytes_{0};
  std::atomic<uint64_t> lost_{0};
  std::atomic<bool> starved_{false};  // a producer waited for a chunk in vain
  const uint64_t identity_;           // tells a thread that its cached lane belongs to an older log

  std::mutex mutex_;  // guards the lists below; taken once a thread and once a chunk
  std::vector<std::shared_ptr<Lane>> lanes_;
  std::vector<Chunk*> spare_;
  std::recursive_mutex shared_mutex_;  // guards:
  const std::shared_ptr<Lane> shared_;
  std::vector<Lane*> order_;  // the consumer's copy of lanes_
  TickClock clock_;           // consumer: ticks to nanoseconds
  size_t last_ = 0;           // consumer: index of the lane that had the last event
};

class EventLog::Batch {
 public:
  explicit Batch(EventLog& log) noexcept : log_(log), lane_(log.enter()) {}
  ~Batch() {
    log_.publish(lane_, 0);
    log_.leave(lane_);
  }
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;
  // A new event of `kind`, to be filled in at once.
  Event& add(EventKind kind) noexcept { return log_.add(lane_, kind); }

 private:
  EventLog& log_;
  Lane& lane_;
};

// What a hook runs on every event is compiled into it: the kind is known there.
inline EventLog::Ticket EventLog::take_tickets(uint64_t count, int64_t delta) noexcept {
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

inline Event& EventLog::add(Lane& lane, EventKind kind) noexcept {
  if (lane.next == lane.end) [[unlikely]]
    return add_to_new_chunk(lane, kind);
  if (reads_clock(kind)) lane.last_ticks = TickClock::ticks();
  Event& event = *lane.next++;
  ++lane.open;
  // The lines were last in the consumer's cache, and a locked instruction would wait for them.
  __builtin_prefetch(&event + kPrefetchedEvents, 1);
  event = Event{.time_ns = lane.last_ticks, .thread = lane.thread, .kind = kind};
  return event;
}

inline void EventLog::publish(Lane& lane, int64_t allocator_delta) noexcept {
  const Ticket ticket = take_tickets(lane.open, allocator_delta);
  uint64_t sequence = ticket.sequence;
  for (Event* event = lane.next - lane.open; event != lane.next; ++event) {
    event->sequence = sequence++;
    event->allocator_bytes = ticket.allocator_bytes - allocator_delta;
  }
  if (lane.open == 0) [[unlikely]]
    return;                                                // nothing, or an event that was lost
  lane.next[-1].allocator_bytes = ticket.allocator_bytes;  // the delta is the last one's
  lane.open = 0;
  lane.tail->written.store(static_cast<uint32_t>(lane.next - lane.tail->events),
                           std::memory_order_release);
}

inline void EventLog::push(const Event& event, int64_t allocator_delta) noexcept {
  Lane& lane = enter();
  Event& written = add(lane, event.kind);
  written.a = event.a;
  written.b = event.b;
  written.c = event.c;
  written.id = event.id;
  written.flags = event.flags;
  publish(lane, allocator_delta);
  leave(lane);
}

template <typename Handle>
size_t EventLog::drain(Handle&& handle) {
  order_ = consumer_lanes();
  clock_.synchronize();
  uint64_t next = next_.load(std::memory_order_relaxed);
  const uint64_t first = next;
  for (bool found = true; found;) {
    found = false;
    for (size_t tried = 0; tried < order_.size() && !found; ++tried) {
      const size_t at = (last_ + tried) % order_.size();
      // One thread usually writes many events in a row: stay on its lane while it is next.
      Lane& lane = *order_[at];
      while (Event* event = peek(lane)) {
        if (event->sequence != next) break;
        // A chunk that is published is the consumer's: ticks become nanoseconds in place.
        lane.read_time_ns = std::max(lane.read_time_ns, clock_.nanoseconds(event->time_ns));
        event->time_ns = lane.read_time_ns;
        handle(*event);
        ++lane.read;
        ++next;
        found = true;
      }
      if (found) {
        last_ = at;
        next_.store(next, std::memory_order_release);
      }
    }
    // A thread that wrote its first event after the copy was made.
    if (!found && next < numbered()) {
      auto now = consumer_lanes();
      if (now.size() != order_.size()) {
        order_ = std::move(now);
        found = true;
      }
    }
  }
  return next - first;
}

}  // namespace tally
