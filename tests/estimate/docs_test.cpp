// SPDX-License-Identifier: Apache-2.0
// Every console block of docs/estimates.md is run and compared, so no number there can drift.
// With TALLY_UPDATE_DOCS=1 in the environment the blocks are written anew instead.
#include <cstdlib>
#include <fstream>
#include <iterator>

#include <gtest/gtest.h>

#include "tests/estimate/run_verb.h"

namespace tally::estimate {
namespace {

TEST(Docs, ConsoleBlocksAreWhatTheProgramPrints) {
  std::ifstream file(TALLY_DOCS);
  ASSERT_TRUE(file) << TALLY_DOCS;
  const std::string page{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const std::string open = "```console\n$ ", close = "```\n";
  std::string updated;
  size_t at = 0;
  int blocks = 0;
  while (true) {
    const size_t begin = page.find(open, at);
    if (begin == std::string::npos) break;
    const size_t command_end = page.find('\n', begin + open.size());
    const size_t end = page.find(close, command_end);
    ASSERT_NE(end, std::string::npos);
    const std::string command = page.substr(begin + open.size(), command_end - begin - open.size());
    const testing::VerbResult result = testing::run_line(command);
    const std::string printed =
        result.code == 0 ? result.out : "torchtally: " + result.error + "\n";
    updated += page.substr(at, command_end + 1 - at) + printed + close;
    at = end + close.size();
    ++blocks;
  }
  updated += page.substr(at);
  EXPECT_GE(blocks, 10);
  if (std::getenv("TALLY_UPDATE_DOCS")) {
    std::ofstream(TALLY_DOCS) << updated;
  } else {
    EXPECT_EQ(page, updated) << "run this test with TALLY_UPDATE_DOCS=1 to write the page anew";
  }
}

}  // namespace
}  // namespace tally::estimate
