// SPDX-License-Identifier: Apache-2.0
// One cell of comma-separated values, as RFC 4180 has it.
#pragma once

#include <string>

namespace tally {

// Quoted where it must be.
inline std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string cell = "\"";
  for (const char c : text) {
    if (c == '"') cell += '"';
    cell += c;
  }
  return cell + "\"";
}

}  // namespace tally
