// SPDX-License-Identifier: Apache-2.0
// A matcher for GoogleTest: does what was recorded stay within a budget?
//
//   profiler.stop();
//   EXPECT_THAT(profiler, tally::testing::StaysWithin("1.2 GiB"));
//   EXPECT_THAT(profiler, tally::testing::StaysWithin({{"activations", "800 MiB"}, {"saved", "1
//   GiB"}}));
//
// Sizes are binary (KiB, MiB, GiB), decimal (kB, MB, GB) or plain bytes. A budget may name "peak",
// "saved" (kept by autograd), "activations" (those made again among them), "temporaries", or any
// role of docs/roles.md. Each is held against every mark of every recorded step. Includes nothing
// of GoogleTest, needs its 1.11 or newer; C++17.
#pragma once

#include <initializer_list>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "torchtally/profiler.h"

namespace tally {

// How GoogleTest names a profiler.
inline void PrintTo(const Profiler& profiler, std::ostream* out) {
  *out << "the recording " << profiler.options().recording;
}

namespace testing {

class BudgetMatcher {
 public:
  using is_gtest_matcher = void;

  // What is limited and how: {"activations", "800 MiB"}.
  explicit BudgetMatcher(std::vector<std::pair<std::string, std::string>> limits)
      : limits_(std::move(limits)) {}

  bool MatchAndExplain(const Profiler& profiler, std::ostream* out) const {
    const std::string problem = profiler.over_budget(limits_);
    if (out && !problem.empty()) *out << problem;
    return problem.empty();
  }
  void DescribeTo(std::ostream* out) const { describe("stays within", out); }
  void DescribeNegationTo(std::ostream* out) const { describe("does not stay within", out); }

 private:
  void describe(const char* verb, std::ostream* out) const {
    *out << verb;
    const char* separator = " ";
    for (const auto& limit : limits_) {
      *out << separator << limit.first << " " << limit.second;
      separator = ", ";
    }
  }

  std::vector<std::pair<std::string, std::string>> limits_;
};

// The most bytes alive at any time.
inline BudgetMatcher StaysWithin(const char* peak) {
  return BudgetMatcher(std::vector<std::pair<std::string, std::string>>{{"peak", peak}});
}
inline BudgetMatcher StaysWithin(
    std::initializer_list<std::pair<const char*, const char*>> limits) {
  return BudgetMatcher(
      std::vector<std::pair<std::string, std::string>>(limits.begin(), limits.end()));
}

}  // namespace testing
}  // namespace tally
