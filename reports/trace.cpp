// SPDX-License-Identifier: Apache-2.0
#include "reports/trace.h"

#include <array>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "profiler/core/error.h"

namespace tally::reports {
namespace {

using Json = nlohmann::ordered_json;
using analysis::DeviceStep;
using analysis::MarkSummary;
using analysis::StepSummary;
using analysis::Summary;
using analysis::TimelinePoint;

// Far above what processes and CUDA devices use, so that tracks of a trace beside stay apart.
constexpr int64_t kProcess = 5'459'053;  // "SLm": any number that is nobody's

enum Thread { kSteps = 1, kPhases, kModules, kOperators };

int64_t nanoseconds(double seconds) { return std::llround(seconds * 1e9); }

class Trace {
 public:
  Trace(const Summary& summary, int64_t begin_ns) : s_(summary), begin_ns_(begin_ns) {}

  // Events separated by commas.
  std::string events();

 private:
  void event(const Json& event) {
    if (!out_.empty()) out_ += ",\n";
    out_ += event.dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  // Microseconds with the nanoseconds behind the point, exactly: JSON's doubles would round them.
  void timed(const Json& event, int64_t at_ns, int64_t duration_ns = -1) {
    const auto micro = [](int64_t ns) {
      return fmt::format("{}.{:03}", ns / 1000, std::abs(ns % 1000));
    };
    std::string text = event.dump(-1, ' ', false, Json::error_handler_t::replace);
    text.pop_back();
    text += ",\"ts\":" + micro(begin_ns_ + at_ns);
    if (duration_ns >= 0) text += ",\"dur\":" + micro(duration_ns);
    if (!out_.empty()) out_ += ",\n";
    out_ += text + "}";
  }
  void slice(Thread thread, const std::string& name, int64_t begin, int64_t end,
             Json arguments = Json::object()) {
    timed({{"ph", "X"}, {"pid", process()}, {"tid", thread}, {"name", name}, {"args", arguments}},
          begin, std::max<int64_t>(0, end - begin));
  }
  int64_t process() const { return kProcess + std::max<int64_t>(0, s_.rank); }
  void names();
  void step(const StepSummary& step);
  void counters(const DeviceStep& device, const RoleBytes& roles, int64_t at);
  void caching(const DeviceStep& device, const TimelinePoint& point, int64_t at);
  void operators(const DeviceStep& device, int64_t begin, int64_t end);

  const Summary& s_;
  const int64_t begin_ns_;
  std::array<bool, kRoleCount> used_{};
  std::string out_;
};

void Trace::names() {
  const std::string program = s_.command.empty() ? "a training run" : s_.command.front();
  std::string name = "TorchTally: " + program.substr(program.find_last_of('/') + 1);
  if (s_.rank >= 0) name += fmt::format(", rank {}", s_.rank);
  const auto named = [&](const char* what, int thread, const std::string& text) {
    event({{"ph", "M"},
           {"pid", process()},
           {"tid", thread},
           {"name", what},
           {"args", {{"name", text}}}});
  };
  named("process_name", 0, name);
  named("thread_name", kSteps, "steps");
  named("thread_name", kPhases, "phases");
  named("thread_name", kModules, "module of the last allocation or free");
  named("thread_name", kOperators, "operator of the last allocation or free");
}

// All roles that occur anywhere: a series that appears late would start in the middle.
void Trace::counters(const DeviceStep& device, const RoleBytes& roles, int64_t at) {
  Json bytes = Json::object();
  for (size_t i = 0; i < kRoleCount; ++i) {
    if (used_[i]) bytes[std::string(kRoleWords[i].title)] = roles[i];
  }
  timed({{"ph", "C"},
         {"pid", process()},
         {"name", "bytes alive, " + device.device},
         {"args", std::move(bytes)}},
        at);
}

// What a caching allocator has around the blocks; a track of its own, for it is in no sum of roles.
void Trace::caching(const DeviceStep& device, const TimelinePoint& point, int64_t at) {
  timed({{"ph", "C"},
         {"pid", process()},
         {"name", "caching allocator, " + device.device},
         {"args",
          {{"active", point.active_bytes},
           {"largest free block", point.largest_free_bytes},
           {"other free bytes",
            point.reserved_bytes - point.active_bytes - point.largest_free_bytes}}}},
        at);
}

// An allocation says which operator and module ran: true until the next one says another.
void Trace::operators(const DeviceStep& device, int64_t begin, int64_t end) {
  const auto& points = device.timeline;
  const auto runs = [&](Thread thread, auto name) {
    for (size_t first = 0; first < points.size();) {
      size_t next = first + 1;
      while (next < points.size() && name(points[next]) == name(points[first])) ++next;
      const std::string text = name(points[first]);
      if (!text.empty()) {
        slice(thread, text, begin + nanoseconds(points[first].seconds),
              next < points.size() ? begin + nanoseconds(points[next].seconds) : end,
              {{"phase", key(points[first].phase)}, {"allocations and frees", next - first}});
      }
      first = next;
    }
  };
  runs(kModules, [](const TimelinePoint& p) { return p.module; });
  runs(kOperators, [](const TimelinePoint& p) { return p.op; });
}

void Trace::step(const StepSummary& step) {
  const int64_t begin = nanoseconds(step.start_seconds);
  const int64_t end = begin + nanoseconds(step.seconds);
  const DeviceStep* main = nullptr;
  for (const DeviceStep& device : step.devices) {
    if (device.device == s_.device) main = &device;
  }
  Json about{{"micro-steps", step.micro_steps}, {"FLOPs", step.flops.total()}};
  if (main) about["peak bytes"] = main->peak.bytes;
  slice(kSteps, fmt::format("step {}", step.index), begin, end, about);
  for (const analysis::PhaseSpan& span : step.phases) {
    slice(kPhases, std::string(title(span.phase)), begin + nanoseconds(span.begin),
          begin + nanoseconds(span.end), {{"micro-step", span.micro_step}});
  }
  for (const DeviceStep& device : step.devices) {
    for (const MarkSummary& mark : device.marks) {
      timed({{"ph", "i"},
             {"s", "p"},
             {"pid", process()},
             {"tid", kSteps},
             {"name", fmt::format("{}, {}", title(mark.mark), device.device)},
             {"args", {{"bytes", mark.bytes}, {"allocator bytes", mark.allocator_bytes}}}},
            begin + nanoseconds(mark.seconds));
      if (device.timeline.empty()) counters(device, mark.roles, begin + nanoseconds(mark.seconds));
    }
    for (const TimelinePoint& point : device.timeline) {
      counters(device, point.roles, begin + nanoseconds(point.seconds));
      if (point.reserved_bytes > 0) caching(device, point, begin + nanoseconds(point.seconds));
    }
  }
  if (main) operators(*main, begin, end);
}

std::string Trace::events() {
  for (const StepSummary& step : s_.steps) {
    for (const DeviceStep& device : step.devices) {
      for (const MarkSummary& mark : device.marks) {
        for (size_t i = 0; i < kRoleCount; ++i) used_[i] = used_[i] || mark.roles[i] != 0;
      }
      for (const TimelinePoint& point : device.timeline) {
        for (size_t i = 0; i < kRoleCount; ++i) used_[i] = used_[i] || point.roles[i] != 0;
      }
    }
  }
  names();
  for (const StepSummary& one : s_.steps) step(one);
  return std::move(out_);
}

}  // namespace

std::string render_chrome_trace(const Summary& summary, const std::string& beside) {
  const std::string about =
      fmt::format("\"otherData\":{},\n\"displayTimeUnit\":\"ms\"",
                  Json{{"torchtally", summary.headline}, {"recording", summary.recording}}.dump(
                      -1, ' ', false, Json::error_handler_t::replace));
  if (beside.empty()) {
    return "{\"traceEvents\":[\n" + Trace(summary, 0).events() + "\n],\n" + about + "}\n";
  }
  Json other = Json::parse(beside, nullptr, false);
  if (other.is_array()) other = Json{{"traceEvents", std::move(other)}};
  if (!other.is_object() || !other.contains("traceEvents") || !other["traceEvents"].is_array()) {
    throw Error("it is no trace: no JSON with a list of traceEvents");
  }
  if (summary.start_unix_ns == 0) {
    throw Error(
        "{} does not say when it began to the nanosecond (it was written by an older "
        "torchtally), so it cannot stand beside another trace",
        summary.recording);
  }
  // Kineto's microseconds count from this moment of the Unix clock.
  const int64_t base = other.value("baseTimeNanoseconds", int64_t{0});
  const std::string ours = Trace(summary, summary.start_unix_ns - base).events();
  std::string out = "{\"traceEvents\":[\n";
  for (const Json& event : other["traceEvents"]) {
    out += event.dump(-1, ' ', false, Json::error_handler_t::replace) + ",\n";
  }
  out += ours + "\n],\n";
  for (const auto& [name, value] : other.items()) {
    if (name == "traceEvents" || name == "otherData" || name == "displayTimeUnit") continue;
    out += Json(name).dump(-1, ' ', false, Json::error_handler_t::replace) + ":" +
           value.dump(-1, ' ', false, Json::error_handler_t::replace) + ",\n";
  }
  return out + about + "}\n";
}

}  // namespace tally::reports
