// SPDX-License-Identifier: Apache-2.0
// Judgements over all steps. Each says what it looked at.
#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "profiler/analysis/parts.h"
#include "profiler/core/units.h"

namespace tally::analysis {
namespace {

// Growth in this many steps in a row is no accident of one batch.
constexpr size_t kLeakSteps = 3;

struct EndOfStep {
  uint64_t step = 0;
  RoleBytes roles{};
  int64_t bytes = 0;
  int64_t adopted = 0;  // of them, were there before the recording and became known since the first
};

std::vector<EndOfStep> ends_of_steps(const Summary& summary) {
  std::vector<EndOfStep> ends;
  int64_t adopted = 0;
  for (const StepSummary& step : summary.steps) {
    EndOfStep end{.step = step.index};
    bool found = false;
    for (const DeviceStep& device : step.devices) {
      adopted += device.adopted_bytes;
      for (const MarkSummary& mark : device.marks) {
        if (mark.mark != Mark::kEnd) continue;
        found = true;
        end.bytes += mark.bytes;
        for (size_t role = 0; role < kRoleCount; ++role) end.roles[role] += mark.roles[role];
      }
    }
    end.adopted = adopted;
    if (found) ends.push_back(end);
  }
  return ends;
}

// Bytes by module of one role at the end of a step; empty when its cells were not loaded.
std::map<std::string, int64_t> modules_at_end(const StepSummary& step, Role role) {
  std::map<std::string, int64_t> bytes;
  for (const DeviceStep& device : step.devices) {
    for (const MarkSummary& mark : device.marks) {
      if (mark.mark != Mark::kEnd) continue;
      for (const Cell& cell : mark.cells) {
        if (cell.role == role) bytes[cell.module] += cell.bytes;
      }
    }
  }
  return bytes;
}

// "lm_head +4.0 KiB, ...": who grew between two steps with cells, the most first.
std::string who_grew(const StepSummary& before, const StepSummary& after, Role role) {
  const auto old = modules_at_end(before, role);
  std::vector<std::pair<int64_t, std::string>> grown;
  for (const auto& [module, bytes] : modules_at_end(after, role)) {
    const auto found = old.find(module);
    const int64_t more = bytes - (found == old.end() ? 0 : found->second);
    if (more > 0) grown.emplace_back(more, module.empty() ? "no module" : module);
  }
  std::stable_sort(grown.begin(), grown.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  std::string text;
  for (size_t i = 0; i < std::min<size_t>(grown.size(), 3); ++i) {
    text += fmt::format("{}{} +{}", i ? ", " : "", grown[i].second, format_bytes(grown[i].first));
  }
  return text;
}

Verdict leak(const Summary& summary) {
  Verdict verdict{.kind = "leak", .verdict = "", .evidence = {}, .bytes = 0};
  const std::vector<EndOfStep> ends = ends_of_steps(summary);
  if (ends.size() <= kLeakSteps) {
    verdict.verdict =
        fmt::format("not judged: {} recorded, growth is judged over {} or more",
                    count_of(static_cast<int64_t>(ends.size()), "step"), kLeakSteps + 1);
    return verdict;
  }
  const auto grown = [&ends](size_t from, size_t to) {
    return ends[to].bytes - ends[to].adopted - (ends[from].bytes - ends[from].adopted);
  };
  size_t first = ends.size() - 1;
  while (first > 0 && grown(first - 1, first) > 0) --first;
  const size_t steps = ends.size() - 1 - first;
  if (steps < kLeakSteps) {
    verdict.tone = Tone::kGood;
    verdict.verdict = fmt::format(
        "no growth: the bytes at the end of a step did not rise in each of "
        "the last {} steps",
        kLeakSteps);
    verdict.evidence.push_back(
        fmt::format("end of step {}: {}", ends.back().step, format_bytes(ends.back().bytes)));
    if (const int64_t known = ends.back().adopted - ends.front().adopted; known > 0) {
      verdict.evidence.push_back(
          fmt::format("{} were there before the recording and were used for the first time in it",
                      format_bytes(known)));
    }
    return verdict;
  }
  verdict.bytes = grown(first, ends.size() - 1) / static_cast<int64_t>(steps);
  verdict.tone = Tone::kBad;
  verdict.verdict = fmt::format(
      "suspected: the bytes at the end of a step grew in each of the last {} "
      "steps, by {} a step",
      steps, format_bytes(verdict.bytes));
  // Steps are in order of their index, and the last four have their cells.
  const auto step_of = [&](uint64_t index) {
    return std::find_if(summary.steps.begin(), summary.steps.end(),
                        [&](const StepSummary& s) { return s.index == index; });
  };
  for (size_t role = 0; role < kRoleCount; ++role) {
    bool always = true;
    for (size_t i = first + 1; i < ends.size(); ++i) {
      always = always && ends[i].roles[role] > ends[i - 1].roles[role];
    }
    if (!always) continue;
    std::string line =
        fmt::format("{}: {} at the end of step {}, {} at the end of step {}",
                    kRoleWords[role].title, format_bytes(ends[first].roles[role]), ends[first].step,
                    format_bytes(ends.back().roles[role]), ends.back().step);
    const std::string who = who_grew(*step_of(ends[ends.size() - 2].step),
                                     *step_of(ends.back().step), static_cast<Role>(role));
    if (!who.empty()) line += " (in the last step: " + who + ")";
    verdict.evidence.push_back(line);
  }
  return verdict;
}

}  // namespace

std::string largest_of(const std::map<std::string, int64_t>& bytes, size_t count) {
  std::vector<std::pair<int64_t, std::string>> rows;
  for (const auto& [name, of] : bytes) rows.emplace_back(-of, name);
  std::sort(rows.begin(), rows.end());
  std::string text;
  for (size_t i = 0; i < std::min(rows.size(), count); ++i) {
    text += fmt::format("{}{} {}", i ? ", " : "", rows[i].second, format_bytes(-rows[i].first));
  }
  return text;
}

std::vector<Verdict> verdicts(const recording::Run& run, const Summary& summary) {
  std::vector<Verdict> all;
  if (auto verdict = oom_verdict(summary)) all.push_back(std::move(*verdict));
  if (auto verdict = checkpointing_verdict(run, summary)) all.push_back(std::move(*verdict));
  if (auto verdict = accumulation_verdict(run, summary)) all.push_back(std::move(*verdict));
  all.push_back(leak(summary));
  return all;
}

}  // namespace tally::analysis
