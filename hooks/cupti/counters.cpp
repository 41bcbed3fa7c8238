// SPDX-License-Identifier: Apache-2.0
#include "hooks/cupti/counters.h"

#include <ATen/record_function.h>
#include <fmt/format.h>

#include <bit>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "hooks/cupti/range_counter.h"
#include "profiler/core/hook_timer.h"

namespace tally::hooks {
namespace cupti {
namespace {

constexpr std::string_view kName = "cupti.counters";

class CounterSource;
std::atomic<CounterSource*> counting{nullptr};  // while a pass is open

// Of one thread: how deep in operators it is, and whether the outermost one has a range.
struct ThreadDepth {
  uint32_t operators = 0;
  bool has_range = false;
};
__attribute__((tls_model("initial-exec"))) thread_local constinit ThreadDepth depth{};

// The engine's wrapper around a node is no operator.
bool is_operator(const at::RecordFunction& function) {
  return !std::string_view(function.name()).starts_with("autograd::engine::evaluate_function");
}

class CounterSource final : public Source {
 public:
  CounterSource() = default;
  CounterSource(const Api& api, Driver& driver) : api_(&api), driver_(&driver) {}
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
            .scopes(std::unordered_set<Scope, std::hash<Scope>>{Scope::FUNCTION}));
  }

  void step_begin() noexcept override {
    if (!context_ || refused_) return;
    try {
      const std::lock_guard lock(mutex_);
      range_ = 0;
      if (!open_) {
        if (!counter_) counter_.emplace(*api_, *driver_);
        if (sets_.empty()) sets_ = metric_sets(counter_->chip());
        counter_->start(sets_[set_]);
        open_ = true;
      }
      counting.store(this, std::memory_order_release);
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
    if (!context_ || !open_) return;
    const int64_t begin_ns = now_ns();
    try {
      const std::lock_guard lock(mutex_);
      if (counter_->end_pass()) {
        open_ = false;
        tell(counter_->finish());
        ++counted_steps_;
        next_set();
      }
    } catch (const std::exception& error) {
      open_ = false;
      refuse(error.what());
    }
    add_hook_time(now_ns() - begin_ns);
  }

  void stop() noexcept override {
    counting.store(nullptr);
    if (handle_) at::removeCallback(*handle_);
    handle_.reset();
    const std::lock_guard lock(mutex_);
    if (context_ && counted_steps_ == 0) {
      note_in_directory(refused_ ? reason_ : waits_.empty() ? "no step was counted" : waits_);
    }
    counter_.reset();
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
    return statistics;
  }

 private:
  static std::unique_ptr<at::ObserverContext> on_start(const at::RecordFunction& function) {
    if (is_operator(function) && depth.operators++ == 0) {
      if (CounterSource* self = counting.load(std::memory_order_acquire)) {
        depth.has_range = self->begin_range();
      }
    }
    return nullptr;
  }
  static void on_end(const at::RecordFunction& function, at::ObserverContext*) {
    if (!is_operator(function) || depth.operators == 0) return;
    if (--depth.operators > 0 || !depth.has_range) return;
    depth.has_range = false;
    if (CounterSource* self = counting.load(std::memory_order_acquire)) self->end_range();
  }

  // Ranges of a context stand one after the other: while one is open, other threads have none.
  bool begin_range() noexcept {
    const std::lock_guard lock(mutex_);
    if (!open_) return false;
    if (range_open_) {
      ++skipped_ranges_;
      return false;
    }
    try {
      counter_->push(std::to_string(range_));
    } catch (const std::exception& error) {
      refuse(error.what());
      return false;
    }
    range_open_ = true;
    Event event;
    event.kind = EventKind::kRange;
    event.a = range_++;
    context_->log.push(event);
    return true;
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

  void tell(const RangeCounter::Result& result) {
    dropped_ranges_ += result.dropped;
    const std::vector<Metric>& metrics = sets_[set_].metrics;
    for (const RangeCounter::Row& row : result.rows) {
      double sums[kCountedQuantities] = {};
      for (size_t i = 0; i < metrics.size(); ++i) {
        switch (metrics[i].counted) {
          case Counted::kTensorFlops:
            sums[0] += metrics[i].weight * row.values[i];
            break;
          case Counted::kScalarFlops:
            sums[1] += metrics[i].weight * row.values[i];
            break;
          case Counted::kNanoseconds:
            sums[2] += row.values[i];
            break;
          case Counted::kDramBytes:
            sums[3] += row.values[i];
            break;
          case Counted::kInstructions:
            instructions_[metrics[i].type] += row.values[i];
            break;
        }
      }
      for (size_t quantity = 0; quantity < kCountedQuantities; ++quantity) {
        if (sums[quantity] == 0) continue;
        Event event;
        event.kind = EventKind::kCounted;
        event.a = std::strtoull(row.range.c_str(), nullptr, 10);
        event.b = std::bit_cast<uint64_t>(sums[quantity]);
        event.id = static_cast<uint32_t>(quantity);
        context_->log.push(event);
      }
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
  uint64_t skipped_ranges_ = 0;
  uint64_t dropped_ranges_ = 0;
  uint64_t counted_steps_ = 0;
  bool refused_ = false;
  std::string reason_;
  std::string waits_;
};

}  // namespace

std::unique_ptr<Source> make_counter_source(const Api& api, Driver& driver) {
  return std::make_unique<CounterSource>(api, driver);
}

}  // namespace cupti

std::unique_ptr<Source> make_counter_source() { return std::make_unique<cupti::CounterSource>(); }

}  // namespace tally::hooks
