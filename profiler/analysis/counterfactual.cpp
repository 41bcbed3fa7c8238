// SPDX-License-Identifier: Apache-2.0
#include "profiler/analysis/counterfactual.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string_view>
#include <unordered_set>

#include <fmt/format.h>

#include "profiler/analysis/parts.h"

namespace tally::analysis {

bool is_repeated(const std::string& unit) {
  const size_t dot = unit.rfind('.');
  const std::string last = dot == std::string::npos ? unit : unit.substr(dot + 1);
  return !last.empty() && last.find_first_not_of("0123456789") == std::string::npos;
}

std::string unit_of(std::string module) {
  if (module.starts_with("after ")) module.erase(0, 6);
  for (size_t dot = module.find('.');; dot = module.find('.', dot + 1)) {
    const std::string outer = module.substr(0, dot);
    if (is_repeated(outer)) return outer;
    if (dot == std::string::npos) return module;
  }
}

bool covers(const std::string& unit, const std::string& module) {
  const std::string own = module.starts_with("after ") ? module.substr(6) : module;
  return own == unit || (own.size() > unit.size() && own[unit.size()] == '.' && own.starts_with(unit));
}

namespace {

// Calls visit("h"), visit("h.0"), visit("h.0.attn") for "h.0.attn" and for "after h.0.attn": what
// covers a module.
template <typename Visit>
void for_each_that_covers(std::string_view module, Visit&& visit) {
  if (module.starts_with("after ")) module.remove_prefix(6);
  size_t dot = module.find('.');
  for (; dot != std::string_view::npos; dot = module.find('.', dot + 1)) {
    visit(std::string(module.substr(0, dot)));
  }
  visit(std::string(module));
}

Heights heights_of(const std::vector<TimelinePoint>& timeline) {
  std::vector<Heights::Point> points;
  points.reserve(timeline.size());
  for (const TimelinePoint& point : timeline) points.push_back({point.seconds, sum(point.roles)});
  return Heights(std::move(points));
}

}  // namespace

Counterfactual::Counterfactual(const StepSummary& step, const DeviceStep& device)
    : step_(step), device_(device), heights_(heights_of(device.timeline)) {
  if (device.timeline.empty()) return;
  std::vector<UnitRow> rows = step.units;
  std::stable_sort(rows.begin(), rows.end(), [](const UnitRow& a, const UnitRow& b) {
    return a.forward_end < b.forward_end;
  });
  std::vector<std::string> names;  // in the order of the forward pass
  for (const UnitRow& row : rows) {
    const auto [at, is_new] = spans_.try_emplace(row.unit);
    if (is_new) names.push_back(row.unit);
    if (row.forward_end <= 0 || row.backward_begin <= row.forward_end) continue;
    at->second.push_back({row.forward_end, row.backward_begin, row.backward_end,
                          row.activation_bytes, std::min(row.output_bytes, row.activation_bytes)});
  }
  std::unordered_set<std::string> regions, around_regions;
  for (const RegionRow& region : step.regions) {
    regions.insert(region.module);
    for_each_that_covers(region.module,
                         [&](const std::string& name) { around_regions.insert(name); });
  }
  std::unordered_map<std::string, double> forward_flops;
  for (const OperatorRow& row : step.operators) {
    if (row.phase != Phase::kForward || row.flops == 0) continue;
    for_each_that_covers(row.module,
                         [&](const std::string& name) { forward_flops[name] += row.flops; });
  }
  for (const std::string& name : names) {
    const std::vector<Span>& spans = spans_.at(name);
    if (!is_repeated(name) || spans.empty()) continue;
    bool is_region = around_regions.contains(name);
    for_each_that_covers(name,
                         [&](const std::string& outer) { is_region |= regions.contains(outer); });
    if (is_region) continue;
    Unit unit{.name = name};
    for (const Span& span : spans) {
      if (span.activation_bytes <= unit.activation_bytes) continue;
      unit.activation_bytes = span.activation_bytes;
      unit.output_bytes = span.output_bytes;
    }
    if (const auto found = forward_flops.find(name); found != forward_flops.end()) {
      unit.forward_flops = found->second;
    }
    if (unit.activation_bytes > unit.output_bytes) units_.push_back(unit);
  }
}

const std::vector<Counterfactual::Span>* Counterfactual::spans_of(const std::string& unit) const {
  const auto found = spans_.find(unit);
  return found == spans_.end() ? nullptr : &found->second;
}

void Counterfactual::add_segment(const Segment& segment, double share, Heights& heights) const {
  const std::vector<Span>& last = *spans_of(units_[segment.last].name);
  for (size_t u = segment.first; u <= segment.last; ++u) {
    const std::vector<Span>& spans = *spans_of(units_[u].name);
    for (size_t m = 0; m < spans.size(); ++m) {
      // A unit inside a segment comes back when the segment's backward pass begins.
      const Span& of_segment = last[std::min(m, last.size() - 1)];
      const int64_t kept = u == segment.last ? spans[m].output_bytes : 0;
      heights.add(spans[m].begin, of_segment.end, scaled(-share, spans[m].activation_bytes - kept));
      // The output is made a second time.
      heights.add(of_segment.end, of_segment.backward, scaled(share, kept));
    }
  }
}

Prediction Counterfactual::with_checkpoints(const Plan& plan) const {
  Prediction out;
  Heights heights = heights_;
  for (const Segment& segment : plan) {
    for (size_t u = segment.first; u <= segment.last; ++u) out.extra_flops += units_[u].forward_flops;
    add_segment(segment, 1, heights);
  }
  out.peak_bytes = heights.highest();
  return out;
}

Plan Counterfactual::uniform(size_t size) const {
  Plan plan;
  for (size_t first = 0; first < units_.size(); first += size) {
    plan.push_back({first, std::min(first + size, units_.size()) - 1});
  }
  return plan;
}

Plan Counterfactual::greedy() const {
  std::vector<size_t> left(units_.size());
  std::iota(left.begin(), left.end(), size_t{0});
  if (left.size() > kMostTried) {
    std::stable_sort(left.begin(), left.end(), [this](size_t a, size_t b) {
      return units_[a].activation_bytes > units_[b].activation_bytes;
    });
    left.resize(kMostTried);
    std::sort(left.begin(), left.end());
  }
  Plan plan;
  Heights heights = heights_;
  while (!left.empty()) {
    const int64_t now = heights.highest();
    auto best = left.end();
    double best_worth = 0;
    for (auto u = left.begin(); u != left.end(); ++u) {
      add_segment({*u, *u}, 1, heights);
      const int64_t peak = heights.highest();
      add_segment({*u, *u}, -1, heights);
      const double worth = static_cast<double>(now - peak) / (units_[*u].forward_flops + 1);
      // Of equally good ones the first: its activations wait the longest.
      if (peak < now && worth > best_worth * 1.000001) {
        best = u;
        best_worth = worth;
      }
    }
    if (best == left.end()) break;
    plan.push_back({*best, *best});
    add_segment(plan.back(), 1, heights);
    left.erase(best);
  }
  std::sort(plan.begin(), plan.end(), [](const Segment& a, const Segment& b) { return a.first < b.first; });
  return plan;
}

Prediction Counterfactual::without_regions(const std::vector<std::string>& modules) const {
  Heights heights = heights_;
  Prediction out;
  for (const RegionRow& region : step_.regions) {
    if (std::find(modules.begin(), modules.end(), region.module) == modules.end()) continue;
    out.extra_flops -= region.flops;
    // From the end of its forward pass to the beginning of its recomputation.
    double begin = 0, end = 0;
    for (const UnitRow& row : step_.units) {
      if (row.micro_step != region.micro_step) continue;
      if (!covers(row.unit, region.module) && !covers(region.module, row.unit)) continue;
      begin = std::max(begin, row.forward_end);
      if (row.backward_begin > 0 && (end == 0 || row.backward_begin < end)) end = row.backward_begin;
    }
    if (begin > 0) heights.add(begin, end, region.avoided_bytes);
  }
  out.peak_bytes = heights.highest();
  return out;
}

int64_t Counterfactual::with(const Plan& plan, double share, bool accumulated) const {
  int64_t gradients = 0;
  for (const TimelinePoint& point : device_.timeline) {
    gradients = std::max(gradients, bytes_of(point.roles, Role::kGradient));
  }
  // Outputs that a micro-step leaves are stored: however it is cut, the last piece finds all of them.
  std::unordered_map<int, int64_t> stored;
  for (const MarkSummary& mark : device_.marks) {
    if (mark.mark == Mark::kBackwardEnd) stored[mark.micro_step] = bytes_of(mark.roles, Role::kHeldOutput);
  }
  std::vector<Heights::Point> points;
  for (const TimelinePoint& point : device_.timeline) {
    const bool of_micro_step = is_of_micro_step(point.phase);
    // Of a step with several micro-steps the first one alone has no gradients that wait.
    if (!accumulated && of_micro_step && point.micro_step > 0) continue;
    double change = 0;
    for (const Role role : {Role::kActivation, Role::kRecomputedActivation, Role::kInput, Role::kHeldOutput,
                            Role::kTemporaryForward, Role::kTemporaryBackward}) {
      change -= (1 - share) * static_cast<double>(bytes_of(point.roles, role));
    }
    if (const auto found = stored.find(point.micro_step); accumulated && found != stored.end()) {
      const int64_t held = bytes_of(point.roles, Role::kHeldOutput);
      change += (1 - share) * static_cast<double>(std::min(held, found->second));
    }
    if (of_micro_step && accumulated) {
      change += static_cast<double>(gradients - bytes_of(point.roles, Role::kGradient));
    }
    points.push_back({point.seconds, sum(point.roles) + static_cast<int64_t>(std::llround(change))});
  }
  Heights heights(std::move(points));
  for (const Segment& segment : plan) add_segment(segment, share, heights);
  return heights.highest();
}

std::string names_of(const Counterfactual& of, const Plan& plan) {
  std::vector<size_t> units;
  for (const Segment& segment : plan) {
    for (size_t u = segment.first; u <= segment.last; ++u) units.push_back(u);
  }
  if (units.empty()) return "no unit";
  const auto name = [&](size_t u) { return of.units()[u].name; };
  const bool consecutive = units.back() - units.front() + 1 == units.size();
  if (consecutive && units.size() > 2) return fmt::format("{} to {}", name(units.front()), name(units.back()));
  constexpr size_t kNamed = 4;
  std::string text;
  for (size_t i = 0; i < std::min(units.size(), kNamed); ++i) text += (i ? ", " : "") + name(units[i]);
  if (units.size() > kNamed) text += fmt::format(" and {} more", units.size() - kNamed);
  return text;
}

}  // namespace tally::analysis
