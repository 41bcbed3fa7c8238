// SPDX-License-Identifier: Apache-2.0
// Why tensor cores executed more or less than the formulas say. Each operator's difference has one
// cause, so the causes add up:
//
//   recompute       + what runs again by formula
//   no_formula      + executed in operators that have no formula
//   padding         + beyond the formula, sizes no multiple of the kernel's tile
//   causal          - left out by attention that was asked to be causal
//   scalar          - counted in another step: it ran as scalar instructions
//   other_counters  - counted in another step: it ran on tensor cores of another set of counters
//   not_counted     - ran while another thread's operator was counted
//   more, less      the rest: its cause is not recorded
#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include <fmt/format.h>

#include "profiler/analysis/parts.h"
#include "profiler/core/units.h"

namespace tally::analysis {
namespace {

using Row = tally::OperatorRow;
using Key = std::tuple<Phase, uint32_t, uint32_t>;
Key key_of(Phase phase, StringId module, StringId op) { return {phase, module.value, op.value}; }
Key key_of(const Row& row) { return key_of(row.phase, row.module, row.op); }

struct Tile {
  int rows = 0, columns = 0;
};

// The tile in a kernel's name, the first "128x256" of it: how cuBLAS and CUTLASS call theirs.
std::optional<Tile> tile_of(const std::string& kernel) {
  const auto is_digit = [&](size_t i) {
    return i < kernel.size() && kernel[i] >= '0' && kernel[i] <= '9';
  };
  for (size_t x = kernel.find('x'); x != std::string::npos; x = kernel.find('x', x + 1)) {
    if (x == 0 || !is_digit(x - 1) || !is_digit(x + 1)) continue;
    size_t begin = x, end = x + 1;
    while (begin > 0 && is_digit(begin - 1)) --begin;
    while (is_digit(end)) ++end;
    if (x - begin > 4 || end - x - 1 > 4) continue;
    const Tile tile{std::stoi(kernel.substr(begin, x - begin)),
                    std::stoi(kernel.substr(x + 1, end - x - 1))};
    if (tile.rows >= 16 && tile.columns >= 16 && tile.rows <= 1024 && tile.columns <= 1024)
      return tile;
  }
  return {};
}

class Explanation {
 public:
  Explanation(const recording::Run& run, const Summary& summary)
      : run_(run), step_(run.steps[summary.shown].books), flops_(summary.step().flops) {
    for (const recording::RecordedStep& step : run_.steps) {
      for (const tally::KernelRow& kernel : step.books.kernels) {
        const auto tile = tile_of(run_.text(kernel.kernel));
        if (!tile) continue;
        Tile& known = tiles_[key_of(kernel.phase, kernel.module, kernel.op)];
        if (std::max(tile->rows, tile->columns) > std::max(known.rows, known.columns))
          known = *tile;
      }
      if (&step.books == &step_) continue;
      for (const Row& row : step.books.operators) {
        if (row.range_flops > 0) others_[key_of(row)].emplace_back(&step.books, &row);
      }
    }
  }

  // Whether the recording knows which formulas stand beside what was executed.
  bool can_explain() const {
    return std::any_of(step_.operators.begin(), step_.operators.end(),
                       [](const Row& row) { return row.range_flops > 0; });
  }

  ExecutedDifference explain() {
    ExecutedDifference out;
    out.model = flops_.total() - flops_.recompute;
    double in_ranges = 0;
    for (const Row& row : step_.operators) {
      out.executed += row.tensor_flops;
      in_ranges += row.range_flops;
      if (row.phase == Phase::kRecompute && row.flops > 0) {
        add("recompute", row, row.flops, "the work of the phase recompute, by formula");
      }
      explain(row);
    }
    if (flops_.total() != in_ranges) {
      ExecutedCause& cause = causes_["not_counted"];
      cause.flops = in_ranges - flops_.total();
      cause.why = "operators that ran outside of counted ranges";
    }
    for (auto& [name, cause] : causes_) {
      if (cause.flops == 0 && cause.operators.empty()) continue;
      cause.cause = name;
      cause.title = kTitles.at(name);
      cause.is_proved = name != "more" && name != "less";
      std::map<std::string, double> sums;
      for (const auto& [op, flops] : cause.operators) sums[op] += flops;
      cause.operators.assign(sums.begin(), sums.end());
      std::stable_sort(cause.operators.begin(), cause.operators.end(), more);
      out.causes.push_back(std::move(cause));
    }
    std::stable_sort(out.causes.begin(), out.causes.end(), [](const auto& a, const auto& b) {
      return std::abs(a.flops) > std::abs(b.flops);
    });
    return out;
  }

 private:
  static bool more(const std::pair<std::string, double>& a,
                   const std::pair<std::string, double>& b) {
    return std::abs(a.second) > std::abs(b.second);
  }

  void add(const std::string& cause, const Row& row, double flops, const std::string& why) {
    ExecutedCause& sum = causes_[cause];
    sum.flops += flops;
    if (sum.operators.empty() || std::abs(flops) > most_[cause]) {
      most_[cause] = std::abs(flops);
      sum.why = why;  // of the largest
    }
    sum.operators.emplace_back(run_.text(row.op), flops);
  }

  void explain(const Row& row) {
    const double difference = row.tensor_flops - row.range_flops;
    if (difference == 0) return;
    if (row.range_flops == 0) {
      return add("no_formula", row, difference, "executed in operators whose formula FLOPs are 0");
    }
    if (difference > 0) return explain_more(row, difference);
    if (row.tensor_flops == 0) return explain_none(row, difference);
    if (row.causal_flops > 0) {
      return add("causal", row, difference,
                 "is_causal was asked for; the formula is of the whole matrix");
    }
    add("less", row, difference,
        "a part may have run without tensor cores, or on those of another set of counters");
  }

  void explain_more(const Row& row, double difference) {
    const auto tile = tiles_.find(key_of(row));
    if (row.alignment != 0 && tile != tiles_.end()) {
      const auto [rows, columns] = tile->second;
      const auto alignment = static_cast<int>(row.alignment);
      if (alignment < std::max(rows, columns)) {
        return add("padding", row, difference,
                   fmt::format("tiles of {}x{}, sizes that are multiples of {} at most", rows,
                               columns, alignment));
      }
      return add("more", row, difference,
                 fmt::format("its sizes fill the tiles of {}x{}: its kernels compute more", rows,
                             columns));
    }
    add("more", row, difference,
        row.alignment == 0 ? "the sizes of its products are not recorded"
                           : fmt::format("its kernels' tiles have no recorded name; its sizes are "
                                         "multiples of {} at most",
                                         row.alignment));
  }

  // Nothing on tensor cores: a step that counted something else may have seen the same work.
  void explain_none(const Row& row, double difference) {
    for (const auto& [books, same] : others_[key_of(row)]) {
      if (same->range_flops != row.range_flops) continue;
      if (same->scalar_flops >= row.range_flops) {
        return add("scalar", row, difference,
                   fmt::format("step {} counted {} of scalar instructions in it", books->index,
                               format_flops(same->scalar_flops)));
      }
      if (same->tensor_flops > 0) {
        return add("other_counters", row, difference,
                   fmt::format("step {} counted {} in it, with another set", books->index,
                               format_flops(same->tensor_flops)));
      }
    }
    add("less", row, difference, "no step of the recording counted its instructions");
  }

  static const std::map<std::string, std::string> kTitles;

  const recording::Run& run_;
  const StepBooks& step_;
  const Flops& flops_;
  std::map<Key, Tile> tiles_;
  std::map<Key, std::vector<std::pair<const StepBooks*, const Row*>>> others_;  // of other steps
  std::map<std::string, ExecutedCause> causes_;
  std::map<std::string, double> most_;
};

const std::map<std::string, std::string> Explanation::kTitles{
    {"recompute", "recomputation"},
    {"no_formula", "operators without a formula"},
    {"padding", "padded tiles"},
    {"causal", "left out by causal attention"},
    {"scalar", "scalar instructions instead"},
    {"other_counters", "tensor cores of another set of counters"},
    {"not_counted", "outside of counted ranges"},
    {"more", "more than the formula, cause not recorded"},
    {"less", "less than the formula, cause not recorded"}};

// "padded tiles +1.2 GFLOP (aten::mm); recomputation ..."
std::string in_words(const ExecutedDifference& difference) {
  if (difference.causes.empty()) return "each operator executed what its formula says";
  std::string out;
  for (const ExecutedCause& cause : difference.causes) {
    out += fmt::format("{}{} {}{}", out.empty() ? "" : "; ", cause.title,
                       cause.flops < 0 ? "-" : "+", format_flops(std::abs(cause.flops)));
    if (cause.cause == "recompute" || cause.operators.empty()) continue;
    const std::string& op = cause.operators.front().first;
    out += fmt::format(", {} in {}", cause.operators.size() == 1 ? "all" : "most",
                       op.empty() ? "work of no operator" : op);
  }
  return out;
}

}  // namespace

void add_executed(const recording::Run& run, const Summary& summary, Utilization* out) {
  const StepSummary& step = summary.step();
  const auto& executed = step.flops.executed;
  if (!executed || executed->tensor_flops <= 0) return;
  if (out->peak && step.seconds > 0) {
    out->executed_hfu = executed->flops() / step.seconds / *out->peak;
  }
  if (step.flops.total() > 0) out->executed_ratio = executed->tensor_flops / step.flops.total();
  Explanation explanation(run, summary);
  if (!explanation.can_explain()) {
    out->executed_cause =
        "not known: the recording does not say which formulas stand beside what was executed";
    return;
  }
  out->executed_difference = explanation.explain();
  out->executed_cause = in_words(*out->executed_difference);
}

}  // namespace tally::analysis
