// SPDX-License-Identifier: Apache-2.0
#include "reports/names.h"

#include <cstdint>
#include <optional>

#include <fmt/format.h>

namespace tally::reports {
namespace {

// The code point at the front of `text` and its length; nothing when it is no valid UTF-8.
std::optional<std::pair<uint32_t, size_t>> code_point(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return {{lead, 1}};
  const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc2 ? 2 : 0;
  if (length == 0 || lead > 0xf4 || text.size() < length) return std::nullopt;
  uint32_t value = lead & (0x7f >> length);
  for (size_t i = 1; i < length; ++i) {
    const auto next = static_cast<unsigned char>(text[i]);
    if ((next & 0xc0) != 0x80) return std::nullopt;
    value = value << 6 | (next & 0x3f);
  }
  const uint32_t least = length == 4 ? 0x10000 : length == 3 ? 0x800 : 0x80;
  if (value < least || value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) return std::nullopt;
  return {{value, length}};
}

bool is_hidden(uint32_t c) {
  return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0xad || c == 0x61c ||
         (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
         (c >= 0x2060 && c <= 0x206f) || c == 0xfeff;
}

bool starts(char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }

}  // namespace

size_t length(std::string_view text) {
  size_t points = 0;
  for (const char c : text) points += starts(c);
  return points;
}

std::string clean(std::string_view name) {
  std::string out;
  while (!name.empty()) {
    const auto found = code_point(name);
    const size_t length = found ? found->second : 1;
    if (!found) {
      out += fmt::format("<0x{:02X}>", static_cast<unsigned char>(name[0]));
    } else if (is_hidden(found->first)) {
      out += fmt::format("<U+{:04X}>", found->first);
    } else {
      out += name.substr(0, length);
    }
    name.remove_prefix(length);
  }
  return out;
}

std::string fit(std::string_view text, size_t width, bool right) {
  const size_t points = length(text);
  if (points <= width) {
    const std::string padding(width - points, ' ');
    return right ? padding + std::string(text) : std::string(text) + padding;
  }
  size_t kept = 0;
  size_t end = 0;
  while (end < text.size() && (kept < width - 1 || !starts(text[end]))) {
    kept += starts(text[end]);
    ++end;
  }
  return std::string(text.substr(0, end)) + "…";
}

}  // namespace tally::reports
