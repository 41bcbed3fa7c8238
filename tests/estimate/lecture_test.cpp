// SPDX-License-Identifier: Apache-2.0
// The lecture's numbers beside the recomputed ones.
#include <cmath>
#include <map>

#include "tests/estimate/helpers.h"

namespace tally::estimate {
namespace {

std::map<std::string, LectureLine> audit() {
  std::map<std::string, LectureLine> lines;
  for (const LectureLine& line : lecture_audit()) lines.emplace(line.id, line);
  return lines;
}

TEST(Lecture, EveryStatementHasAVerdictAndWhatCanBeComputedIs) {
  for (const auto& [id, line] : audit()) {
    EXPECT_FALSE(line.statement.empty()) << id;
    EXPECT_FALSE(line.verdict.empty()) << id;
    if (line.verdict != "not testable") {
      EXPECT_FALSE(line.recomputed.empty()) << id;
    }
    if (line.verdict == "wrong" || line.verdict == "missing" || line.verdict == "always round up") {
      EXPECT_FALSE(line.reason.empty()) << id;
    }
  }
}

// "right" and "rounded" mean it: the printed value is the recomputed one to its printed digits.
TEST(Lecture, VerdictsAreTrue) {
  for (const auto& [id, line] : audit()) {
    if (line.printed_value == 0) continue;
    const double deviation =
        std::abs(line.value - line.printed_value) / std::abs(line.printed_value);
    const std::string verdict(line.verdict);
    if (verdict.rfind("right", 0) == 0) {
      EXPECT_LT(deviation, id == "six-nd" ? 0.03 : 0.0013) << id;
    } else if (verdict.rfind("round", 0) == 0 || verdict == "truncated")
      EXPECT_LT(deviation, 0.035) << id;
    else
      EXPECT_GT(deviation, 0.005) << id;
  }
}

TEST(Lecture, TheNumbersThatTheTwoSlidesDisagreeOn) {
  const auto lines = audit();
  EXPECT_NEAR(lines.at("activations-172").value, 171.80, 0.005);
  EXPECT_NEAR(lines.at("activations-250").value * 1e9 / 0x1p30, 250, 1e-6);
  EXPECT_NEAR(lines.at("activations-llama").value, 197.30, 0.25);  // and what surrounds the layers
  EXPECT_EQ(lines.at("cards").value, 27);
  EXPECT_NEAR(lines.at("forward").value, 2.74942331453440e14, 1);
  EXPECT_NEAR(lines.at("forward-llama").value, 2.77326038302720e14, 1);
  EXPECT_EQ(lines.at("int8-range").value, -128);
  EXPECT_NEAR(lines.at("mixtral").value, 46.702792704, 1e-9);
  EXPECT_EQ(lines.at("o1-memory").value, 3240);
}

}  // namespace
}  // namespace tally::estimate
