// SPDX-License-Identifier: Apache-2.0
// Number formats (data/number_formats.csv): their limits from their bits, and values taken apart.
#include <algorithm>
#include <cmath>
#include <limits>

#include "profiler/core/error.h"
#include "profiler/estimate/integer.h"
#include "profiler/estimate/table_data.h"

namespace tally::embedded {
extern const std::string_view estimate_number_formats;
}

namespace tally::estimate {
namespace {

// QLoRA arXiv 2305.14314 appendix E: quantiles of N(0, 1) scaled to [-1, 1], with an exact zero.
constexpr std::array<double, 16> kNf4{-1.0,
                                      -0.6961928009986877,
                                      -0.5250730514526367,
                                      -0.39491748809814453,
                                      -0.28444138169288635,
                                      -0.18477343022823334,
                                      -0.09105003625154495,
                                      0.0,
                                      0.07958029955625534,
                                      0.16093020141124725,
                                      0.24611230194568634,
                                      0.33791524171829224,
                                      0.44070982933044434,
                                      0.5626170039176941,
                                      0.7229568362236023,
                                      1.0};

void derive_limits(NumberFormat& f) {
  if (f.kind == "integer") {
    f.largest = std::ldexp(1, f.mantissa) - 1;
    f.lowest = -std::ldexp(1, f.mantissa);
    f.smallest_normal = f.epsilon = 1;
    f.exact_integers = f.largest;
    return;
  }
  if (f.kind == "table") {
    f.largest = 1, f.lowest = -1;
    f.smallest_normal = kNf4[8];
    f.epsilon = 0;
    return;
  }
  const bool infinite = f.kind == "float";
  const int top = (1 << f.exponent) - (infinite ? 2 : 1) - f.bias;
  // Without infinities the all-ones pattern alone is NaN: e4m3 ends at 1.75 x 2^8.
  f.largest = std::ldexp(2 - std::ldexp(infinite ? 1 : 2, -f.mantissa), top);
  f.lowest = -f.largest;
  f.smallest_normal = std::ldexp(1, 1 - f.bias);
  f.smallest_subnormal = std::ldexp(1, 1 - f.bias - f.mantissa);
  f.epsilon = std::ldexp(1, -f.mantissa);
  f.exact_integers = std::min(f.largest, std::ldexp(1, f.mantissa + 1));
}

std::string bits(uint64_t value, int count) {
  std::string text;
  for (int i = count - 1; i >= 0; --i) text += (value >> i) & 1 ? '1' : '0';
  return text;
}

}  // namespace

const std::vector<NumberFormat>& number_formats() {
  static const std::vector<NumberFormat> all = [] {
    const CsvTable table("number_formats.csv", embedded::estimate_number_formats);
    std::vector<NumberFormat> list;
    for (size_t i = 0; i < table.size(); ++i) {
      NumberFormat f;
      const auto whole = [&](const char* column) {
        return static_cast<int>(table.number(i, column));
      };
      f.name = table.text(i, "name");
      f.title = table.text(i, "title");
      f.bits = whole("bits");
      f.sign = whole("sign");
      f.exponent = whole("exponent");
      f.mantissa = whole("mantissa");
      f.bias = whole("bias");
      f.kind = table.text(i, "kind");
      f.bytes_per_parameter = table.number(i, "bytes_per_parameter");
      f.storage = table.text(i, "storage");
      derive_limits(f);
      list.push_back(std::move(f));
    }
    return list;
  }();
  return all;
}

const NumberFormat& find_format(const std::string& name) {
  if (name == "fp8") return find_format("fp8-e4m3");  // the one for weights
  for (const NumberFormat& f : number_formats()) {
    if (f.name == name) return f;
  }
  std::vector<std::string> names;
  for (const NumberFormat& f : number_formats()) names.push_back(f.name);
  throw Error("no number format is called '{}'; there are {}", name, join(names, ", "));
}

EncodedNumber encode(const NumberFormat& f, double value) {
  EncodedNumber n;
  if (f.kind == "integer") {
    const double rounded =
        std::isnan(value) ? 0 : std::clamp(std::nearbyint(value), f.lowest, f.largest);
    const auto integer = static_cast<int64_t>(rounded);
    n.mantissa = bits(static_cast<uint64_t>(integer), f.bits);
    n.value = rounded;
    n.arithmetic = fmt::format("two's complement: {}", integer);
    return n;
  }
  if (f.kind == "table") {
    size_t best = 0;
    for (size_t i = 1; i < kNf4.size(); ++i) {
      if (std::abs(kNf4[i] - value) < std::abs(kNf4[best] - value)) best = i;
    }
    n.mantissa = bits(best, 4);
    n.value = kNf4[best];
    n.arithmetic = fmt::format("entry {} of the table x the block's largest magnitude", best);
    return n;
  }
  const bool negative = std::signbit(value);
  const uint64_t ones = (uint64_t{1} << f.exponent) - 1;
  const double scale = std::ldexp(1, f.mantissa);
  const double magnitude = std::abs(value);
  uint64_t field = 0, fraction = 0;
  bool special = false;
  if (std::isnan(value)) {
    field = ones;
    fraction =
        f.kind == "float" ? uint64_t{1} << (f.mantissa - 1) : (uint64_t{1} << f.mantissa) - 1;
    special = true;
  } else {
    int exponent = 1 - f.bias;
    if (magnitude >= f.smallest_normal && std::isfinite(magnitude))
      exponent = std::max(exponent, std::ilogb(magnitude));
    // nearbyint rounds ties to even; a carry goes into the exponent by itself below.
    double significand = std::nearbyint(std::ldexp(magnitude, f.mantissa - exponent));
    if (significand >= 2 * scale) significand /= 2, ++exponent;
    const double rounded = std::ldexp(significand, exponent - f.mantissa);
    if (rounded > f.largest || std::isinf(magnitude)) {
      if (f.kind == "float") {
        field = ones;
        special = true;
      } else {  // saturates
        field = ones;
        fraction = (uint64_t{1} << f.mantissa) - 2;
      }
    } else if (significand >= scale) {
      field = static_cast<uint64_t>(exponent + f.bias);
      fraction = static_cast<uint64_t>(significand - scale);
    } else {
      fraction = static_cast<uint64_t>(significand);
    }
  }
  n.sign = negative ? "1" : "0";
  n.exponent = bits(field, f.exponent);
  n.mantissa = bits(fraction, f.mantissa);
  if (special) {
    n.value = fraction   ? std::numeric_limits<double>::quiet_NaN()
              : negative ? -std::numeric_limits<double>::infinity()
                         : std::numeric_limits<double>::infinity();
    n.arithmetic = fraction ? "exponent and fraction all ones: not a number"
                            : "exponent all ones, fraction 0: infinity";
    if (fraction && f.kind == "float")
      n.arithmetic = "exponent all ones, fraction not 0: not a number";
  } else if (field > 0) {
    n.value = std::ldexp(scale + static_cast<double>(fraction),
                         static_cast<int>(field) - f.bias - f.mantissa);
    n.arithmetic = fmt::format("(-1)^{} x 2^({}-{}) x (1 + {}/2^{})", n.sign, field, f.bias,
                               fraction, f.mantissa);
  } else {
    n.value = std::ldexp(static_cast<double>(fraction), 1 - f.bias - f.mantissa);
    n.arithmetic =
        fmt::format("(-1)^{} x 2^(1-{}) x {}/2^{}", n.sign, f.bias, fraction, f.mantissa);
  }
  if (negative) n.value = -std::abs(n.value);
  return n;
}

Integer weight_bytes(const std::string& format, Integer rows, Integer columns) {
  const NumberFormat& f = find_format(format);
  const Integer numel = rows * std::max<Integer>(1, columns);
  if (format == "nf4") {
    const Integer blocks = ceil_div(numel, 64);
    return ceil_div(numel, 2) + blocks + 4 * ceil_div(blocks, 256);
  }
  if (format == "int4") return ceil_div(numel, 2) + 4 * ceil_div(numel, 64);
  if (format == "int8") return numel + 4 * rows;
  if (f.bits == 8) return numel + 4;
  return numel * static_cast<Integer>(f.bytes_per_parameter);
}

}  // namespace tally::estimate
