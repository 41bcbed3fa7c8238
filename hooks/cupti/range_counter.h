// SPDX-License-Identifier: Apache-2.0
// Counts what a GPU executes between two moments, through CUPTI's Range Profiler. Ranges are pushed
// and popped around work on one context; launches stay asynchronous and nothing is replayed. A set
// that needs several passes wants the same work run once for each: the next step is the next pass.
// Kernel by kernel (Options::per_kernel) it is the other way round.
//
// Not thread-safe. After any failure everything that was begun is ended again.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "hooks/cupti/cupti_api.h"
#include "hooks/cupti/flop_metrics.h"
#include "hooks/cupti/refusal.h"

namespace tally::hooks::cupti {

// What the driver must give; a fake in tests.
class Driver {
 public:
  virtual ~Driver() = default;
  // "", or why there is none. Nothing of CUPTI's target half may be called before this was "".
  virtual std::string initialize() = 0;
  virtual CUcontext current_context() = 0;
  virtual int current_device() = 0;
  // Waits until the current context's work is done.
  virtual void synchronize() = 0;
};
// That of libcuda.so.1, if this process has mapped it.
std::unique_ptr<Driver> make_driver();

class RangeCounter {
 public:
  struct Options {
    size_t most_ranges = 4096;  // of one pass
    size_t most_passes = 8;     // a set that needs more is refused
    // A range is one kernel, by its number in the order of launches: push() and pop() are not
    // called. CUPTI replays each kernel for each pass, waits for it after its launch, and lets none
    // run beside another.
    bool per_kernel = false;
  };
  struct Row {
    std::string range;
    std::vector<double> values;  // of each metric of the set
  };
  struct Result {
    std::vector<Row> rows;  // in the order of the ranges
    size_t dropped = 0;     // ranges beyond most_ranges
    size_t passes = 0;
  };

  RangeCounter(const Api& api, Driver& driver) : api_(api), driver_(driver) {}
  RangeCounter(const Api& api, Driver& driver, Options options)
      : api_(api), driver_(driver), options_(options) {}
  ~RangeCounter() { tear_down(); }
  RangeCounter(const RangeCounter&) = delete;
  RangeCounter& operator=(const RangeCounter&) = delete;

  // The chip of the current context ("GH100"). Throws Refused, as every call below may.
  std::string chip();
  void start(const MetricSet& set);
  void push(const std::string& range);
  void pop();
  // Ends a pass. True when all are in; false when the same work must run once more, in the pass
  // that began now.
  bool end_pass();
  // After the last pass. Waits for the device.
  Result finish();
  size_t passes() const { return passes_; }
  // The image that finish() read, until the next start().
  const std::vector<uint8_t>& counter_data() const { return counter_data_; }

 private:
  void check(CUptiResult result, const char* call) const;
  void initialize();
  void build_configuration();
  void make_counter_data();
  void begin_pass();
  void tear_down() noexcept;

  const Api& api_;
  Driver& driver_;
  const Options options_{};
  std::vector<std::string> names_;
  std::vector<const char*> name_pointers_;
  std::string chip_;
  CUcontext context_ = nullptr;
  CUpti_Profiler_Host_Object* host_ = nullptr;
  CUpti_RangeProfiler_Object* profiler_ = nullptr;
  std::vector<uint8_t> availability_, configuration_, counter_data_;
  size_t passes_ = 0;
  bool initialized_ = false;
  bool in_pass_ = false;
};

// Passes that a chip needs for a set, by the host library alone: works without a GPU. -1 with
// CUPTI's words in `problem` when it refuses a name.
int64_t count_passes(const Api& api, const std::string& chip, const std::vector<Metric>& metrics,
                     std::string& problem);

}  // namespace tally::hooks::cupti
