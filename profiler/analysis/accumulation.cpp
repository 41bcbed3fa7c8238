// SPDX-License-Identifier: Apache-2.0
// Is gradient accumulation right: do k micro-steps need the memory of one? Of the step shown.
#include <algorithm>
#include <cmath>
#include <map>

#include <fmt/format.h>

#include "profiler/analysis/counterfactual.h"
#include "profiler/analysis/parts.h"
#include "profiler/core/units.h"

namespace tally::analysis {
namespace {

// Below this share of the step's peak a difference between micro-steps is their data.
constexpr double kNotable = 0.01;
constexpr size_t kRows = 4;


// What a micro-step should have given back when its backward pass is over.
int64_t left_over(const MarkSummary& mark) {
  return bytes_of(mark.roles, Role::kActivation) + bytes_of(mark.roles, Role::kRecomputedActivation) + bytes_of(mark.roles, Role::kHeldOutput) +
         bytes_of(mark.roles, Role::kTemporaryForward) + bytes_of(mark.roles, Role::kTemporaryBackward) + bytes_of(mark.roles, Role::kUnattributed);
}

struct MicroStep {
  const MarkSummary* edge = nullptr;
  const MarkSummary* end = nullptr;
  int64_t peak_bytes = 0;
  int64_t peak_without_gradients = 0;  // the most of everything else
};

std::vector<MicroStep> micro_steps_of(const DeviceStep& device) {
  std::vector<MicroStep> found;
  const auto at = [&](int micro_step) -> MicroStep& {
    if (found.size() <= static_cast<size_t>(micro_step)) found.resize(static_cast<size_t>(micro_step) + 1);
    return found[static_cast<size_t>(micro_step)];
  };
  for (const MarkSummary& mark : device.marks) {
    if (mark.mark == Mark::kForwardEdge) at(mark.micro_step).edge = &mark;
    if (mark.mark == Mark::kBackwardEnd) at(mark.micro_step).end = &mark;
  }
  for (const TimelinePoint& point : device.timeline) {
    if (point.phase == Phase::kOptimizer || point.phase == Phase::kOther) continue;
    if (static_cast<size_t>(point.micro_step) >= found.size()) continue;
    const int64_t bytes = sum(point.roles);
    MicroStep& micro_step = at(point.micro_step);
    micro_step.peak_bytes = std::max(micro_step.peak_bytes, bytes);
    micro_step.peak_without_gradients = std::max(
        micro_step.peak_without_gradients, bytes - point.roles[static_cast<size_t>(Role::kGradient)]);
  }
  return found;
}

// "loss 4.0 KiB, after head 2.0 KiB": who holds what was left over, the most first.
std::string holders(const MarkSummary& mark) {
  std::map<std::string, int64_t> by_module;
  for (const Cell& cell : mark.cells) {
    switch (cell.role) {
      case Role::kActivation:
      case Role::kRecomputedActivation:
      case Role::kHeldOutput:
      case Role::kTemporaryForward:
      case Role::kTemporaryBackward:
      case Role::kUnattributed:
        by_module[fmt::format("{} of {}", title(cell.role), cell.module.empty() ? "no module" : cell.module)] +=
            cell.bytes;
        break;
      default:
        break;
    }
  }
  return largest_of(by_module, kRows);
}

// Why a micro-batch's memory outlives it, by what is left.
std::string_view keeper(const MarkSummary& mark) {
  const int64_t graph = bytes_of(mark.roles, Role::kActivation) + bytes_of(mark.roles, Role::kRecomputedActivation);
  const int64_t outputs = bytes_of(mark.roles, Role::kHeldOutput);
  return graph > outputs ? "what autograd held in its micro-step: a graph that is kept (a loss "
                           "that is stored with it, "
                           "retain_graph=True), or stored outputs that the next operator saved"
                         : "outputs that the program stores, such as a list of losses or logits";
}

bool communicates(const StepSummary& step) {
  return std::any_of(step.operators.begin(), step.operators.end(),
                     [](const OperatorRow& row) { return row.op.starts_with("c10d::"); });
}

}  // namespace

std::optional<Verdict> accumulation_verdict(const recording::Run& run, const Summary& summary) {
  const StepSummary& step = summary.step();
  const DeviceStep* device = summary.device_step();
  if (!device || step.micro_steps < 2 || device->timeline.empty()) return std::nullopt;
  const std::vector<MicroStep> steps = micro_steps_of(*device);
  if (steps.size() < 2) return std::nullopt;
  const auto count = static_cast<int64_t>(steps.size());
  for (const MicroStep& micro_step : steps) {
    if (micro_step.edge && micro_step.end) continue;
    return Verdict{.kind = "accumulation",
                   .verdict = "not judged: a backward pass of the step did not come to its end",
                   .evidence = {}, .bytes = 0};
  }
  Verdict verdict{.kind = "accumulation", .verdict = "", .evidence = {}, .bytes = 0};
  const MicroStep& first = steps.front();
  const MicroStep& last = steps.back();
  const double notable = kNotable * static_cast<double>(device->peak.bytes);
  const int64_t carried = left_over(*last.end) - left_over(*first.end);
  const int64_t gradients = bytes_of(last.end->roles, Role::kGradient);
  const int64_t early_state = bytes_of(last.edge->roles, Role::kOptimizerState) - bytes_of(first.edge->roles, Role::kOptimizerState);
  int64_t trainable = 0, largest = 0;
  for (const ParameterInfo& p : run.info.parameters) {
    if (!p.trainable || p.is_buffer || p.shared) continue;
    trainable += p.bytes;
    largest = std::max(largest, p.bytes);
  }
  // At the end of any micro-step: the last backward pass may have brought both together.
  int64_t most_gradients = 0;
  for (const MicroStep& micro_step : steps) {
    most_gradients = std::max(most_gradients, bytes_of(micro_step.end->roles, Role::kGradient));
  }
  const int64_t doubled = trainable > 0 ? most_gradients - trainable : 0;
  // Buckets of DDP that are no views of the gradients live as long as the model.
  const int64_t buckets = bytes_of(last.end->roles, Role::kCommunication);
  int64_t highest = first.peak_bytes;
  size_t where = 0;
  for (size_t i = 1; i < steps.size(); ++i) {
    if (steps[i].peak_bytes > highest) {
      highest = steps[i].peak_bytes;
      where = i;
    }
  }
  // Theory: the first micro-step again, with all gradients there from its beginning.
  const int64_t expected = first.peak_without_gradients + gradients;
  // A new gradient stands beside the one that it is added to; in the first micro-step it became it.
  const int64_t most = std::max(expected + largest, first.peak_bytes);
  const int64_t rise = highest - first.peak_bytes;

  verdict.tone = Tone::kBad;
  if (static_cast<double>(carried) > notable) {
    verdict.verdict = fmt::format(
        "carries over {} from micro-step to micro-step: what an earlier one made is still alive when the last one "
        "ends ({} more than after the first)", format_bytes(carried / (count - 1)), format_bytes(carried));
    verdict.bytes = carried;
    verdict.evidence.push_back(fmt::format("most of it is {}", keeper(*last.end)));
    verdict.evidence.push_back("alive after the last backward pass: " + holders(*last.end));
  } else if (static_cast<double>(doubled) > notable) {
    const bool in_views = communicates(step) && gradients <= trainable;
    verdict.verdict = fmt::format("holds gradients twice: {} in {} for {} of trainable parameters",
                                  format_bytes(most_gradients), in_views ? ".grad and the buckets of DDP" : ".grad",
                                  format_bytes(trainable));
    verdict.bytes = doubled;
    if (in_views) {
      verdict.evidence.push_back(
          "zero_grad(set_to_none=True) lets go of the views of the buckets; a backward pass in no_sync() then makes "
          "gradients of its own beside them");
      verdict.remedies.push_back({"zero_grad(set_to_none=False): .grad stays a view of the bucket in no_sync() too",
                                  doubled, ""});
    }
  } else if (static_cast<double>(buckets) > notable && 2 * buckets > gradients && gradients > 0) {
    verdict.verdict =
        fmt::format("holds gradients twice: {} in .grad and {} in buckets for communication",
                    format_bytes(gradients), format_bytes(buckets));
    verdict.bytes = buckets;
    verdict.remedies.push_back(
        {"DistributedDataParallel(gradient_as_bucket_view=True): .grad is a view of the bucket",
         buckets, ""});
  } else if (static_cast<double>(early_state) > notable) {
    verdict.verdict = fmt::format("holds optimizer state early: {} of it was made before the last backward pass",
                                  format_bytes(early_state));
    verdict.bytes = early_state;
  } else if (static_cast<double>(highest - most) > notable) {
    verdict.verdict = fmt::format("grows: micro-step {} peaks at {}, one micro-batch and the gradients explain {}", where,
                                  format_bytes(highest), format_bytes(expected));
    verdict.bytes = highest - expected;
    const int64_t larger = steps[where].edge->saved_bytes - first.edge->saved_bytes;
    verdict.evidence.push_back(
        2 * larger > highest - most
            ? fmt::format("its micro-batch is larger: autograd holds {} for it, {} for the first",
                          format_bytes(steps[where].edge->saved_bytes),
                          format_bytes(first.edge->saved_bytes))
            : fmt::format(
                  "its micro-batch is not larger: autograd holds {} for it, {} for the first",
                  format_bytes(steps[where].edge->saved_bytes),
                  format_bytes(first.edge->saved_bytes)));
    verdict.evidence.push_back(fmt::format("alive at the edge of micro-step {}: {}", where, holders(*steps[where].edge)));
  } else {
    verdict.tone = Tone::kGood;
    verdict.verdict = fmt::format(
        "works: {} micro-steps need the memory of one{}", count,
        rise > 0 ? fmt::format(", and {} for the gradients that wait", format_bytes(rise)) : "");
    verdict.evidence.push_back(fmt::format("highest peak {}; one micro-batch and all gradients would be {}",
                                           format_bytes(highest), format_bytes(expected)));
  }
  for (size_t i = 0; i < steps.size(); ++i) {
    if (steps.size() > 2 * kRows && i >= kRows && i + kRows < steps.size()) continue;
    verdict.evidence.push_back(fmt::format(
        "micro-step {}: peak {}, {} saved at its forward edge, {} left over, {} gradients", i,
        format_bytes(steps[i].peak_bytes), format_bytes(steps[i].edge->saved_bytes),
        format_bytes(left_over(*steps[i].end)), format_bytes(bytes_of(steps[i].end->roles, Role::kGradient))));
  }
  // Views of DDP's buckets live as long as the model.
  const bool in_buckets = communicates(step) && buckets == 0;
  if (const int64_t waiting = bytes_of(first.edge->roles, Role::kGradient); waiting > 0 && !in_buckets) {
    verdict.evidence.push_back(fmt::format(
        "{} of gradients are alive through the first forward pass: zero_grad(set_to_none) would give them back",
        format_bytes(waiting)));
  }
  if (step.tokens > 0) {
    verdict.evidence.push_back(fmt::format("effective batch: {:.0f} tokens, {:.0f} a micro-step", step.tokens,
                                           step.tokens / static_cast<double>(count)));
  }
  const Counterfactual counterfactual(step, *device);
  for (const int parts : {2, 4}) {
    const int64_t peak = counterfactual.with_micro_batch(1.0 / parts);
    if (static_cast<double>(device->peak.bytes - peak) < notable) continue;
    verdict.remedies.push_back({fmt::format("micro-batches of 1/{} the size, {} of them: peak {}", parts, count * parts,
                                            format_bytes(peak)),
                                device->peak.bytes - peak, "the same FLOPs, smaller kernels"});
  }
  return verdict;
}

}  // namespace tally::analysis
