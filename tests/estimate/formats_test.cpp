// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "tests/estimate/helpers.h"

namespace tally::estimate {
namespace {
using testing::error_of;

TEST(NumberFormat, LimitsFollowFromTheBits) {
  EXPECT_EQ(find_format("fp32").largest, static_cast<double>(std::numeric_limits<float>::max()));
  EXPECT_EQ(find_format("fp32").smallest_normal,
            static_cast<double>(std::numeric_limits<float>::min()));
  EXPECT_EQ(find_format("fp32").smallest_subnormal,
            static_cast<double>(std::numeric_limits<float>::denorm_min()));
  EXPECT_EQ(find_format("fp32").epsilon,
            static_cast<double>(std::numeric_limits<float>::epsilon()));
  EXPECT_EQ(find_format("fp64").largest, std::numeric_limits<double>::max());
  EXPECT_EQ(find_format("fp16").largest, 65504);
  EXPECT_EQ(find_format("fp8-e4m3").largest, 448);
  EXPECT_EQ(find_format("fp8-e5m2").largest, 57344);
  EXPECT_EQ(find_format("int8").lowest, -128);
  EXPECT_EQ(find_format("int8").largest, 127);
  EXPECT_EQ(find_format("fp32").exact_integers, 16777216);
  for (const NumberFormat& f : number_formats()) {
    EXPECT_EQ(f.sign + f.exponent + f.mantissa, f.bits) << f.name;
  }
}

std::string bits_of(float value) {
  uint32_t raw = 0;
  std::memcpy(&raw, &value, sizeof raw);
  std::string text;
  for (int i = 31; i >= 0; --i) text += (raw >> i) & 1 ? '1' : '0';
  return text;
}

TEST(Encode, Fp32MatchesTheHardware) {
  const NumberFormat& f = find_format("fp32");
  std::mt19937_64 random(7);
  for (int i = 0; i < 20000; ++i) {
    double value = 0;
    const uint64_t raw = random();
    std::memcpy(&value, &raw, sizeof value);
    if (std::isnan(value)) continue;
    if (i % 2)
      value = std::ldexp(value, -std::ilogb(value == 0 || std::isinf(value) ? 1 : value) +
                                    static_cast<int>(random() % 300) - 150);
    const EncodedNumber n = encode(f, value);
    EXPECT_EQ(n.sign + n.exponent + n.mantissa, bits_of(static_cast<float>(value))) << value;
    EXPECT_EQ(n.value, static_cast<double>(static_cast<float>(value))) << value;
  }
}

TEST(Encode, RoundsSaturatesAndOverflows) {
  EXPECT_EQ(encode(find_format("fp16"), 65520).value, std::numeric_limits<double>::infinity());
  EXPECT_EQ(encode(find_format("fp16"), 65519).value, 65504);
  EXPECT_EQ(encode(find_format("fp8-e4m3"), 1e9).value, 448);
  EXPECT_EQ(encode(find_format("fp8-e4m3"), -1e9).value, -448);
  EXPECT_EQ(encode(find_format("fp8-e5m2"), 1e9).value, std::numeric_limits<double>::infinity());
  EXPECT_EQ(encode(find_format("int8"), 200).value, 127);
  EXPECT_EQ(encode(find_format("int8"), -200).value, -128);
  EXPECT_EQ(encode(find_format("int8"), -1).mantissa, "11111111");
  EXPECT_EQ(encode(find_format("int8"), 124).mantissa, "01111100");  // the lecture's bit row
  EXPECT_EQ(encode(find_format("nf4"), 0).mantissa, "0111");
  EXPECT_EQ(encode(find_format("nf4"), 0.9).value, 1);
  EXPECT_EQ(encode(find_format("bf16"), 1 + 1.0 / 256).value, 1);              // tie to even
  EXPECT_EQ(encode(find_format("bf16"), 1 + 3.0 / 256).value, 1 + 2.0 / 128);  // and up to even
  EXPECT_TRUE(std::isnan(encode(find_format("fp8-e4m3"), NAN).value));
  EXPECT_TRUE(std::signbit(encode(find_format("fp16"), -0.0).value));
  EXPECT_EQ(encode(find_format("fp16"), 6e-8).value, std::ldexp(1, -24));  // smallest subnormal
}

// Every pattern of the small formats decodes to a value that encodes to the same pattern.
TEST(Encode, SmallFormatsRoundTrip) {
  for (const char* name : {"fp16", "bf16", "fp8-e4m3", "fp8-e5m2"}) {
    const NumberFormat& f = find_format(name);
    for (int exponent = 0; exponent < (1 << f.exponent) - 1; ++exponent) {
      for (int fraction = 0; fraction < (1 << f.mantissa); ++fraction) {
        const double value =
            exponent > 0 ? std::ldexp(1 + std::ldexp(fraction, -f.mantissa), exponent - f.bias)
                         : std::ldexp(std::ldexp(fraction, -f.mantissa), 1 - f.bias);
        ASSERT_EQ(encode(f, value).value, value) << name << " " << value;
      }
    }
  }
}

TEST(WeightBytes, CountTheQuantisationConstants) {
  EXPECT_EQ(weight_bytes("nf4", 64, 256),
            64 * 256 / 2 + 256 + 4);  // 256 blocks of 64, one group of 256
  EXPECT_EQ(weight_bytes("nf4", 1, 1), 1 + 1 + 4);
  EXPECT_EQ(weight_bytes("int8", 10, 100), 1000 + 40);
  EXPECT_EQ(weight_bytes("int4", 2, 64), 64 + 8);
  EXPECT_EQ(weight_bytes("fp8-e4m3", 10, 10), 104);
  EXPECT_EQ(weight_bytes("bf16", 10, 0), 20);
  EXPECT_EQ(weight_bytes("fp8", 10, 10), 104);
}

TEST(FindFormat, NamesWhatThereIs) {
  EXPECT_THAT(error_of([] { find_format("fp7"); }), ::testing::HasSubstr("nf4"));
}

}  // namespace
}  // namespace tally::estimate
