// SPDX-License-Identifier: Apache-2.0
#include "profiler/analysis/budget.h"

#include <algorithm>
#include <optional>

#include <fmt/format.h>

#include "profiler/core/error.h"
#include "profiler/core/units.h"

namespace tally::analysis {
namespace {

// The roles behind a word; nothing for another word.
std::vector<Role> roles_of(const std::string& word) {
  if (word == "activations") return {Role::kActivation, Role::kRecomputedActivation};
  if (word == "temporaries") {
    return {Role::kTemporaryForward, Role::kTemporaryBackward, Role::kTemporaryOptimizer};
  }
  for (const std::string& key : {word, word.substr(0, word.size() - word.ends_with('s'))}) {
    if (const auto role = role_of(key)) return {*role};
  }
  return {};
}

std::string all_words() {
  std::string text = "peak, saved, activations, temporaries";
  for (const Word& word : kRoleWords) text += fmt::format(", {}", word.key);
  return text;
}

struct Most {
  int64_t bytes = 0;
  uint64_t step = 0;
  Mark mark = Mark::kStart;
};

Most most_of(const Summary& summary, const std::string& word) {
  const std::vector<Role> roles = roles_of(word);
  Most most;
  for (const StepSummary& step : summary.steps) {
    for (const DeviceStep& device : step.devices) {
      for (const MarkSummary& mark : device.marks) {
        int64_t bytes = word == "peak" ? mark.bytes : word == "saved" ? mark.saved_bytes : 0;
        for (const Role role : roles) bytes += mark.roles[static_cast<size_t>(role)];
        if (bytes > most.bytes) most = {bytes, step.index, mark.mark};
      }
    }
  }
  return most;
}

}  // namespace

std::string over_budget(const Summary& summary, const Limits& limits) {
  if (summary.steps.empty()) return "there is no step to hold against the budget";
  if (limits.empty()) return "no budget was given";
  std::string text;
  for (const auto& [word, limit] : limits) {
    if (word != "peak" && word != "saved" && roles_of(word).empty()) {
      return fmt::format("'{}' is no role; there are {}", word, all_words());
    }
    int64_t allowed = 0;
    try {
      allowed = parse_bytes(limit, word);
    } catch (const Error& error) {
      return error.what();
    }
    const Most most = most_of(summary, word);
    if (most.bytes <= allowed) continue;
    text +=
        fmt::format("{}{}: {} ({} bytes) in step {} at {}, {} allowed", text.empty() ? "" : "; ",
                    word, format_bytes(most.bytes), format_integer(most.bytes), most.step,
                    title(most.mark), format_bytes(allowed));
  }
  return text;
}

}  // namespace tally::analysis
