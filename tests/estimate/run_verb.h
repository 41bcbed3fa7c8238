// SPDX-License-Identifier: Apache-2.0
// Runs a verb as the program does, in this process.
#pragma once

#include <string>
#include <vector>

namespace tally::estimate::testing {

struct VerbResult {
  int code = 0;  // 0, or 2 for bad input
  std::string out;
  std::string error;  // one line
};
VerbResult run_verb(const std::vector<std::string>& arguments);
VerbResult run_line(const std::string& line);  // "torchtally estimate gpt2 ...", quotes understood

}  // namespace tally::estimate::testing
