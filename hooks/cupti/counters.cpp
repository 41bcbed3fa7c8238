// SPDX-License-Identifier: Apache-2.0
#include "hooks/cupti/counters.h"

#include <ATen/record_function.h>
#include <fmt/format.h>

#include <cstdlib>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "hooks/cupti/activity_recorder.h"
#include "hooks/cupti/alignment.h"
#include "hooks/cupti/kernels.h"
#include "hooks/cupti/launch_names.h"
#include "hooks/cupti/range_counter.h"
#include "profiler/core/hook_timer.h"

namespace tally::hooks {
namespace cupti {
namespace {

constexpr std::string_view kName = "cupti.counters";

// Steps that try to take CUPTI's place for subscribers before kernels stay without names.
constexpr int kMostTries = 100;

class CounterSource;
std::atomic<CounterSource*> counting{nullptr};  // while a pass is open
std::atomic<CounterSource*> naming{nullptr};    // while kernels are recorded with their names

// Of one thread: how deep in operators it is, and what the outermost one opened.
enum class Opened : uint8_t { kNothing, kRange, kId };
struct ThreadDepth {
  uint64_t id = 0;  // of the outermost operator, while kernels are counted one by one
  uint32_t operators = 0;
  Opened opened = Opened::kNothing;
};
__attribute__((tls_model("initial-exec"))) thread_local constinit ThreadDepth depth{};

// The engine's wrapper around a node is no operator.
bool is_operator(const at::RecordFunction& function) {
  return !std::string_view(function.name()).starts_with("autograd::engine::evaluate_function");
}

class CounterSource final : public Source {
 public:
  explicit CounterSource(CounterOptions options) : options_(options) {}
  CounterSource(CounterOptions options, const Api& api, Driver& driver)
      : options_(options), api_(&api), driver_(&driver) {}
  ~CounterSource() override { stop(); }

  std::string_view name() const override { return kName; }
  Availability availability() const override {
    if (api_) return {true, {}};
    std::string reason;
    owned_api_ = load(reason);
    return {owned_api_ != nullptr, reason};
  }

  void start(Context& context) override {
    context_ = &context;
    if (!api_) {
      owned_driver_ = make_driver();
      api_ = owned_api_.get();
      driver_ = owned_driver_.get();
    }
    using Scope = at::RecordScope;
    handle_ = at::addGlobalCallback(
        at::RecordFunctionCallback(&on_start, &on_end)
            .needsInputs(true)
            .scopes(std::unordered_set<Scope, std::hash<Scope>>{Scope::FUNCTION}));
  }

  void step_begin() noexcept override {
    if (!context_) return;
    const std::lock_guard lock(mutex_);
    range_ = 0;
    try {
      // Once each set was counted, or none can be.
      const bool is_time = (cycled_ || refused_) && !open_ && !named_ && !options_.per_kernel;
      if (is_time && begin_names()) return;
      if (!refused_) begin_counting();
    } catch (const Refused& refused) {
      // A program that has not touched the device yet is asked again in its next step.
      if (refused.code() == CUPTI_ERROR_INVALID_CONTEXT) {
        waits_ = refused.what();
      } else {
        refuse(refused.what());
      }
    } catch (const std::exception& error) {
      refuse(error.what());
    }
  }

  void step_end() noexcept override {
    counting.store(nullptr, std::memory_order_release);
    naming.store(nullptr, std::memory_order_release);
    if (!context_) return;
    const std::lock_guard lock(mutex_);
    if (!open_ && !recorder_) return;
    const int64_t begin_ns = now_ns();
    try {
      if (recorder_) {
        end_names();
      } else if (counter_->end_pass()) {
        open_ = false;
        end_counting();
      }
    } catch (const std::exception& error) {
      open_ = false;
      recorder_.reset();
      refuse(error.what());
    }
    add_hook_time(now_ns() - begin_ns);
  }

  void stop() noexcept override {
    counting.store(nullptr);
    naming.store(nullptr);
    if (handle_) at::removeCallback(*handle_);
    handle_.reset();
    const std::lock_guard lock(mutex_);
    if (context_ && counted_steps_ == 0) {
      note_in_directory(refused_ ? reason_ : waits_.empty() ? "no step was counted" : waits_);
    }
    counter_.reset();
    recorder_.reset();
    launches_.reset();
    open_ = false;
    context_ = nullptr;
  }

  SourceStatistics statistics() const override {
    SourceStatistics statistics;
    if (refused_) statistics.notes.push_back(fmt::format("{}: {}.", kName, reason_));
    if (skipped_ranges_ > 0) {
      statistics.notes.push_back(
          fmt::format("{} operator(s) ran while another thread's was being counted; what they "
                      "executed is not in "
                      "the counters.",
                      skipped_ranges_));
    }
    if (dropped_ranges_ > 0) {
      statistics.notes.push_back(fmt::format(
          "The counters of {} operator(s) were dropped: a step had too many.", dropped_ranges_));
    }
    if (!names_reason_.empty() && !named_) {
      statistics.notes.push_back(fmt::format("Kernels have no names: {}.", names_reason_));
    }
    if (lost_records_ > 0) {
      statistics.notes.push_back(fmt::format(
          "CUPTI lost records of kernels, {} times: the table of kernels is not complete.",
          lost_records_));
    }
    return statistics;
  }

 private:
  static std::unique_ptr<at::ObserverContext> on_start(const at::RecordFunction& function) {
    if (is_operator(function) && depth.operators++ == 0) {
      if (CounterSource* self = counting.load(std::memory_order_acquire)) {
        depth.opened =
            self->options_.per_kernel ? self->begin_name(function) : self->begin_range(function);
      } else if (CounterSource* namer = naming.load(std::memory_order_acquire)) {
        depth.opened = namer->begin_name(function);
      }
    }
    return nullptr;
  }
  static void on_end(const at::RecordFunction& function, at::ObserverContext*) {
    if (!is_operator(function) || depth.operators == 0 || --depth.operators > 0) return;
    const Opened opened = std::exchange(depth.opened, Opened::kNothing);
    depth.id = 0;
    if (opened == Opened::kNothing) return;
    if (CounterSource* self = counting.load(std::memory_order_acquire)) {
      if (opened == Opened::kRange) self->end_range();
    } else if (CounterSource* namer = naming.load(std::memory_order_acquire)) {
      if (opened == Opened::kId) namer->end_name();
    }
  }

  void begin_counting() {
    if (!open_) {
      if (!counter_) {
        RangeCounter::Options options;
        options.per_kernel = options_.per_kernel;
        counter_.emplace(*api_, *driver_, options);
      }
      if (sets_.empty()) sets_ = metric_sets(counter_->chip());
      counter_->start(sets_[set_]);
      open_ = true;
      if (options_.per_kernel) {
        launches_.emplace(
            *api_, +[] { return depth.id; });
        const std::string why = launches_->start();
        if (names_reason_.empty()) names_reason_ = why;
      }
    }
    counting.store(this, std::memory_order_release);
  }
  void end_counting() {
    std::vector<LaunchNames::Launch> launches;
    if (launches_) launches = launches_->stop();
    launches_.reset();
    const RangeCounter::Result result = counter_->finish();
    const std::vector<Metric>& metrics = sets_[set_].metrics;
    dropped_ranges_ += result.dropped;
    for (const RangeCounter::Row& row : result.rows) {
      for (size_t i = 0; i < metrics.size(); ++i) {
        if (metrics[i].counted == Counted::kInstructions)
          instructions_[metrics[i].instruction] += row.values[i];
      }
      if (options_.per_kernel) continue;
      CountedSums sums;
      sums.add(metrics, row.values);
      tell_range(*context_, std::strtoull(row.range.c_str(), nullptr, 10), sums);
    }
    if (options_.per_kernel) {
      const std::string problem = tell_kernels(*context_, metrics, result.rows, launches);
      if (names_reason_.empty()) names_reason_ = problem;
    }
    ++counted_steps_;
    next_set();
  }

  // Takes CUPTI's place for subscribers, for this step. False where it is taken.
  bool begin_names() {
    if (tries_ == kMostTries) return false;
    ++tries_;
    if (!driver_->initialize().empty() || !driver_->current_context()) return false;
    recorder_.emplace(*api_);
    names_reason_ = recorder_->start();
    if (!names_reason_.empty()) {
      recorder_.reset();
      return false;
    }
    naming.store(this, std::memory_order_release);
    return true;
  }
  void end_names() {
    driver_->synchronize();
    const ActivityRecorder::Report report = recorder_->stop();
    recorder_.reset();
    lost_records_ += report.dropped + report.refused_buffers;
    tell_kernels(*context_, report);
    named_ = !report.kernels.empty();
  }
  // An operator gets a number that its kernels are known by.
  Opened begin_name(const at::RecordFunction& function) noexcept {
    const std::lock_guard lock(mutex_);
    if (!open_ && !recorder_) return Opened::kNothing;
    depth.id = id_of_range(range_);
    push_range(function);
    if (recorder_) recorder_->push_op(depth.id);
    return Opened::kId;
  }
  void end_name() noexcept {
    const std::lock_guard lock(mutex_);
    if (recorder_) recorder_->pop_op();
  }

  void push_range(const at::RecordFunction& function) noexcept {
    Event event;
    event.kind = EventKind::kRange;
    event.a = range_++;
    event.b = alignment_of(function);
    event.flags = is_causal(function) ? event_flags::kCausal : 0;
    context_->log.push(event);
  }
  // Ranges of a context stand one after the other: while one is open, other threads have none.
  Opened begin_range(const at::RecordFunction& function) noexcept {
    const std::lock_guard lock(mutex_);
    if (!open_) return Opened::kNothing;
    if (range_open_) {
      ++skipped_ranges_;
      return Opened::kNothing;
    }
    try {
      counter_->push(std::to_string(range_));
    } catch (const std::exception& error) {
      refuse(error.what());
      return Opened::kNothing;
    }
    range_open_ = true;
    push_range(function);
    return Opened::kRange;
  }
  void end_range() noexcept {
    const std::lock_guard lock(mutex_);
    if (!range_open_) return;
    range_open_ = false;
    try {
      counter_->pop();
    } catch (const std::exception& error) {
      refuse(error.what());
    }
  }

  // Each set once, then the first one for good. The set of mma.sync is worth its passes only where
  // such instructions ran: more HMMA than wgmma's own.
  void next_set() {
    if (cycled_) return;
    do {
      set_ = (set_ + 1) % sets_.size();
      cycled_ = cycled_ || set_ == 0;
    } while (sets_[set_].name == "mma.sync" && instructions_["mma.sync"] <= instructions_["wgmma"]);
  }

  void refuse(const std::string& reason) noexcept {
    counting.store(nullptr);
    launches_.reset();
    refused_ = true;
    reason_ = reason;
    open_ = false;
  }
  void note_in_directory(const std::string& reason) noexcept {
    try {
      context_->directory.update([&reason](RunInfo& info) {
        for (SourceInfo& source : info.sources) {
          if (source.name == kName) source = {std::string(kName), false, reason};
        }
      });
    } catch (...) {  // the list keeps what it said at the start
    }
  }

  const CounterOptions options_;
  Context* context_ = nullptr;
  mutable std::unique_ptr<Api> owned_api_;
  std::unique_ptr<Driver> owned_driver_;
  const Api* api_ = nullptr;
  Driver* driver_ = nullptr;
  std::optional<at::CallbackHandle> handle_;

  std::recursive_mutex mutex_;  // of what follows; never held while the program's code runs
  std::optional<RangeCounter> counter_;
  std::vector<MetricSet> sets_;
  size_t set_ = 0;
  bool cycled_ = false;
  std::unordered_map<std::string_view, double> instructions_;
  bool open_ = false;  // passes of a set are being collected
  bool range_open_ = false;
  uint64_t range_ = 0;  // number of the next one in this step
  std::optional<ActivityRecorder> recorder_;  // in the step that names kernels
  std::optional<LaunchNames> launches_;       // while kernels are counted one by one
  int tries_ = 0;
  bool named_ = false;
  std::string names_reason_;  // why they have no names
  uint64_t lost_records_ = 0;
  uint64_t skipped_ranges_ = 0;
  uint64_t dropped_ranges_ = 0;
  uint64_t counted_steps_ = 0;
  bool refused_ = false;
  std::string reason_;
  std::string waits_;
};

}  // namespace

std::unique_ptr<Source> make_counter_source(CounterOptions options, const Api& api,
                                            Driver& driver) {
  return std::make_unique<CounterSource>(options, api, driver);
}

}  // namespace cupti

std::unique_ptr<Source> make_counter_source(CounterOptions options) {
  return std::make_unique<cupti::CounterSource>(options);
}

}  // namespace tally::hooks
