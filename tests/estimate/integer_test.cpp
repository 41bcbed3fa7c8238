// SPDX-License-Identifier: Apache-2.0
#include "tests/estimate/helpers.h"

namespace tally::estimate {
namespace {
using testing::error_of;

TEST(Integer, IsWrittenExactly) {
  EXPECT_EQ(to_string(0), "0");
  EXPECT_EQ(to_string(-12), "-12");
  Integer big = 1;
  for (int i = 0; i < 36; ++i) big *= 10;
  EXPECT_EQ(to_string(big + 7), "1000000000000000000000000000000000007");
  EXPECT_EQ(to_string(-big), "-1000000000000000000000000000000000000");
}

TEST(ParseCount, ReadsWhatPeopleWrite) {
  for (const auto& [text, expected] : std::initializer_list<std::pair<const char*, const char*>>{
           {"65e9", "65000000000"},
           {"65.2e9", "65200000000"},
           {"65B", "65000000000"},
           {"1.4T", "1400000000000"},
           {"7_000_000", "7000000"},
           {"7,000", "7000"},
           {"12k", "12000"},
           {"3.5M", "3500000"},
           {"1e25", "10000000000000000000000000"},
           {"65285660672", "65285660672"},
           {"10.0", "10"},
           {"0", "0"},
           {"18446744073709551617", "18446744073709551617"}}) {
    EXPECT_EQ(to_string(parse_count(text, "--x")), expected) << text;
  }
}

TEST(ParseCount, RefusesTheRestAndNamesTheFlag) {
  for (const char* text : {"", "x", "-3", "1.5", "1e", "1e-3", "1eX", "7 B", "B", "1BB", "1e99",
                           "nan", "inf", "0x10", "."}) {
    EXPECT_THAT(error_of([&] { parse_count(text, "--tokens"); }), ::testing::HasSubstr("--tokens"))
        << text;
  }
}

}  // namespace
}  // namespace tally::estimate
