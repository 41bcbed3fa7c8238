// SPDX-License-Identifier: Apache-2.0
// Is activation checkpointing paying, and where would it? Of the step shown.
#include <algorithm>
#include <cmath>
#include <set>

#include <fmt/format.h>

#include "profiler/analysis/counterfactual.h"
#include "profiler/analysis/parts.h"
#include "profiler/core/units.h"

namespace tally::analysis {
namespace {

// A peak within this of another is the same: predictions leave out a few temporaries.
constexpr double kSamePeak = 0.005;
// Checkpointing pays when each percent of FLOPs it costs takes this many percent off the peak.
constexpr double kPays = 1.0 / 3;
// Once makes 1 of it, or less where a checkpoint stops early.
constexpr double kTwice = 1.25;
constexpr size_t kRows = 4;  // of evidence, by region

// The regions of one module, over all micro-steps.
struct Group {
  std::string module;
  int times = 0;
  int64_t kept_bytes = 0;  // of one of them
  int64_t avoided_bytes = 0;
  int64_t peak_bytes = 0;
  double flops = 0;  // of all
  double seconds = 0;
};

std::string percent(double part, double whole) {
  return whole > 0 ? fmt::format("{:.1f} %", 100 * part / whole) : "unknown";
}

std::vector<Group> group(const StepSummary& step) {
  std::vector<Group> groups;
  for (const RegionRow& region : step.regions) {
    auto at = std::find_if(groups.begin(), groups.end(),
                           [&](const Group& g) { return g.module == region.module; });
    if (at == groups.end()) at = groups.insert(groups.end(), {.module = region.module});
    ++at->times;
    at->kept_bytes = std::max(at->kept_bytes, region.kept_bytes);
    at->avoided_bytes = std::max(at->avoided_bytes, region.avoided_bytes);
    at->peak_bytes = std::max(at->peak_bytes, region.peak_bytes);
    at->flops += region.flops;
    at->seconds += region.seconds;
  }
  // Backward runs from the end: the model's order is the other way.
  std::reverse(groups.begin(), groups.end());
  return groups;
}

std::string called(const Group& group) { return group.module.empty() ? "a region without a module" : group.module; }

double flops_in(const StepSummary& step, Phase phase, const std::string& unit) {
  double flops = 0;
  for (const OperatorRow& row : step.operators) {
    if (row.phase == phase && covers(unit, row.module)) flops += row.flops;
  }
  return flops;
}

// A checkpoint of Python ran forward: the functions that torch.utils.checkpoint is made of.
bool wraps_something(const StepSummary& step) {
  return std::any_of(step.operators.begin(), step.operators.end(), [](const OperatorRow& row) {
    return row.phase != Phase::kRecompute &&
           (row.op == "CheckpointFunction" || row.op == "_NoopSaveInputs");
  });
}

std::string names(const std::vector<std::string>& modules) {
  std::string text;
  for (size_t i = 0; i < std::min(modules.size(), kRows); ++i) text += (i ? ", " : "") + modules[i];
  if (modules.size() > kRows) text += fmt::format(" and {} more", modules.size() - kRows);
  return text;
}

// Units with trainable parameters whose forward pass ran and whose backward pass never did, in the
// order of the forward pass. Only of a step that came to its backward pass or its update.
std::vector<std::string> without_backward(const recording::Run& run, const StepSummary& step) {
  const bool has_updated = std::any_of(step.phases.begin(), step.phases.end(), [](const PhaseSpan& span) {
    return span.phase == Phase::kOptimizer;
  });
  if (step.flops.backward <= 0 && !has_updated) return {};
  std::set<std::string> trained, reached;
  for (const ParameterInfo& parameter : run.info.parameters) {
    if (parameter.trainable && !parameter.is_buffer) trained.insert(unit_of(run.text(parameter.module)));
  }
  for (const UnitRow& row : step.units) {
    if (row.backward_begin > 0) reached.insert(row.unit);
  }
  std::vector<std::string> found;
  for (const OperatorRow& row : step.operators) {
    const std::string unit = unit_of(row.module);
    if (row.phase == Phase::kBackward || row.phase == Phase::kRecompute) reached.insert(unit);
    if (row.phase != Phase::kForward || row.flops <= 0 || !trained.contains(unit)) continue;
    if (std::find(found.begin(), found.end(), unit) == found.end()) found.push_back(unit);
  }
  std::erase_if(found, [&](const std::string& unit) { return reached.contains(unit); });
  return found;
}

class Judge {
 public:
  Judge(const recording::Run& run, const Summary& summary, const DeviceStep& device)
      : run_(run), step_(summary.step()), device_(device), counterfactual_(step_, device) {}

  std::optional<Verdict> judge() {
    verdict_.kind = "checkpointing";
    std::vector<std::string> never;
    if (!step_.regions.empty() || wraps_something(step_)) never = without_backward(run_, step_);
    if (!never.empty()) {
      verdict_.tone = Tone::kBad;
      verdict_.verdict = fmt::format(
          "never ran in backward: {} ran forward and has parameters to train, but no backward pass "
          "reached it: they get no gradients; a reentrant checkpoint needs an input that requires "
          "gradients, or use_reentrant=False",
          names(never));
      if (!step_.regions.empty()) add_evidence(group(step_));
    } else if (step_.regions.empty()) {
      if (counterfactual_.units().size() < 2) return std::nullopt;
      judge_unused();
    } else {
      judge_regions();
    }
    add_plans();
    return verdict_;
  }

 private:
  double model_flops() const { return step_.flops.total() - step_.flops.recompute; }
  std::string peak_place() const {
    const MarkSummary& peak = device_.peak;
    std::string text(title(peak.phase));
    if (!peak.module.empty()) text += " of " + peak.module;
    return peak.op.empty() ? text : text + " (" + peak.op + ")";
  }

  // The same in the words of "what would have to shrink next?".
  std::string peak_is() const {
    const MarkSummary& peak = device_.peak;
    if (peak.phase == Phase::kOptimizer) return "the optimizer step";
    if (peak.roles[static_cast<size_t>(Role::kRecomputedActivation)] > 0) {
      const RegionRow* of = nullptr;
      for (const RegionRow& region : step_.regions) {
        if (region.micro_step != peak.micro_step) continue;
        const bool covered = !region.module.empty() && covers(region.module, peak.module);
        if (covered || !of ||
            (region.peak_bytes > of->peak_bytes && !covers(of->module, peak.module)))
          of = &region;
      }
      return "one region's recomputation" +
             (of && !of->module.empty() ? " (" + of->module + ")" : "");
    }
    double forward_end = 0, backward_begin = 0;
    for (const UnitRow& unit : step_.units) {
      if (unit.micro_step != peak.micro_step || !is_repeated(unit.unit)) continue;
      forward_end = std::max(forward_end, unit.forward_end);
      if (unit.backward_begin <= 0) continue;
      backward_begin =
          backward_begin > 0 ? std::min(backward_begin, unit.backward_begin) : unit.backward_begin;
    }
    if (forward_end > 0 && peak.seconds >= forward_end &&
        (backward_begin <= 0 || peak.seconds <= backward_begin)) {
      return "the logits and the loss, after the last block" +
             (peak.module.empty() ? "" : " (" + peak.module + ")");
    }
    return "the " + peak_place();
  }

  void judge_unused() {
    const auto& units = counterfactual_.units();
    const Prediction all = counterfactual_.with_checkpoints(counterfactual_.uniform(1));
    const int64_t saved = device_.peak.bytes - all.peak_bytes;
    const auto peak = static_cast<double>(device_.peak.bytes);
    const std::string which = names_of(counterfactual_, counterfactual_.uniform(1));
    if (static_cast<double>(saved) < peak * kSamePeak) {
      verdict_.verdict = fmt::format(
          "not used, and would not lower the peak: it is {}, where {} hold nothing for backward",
          peak_is(), which);
    } else {
      verdict_.verdict = fmt::format(
          "not used: checkpointing {} would bring the peak from {} to {} ({}) for {} more FLOPs", which,
          format_bytes(device_.peak.bytes), format_bytes(all.peak_bytes),
          "-" + percent(static_cast<double>(saved), peak), percent(all.extra_flops, model_flops()));
    }
    std::vector<Counterfactual::Unit> largest(units.begin(), units.end());
    std::stable_sort(largest.begin(), largest.end(), [](const auto& a, const auto& b) {
      return a.activation_bytes > b.activation_bytes;
    });
    for (size_t i = 0; i < std::min(largest.size(), kRows); ++i) {
      const auto& unit = largest[i];
      verdict_.evidence.push_back(fmt::format(
          "{}: {} held by autograd, {} of it handed on; its forward pass is {} of the step's FLOPs", unit.name,
          format_bytes(unit.activation_bytes), format_bytes(unit.output_bytes),
          percent(unit.forward_flops, model_flops())));
    }
  }

  void judge_regions() {
    const std::vector<Group> groups = group(step_);
    std::vector<std::string> modules, twice, larger;
    int64_t kept = 0, avoided = 0;
    double flops = 0;
    for (const Group& g : groups) {
      modules.push_back(g.module);
      kept += g.kept_bytes;
      avoided += g.avoided_bytes;
      flops += g.flops;
      if (g.kept_bytes >= g.avoided_bytes) larger.push_back(called(g));
      if (g.module.empty()) continue;
      // Of all regions that ran it: a checkpoint inside a checkpoint runs it once for each.
      const double once = flops_in(step_, Phase::kForward, g.module);
      if (once > 0 && flops_in(step_, Phase::kRecompute, g.module) > kTwice * once)
        twice.push_back(called(g));
    }
    const Prediction without = counterfactual_.without_regions(modules);
    const int64_t gain = without.peak_bytes - device_.peak.bytes;
    const double share = without.peak_bytes > 0
                             ? static_cast<double>(gain) / static_cast<double>(without.peak_bytes) : 0;
    const double cost = model_flops() > 0 ? flops / model_flops() : 0;
    verdict_.bytes = gain;
    const std::string effect = fmt::format(
        "the peak is {} instead of {} for {} more FLOPs", format_bytes(device_.peak.bytes),
        format_bytes(without.peak_bytes), percent(flops, model_flops()));
    verdict_.tone = Tone::kBad;
    if (!twice.empty()) {
      verdict_.verdict = fmt::format("recomputes twice: the forward pass of {} ran again more than once a backward "
                                     "pass; {}", names(twice), effect);
    } else if (larger.size() == groups.size()) {
      verdict_.verdict = fmt::format("keeps more than it avoids: what {} keeps for the recomputation ({}) is not "
                                     "smaller than what it makes again ({})",
                                     names(larger), format_bytes(kept), format_bytes(avoided));
    } else if (share < kSamePeak) {
      verdict_.verdict =
          fmt::format("does nothing for the peak: it is {}; {} of recomputation bought nothing",
                      peak_is(), percent(flops, model_flops()));
    } else if (share < cost * kPays) {
      verdict_.verdict = fmt::format(
          "pays little: {}; each percent of FLOPs takes less than a third of a percent off the "
          "peak, which is now {}",
          effect, peak_is());
    } else {
      verdict_.tone = Tone::kGood;
      verdict_.verdict = fmt::format("pays: {}; it is now {}", effect, peak_is());
    }
    if (!larger.empty() && larger.size() < groups.size()) {
      verdict_.evidence.push_back(fmt::format("{}: what is kept is not smaller than what is made again", names(larger)));
    }
    add_evidence(groups);
    add_drops(groups);
  }

  void add_evidence(const std::vector<Group>& groups) {
    int64_t kept = 0, avoided = 0;
    double seconds = 0;
    for (const Group& g : groups) {
      kept += g.kept_bytes;
      avoided += g.avoided_bytes;
      seconds += g.seconds;
    }
    std::vector<Group> largest = groups;
    std::stable_sort(largest.begin(), largest.end(),
                     [](const Group& a, const Group& b) { return a.avoided_bytes > b.avoided_bytes; });
    for (size_t i = 0; i < std::min(largest.size(), kRows); ++i) {
      const Group& g = largest[i];
      verdict_.evidence.push_back(fmt::format(
          "{}{}: keeps {}, avoids {}, costs {} of FLOPs; {} alive at its highest", called(g),
          g.times > 1 ? fmt::format(" ({} times)", g.times) : "", format_bytes(g.kept_bytes),
          format_bytes(g.avoided_bytes), percent(g.flops, model_flops()), format_bytes(g.peak_bytes)));
    }
    if (groups.size() > kRows) {
      verdict_.evidence.push_back(fmt::format("all {} regions: keep {}, avoid {}, recompute for {:.2f} s of the step's "
                                              "{:.2f} s", groups.size(), format_bytes(kept), format_bytes(avoided),
                                              seconds, step_.seconds));
    }
    verdict_.evidence.push_back("the peak is now in the " + peak_place());
  }

  // Regions that the peak does not need, the dearest first.
  void add_drops(std::vector<Group> groups) {
    std::stable_sort(groups.begin(), groups.end(),
                     [](const Group& a, const Group& b) { return a.flops > b.flops; });
    std::vector<std::string> dropped;
    double flops = 0;
    for (const Group& g : groups) {
      dropped.push_back(g.module);
      const Prediction tried = counterfactual_.without_regions(dropped);
      if (static_cast<double>(tried.peak_bytes) > static_cast<double>(device_.peak.bytes) * (1 + kSamePeak)) {
        dropped.pop_back();
      } else {
        flops = -tried.extra_flops;
      }
    }
    if (dropped.empty()) return;
    std::sort(dropped.begin(), dropped.end());
    verdict_.remedies.push_back({"drop the checkpoint of " + names(dropped) + ": the peak stays", 0,
                                 "-" + percent(flops, model_flops()) + " FLOPs"});
  }

  void add_plan(const std::string& what, const Plan& plan) {
    const Prediction predicted = counterfactual_.with_checkpoints(plan);
    const int64_t saved = device_.peak.bytes - predicted.peak_bytes;
    if (static_cast<double>(saved) < static_cast<double>(device_.peak.bytes) * kSamePeak) return;
    verdict_.remedies.push_back({fmt::format("{}: peak {}", what, format_bytes(predicted.peak_bytes)), saved,
                                 "+" + percent(predicted.extra_flops, model_flops()) + " FLOPs"});
  }

  void add_plans() {
    const size_t units = counterfactual_.units().size();
    if (units < 2) return;
    const Plan best = counterfactual_.greedy();
    add_plan(fmt::format("checkpoint each of {} ({} in number)", names_of(counterfactual_, counterfactual_.uniform(1)),
                         units), counterfactual_.uniform(1));
    const auto root = static_cast<size_t>(std::llround(std::ceil(std::sqrt(static_cast<double>(units)))));
    if (root > 1 && root < units) {
      add_plan(fmt::format("the square-root plan: {} segments of up to {} units", (units + root - 1) / root, root),
               counterfactual_.uniform(root));
    }
    if (!best.empty() && best.size() < units) {
      const std::string among =
          units > Counterfactual::kMostTried
              ? fmt::format(" among the {} that keep the most", Counterfactual::kMostTried)
              : "";
      add_plan(fmt::format("only {}: the lowest peak at the least cost{}", names_of(counterfactual_, best), among), best);
    }
  }

  const recording::Run& run_;
  const StepSummary& step_;
  const DeviceStep& device_;
  const Counterfactual counterfactual_;
  Verdict verdict_;
};

}  // namespace

std::optional<Verdict> checkpointing_verdict(const recording::Run& run, const Summary& summary) {
  const DeviceStep* device = summary.device_step();
  if (!device || device->timeline.empty()) return std::nullopt;
  return Judge(run, summary, *device).judge();
}

}  // namespace tally::analysis
