// SPDX-License-Identifier: Apache-2.0
// Runs side by side: what grew and what shrank from the first to the others, by role, module and
// operator.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "profiler/analysis/summary.h"

namespace tally::analysis {

// One number of every run; 0 where a run does not have it.
struct Change {
  std::string key;             // "peak", a role's key, a module's or operator's name
  std::string title;           // for people
  std::string unit = "bytes";  // "FLOP", "seconds"
  std::vector<double> values;  // in the order of the runs
  double change() const { return values.back() - values.front(); }  // of the last run
  double largest_change() const;  // of any run from the first, without its sign
};

struct ComparedRun {
  std::string recording;
  uint64_t step = 0;
  std::string device;
  std::string headline;
};

// Bytes are those alive at the mark that the Summaries explain. Rows of modules and operators are
// sorted by what changed from the first run to any other, the most first; those that no run has
// bytes of are left out.
struct Comparison {
  Mark at = Mark::kPeak;
  std::vector<ComparedRun> runs;
  std::vector<Change> totals;  // peak, forward_edge, end, saved, flops, seconds
  std::vector<Change> roles;   // in the order of the stack
  std::vector<Change> modules;
  std::vector<Change> operators;  // bytes by the operator that made them
  std::vector<Change> work;       // FLOPs by operator
  std::vector<Change> executed;   // by hardware counters, by number format; in their order
  std::string headline;
};

// Throws Error for fewer than two.
Comparison compare(const std::vector<Summary>& summaries);

// "peak>+2%", "activation>=+64MiB", "peak>8GiB", "flops<-1%": a key of the totals or the roles, one
// of > >= < <=, and an amount: with a sign it is a change from the first run, in percent or units;
// without one it is the number itself. Sizes as 64MiB, FLOPs as 2.5e12, seconds as 0.5s.
struct Condition {
  enum class Comparator { kAbove, kAtLeast, kBelow, kAtMost };
  std::string text;
  std::string key;
  Comparator comparator = Comparator::kAbove;
  bool is_change = false;
  bool is_percent = false;
  double amount = 0;
};
// Throws Error that says the grammar.
Condition parse_condition(const std::string& text);
// A sentence for each run after the first of which the condition holds.
std::vector<std::string> met_by(const Condition& condition, const Comparison& comparison);

// "+1.5 MiB", "-3 FLOP", "0 B"; "115.7 MiB"
std::string format_amount(double value, const std::string& unit, bool with_sign = false);

}  // namespace tally::analysis
