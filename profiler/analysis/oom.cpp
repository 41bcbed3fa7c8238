// SPDX-License-Identifier: Apache-2.0
// Why an allocation failed or the budget was crossed; what would have helped is oom_remedies.cpp.
#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "profiler/analysis/oom.h"
#include "profiler/analysis/parts.h"
#include "profiler/core/units.h"

namespace tally::analysis {
namespace {

constexpr size_t kRows = 5;

Failure find_failure(const Summary& summary) {
  Failure found;
  for (const StepSummary& step : summary.steps) {
    for (const DeviceStep& device : step.devices) {
      for (const MarkSummary& mark : device.marks) {
        // Another device's books of the same moment ask for nothing.
        if (mark.mark != Mark::kOom || (mark.wanted_bytes == 0 && mark.limit_bytes == 0)) continue;
        ++found.count;
        if (found.mark) continue;
        found.step = &step;
        found.device = &device;
        found.mark = &mark;
      }
    }
  }
  return found;
}

// "activations of h.3.attn 12.0 MiB, ...": who holds the most.
std::string holders(const MarkSummary& mark) {
  std::map<std::string, int64_t> rows;
  for (const Cell& cell : mark.cells) {
    rows[fmt::format("{}{}", title(cell.role), cell.module.empty() ? "" : " of " + cell.module)] += cell.bytes;
  }
  return largest_of(rows, kRows);
}

std::string categories(const MarkSummary& mark) {
  std::map<std::string, int64_t> rows;
  for (size_t r = 0; r < kRoleCount; ++r) {
    if (mark.roles[r] > 0) rows.emplace(title(static_cast<Role>(r)), mark.roles[r]);
  }
  return largest_of(rows, kRoleCount);
}

class PostMortem {
 public:
  PostMortem(const Summary& summary, const Failure& failure)
      : summary_(summary), failure_(failure), mark_(*failure.mark) {}

  Verdict write() {
    verdict_.kind = "oom";
    verdict_.tone = Tone::kBad;
    verdict_.bytes = mark_.wanted_bytes;
    const bool crossed = mark_.bytes > mark_.limit_bytes && mark_.limit_bytes > 0;
    std::string where(title(mark_.phase));
    if (!mark_.module.empty()) where += " of " + mark_.module;
    if (!mark_.op.empty()) where += " (" + mark_.op + ")";
    verdict_.verdict = crossed
        ? fmt::format("the budget of {} was crossed in step {}, {}: {} were alive", format_bytes(mark_.limit_bytes),
                      failure_.step->index, where, format_bytes(mark_.bytes))
        : fmt::format("an allocation of {} failed in step {}, {}: {} of {} were alive on {}",
                      format_bytes(mark_.wanted_bytes), failure_.step->index, where, format_bytes(mark_.bytes),
                      format_bytes(mark_.limit_bytes), failure_.device->device);
    if (!mark_.source.empty()) verdict_.evidence.push_back("asked for by " + mark_.source);
    verdict_.evidence.push_back("alive: " + categories(mark_));
    if (!mark_.cells.empty()) verdict_.evidence.push_back("the most: " + holders(mark_));
    say_lines();
    say_cached();
    say_progress();
    find_reference();
    say_growth();
    for (Remedy& remedy : oom_remedies(failure_)) verdict_.remedies.push_back(std::move(remedy));
    std::stable_sort(verdict_.remedies.begin(), verdict_.remedies.end(),
                     [](const Remedy& a, const Remedy& b) { return a.bytes > b.bytes; });
    return verdict_;
  }

 private:
  void say_cached() {
    if (!mark_.caching) return;
    const CachingBook& book = *mark_.caching;
    const int64_t free_bytes = book.reserved_bytes - book.active_bytes;
    verdict_.evidence.push_back(fmt::format(
        "reserved by the caching allocator {}: {} free in it, the largest piece {}; outside it {}",
        format_bytes(book.reserved_bytes), format_bytes(free_bytes), format_bytes(book.largest_free_bytes),
        book.outside_bytes < 0 ? "unknown" : format_bytes(book.outside_bytes)));
    const bool is_expandable =
        std::any_of(summary_.options.begin(), summary_.options.end(), [](const auto& option) {
          return option.first == "cuda_allocator" &&
                 option.second.find("expandable_segments:True") != std::string::npos;
        });
    if (!is_expandable && free_bytes >= mark_.wanted_bytes && book.largest_free_bytes < mark_.wanted_bytes) {
      verdict_.remedies.push_back({"PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True: enough is free, in pieces "
                                   "that are too small", free_bytes - book.largest_free_bytes, ""});
    }
  }

  // Which lines of the program made the most of what lives.
  void say_lines() {
    std::map<std::string, int64_t> rows;
    for (const BlockRow& block : failure_.device->peak_blocks) {
      if (block.source.empty()) continue;
      rows[fmt::format("{} at {}", title(block.role), block.source)] += block.bytes * block.count;
    }
    if (!rows.empty()) verdict_.evidence.push_back("by line: " + largest_of(rows, kRows));
  }

  void say_progress() {
    int edges = 0;
    for (const MarkSummary& mark : failure_.device->marks) {
      if (&mark == failure_.mark) break;
      edges += mark.mark == Mark::kForwardEdge;
    }
    const int64_t unproved = bytes_of(mark_.roles, Role::kUnattributed);
    const int64_t by_rule = edges == 0 ? bytes_of(mark_.roles, Role::kActivation) : 0;
    std::string text = fmt::format("{} of the step had begun their backward pass", count_of(edges, "micro-step"));
    if (by_rule > 0) {
      text += fmt::format(
          "; {} of activations are what the rules of the operators say autograd keeps, before a "
          "backward pass proves it",
          format_bytes(by_rule));
    }
    if (edges == 0 && unproved > 0) {
      text += fmt::format("; {} are made by this forward pass, and nothing proves yet who holds them",
                          format_bytes(unproved));
    }
    if (!failure_.step->ended) text += "; the run ended before the step did";
    failure_.begun = edges;
    verdict_.evidence.push_back(text);
    if (failure_.count > 1) verdict_.evidence.push_back(fmt::format("{} failures in the run", failure_.count));
  }

  // A step that came to its end and is kept in detail: what the predictions start from. With a
  // budget that is only recorded it is the step itself.
  void find_reference() {
    const auto complete = [](const DeviceStep& device) {
      const bool ended = std::any_of(device.marks.begin(), device.marks.end(),
                                     [](const MarkSummary& m) { return m.mark == Mark::kEnd; });
      const bool edge = std::any_of(device.marks.begin(), device.marks.end(),
                                    [](const MarkSummary& m) { return m.mark == Mark::kBackwardEnd; });
      return ended && edge && !device.timeline.empty();
    };
    for (const StepSummary& step : summary_.steps) {
      for (const DeviceStep& device : step.devices) {
        if (device.device != failure_.device->device || !complete(device)) continue;
        // Of steps that are as high the last one: the first makes the optimizer's state at its end.
        if (!failure_.reference_device ||
            device.peak.bytes >= failure_.reference_device->peak.bytes - failure_.reference_device->peak.bytes / 100) {
          failure_.reference = &step;
          failure_.reference_device = &device;
        }
      }
    }
  }

  void say_growth() {
    const StepSummary* before = nullptr;
    const DeviceStep* device_before = nullptr;
    for (const StepSummary& step : summary_.steps) {
      if (step.index >= failure_.step->index) break;
      for (const DeviceStep& device : step.devices) {
        if (device.device != failure_.device->device) continue;
        before = &step;
        device_before = &device;
      }
    }
    if (!before) {
      verdict_.evidence.push_back(
          "it was the first step: no earlier one to compare with, and what comes behind the failure is not known");
      return;
    }
    verdict_.evidence.push_back(fmt::format("the step before peaked at {}; {} more were alive here, and {} asked for",
                                            format_bytes(device_before->peak.bytes),
                                            format_bytes(std::max<int64_t>(0, mark_.bytes - device_before->peak.bytes)),
                                            format_bytes(mark_.wanted_bytes)));
  }

  const Summary& summary_;
  Failure failure_;
  const MarkSummary& mark_;
  Verdict verdict_;
};

}  // namespace

std::optional<Verdict> oom_verdict(const Summary& summary) {
  const Failure failure = find_failure(summary);
  if (!failure.mark) return std::nullopt;
  return PostMortem(summary, failure).write();
}

}  // namespace tally::analysis
