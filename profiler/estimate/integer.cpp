// SPDX-License-Identifier: Apache-2.0
#include "profiler/estimate/integer.h"

#include <cctype>

#include "profiler/core/error.h"

namespace tally::estimate {

std::string to_string(Integer value) {
  if (value == 0) return "0";
  const bool negative = value < 0;
  std::string digits;
  for (; value != 0; value /= 10) {
    const int digit = static_cast<int>(value % 10);
    digits.insert(digits.begin(), static_cast<char>('0' + (digit < 0 ? -digit : digit)));
  }
  return negative ? "-" + digits : digits;
}

// Decimal arithmetic on the digits themselves: 65.2e9 has no rounding of a double in it.
Integer parse_count(const std::string& text, const std::string& what) {
  const auto bad = [&]() -> Error {
    return Error("{}: '{}' is no count (write it as 65e9, 65B, 1.4T or 65285660672)", what, text);
  };
  std::string digits;
  int point = -1;
  size_t i = 0;
  for (; i < text.size(); ++i) {
    const char c = text[i];
    if (std::isdigit(static_cast<unsigned char>(c))) {
      digits += c;
    } else if (c == '.' && point < 0) {
      point = static_cast<int>(digits.size());
    } else if ((c == '_' || c == ',') && !digits.empty()) {
      continue;
    } else {
      break;
    }
  }
  if (digits.empty()) throw bad();
  int power = point < 0 ? 0 : point - static_cast<int>(digits.size());
  if (i < text.size() && (text[i] == 'e' || text[i] == 'E')) {
    size_t used = 0;
    try {
      power += std::stoi(text.substr(i + 1), &used);
    } catch (const std::exception&) {
      throw bad();
    }
    i += 1 + used;
  } else if (i < text.size()) {
    switch (text[i++]) {
      case 'k':
      case 'K':
        power += 3;
        break;
      case 'm':
      case 'M':
        power += 6;
        break;
      case 'g':
      case 'G':
      case 'b':
      case 'B':
        power += 9;
        break;
      case 't':
      case 'T':
        power += 12;
        break;
      default:
        throw bad();
    }
  }
  if (i != text.size()) throw bad();
  while (power < 0 && !digits.empty() && digits.back() == '0') digits.pop_back(), ++power;
  if (digits.empty()) return 0;
  if (power < 0) throw Error("{}: '{}' is no whole number", what, text);
  if (digits.size() + static_cast<size_t>(power) > 36) {
    throw Error("{}: '{}' is beyond 1e36", what, text);
  }
  Integer value = 0;
  for (const char c : digits) value = value * 10 + (c - '0');
  for (; power > 0; --power) value *= 10;
  return value;
}

}  // namespace tally::estimate
