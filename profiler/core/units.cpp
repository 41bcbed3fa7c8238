// SPDX-License-Identifier: Apache-2.0
#include "profiler/core/units.h"

#include <array>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "profiler/core/error.h"

namespace tally {

std::string format_bytes(int64_t bytes) {
  const double magnitude = std::abs(static_cast<double>(bytes));
  if (magnitude < 1024) return fmt::format("{} B", bytes);
  static constexpr std::array kNames{"KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  // Two digits behind the point from GiB on: there a tenth is a hundred MiB. What would be rounded
  // to 1024 is 1 of the next unit.
  const auto rounds_to_1024 = [&] { return std::abs(value) >= 1024 - (unit >= 2 ? 0.005 : 0.05); };
  while (rounds_to_1024() && unit + 1 < kNames.size()) {
    value /= 1024;
    ++unit;
  }
  return unit >= 2 ? fmt::format("{:.2f} {}", value, kNames[unit])
                   : fmt::format("{:.1f} {}", value, kNames[unit]);
}

std::string format_integer(int64_t value) {
  std::string digits = fmt::format("{}", value);
  const size_t first = digits[0] == '-' ? 1 : 0;
  for (size_t at = digits.size(); at > first + 3; at -= 3) digits.insert(at - 3, 1, ',');
  return digits;
}

std::string format_flops(double flops) {
  static constexpr std::array kNames{"FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"};
  size_t unit = 0;
  while (std::abs(flops) >= 999.5 && unit + 1 < kNames.size()) {
    flops /= 1000;
    ++unit;
  }
  if (unit == 0) return fmt::format("{:.0f} FLOP", flops);
  const int digits = std::abs(flops) < 9.995 ? 2 : std::abs(flops) < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f} {}", flops, digits, kNames[unit]);
}

std::string format_seconds(double seconds) {
  if (seconds >= 0.99995) return fmt::format("{:.2f} s", seconds);
  const double ms = seconds * 1e3;
  return ms >= 10 ? fmt::format("{:.1f} ms", ms) : fmt::format("{:.2f} ms", ms);
}

int64_t parse_bytes(const std::string& text, const std::string& what) {
  static constexpr std::array<std::pair<const char*, double>, 14> kUnits{{
      {"", 1}, {"b", 1}, {"kib", 0x1p10}, {"mib", 0x1p20}, {"gib", 0x1p30}, {"tib", 0x1p40},
      {"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12},
      {"k", 0x1p10}, {"m", 0x1p20}, {"g", 0x1p30}, {"t", 0x1p40}}};
  const char* begin = text.c_str();
  char* end = nullptr;
  const double number = std::strtod(begin, &end);
  std::string unit;
  for (const char* c = end; *c; ++c) {
    if (!std::isspace(static_cast<unsigned char>(*c))) {
      unit += static_cast<char>(std::tolower(static_cast<unsigned char>(*c)));
    }
  }
  if (end != begin && std::isfinite(number) && number >= 0) {
    for (const auto& [name, factor] : kUnits) {
      if (unit == name && number * factor < 0x1p62) return std::llround(number * factor);
    }
  }
  throw Error("{} is no size: '{}' (write it as 512MiB, 1.5GiB, 4GB or a number of bytes)", what, text);
}

}  // namespace tally
