// SPDX-License-Identifier: Apache-2.0
#include "profiler/session/session.h"

#include <pthread.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <optional>
#include <sstream>

#include "profiler/core/count_guard.h"
#include "profiler/core/error.h"
#include "profiler/core/host_memory.h"
#include "profiler/core/rank.h"

namespace tally {
namespace {

// The log may grow to this before a step waits for the bookkeeper.
constexpr size_t kMostLogBytes = 64 << 20;
// So many events wait where there is no memory to book them: less than a chunk of the log.
constexpr uint64_t kMayWait = 2000;

// The bookkeeper looks after so many milliseconds, later where it found little. To look costs a
// tenth of a millisecond on a processor that slept, which a program that computes on all of them
// waits for. Shorter than what a thread waits whose log has no chunk left: see
// EventLog::new_chunk().
constexpr std::chrono::milliseconds kShortPause{20}, kLongPause{80};
constexpr uint64_t kManyEvents = 4000;  // about a chunk of the log

std::atomic<bool> session_exists{false};
std::atomic<bool> in_forked_child{false};

int64_t clock_ns(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return int64_t{1'000'000'000} * now.tv_sec + now.tv_nsec;
}

// Claims the process for one session; gives it back if the constructor does not come through.
void claim_process() {
  static const int registered =
      pthread_atfork(nullptr, nullptr, [] { in_forked_child.store(true); });
  (void)registered;
  bool free = false;
  if (!session_exists.compare_exchange_strong(free, true)) {
    throw Error("another profiler is recording in this process; stop it before starting a new one");
  }
}

std::vector<std::string> command_line() {
  std::ifstream file("/proc/self/cmdline");
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  return words;
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "CPU";
}

}  // namespace

Context& Session::context() {
  struct Process {
    EventLog log;
    StringTable strings;
    TensorTable tensors{strings};
    RunDirectory directory;
    Context context{log, strings, tensors, directory};
  };
  static auto* const process = new Process;  // hooks may be called after static objects are gone
  return process->context;
}

Session::Session(SessionOptions options, std::vector<std::unique_ptr<Source>> sources)
    : options_((claim_process(), std::move(options))),
      sources_(std::move(sources)),
      ledger_(context().strings, context().tensors, context().directory, options_.ledger),
      writer_([this] {
        try {
          return recording::Writer(options_.recording, context().strings);
        } catch (...) {
          session_exists.store(false);
          throw;
        }
      }()) {
  Context& shared = context();
  begin_ns_ = clock_ns(CLOCK_MONOTONIC);
  const int64_t begin_unix_ns = clock_ns(CLOCK_REALTIME);
  // Events that a thread was still writing when the session before ended are nobody's.
  shared.log.drain([](const Event&) {});
  shared.directory.update([this, begin_unix_ns](RunInfo& info) {
    info = {};
    info.start_unix_ns = begin_unix_ns;
    info.command = command_line();
    const Rank rank = rank_of_environment(std::getenv);
    info.rank = rank.rank;
    info.world_size = rank.world_size;
    info.versions = options_.versions;
    utsname os{};
    if (uname(&os) == 0)
      info.versions.emplace_back("os", fmt::format("{} {}", os.sysname, os.release));
    info.options = options_.shown_options;
    info.devices.push_back({"cpu", cpu_name(), host_bytes()});
  });
  std::vector<Source*> started;
  try {
    for (const auto& source : sources_) {
      const Availability available = source->availability();
      shared.directory.update([&](RunInfo& info) {
        info.sources.push_back({std::string(source->name()), available.yes, available.reason});
      });
      if (!available.yes) continue;
      source->start(shared);
      started.push_back(source.get());
    }
  } catch (...) {
    for (auto source = started.rbegin(); source != started.rend(); ++source) (*source)->stop();
    session_exists.store(false);
    throw;
  }
  for (const auto& source : sources_) hook_ns_at_begin_ += source->statistics().nanoseconds;
  hook_ns_at_step_ = hook_ns_at_begin_;
  write_run_if_changed();
  shared.settler.store(this, std::memory_order_release);
  bookkeeper_ = std::thread([this] { run_bookkeeper(); });
}

Session::~Session() { stop("clean"); }

bool Session::step_begin() { return open_step(&Source::step_begin); }

void Session::next_step() {
  close_step(0);
  open_step(&Source::next_step);
}

bool Session::open_step(void (Source::*look)() noexcept) {
  if (step_open_.exchange(true)) {
    ++overlapping_steps_;
    return false;
  }
  wait_for_room();
  context().devices.tell_mark(context());
  Event event;
  event.kind = EventKind::kStepBegin;
  push(event);
  for (const auto& source : sources_) (source.get()->*look)();
  return true;
}

void Session::micro_step() {
  Event event;
  event.kind = EventKind::kMicroStep;
  push(event);
}

void Session::step_end(bool exception) { close_step(exception ? event_flags::kException : 0); }

void Session::step_discard() {
  if (step_open_.load()) close_step(event_flags::kDiscarded);
}

bool Session::is_of_parent() noexcept { return in_forked_child.load(); }

void Session::close_step(uint8_t flags) {
  for (const auto& source : sources_) source->step_end();
  int64_t hook_ns = 0;
  for (const auto& source : sources_) hook_ns += source->statistics().nanoseconds;
  Event event;
  event.kind = EventKind::kStepEnd;
  event.flags = flags;
  event.a = static_cast<uint64_t>(hook_ns - hook_ns_at_step_);
  hook_ns_at_step_ = hook_ns;
  context().devices.tell_mark(context());
  push(event);
  step_open_.store(false);
  wake_.notify_one();
}

void Session::wait_for_room() {
  if (context().log.bytes() < kMostLogBytes) return;
  std::unique_lock lock(mutex_);
  const CountGuard waiting(waiting_);
  wake_.notify_one();
  progress_.wait(lock,
                 [] { return context().log.bytes() < kMostLogBytes || in_forked_child.load(); });
}

void Session::run_bookkeeper() {
  pthread_setname_np(pthread_self(), "torchtally");
  auto pause = kShortPause;
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    wake_.wait_for(lock, pause);
    lock.unlock();
    const uint64_t before = context().log.drained();
    book();
    pause = context().log.drained() - before >= kManyEvents ? kShortPause
                                                            : std::min(2 * pause, kLongPause);
    lock.lock();
    progress_.notify_all();
  }
}

void Session::settle() noexcept {
  const uint64_t target = context().log.numbered();
  std::unique_lock lock(mutex_);
  const CountGuard waiting(waiting_);
  wake_.notify_one();
  progress_.wait_for(lock, std::chrono::seconds(1), [&] { return booked_.load() >= target; });
}

// Never ends the program: where even the reserve does not suffice, the books do.
void Session::book() noexcept {
  if (context().log.drained() == context().log.numbered()) return;
  std::optional<MemoryReserve::Opened> opened;
  if (!MemoryReserve::is_there_room()) {
    // Few events can wait for better times: while the reserve is open, the program may take it.
    const EventLog& log = context().log;
    if (waiting_.load() == 0 && log.numbered() - log.drained() < kMayWait) return;
    opened.emplace(reserve_);
  }
  try {
    if (out_of_memory_) {
      context().log.drain([](const Event&) {});
    } else {
      book_events();
    }
  } catch (const std::bad_alloc&) {
    out_of_memory_ = true;
  }
  booked_.store(context().log.drained());
  bookkeeper_ns_.store(clock_ns(CLOCK_THREAD_CPUTIME_ID));
}

void Session::book_events() {
  context().log.drain([this](const Event& event) { ledger_.apply(event); });
  for (const StepBooks& step : ledger_.take_closed_steps()) {
    write_run_if_changed();
    StepBooks since_start = step;
    since_start.start_ns -= begin_ns_;
    writer_.write_step(since_start, end_so_far());
  }
}

void Session::write_run_if_changed() {
  if (context().directory.version() == written_version_) return;
  writer_.write_run(context().directory.snapshot(&written_version_));
}

RunEnd Session::end_so_far() {
  RunEnd end;
  end.ended = ended_;
  int64_t hook_ns = -hook_ns_at_begin_;
  for (const auto& source : sources_) {
    const SourceStatistics statistics = source->statistics();
    hook_ns += statistics.nanoseconds;
    end.overhead_bytes += statistics.bytes;
    end.notes.insert(end.notes.end(), statistics.notes.begin(), statistics.notes.end());
  }
  end.overhead_seconds = static_cast<double>(hook_ns) * 1e-9;
  end.bookkeeper_seconds = static_cast<double>(bookkeeper_ns_.load()) * 1e-9;
  end.overhead_bytes += static_cast<int64_t>(context().log.highest_bytes() + ledger_.table_bytes());
  end.dropped_events = context().log.lost();
  if (!note_.empty()) end.notes.push_back(note_);
  if (out_of_memory_) {
    end.notes.push_back(
        "The host had no memory left for the profiler itself: the books end with the last step "
        "here.");
  }
  if (overlapping_steps_ > 0) {
    end.notes.push_back(fmt::format(
        "{} step(s) began while another was open and were counted into it.", overlapping_steps_));
  }
  return end;
}

void Session::stop(const std::string& ended, const std::string& note) noexcept {
  if (stopped_) return;
  stopped_ = true;
  context().settler.store(nullptr);
  if (in_forked_child.load()) {  // the recording and its thread belong to the parent
    if (bookkeeper_.joinable()) bookkeeper_.detach();
    return;
  }
  try {
    if (step_open_.load()) step_end(ended == "exception");
    for (auto source = sources_.rbegin(); source != sources_.rend(); ++source) (*source)->stop();
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_one();
    bookkeeper_.join();
    const CountGuard waiting(waiting_);
    const int64_t before = bookkeeper_ns_.load();
    // A thread that was inside a hook when the sources stopped may still owe its event.
    for (int tries = 0; tries < 1000; ++tries) {
      book();
      if (context().log.drained() >= context().log.numbered()) break;
      std::this_thread::yield();
    }
    bookkeeper_ns_.store(before);
    ended_ = ended;
    note_ = note;
    write_run_if_changed();
    writer_.finish(end_so_far());
  } catch (...) {  // out of memory while finishing: what was committed stays readable
  }
  session_exists.store(false);
}

std::string Session::problem() const { return writer_.problem(); }

}  // namespace tally
