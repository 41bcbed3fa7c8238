// SPDX-License-Identifier: Apache-2.0
#include "profiler/analysis/compare.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <map>
#include <span>

#include <fmt/format.h>

#include "profiler/analysis/alive.h"
#include "profiler/core/error.h"
#include "profiler/core/units.h"

namespace tally::analysis {
namespace {

using Sums = std::map<std::string, double>;

// A row for each name in any of the runs, the largest change first.
std::vector<Change> rows_of(const std::vector<Sums>& runs, const std::string& unit) {
  std::map<std::string, Change> rows;
  for (size_t i = 0; i < runs.size(); ++i) {
    for (const auto& [name, value] : runs[i]) {
      Change& row = rows[name];
      row.key = name;
      row.title = name;
      row.unit = unit;
      row.values.resize(runs.size());
      row.values[i] = value;
    }
  }
  std::vector<Change> out;
  for (auto& [name, row] : rows) {
    if (std::any_of(row.values.begin(), row.values.end(), [](double v) { return v != 0; })) {
      out.push_back(std::move(row));
    }
  }
  std::stable_sort(out.begin(), out.end(), [](const Change& a, const Change& b) {
    return a.largest_change() > b.largest_change();
  });
  return out;
}

// The fullest mark of a kind; null when the step has none.
const MarkSummary* fullest(const Summary& summary, Mark mark) {
  const MarkSummary* found = nullptr;
  if (const DeviceStep* device = summary.device_step()) {
    for (const MarkSummary& m : device->marks) {
      if (m.mark == mark && (!found || m.bytes > found->bytes)) found = &m;
    }
  }
  return found;
}

double mark_bytes(const Summary& summary, Mark mark) {
  const MarkSummary* found = fullest(summary, mark);
  return found ? static_cast<double>(found->bytes) : 0;
}

std::vector<Change> totals_of(const std::vector<Summary>& summaries) {
  std::vector<Change> rows;
  const auto add = [&](const char* key, const char* title, const char* unit,
                       const std::function<double(const Summary&)>& value) {
    Change row{key, title, unit, {}};
    for (const Summary& s : summaries) row.values.push_back(value(s));
    rows.push_back(std::move(row));
  };
  add("peak", "peak", "bytes", [](const Summary& s) { return mark_bytes(s, Mark::kPeak); });
  add("forward_edge", "forward edge", "bytes",
      [](const Summary& s) { return mark_bytes(s, Mark::kForwardEdge); });
  add("end", "end of the step", "bytes",
      [](const Summary& s) { return mark_bytes(s, Mark::kEnd); });
  add("saved", "kept by autograd", "bytes", [](const Summary& s) {
    const MarkSummary* edge = fullest(s, Mark::kForwardEdge);
    return edge ? static_cast<double>(edge->saved_bytes) : 0;
  });
  add("flops", "FLOPs of the step", "FLOP",
      [](const Summary& s) { return s.step().flops.total(); });
  add("seconds", "time of the step", "seconds", [](const Summary& s) { return s.step().seconds; });
  return rows;
}

std::string percent_of(const Change& row) {
  if (row.values.front() == 0) return "";
  return fmt::format(" ({:+.1f} %)", 100 * row.change() / row.values.front());
}

std::string headline_of(const Comparison& c) {
  const Change& peak = c.totals.front();
  const std::string& first = c.runs.front().recording;
  const std::string& last = c.runs.back().recording;
  if (peak.change() == 0) {
    return fmt::format("The peak is the same in {} and {}: {}.", first, last,
                       format_amount(peak.values.front(), "bytes"));
  }
  const bool grew = peak.change() > 0;
  std::string out =
      fmt::format("The peak {} by {}{}: {} in {}, {} in {}.", grew ? "grew" : "shrank",
                  format_amount(std::abs(peak.change()), "bytes"), percent_of(peak),
                  format_amount(peak.values.front(), "bytes"), first,
                  format_amount(peak.values.back(), "bytes"), last);
  const auto most =
      std::max_element(c.roles.begin(), c.roles.end(), [grew](const Change& a, const Change& b) {
        return grew ? a.change() < b.change() : a.change() > b.change();
      });
  if (c.at == Mark::kPeak && most != c.roles.end() && (most->change() > 0) == grew &&
      most->change() != 0) {
    out += fmt::format(" Most of it: {} ({}).", most->title,
                       format_amount(most->change(), "bytes", true));
  }
  return out;
}

[[noreturn]] void refuse(const std::string& text, const std::string& why) {
  throw Error(
      "--fail-on '{}': {}; write KEY, one of > >= < <=, and an amount: 'peak>+2%' (grew by more "
      "than 2 %), 'activation>=+64MiB', 'peak>8GiB' (the number itself)",
      text, why);
}

const Change* row_of(const std::string& key, const Comparison& c) {
  for (const auto* rows : {&c.totals, &c.roles}) {
    for (const Change& row : *rows) {
      if (row.key == key) return &row;
    }
  }
  return nullptr;
}

bool holds(Condition::Comparator comparator, double value, double amount) {
  switch (comparator) {
    case Condition::Comparator::kAbove:
      return value > amount;
    case Condition::Comparator::kAtLeast:
      return value >= amount;
    case Condition::Comparator::kBelow:
      return value < amount;
    case Condition::Comparator::kAtMost:
      return value <= amount;
  }
  return false;
}

// "64MiB" of bytes, "2.5e12" FLOPs, "0.5s".
double parse_amount(const std::string& condition, const std::string& key, std::string text) {
  if (key == "flops" || key == "seconds") {
    if (key == "seconds" && text.ends_with('s')) text.pop_back();
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (text.empty() || *end != '\0' || !std::isfinite(value)) {
      refuse(condition, fmt::format("'{}' is no number of {}", text, key));
    }
    return value;
  }
  try {
    return static_cast<double>(parse_bytes(text, "the amount"));
  } catch (const Error& error) {
    refuse(condition, error.what());
  }
}

// Rows whose keys are words, in the order of the words.
std::vector<Change> in_order(const std::vector<Change>& rows, std::span<const Word> words) {
  std::vector<Change> out;
  for (const Word& word : words) {
    for (const Change& row : rows) {
      if (row.key == word.key) out.emplace_back(row).title = word.title;
    }
  }
  return out;
}

}  // namespace

std::string format_amount(double value, const std::string& unit, bool with_sign) {
  const std::string sign = value < 0 ? "-" : with_sign && value > 0 ? "+" : "";
  const double size = std::abs(value);
  if (unit == "FLOP") return sign + format_flops(size);
  if (unit == "seconds") return sign + format_seconds(size);
  return sign + format_bytes(std::llround(size));
}

double Change::largest_change() const {
  double most = 0;
  for (const double value : values) most = std::max(most, std::abs(value - values.front()));
  return most;
}

Comparison compare(const std::vector<Summary>& summaries) {
  if (summaries.size() < 2) throw Error("a comparison needs two recordings or more");
  Comparison out;
  out.at = summaries.front().at;
  std::vector<Sums> roles, modules, operators, work, executed;
  for (const Summary& s : summaries) {
    out.runs.push_back({s.recording, s.step().index, s.device, s.headline});
    Sums role, module, op, flops, format;
    if (const MarkSummary* mark = s.mark()) {
      for (size_t i = 0; i < kRoleCount; ++i) {
        role[std::string(kRoleWords[i].key)] = static_cast<double>(mark->roles[i]);
      }
      for (const AliveRow& row : alive_rows(*s.device_step(), *mark)) {
        module[row.module] += static_cast<double>(row.bytes);
        op[row.op] += static_cast<double>(row.bytes);
      }
    }
    for (const OperatorRow& row : s.step().operators) flops[row.op] += row.flops;
    if (s.step().flops.executed) {
      for (const auto& part : s.step().flops.executed->by_format) {
        format[std::string(key(part.format))] = part.flops;
      }
    }
    executed.push_back(std::move(format));
    roles.push_back(std::move(role));
    modules.push_back(std::move(module));
    operators.push_back(std::move(op));
    work.push_back(std::move(flops));
  }
  out.totals = totals_of(summaries);
  out.roles = in_order(rows_of(roles, "bytes"), kRoleWords);
  out.executed = in_order(rows_of(executed, "FLOP"), kFlopFormatWords);
  out.modules = rows_of(modules, "bytes");
  out.operators = rows_of(operators, "bytes");
  out.work = rows_of(work, "FLOP");
  out.headline = headline_of(out);
  return out;
}

Condition parse_condition(const std::string& text) {
  std::string plain;
  for (const char c : text) {
    if (c != ' ' && c != '\t') plain += c;
  }
  Condition out;
  out.text = text;
  const size_t at = plain.find_first_of("<>");
  if (at == std::string::npos) refuse(text, "it has no comparison");
  out.key = plain.substr(0, at);
  std::replace(out.key.begin(), out.key.end(), '-', '_');
  static constexpr const char* kTotals[] = {"peak",  "forward_edge", "end",
                                            "saved", "flops",        "seconds"};
  const bool known = role_of(out.key) || std::find(std::begin(kTotals), std::end(kTotals),
                                                   out.key) != std::end(kTotals);
  if (!known) {
    refuse(text, fmt::format("'{}' is no key; the keys are peak, forward_edge, end, saved, flops, "
                             "seconds and the roles (parameter, activation, ...)",
                             out.key));
  }
  const bool equal = plain.substr(at + 1, 1) == "=";
  out.comparator = plain[at] == '>'
                       ? (equal ? Condition::Comparator::kAtLeast : Condition::Comparator::kAbove)
                       : (equal ? Condition::Comparator::kAtMost : Condition::Comparator::kBelow);
  std::string amount = plain.substr(at + 1 + (equal ? 1 : 0));
  double sign = 1;
  if (!amount.empty() && (amount[0] == '+' || amount[0] == '-')) {
    out.is_change = true;
    sign = amount[0] == '-' ? -1 : 1;
    amount.erase(0, 1);
  }
  out.is_percent = amount.ends_with('%');
  if (out.is_percent) {
    amount.pop_back();
    if (!out.is_change) refuse(text, "a percentage needs a sign: it is a change");
    char* end = nullptr;
    out.amount = std::strtod(amount.c_str(), &end);
    if (amount.empty() || *end != '\0' || !std::isfinite(out.amount)) {
      refuse(text, fmt::format("'{}' is no number", amount));
    }
  } else {
    out.amount = parse_amount(text, out.key, amount);
  }
  out.amount *= sign;
  return out;
}

std::vector<std::string> met_by(const Condition& condition, const Comparison& comparison) {
  std::vector<std::string> out;
  const Change* row = row_of(condition.key, comparison);
  for (size_t i = 1; i < comparison.runs.size(); ++i) {
    const double first = row ? row->values.front() : 0;
    const double here = row ? row->values[i] : 0;
    double value = condition.is_change ? here - first : here;
    if (condition.is_percent) {
      // From nothing to something is more than any percentage.
      value = here == first ? 0 : first == 0 ? HUGE_VAL * (here - first) : 100 * value / first;
    }
    if (!holds(condition.comparator, value, condition.amount)) continue;
    const std::string unit = row ? row->unit : "bytes";
    const std::string name = row ? row->title : condition.key;
    out.push_back(fmt::format(
        "{}: {} is {} in {} and {} in {}{}", condition.text, name, format_amount(first, unit),
        comparison.runs.front().recording, format_amount(here, unit), comparison.runs[i].recording,
        first == 0 ? "" : fmt::format(", {:+.2f} %", 100 * (here - first) / first)));
  }
  return out;
}

}  // namespace tally::analysis
