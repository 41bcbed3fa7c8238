// SPDX-License-Identifier: Apache-2.0
// Why an allocation failed or the budget was crossed, and what would have helped: each remedy with
// the bytes that it would give back, computed from this run.
#include <algorithm>
#include <cmath>
#include <map>

#include <fmt/format.h>

#include "profiler/analysis/counterfactual.h"
#include "profiler/analysis/parts.h"
#include "profiler/core/units.h"

namespace tally::analysis {
namespace {

constexpr size_t kRows = 5;
constexpr double kNotable = 0.005;  // of the bytes alive: below it a remedy is none

int64_t role(const RoleBytes& roles, Role role) { return roles[static_cast<size_t>(role)]; }

struct Failure {
  const StepSummary* step = nullptr;
  const DeviceStep* device = nullptr;
  const MarkSummary* mark = nullptr;
  int count = 0;  // of all steps
};

Failure find_failure(const Summary& summary) {
  Failure found;
  for (const StepSummary& step : summary.steps) {
    for (const DeviceStep& device : step.devices) {
      for (const MarkSummary& mark : device.marks) {
        if (mark.mark != Mark::kOom) continue;
        ++found.count;
        if (!found.mark) found = {&step, &device, &mark, found.count};
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
    add_remedies();
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
    if (free_bytes >= mark_.wanted_bytes && book.largest_free_bytes < mark_.wanted_bytes) {
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
    const int64_t unproved = role(mark_.roles, Role::kUnattributed);
    const int64_t by_rule = edges == 0 ? role(mark_.roles, Role::kActivation) : 0;
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
    begun_ = edges;
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
        if (!reference_device_ || device.peak.bytes > reference_device_->peak.bytes) {
          reference_ = &step;
          reference_device_ = &device;
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
      verdict_.evidence.push_back("it was the first step: no earlier one to compare with");
      return;
    }
    verdict_.evidence.push_back(fmt::format("the step before peaked at {}; {} more were alive here, and {} asked for",
                                            format_bytes(device_before->peak.bytes),
                                            format_bytes(std::max<int64_t>(0, mark_.bytes - device_before->peak.bytes)),
                                            format_bytes(mark_.wanted_bytes)));
  }

  void add(const std::string& text, int64_t bytes, const std::string& cost) {
    if (static_cast<double>(bytes) < kNotable * static_cast<double>(mark_.bytes)) return;
    verdict_.remedies.push_back({text, bytes, cost});
  }

  // Bytes of float32 blocks of these roles.
  int64_t wide(std::initializer_list<Role> roles) const {
    int64_t bytes = 0;
    for (const BlockRow& block : failure_.device->peak_blocks) {
      if (block.dtype != "float32") continue;
      if (std::find(roles.begin(), roles.end(), block.role) != roles.end())
        bytes += block.bytes * block.count;
    }
    return bytes;
  }
  // Of one module the most: "head".
  std::string most_of(Role of) const {
    std::map<std::string, int64_t> modules;
    for (const Cell& cell : mark_.cells) {
      if (cell.role == of) modules[cell.module.empty() ? "no module" : cell.module] += cell.bytes;
    }
    return largest_of(modules, 2);
  }

  void add_remedies() {
    const bool on_cpu = failure_.device->device == "cpu";
    const int64_t held = role(mark_.roles, Role::kHeldOutput);
    add("let go of the outputs that the program keeps (a list of losses or logits: keep .item() or "
        ".detach()): " +
            most_of(Role::kHeldOutput),
        held, "");
    const int64_t gradients = role(mark_.roles, Role::kGradient);
    const int64_t state = role(mark_.roles, Role::kOptimizerState);
    const int64_t state32 = wide({Role::kOptimizerState});
    add("an optimizer with 8-bit state, by formula", state32 * 3 / 4,
        "another numeric format of the state");
    const int64_t halved =
        wide({Role::kParameter, Role::kBuffer, Role::kGradient, Role::kOptimizerState, Role::kInput,
              Role::kActivation, Role::kRecomputedActivation, Role::kHeldOutput,
              Role::kTemporaryForward, Role::kTemporaryBackward, Role::kTemporaryOptimizer,
              Role::kUnattributed}) /
        2;
    add("the model in bfloat16, by formula: half of all that is float32", halved,
        "another numeric format of all");
    const auto ranks = [](int64_t bytes) {
      return fmt::format("2 ranks give {} back, 8 give {}", format_bytes(bytes / 2),
                         format_bytes(bytes - bytes / 8));
    };
    add("ZeRO-1, by formula: each of n ranks holds 1/n of the optimizer's state; " + ranks(state),
        state / 2, "more processes");
    const int64_t sharded = state + gradients + role(mark_.roles, Role::kParameter);
    add("FSDP (ZeRO-3), by formula: each of n ranks holds 1/n of parameters, gradients and "
        "state; " +
            ranks(sharded),
        sharded / 2, "more processes, gathers");
    if (mark_.phase == Phase::kOptimizer) {
      const int64_t temporaries = role(mark_.roles, Role::kTemporaryOptimizer);
      add("an optimizer with fused=True: its update makes nothing beside the state", temporaries,
          "");
      add("an optimizer with foreach=False: temporaries of one parameter at a time",
          temporaries - largest_temporary(), "more and smaller kernels");
    }
    // At the first forward pass of a step nothing needs them any more.
    if (mark_.phase == Phase::kForward && begun_ == 0) {
      add("zero_grad(set_to_none=True) before the forward pass", gradients, "");
    }
    if (!on_cpu) {
      add("offload what autograd saves (torch.autograd.graph.save_on_cpu): all but what the "
          "operator in hand uses",
          saved_elsewhere(), "copies to the host and back");
    }
    if (!reference_device_) return;
    const Counterfactual counterfactual(*reference_, *reference_device_);
    const int64_t peak = reference_device_->peak.bytes;
    for (const int parts : {2, 4}) {
      add(fmt::format("micro-batches of 1/{} the size, accumulated", parts),
          peak - counterfactual.with_micro_batch(1.0 / parts), "the same FLOPs, smaller kernels");
    }
    if (counterfactual.units().size() >= 2) {
      const Plan all = counterfactual.uniform(1);
      const Prediction predicted = counterfactual.with_checkpoints(all);
      const double flops = reference_->flops.total() - reference_->flops.recompute;
      add("checkpoint each of " + names_of(counterfactual, all), peak - predicted.peak_bytes,
          flops > 0 ? fmt::format("+{:.1f} % FLOPs", 100 * predicted.extra_flops / flops) : "");
    }
  }

  // Of the update's temporaries the largest block: without foreach one of them is there at a time.
  int64_t largest_temporary() const {
    int64_t largest = 0;
    for (const BlockRow& block : failure_.device->peak_blocks) {
      if (block.role == Role::kTemporaryOptimizer) largest = std::max(largest, block.bytes);
    }
    return largest;
  }

  // Activations of other modules than the one that runs: its own are in use.
  int64_t saved_elsewhere() const {
    int64_t bytes = 0;
    for (const Cell& cell : mark_.cells) {
      const bool is_in_use = !mark_.module.empty() && covers(mark_.module, cell.module);
      if (cell.role == Role::kActivation && !is_in_use) bytes += cell.bytes;
    }
    return bytes;
  }

  const Summary& summary_;
  const Failure failure_;
  const MarkSummary& mark_;
  const StepSummary* reference_ = nullptr;
  const DeviceStep* reference_device_ = nullptr;
  int begun_ = 0;  // micro-steps whose backward pass had begun
  Verdict verdict_;
};

}  // namespace

std::optional<Verdict> oom_verdict(const Summary& summary) {
  const Failure failure = find_failure(summary);
  if (!failure.mark) return std::nullopt;
  return PostMortem(summary, failure).write();
}

}  // namespace tally::analysis
