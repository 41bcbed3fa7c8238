// SPDX-License-Identifier: Apache-2.0
// A data source of your own: the template to copy. A source sees something happen in the program
// and writes small records (profiler/core/event.h lists them); the ledger, the recording and the
// reports need no change. Needs no LibTorch.
//
// In the product a source lives in a folder of hooks/ and has one line in
// profiler/session/sources.cpp. Here one is wired into a Session by hand, recorded and read back.
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "profiler/core/source.h"
#include "profiler/core/units.h"
#include "profiler/recording/reader.h"
#include "profiler/session/session.h"

namespace {

// What is watched: a memory pool that tells an observer of each block, as many runtimes do.
class Pool {
 public:
  using Observer = void (*)(void* pointer, size_t bytes, bool born) noexcept;
  void observe(Observer observer) { observer_.store(observer); }

  void* allocate(size_t bytes) {
    void* pointer = std::malloc(bytes);
    if (const Observer observer = observer_.load()) observer(pointer, bytes, true);
    return pointer;
  }
  void release(void* pointer, size_t bytes) {
    if (const Observer observer = observer_.load()) observer(pointer, bytes, false);
    std::free(pointer);
  }

 private:
  std::atomic<Observer> observer_{nullptr};
};
Pool pool;

class PoolSource final : public tally::Source {
 public:
  std::string_view name() const override { return "sample.pool"; }
  tally::Availability availability() const override { return {true, ""}; }

  // May throw tally::Error with a sentence that says what to do; after this, nothing may.
  void start(tally::Context& context) override {
    context.log.restart();  // only the source that owns the allocator's count does this
    count = 0;
    recording.store(&context);
    pool.observe(&on_block);
  }
  void stop() noexcept override {
    pool.observe(nullptr);
    recording.store(nullptr);
  }
  // What the report says beside the numbers: cost, and what could not be seen.
  tally::SourceStatistics statistics() const override {
    tally::SourceStatistics statistics;
    statistics.events = count.load();
    statistics.notes = {"Blocks that the pool handed out before the recording began are not seen."};
    return statistics;
  }

 private:
  // A hook runs inside the program: no exception, no lock, no allocation, no string; write the
  // record and return.
  static void on_block(void* pointer, size_t bytes, bool born) noexcept {
    tally::Context* context = recording.load(std::memory_order_acquire);
    if (!context) return;
    tally::Event event;
    event.kind = born ? tally::EventKind::kAlloc : tally::EventKind::kFree;
    event.a = reinterpret_cast<uint64_t>(pointer);
    event.b = static_cast<uint64_t>(bytes);
    // The pool's own count, kept apart from the ledger: the books must close against it.
    const auto delta = static_cast<int64_t>(bytes);
    context->log.push(event, born ? delta : -delta);
    count.fetch_add(1, std::memory_order_relaxed);
  }

  static inline std::atomic<tally::Context*> recording{nullptr};
  static inline std::atomic<uint64_t> count{0};
};

// A source that cannot work on this machine is an object as well: it says why, and the sentence
// reaches the report.
class CounterSource final : public tally::Source {
 public:
  std::string_view name() const override { return "sample.counters"; }
  tally::Availability availability() const override {
    return {false, "this sample has no hardware counters; it shows where the reason appears"};
  }
  void start(tally::Context&) override {}  // never called
  void stop() noexcept override {}
  tally::SourceStatistics statistics() const override { return {}; }
};

// Strings are kept once, before they are needed; an event carries the number.
class Scope {
 public:
  explicit Scope(const char* name) { push(tally::EventKind::kScopeEnter, name); }
  ~Scope() { push(tally::EventKind::kScopeExit, ""); }

 private:
  static void push(tally::EventKind kind, const char* name) {
    tally::Event event;
    event.kind = kind;
    event.id = tally::Session::context().strings.intern(name).value;
    tally::Session::context().log.push(event);
  }
};

void record(const std::string& path) {
  std::vector<std::unique_ptr<tally::Source>> sources;
  sources.push_back(std::make_unique<PoolSource>());
  sources.push_back(std::make_unique<CounterSource>());
  tally::SessionOptions options;
  options.recording = path;
  tally::Session session(std::move(options), std::move(sources));
  for (int i = 0; i < 2; ++i) {
    session.step_begin();
    void* batch = pool.allocate(1 << 20);
    // Evidence, not a guess, gives a block its role: this one is the step's input.
    tally::Event event;
    event.kind = tally::EventKind::kInput;
    event.a = reinterpret_cast<uint64_t>(batch);
    event.c = 1 << 20;
    session.push(event);
    {
      const Scope scope("decode");
      void* scratch = pool.allocate(3 << 20);
      pool.release(scratch, 3 << 20);
    }
    pool.release(batch, 1 << 20);
    session.step_end(/*exception=*/false);
  }
  session.stop("clean");
}

// 0 when the books close.
int read_back(const std::string& path) {
  const tally::recording::Run run = tally::recording::read_run(path);
  for (const tally::SourceInfo& source : run.info.sources) {
    std::printf("%s: %s\n", source.name.c_str(),
                source.available ? "recorded" : source.reason.c_str());
  }
  int bad = run.steps.size() == 2 ? 0 : 1;
  for (const tally::recording::RecordedStep& step : run.steps) {
    for (const tally::MarkBook& mark : step.books.devices.at(0).marks) {
      const int64_t difference = mark.bytes - mark.allocator_bytes;
      if (difference != 0) bad = 1;
      std::printf("step %llu, %s: %s, difference %lld\n",
                  static_cast<unsigned long long>(step.books.index),
                  std::string(key(mark.mark)).c_str(), tally::format_bytes(mark.bytes).c_str(),
                  static_cast<long long>(difference));
      for (const tally::Cell& cell : mark.cells) {
        std::printf("  %s %s %s\n", tally::format_bytes(cell.bytes).c_str(),
                    std::string(key(cell.role)).c_str(), run.text(cell.module).c_str());
      }
    }
  }
  return bad;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 2) {
    std::fprintf(stderr, "own_source: wants one argument or none, the recording to write\n");
    return 2;
  }
  const std::string path = argc == 2 ? argv[1] : "run.tally";
  try {
    record(path);
    return read_back(path);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "own_source: %s\n", error.what());
    return 2;
  }
}
