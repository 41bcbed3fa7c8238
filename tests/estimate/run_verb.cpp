// SPDX-License-Identifier: Apache-2.0
#include "tests/estimate/run_verb.h"

#include <algorithm>
#include <sstream>

#include <gtest/gtest.h>

#include "profiler/cli/estimate_verbs.h"

namespace tally::estimate::testing {

VerbResult run_verb(const std::vector<std::string>& arguments) {
  CLI::App app{"torchtally"};
  app.require_subcommand(1);
  cli::add_estimate_verbs(app);
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  VerbResult result;
  ::testing::internal::CaptureStdout();
  try {
    app.parse(reversed);
  } catch (const CLI::ParseError& error) {
    std::ostringstream out, complaint;
    result.code = app.exit(error, out, complaint) == 0 ? 0 : 2;
    result.error = complaint.str();
    result.out = out.str();
  } catch (const std::exception& error) {
    result.code = 2;
    result.error = error.what();
  }
  result.out += ::testing::internal::GetCapturedStdout();
  return result;
}

VerbResult run_line(const std::string& line) {
  std::vector<std::string> words;
  bool quoted = false, open = false;
  for (const char c : line) {
    if (c == '"') {
      quoted = !quoted;
      if (!open) words.emplace_back(), open = true;
    } else if (c == ' ' && !quoted) {
      open = false;
    } else {
      if (!open) words.emplace_back(), open = true;
      words.back() += c;
    }
  }
  if (!words.empty() && words[0] == "torchtally") words.erase(words.begin());
  return run_verb(words);
}

}  // namespace tally::estimate::testing
