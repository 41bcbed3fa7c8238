// SPDX-License-Identifier: Apache-2.0
// What an event costs. Bar: the ledger books at least 5 million events a second on one core, of a
// stream as a training step of a transformer writes it.
#include <cstdint>
#include <ctime>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include "profiler/core/event_log.h"
#include "profiler/core/flat_map.h"
#include "profiler/ledger/ledger.h"
#include "tests/benchmarks/step_of_a_transformer.h"

namespace {

using namespace tally;
using benchmarks::StepOfATransformer;
void ledger_books_events(benchmark::State& state) {
  StringTable strings;
  TensorTable tensors(strings);
  tensors.intern(1, 0, {});
  tensors.intern(2, 0, {});
  tensors.intern(3, 0, {});
  RunDirectory directory;
  const StepOfATransformer step(strings, directory, static_cast<int>(state.range(0)));
  Ledger ledger(strings, tensors, directory, {});
  uint64_t sequence = 0;
  const auto apply = [&](const std::vector<Event>& events) {
    for (Event event : events) {
      event.sequence = sequence++;
      event.time_ns = static_cast<int64_t>(sequence) * 100;
      ledger.apply(event);
    }
  };
  apply(step.before());
  for (auto _ : state) {
    apply(step.events());
    const std::vector<StepBooks> closed = ledger.take_closed_steps();
    if (closed.size() != 1 || closed[0].devices[0].largest_difference != 0) {
      state.SkipWithError("the books do not close");
      break;
    }
  }
  state.counters["events_a_step"] = static_cast<double>(step.events().size());
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(step.events().size()));
}
// 12 layers: a small transformer. 300: its timeline is thinned in each step.
BENCHMARK(ledger_books_events)->Arg(12)->Arg(300)->Unit(benchmark::kMillisecond);

// Of this thread's processor, so that other programs do not count.
double processor_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// A hook hands an event over; the time of reading them is left out.
void log_push(benchmark::State& state, EventKind kind) {
  EventLog log;
  Event event;
  event.kind = kind;
  constexpr int kEvents = 3000;
  for (auto _ : state) {
    const double begin = processor_seconds();
    for (int i = 0; i < kEvents; ++i) log.push(event, 1);
    state.SetIterationTime(processor_seconds() - begin);
    log.drain([](const Event& read) { benchmark::DoNotOptimize(read.sequence); });
  }
  state.SetItemsProcessed(state.iterations() * kEvents);
}
BENCHMARK_CAPTURE(log_push, operator_with_clock, EventKind::kOpEnter)->UseManualTime();
BENCHMARK_CAPTURE(log_push, evidence, EventKind::kRead)->UseManualTime();

void log_drain(benchmark::State& state) {
  EventLog log;
  constexpr int kEvents = 3000;
  for (auto _ : state) {
    for (int i = 0; i < kEvents; ++i) log.push({});
    const double begin = processor_seconds();
    log.drain([](const Event& read) { benchmark::DoNotOptimize(read.sequence); });
    state.SetIterationTime(processor_seconds() - begin);
  }
  state.SetItemsProcessed(state.iterations() * kEvents);
}
BENCHMARK(log_drain)->UseManualTime();

// A block is born, found and gone while so many others live.
void flat_map_block(benchmark::State& state) {
  FlatMap<uint32_t> map;
  const auto live = static_cast<uint64_t>(state.range(0));
  for (uint64_t key = 0; key < live; ++key) map.insert(key * 64, 0);
  uint64_t next = live;
  for (auto _ : state) {
    map.insert(next * 64, 1);
    benchmark::DoNotOptimize(map.find((next - live / 2) * 64));
    map.erase((next - live) * 64);
    ++next;
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(flat_map_block)->Arg(1000)->Arg(100'000);

}  // namespace

BENCHMARK_MAIN();
