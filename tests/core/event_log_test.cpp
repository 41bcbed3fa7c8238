// SPDX-License-Identifier: Apache-2.0
// The log: one order over all threads, nothing lost, the allocator's count true at each place.
#include "profiler/core/event_log.h"

#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <set>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace tally {
namespace {

Event numbered(uint64_t producer, uint64_t count) {
  Event event;
  event.kind = EventKind::kOpEnter;
  event.a = producer;
  event.b = count;
  return event;
}
std::vector<Event> drain_all(EventLog& log) {
  std::vector<Event> events;
  while (log.drained() < log.numbered()) {
    log.drain([&](const Event& event) { events.push_back(event); });
  }
  return events;
}

TEST(EventLog, KeepsTheOrderOfEightThreadsAndLosesNothing) {
  constexpr uint64_t kThreads = 8;
  constexpr uint64_t kEach = 20'000;
  EventLog log;
  std::atomic<uint64_t> running{kThreads};
  std::vector<std::thread> threads;
  for (uint64_t producer = 0; producer < kThreads; ++producer) {
    threads.emplace_back([&, producer] {
      for (uint64_t count = 0; count < kEach; ++count) {
        Event event = numbered(producer, count);
        const auto delta = static_cast<int64_t>(count * 7 % 1000) - 400;
        event.c = static_cast<uint64_t>(delta);
        log.push(event, delta);
      }
      running.fetch_sub(1);
    });
  }
  uint64_t next_sequence = 0;
  uint64_t next_count[kThreads] = {};
  int64_t bytes = 0;
  uint64_t wrong = 0;
  const auto check = [&](const Event& event) {
    bytes += static_cast<int64_t>(event.c);
    wrong += event.sequence != next_sequence++;
    wrong += event.allocator_bytes != bytes;
    wrong += event.b != next_count[event.a]++;
    wrong += event.time_ns <= 0;
  };
  // Read while they write: whatever is taken but not yet written holds the reader up, not for good.
  while (running.load() > 0) log.drain(check);
  for (std::thread& thread : threads) thread.join();
  log.drain(check);
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(next_sequence, kThreads * kEach);
  EXPECT_EQ(log.drained(), log.numbered());
}

TEST(EventLog, ADrainReturnsHowManyAndTheNextGoesOnThere) {
  EventLog log;
  EXPECT_EQ(log.drain([](const Event&) {}), 0u);
  for (uint64_t i = 0; i < 3; ++i) log.push(numbered(0, i));
  EXPECT_EQ(log.drain([](const Event&) {}), 3u);
  log.push(numbered(0, 3));
  const std::vector<Event> events = drain_all(log);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].b, 3u);
  EXPECT_EQ(events[0].sequence, 3u);
}

TEST(EventLog, AThreadsTimesNeverGoBack) {
  EventLog log;
  for (uint64_t i = 0; i < 1000; ++i) log.push(numbered(0, i));
  int64_t before = 1;
  for (const Event& event : drain_all(log)) {
    EXPECT_GE(event.time_ns, before);
    before = event.time_ns;
  }
}

TEST(EventLog, AThreadThatEndedLeavesItsLaneToTheNext) {
  EventLog log;
  for (uint64_t i = 0; i < 50; ++i) {
    std::thread([&] { log.push(numbered(i, i)); }).join();
  }
  const std::vector<Event> events = drain_all(log);
  ASSERT_EQ(events.size(), 50u);
  for (uint64_t i = 0; i < 50; ++i) {
    EXPECT_EQ(events[i].a, i);
    EXPECT_EQ(events[i].thread, events[0].thread);
  }
}

TEST(EventLog, AThreadThatTakesALaneOverDoesNotTakeItsTime) {
  EventLog log;
  std::thread([&] { log.push(numbered(0, 0)); }).join();
  const auto between = std::chrono::steady_clock::now().time_since_epoch();
  std::thread([&] {
    Event allocation;  // of a kind that reads no clock
    log.push(allocation, 8);
  }).join();
  const std::vector<Event> events = drain_all(log);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].thread, events[1].thread);
  EXPECT_GE(events[1].time_ns, std::chrono::nanoseconds(between).count());
}

// `size` events in a batch; c is an event's place in it.
void add_batch(EventLog& log, uint64_t producer, uint64_t& count, size_t size) {
  EventLog::Batch batch(log);
  for (size_t i = 0; i < size; ++i) {
    Event& event = batch.add(EventKind::kRead);
    event.a = producer;
    event.b = count++;
    event.c = i;
  }
}

TEST(EventLog, EventsOfABatchStandTogether) {
  EventLog log;
  std::atomic<int> running{4};
  std::vector<std::thread> threads;
  for (uint64_t producer = 0; producer < 4; ++producer) {
    threads.emplace_back([&, producer] {
      uint64_t count = 0;
      // Also none, and as many as a chunk holds.
      for (const size_t together : {3, 0, 1, 500, 3600, 7, 3640, 2}) {
        add_batch(log, producer, count, together);
        log.push(numbered(producer, count++), 1);
      }
      running.fetch_sub(1);
    });
  }
  Event before = numbered(0, 0);
  int64_t bytes = 0;
  uint64_t next_sequence = 0;
  uint64_t next_count[4] = {};
  uint64_t wrong = 0;
  const auto check = [&](const Event& event) {
    wrong += event.sequence != next_sequence++;
    wrong += event.b != next_count[event.a]++;
    wrong += event.c > 0 && (before.a != event.a || before.c + 1 != event.c);
    wrong += event.allocator_bytes < bytes;
    bytes = event.allocator_bytes;
    before = event;
  };
  while (running.load() > 0) log.drain(check);
  for (std::thread& thread : threads) thread.join();
  log.drain(check);
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(next_sequence, 4 * (3 + 1 + 500 + 3600 + 7 + 3640 + 2 + 8u));
  EXPECT_EQ(bytes, 4 * 8);
}

TEST(EventLog, ABatchMayBeLargerThanAChunk) {
  EventLog log;
  uint64_t count = 0;
  log.push(numbered(0, count++));
  add_batch(log, 0, count, 10000);
  const std::vector<Event> events = drain_all(log);
  ASSERT_EQ(events.size(), 10001u);
  for (size_t i = 0; i < events.size(); ++i) {
    ASSERT_EQ(events[i].sequence, i);
    ASSERT_EQ(events[i].b, i);
  }
}

TEST(EventLog, APushInsideABatchComesAfterWhatTheBatchHas) {
  EventLog log;
  {
    EventLog::Batch batch(log);
    batch.add(EventKind::kRead).a = 1;
    log.push(numbered(2, 0), 64);
    batch.add(EventKind::kRead).a = 3;
  }
  const std::vector<Event> events = drain_all(log);
  ASSERT_EQ(events.size(), 3u);
  for (uint64_t i = 0; i < 3; ++i) EXPECT_EQ(events[i].a, i + 1);
  EXPECT_EQ(events[0].allocator_bytes, 0);
  EXPECT_EQ(events[1].allocator_bytes, 64);
  EXPECT_EQ(events[2].allocator_bytes, 64);
}

TEST(EventLog, ThreadsAtTheSameTimeHaveDifferentNumbers) {
  EventLog log;
  std::atomic<int> arrived{0};
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      log.push(numbered(i, 0));
      arrived.fetch_add(1);
      while (arrived.load() < 4) std::this_thread::yield();
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::set<uint16_t> numbers;
  for (const Event& event : drain_all(log)) numbers.insert(event.thread);
  EXPECT_EQ(numbers.size(), 4u);
}

// Made before the thread's first event, so it goes after the thread gave its lane back.
struct PushesAtItsEnd {
  EventLog* log = nullptr;
  ~PushesAtItsEnd() {
    if (!log) return;
    log->push(numbered(99, 0), 10);
    log->push(numbered(99, 1), -10);
  }
};
thread_local PushesAtItsEnd pushes_at_its_end;

TEST(EventLog, AThreadMayPushWhileItsObjectsAreDestroyed) {
  EventLog log;
  for (uint64_t i = 0; i < 3; ++i) {
    std::thread([&] {
      pushes_at_its_end.log = &log;
      log.push(numbered(i, 0));
    }).join();
  }
  const std::vector<Event> events = drain_all(log);
  ASSERT_EQ(events.size(), 9u);
  for (size_t i = 0; i < 9; i += 3) {
    EXPECT_EQ(events[i].a, i / 3);
    EXPECT_EQ(events[i + 1].a, 99u);
    EXPECT_EQ(events[i + 1].allocator_bytes, 10);
    EXPECT_EQ(events[i + 2].b, 1u);
    EXPECT_EQ(events[i + 2].allocator_bytes, 0);
  }
}

TEST(EventLog, RestartingTheCountGoesOnWithTheNumbers) {
  EventLog log;
  log.push(numbered(0, 0), 100);
  log.restart();
  log.push(numbered(0, 1), 7);
  const std::vector<Event> events = drain_all(log);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].allocator_bytes, 100);
  EXPECT_EQ(events[1].allocator_bytes, 7);
  EXPECT_EQ(events[1].sequence, 1u);
}

TEST(EventLog, GivesChunksBackAndUsesThemAgain) {
  EventLog log;
  log.push(numbered(0, 0));
  const size_t one_chunk = log.bytes();
  uint64_t count = 1;
  for (int round = 0; round < 50; ++round) {
    for (int i = 0; i < 5000; ++i) log.push(numbered(0, count++));
    drain_all(log);
  }
  EXPECT_LE(log.highest_bytes(), 4 * one_chunk);
  EXPECT_LE(log.bytes(), log.highest_bytes());
}

TEST(EventLog, GrowsWhileNobodyReadsAndForgetsNothing) {
  EventLog log;
  for (uint64_t i = 0; i < 100'000; ++i) log.push(numbered(0, i));
  EXPECT_GE(log.bytes(), 100'000 * sizeof(Event));
  const size_t full = log.bytes();
  const std::vector<Event> events = drain_all(log);
  ASSERT_EQ(events.size(), 100'000u);
  EXPECT_EQ(events.back().b, 99'999u);
  EXPECT_LT(log.bytes(), full);  // but for a few spare chunks it is given back
  EXPECT_EQ(log.highest_bytes(), full);
}

// The process may map no more memory from now on.
void take_all_memory() {
  std::ifstream file("/proc/self/statm");
  rlim_t pages = 0;
  file >> pages;
  const rlimit limit{pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)), RLIM_INFINITY};
  ASSERT_EQ(setrlimit(RLIMIT_AS, &limit), 0);
}

TEST(EventLogDeathTest, GoesOnWithItsReserveWhereTheHostHasNoMemory) {
  const auto child = [] {
    EventLog log;
    log.restart();
    log.push(numbered(0, 0));
    take_all_memory();
    uint64_t next = 0;
    bool in_order = true;
    for (uint64_t i = 1; i < 100'000; ++i) {
      log.push(numbered(0, i));
      if (i % 5000 == 0) {
        log.drain([&](const Event& event) { in_order &= event.b == next++; });
      }
    }
    log.drain([&](const Event& event) { in_order &= event.b == next++; });
    std::_Exit(in_order && next == 100'000 && log.lost() == 0 ? 0 : 1);
  };
  EXPECT_EXIT(child(), testing::ExitedWithCode(0), "");
}

TEST(EventLogDeathTest, CountsWhatItLosesAndKeepsTheAllocatorsCount) {
  const auto child = [] {
    EventLog log;
    log.restart();
    log.push(numbered(0, 0), 8);
    take_all_memory();
    for (uint64_t i = 1; i < 100'001; ++i) log.push(numbered(0, i), 8);  // nobody reads
    uint64_t read = 0;
    while (log.drained() < log.numbered()) log.drain([&](const Event&) { ++read; });
    const bool all = read + log.lost() == 100'001 && log.lost() > 0;
    log.push(numbered(0, 0), -8);  // there is room again
    int64_t last = 0;
    log.drain([&](const Event& event) { last = event.allocator_bytes; });
    std::_Exit(all && last == 100'000 * 8 ? 0 : 1);
  };
  EXPECT_EXIT(child(), testing::ExitedWithCode(0), "");
}

TEST(EventLog, OneThreadMayWriteToTwoLogsInTurn) {
  EventLog first;
  EventLog second;
  for (uint64_t i = 0; i < 100; ++i) {
    first.push(numbered(1, i));
    second.push(numbered(2, i));
  }
  for (EventLog* log : {&first, &second}) {
    const std::vector<Event> events = drain_all(*log);
    ASSERT_EQ(events.size(), 100u);
    for (uint64_t i = 0; i < 100; ++i) EXPECT_EQ(events[i].b, i);
  }
}

TEST(EventLog, ANewLogAtTheSameAddressIsNotMistakenForTheOldOne) {
  for (int i = 0; i < 10; ++i) {
    EventLog log;
    log.push(numbered(0, 5));
    const std::vector<Event> events = drain_all(log);
    ASSERT_EQ(events.size(), 1u);
    EXPECT_EQ(events[0].sequence, 0u);
  }
}

}  // namespace
}  // namespace tally
