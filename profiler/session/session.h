// SPDX-License-Identifier: Apache-2.0
// One recording in this process: wires sources to the log, the log to the ledger, the ledger to the
// recording. The bookkeeper is a thread of its own; the program's threads only write events.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "profiler/core/source.h"
#include "profiler/ledger/ledger.h"
#include "profiler/recording/writer.h"
#include "profiler/session/memory_reserve.h"

namespace tally {

struct SessionOptions {
  std::string recording;
  LedgerOptions ledger;
  std::vector<std::pair<std::string, std::string>> versions;  // beside those that the session knows
  std::vector<std::pair<std::string, std::string>> shown_options;  // for the report
};

class Session final : private Settler {
 public:
  // The context that every hook of this process writes to; lives as long as the process.
  static Context& context();

  // Starts the sources in their order. Throws Error when another session records, when the
  // recording cannot be written or a source cannot start; nothing stays behind then.
  Session(SessionOptions options, std::vector<std::unique_ptr<Source>> sources);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // On the thread that steps. A second begin inside an open step is counted and ignored.
  bool step_begin();
  void micro_step();
  void step_end(bool exception);
  // One step ends and the next begins, at the cost of one look at what there is.
  void next_step();
  // Ends an open step that is none after all (what runs between the last update and the end): it
  // leaves no books.
  void step_discard();
  void push(Event event) noexcept { context().log.push(event); }

  // Ends an open step, stops the sources, books what is left, writes the end. Never throws.
  // `ended`: "clean" or "exception"; `note`: a sentence that says more, or "".
  void stop(const std::string& ended, const std::string& note = {}) noexcept;
  // This is a forked child: the recording belongs to the parent, nothing is recorded here.
  static bool is_of_parent() noexcept;

  // What could not be recorded, or "".
  std::string problem() const;

 private:
  void settle() noexcept override;
  bool open_step(void (Source::*look)() noexcept);
  void close_step(uint8_t flags);
  void run_bookkeeper();
  void book() noexcept;
  void book_events();
  void write_run_if_changed();
  RunEnd end_so_far();
  void wait_for_room();

  SessionOptions options_;
  std::vector<std::unique_ptr<Source>> sources_;
  Ledger ledger_;
  recording::Writer writer_;
  uint64_t written_version_ = 0;  // of the directory
  int64_t begin_ns_ = 0;
  int64_t hook_ns_at_begin_ = 0;
  int64_t hook_ns_at_step_ = 0;
  uint64_t overlapping_steps_ = 0;
  std::atomic<bool> step_open_{false};
  std::string ended_ = "running";
  std::string note_;
  MemoryReserve reserve_;       // of whoever books: the bookkeeper, in the end the stopping thread
  bool out_of_memory_ = false;  // the same: the books ended, for want of it
  bool stopped_ = false;

  std::mutex mutex_;
  std::condition_variable wake_;      // the bookkeeper: work, or the end
  std::condition_variable progress_;  // producers that wait for room
  bool stopping_ = false;
  std::atomic<int64_t> bookkeeper_ns_{0};
  std::atomic<int> waiting_{0};      // threads that wait for the bookkeeper
  std::atomic<uint64_t> booked_{0};  // events whose closed steps are written
  std::thread bookkeeper_;
};

}  // namespace tally
