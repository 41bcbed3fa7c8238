// SPDX-License-Identifier: Apache-2.0
#include "profiler/core/units.h"

#include <limits>

#include <gtest/gtest.h>

#include "profiler/core/error.h"

namespace tally {
namespace {

TEST(Units, BytesAreShownInTheLargestBinaryUnitThatIsAtLeastOne) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(512), "512 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1024), "1.0 KiB");
  EXPECT_EQ(format_bytes(kMiB - 53), "1023.9 KiB");
  EXPECT_EQ(format_bytes(kMiB - 1), "1.0 MiB");
  EXPECT_EQ(format_bytes(1 - kMiB), "-1.0 MiB");
  EXPECT_EQ(format_bytes(kGiB - 1), "1.00 GiB");
  EXPECT_EQ(format_bytes(1024 * kGiB - 1), "1.00 TiB");
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(format_bytes(kMiB), "1.0 MiB");
  EXPECT_EQ(format_bytes(241'275'699), "230.1 MiB");
  EXPECT_EQ(format_bytes(kGiB), "1.00 GiB");
  EXPECT_EQ(format_bytes(kGiB * 164 / 100), "1.64 GiB");
  EXPECT_EQ(format_bytes(kGiB << 10), "1.00 TiB");
  EXPECT_EQ(format_bytes(kGiB << 20), "1.00 PiB");
  EXPECT_EQ(format_bytes(-1536), "-1.5 KiB");
  EXPECT_EQ(format_bytes(std::numeric_limits<int64_t>::max()), "8192.00 PiB");
  EXPECT_EQ(format_bytes(std::numeric_limits<int64_t>::min()), "-8192.00 PiB");
}

TEST(Units, IntegersHaveCommas) {
  EXPECT_EQ(format_integer(0), "0");
  EXPECT_EQ(format_integer(999), "999");
  EXPECT_EQ(format_integer(1000), "1,000");
  EXPECT_EQ(format_integer(1'234'567), "1,234,567");
  EXPECT_EQ(format_integer(-999), "-999");
  EXPECT_EQ(format_integer(-1000), "-1,000");
  EXPECT_EQ(format_integer(std::numeric_limits<int64_t>::min()), "-9,223,372,036,854,775,808");
}

TEST(Units, FlopsHaveDecimalPrefixesAndThreeDigits) {
  EXPECT_EQ(format_flops(0), "0 FLOP");
  EXPECT_EQ(format_flops(999), "999 FLOP");
  EXPECT_EQ(format_flops(1000), "1.00 kFLOP");
  EXPECT_EQ(format_flops(1.234e12), "1.23 TFLOP");
  EXPECT_EQ(format_flops(12.34e12), "12.3 TFLOP");
  EXPECT_EQ(format_flops(123.4e12), "123 TFLOP");
  EXPECT_EQ(format_flops(9.996e6), "10.0 MFLOP");
  EXPECT_EQ(format_flops(99.96e6), "100 MFLOP");
  EXPECT_EQ(format_flops(999.6e6), "1.00 GFLOP");
  EXPECT_EQ(format_flops(3.14e23), "314000 EFLOP");
}

TEST(Units, SecondsBelowOneAreMilliseconds) {
  EXPECT_EQ(format_seconds(0.00008), "0.08 ms");
  EXPECT_EQ(format_seconds(0.0123), "12.3 ms");
  EXPECT_EQ(format_seconds(1), "1.00 s");
  EXPECT_EQ(format_seconds(1.239), "1.24 s");
}

TEST(Units, SizesAreReadWithAnyUnit) {
  EXPECT_EQ(parse_bytes("1048576", "budget"), kMiB);
  EXPECT_EQ(parse_bytes("0", "budget"), 0);
  EXPECT_EQ(parse_bytes("512B", "budget"), 512);
  EXPECT_EQ(parse_bytes("230 MiB", "budget"), 230 * kMiB);
  EXPECT_EQ(parse_bytes("1.5GiB", "budget"), kGiB * 3 / 2);
  EXPECT_EQ(parse_bytes("4 GB", "budget"), 4'000'000'000);
  EXPECT_EQ(parse_bytes("4gb", "budget"), 4'000'000'000);
  EXPECT_EQ(parse_bytes("2k", "budget"), 2048);
  EXPECT_EQ(parse_bytes("1TB", "budget"), 1'000'000'000'000);
  EXPECT_EQ(parse_bytes("1t", "budget"), kGiB << 10);
}

TEST(Units, WhatWasShownInWholeUnitsIsReadBack) {
  for (const int64_t bytes : {int64_t{7}, kKiB, 100 * kKiB, 3 * kMiB, 5 * kGiB, kGiB << 10}) {
    EXPECT_EQ(parse_bytes(format_bytes(bytes), "x"), bytes);
  }
}

TEST(Units, WhatIsNoSizeIsRefusedWithASentenceThatNamesIt) {
  for (const char* text : {"", " ", "abc", "-1", "-1GiB", "1XB", "GiB", "1.2.3", "nan", "inf",
                           "1e30", "5000000000GiB", "12 apples"}) {
    try {
      parse_bytes(text, "TORCHTALLY_BUDGET");
      ADD_FAILURE() << "'" << text << "' was read";
    } catch (const Error& error) {
      const std::string what = error.what();
      EXPECT_NE(what.find("TORCHTALLY_BUDGET"), std::string::npos);
      EXPECT_NE(what.find("'" + std::string(text) + "'"), std::string::npos);
      EXPECT_EQ(what.find('\n'), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace tally
