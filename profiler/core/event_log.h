// SPDX-License-Identifier: Apache-2.0
// Carries events from the program's threads to the one bookkeeper, in one order, without losing
// any. Producers: any thread; no lock, and no allocation but a chunk of about 200 KB from malloc
// now and then. Consumer: one thread at a time.
//
// Each event takes a ticket: one atomic step on {sequence, allocator bytes}, so the allocator's
// count that an event carries belongs exactly to its place in the order, whatever other threads do.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "profiler/core/event.h"

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
  void push(Event event, int64_t allocator_delta = 0) noexcept;

  // Several events of this thread in a row, with one atomic step for all. They change no count.
  void push_all(Event* events, size_t count) noexcept;

  // Hands every event that is next in order to `handle`, and returns how many. Stops at the first
  // number that its producer has taken but not yet written; call again.
  template <typename Handle>
  size_t drain(Handle&& handle);

  // A new session begins: the allocator's count starts again from 0.
  void restart_count() noexcept;

  // Events that are numbered so far; all of them are drained when drained() has reached it.
  uint64_t numbered() const noexcept;
  uint64_t drained() const noexcept { return next_.load(std::memory_order_acquire); }
  // Bytes in chunks now, and the most there ever were.
  size_t bytes() const noexcept { return bytes_.load(std::memory_order_relaxed); }
  size_t highest_bytes() const noexcept { return highest_bytes_.load(std::memory_order_relaxed); }

 private:
  static constexpr size_t kChunkEvents = 3640;  // of 56 bytes: a chunk of 200 KB
  struct Chunk {
    std::atomic<uint32_t> written{0};
    std::atomic<Chunk*> next{nullptr};
    Event events[kChunkEvents];
  };
  // One a thread. `tail` belongs to the producer, `head` and `read` to the consumer. A thread holds
  // its lane until it ends; then the next new thread takes it over.
  struct Lane {
    Chunk* tail = nullptr;
    Chunk* head = nullptr;
    int64_t last_time_ns = 0;  // producer: of its last event that read the clock
    uint32_t read = 0;
    uint16_t thread = 0;
    std::atomic<bool> in_use{true};
  };
  friend struct LaneHolder;

  Lane* lane() noexcept;
  std::shared_ptr<Lane> find_lane();
  void append(Lane& lane, Event* events, size_t count, int64_t allocator_delta) noexcept;
  Chunk* new_chunk();
  void recycle(Chunk* chunk) noexcept;
  const Event* peek(Lane& lane) noexcept;
  void advance(Lane& lane) noexcept { ++lane.read; }
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
  const uint64_t identity_;  // tells a thread that its cached lane belongs to an older log

  std::mutex mutex_;  // guards the lists below; taken once a thread and once a chunk
  std::vector<std::shared_ptr<Lane>> lanes_;
  std::vector<Chunk*> spare_;
  std::mutex late_mutex_;        // guards the lane of threads that are past their own end
  std::shared_ptr<Lane> late_;
  std::vector<Lane*> order_;  // the consumer's copy of lanes_
  size_t last_ = 0;           // consumer: index of the lane that had the last event
};

template <typename Handle>
size_t EventLog::drain(Handle&& handle) {
  order_ = consumer_lanes();
  uint64_t next = next_.load(std::memory_order_relaxed);
  const uint64_t first = next;
  for (bool found = true; found;) {
    found = false;
    for (size_t tried = 0; tried < order_.size() && !found; ++tried) {
      const size_t at = (last_ + tried) % order_.size();
      // One thread usually writes many events in a row: stay on its lane while it is next.
      while (const Event* event = peek(*order_[at])) {
        if (event->sequence != next) break;
        handle(*event);
        advance(*order_[at]);
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
