// SPDX-License-Identifier: Apache-2.0
#include "profiler/recording/columns.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "profiler/core/error.h"

namespace tally::recording {
namespace {

TEST(Columns, IntegersComeBackWhateverTheirSize) {
  std::vector<int64_t> values{0,
                              1,
                              -1,
                              127,
                              128,
                              -128,
                              1 << 20,
                              int64_t{1} << 62,
                              std::numeric_limits<int64_t>::max(),
                              std::numeric_limits<int64_t>::min(),
                              0};
  Encoder out;
  out.put(std::numeric_limits<uint64_t>::max());
  for (const int64_t v : values) out.put_signed(v);
  out.delta_column(values, [](int64_t v) { return v; });
  Decoder in(out.raw());
  EXPECT_EQ(in.get(), std::numeric_limits<uint64_t>::max());
  for (const int64_t v : values) EXPECT_EQ(in.get_signed(), v);
  std::vector<int64_t> back(values.size());
  in.delta_column(back, [](int64_t& row, int64_t v) { row = v; });
  EXPECT_EQ(back, values);
  EXPECT_NO_THROW(in.expect_end());
}

TEST(Columns, DoublesComeBackToTheBit) {
  const std::vector<double> values{0.0,
                                   -0.0,
                                   1.0,
                                   0.1,
                                   1e300,
                                   5e-324,
                                   0x1p53,
                                   0x1p53 - 1,
                                   0x1p60,
                                   -123.0,
                                   1.5,
                                   std::numeric_limits<double>::infinity(),
                                   std::numeric_limits<double>::quiet_NaN(),
                                   3.0e15 + 0.5};
  Encoder out;
  for (const double v : values) out.put_real(v);
  Decoder in(out.raw());
  for (const double v : values) {
    const double back = in.get_real();
    EXPECT_EQ(std::memcmp(&back, &v, sizeof v), 0) << v;
  }
}

TEST(Columns, WholeFlopsTakeAsManyBytesAsTheirDigitsNeed) {
  Encoder out;
  out.put_real(6.0 * 124'439'808);  // 30 bits
  EXPECT_EQ(out.raw().size(), 5u);
}

TEST(Columns, PackingKeepsEveryByteAndRepetitionCostsNothing) {
  for (const size_t size : {0, 1, 47, 48, 127, 128, 5000, 100000}) {
    const std::string raw(size, 'a');
    EXPECT_EQ(unpack(pack(raw)), raw) << size;
  }
  EXPECT_LT(pack(std::string(100000, 'a')).size(), 200u);
  std::string noise;
  uint64_t state = 1;
  for (int i = 0; i < 1000; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    noise += static_cast<char>(state >> 56);
  }
  EXPECT_EQ(unpack(pack(noise)), noise);
  EXPECT_EQ(pack(noise).size(), noise.size() + 1);
}

TEST(Columns, DamageIsAnErrorAndNothingElse) {
  EXPECT_THROW(unpack(""), Error);
  EXPECT_THROW(unpack("\x05xxxxx"), Error);                     // no zlib stream
  EXPECT_THROW(unpack("\xff\xff\xff\xff\xff\xff\x7f"), Error);  // a size to exhaust memory with
  std::string packed = pack(std::string(500, 'a'));
  for (size_t at = 0; at < packed.size(); ++at) {
    EXPECT_THROW(unpack(packed.substr(0, at)), Error) << at;
  }
  Decoder endless(std::string_view("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11));
  EXPECT_THROW(endless.get(), Error);
  Decoder few_rows(std::string_view("\x7f\x01", 2));
  EXPECT_THROW(few_rows.get_count(), Error);
  Decoder real(std::string_view("\0abc", 4));
  EXPECT_THROW(real.get_real(), Error);
}

}  // namespace
}  // namespace tally::recording
