// SPDX-License-Identifier: Apache-2.0
// Numbers as people read them. MiB and GiB are binary, MB and GB decimal; every output names its unit.
#pragma once

#include <cstdint>
#include <string>

namespace tally {

inline constexpr int64_t kKiB = int64_t{1} << 10;
inline constexpr int64_t kMiB = int64_t{1} << 20;
inline constexpr int64_t kGiB = int64_t{1} << 30;

// "0 B", "512 B", "1.5 KiB", "230.1 MiB", "1.64 GiB": the largest binary unit that is at least 1.
std::string format_bytes(int64_t bytes);
// "1,234,567"
std::string format_integer(int64_t value);
// "1.23 TFLOP": decimal prefixes up to E, three significant digits.
std::string format_flops(double flops);
// "0.08 ms", "1.24 s"
std::string format_seconds(double seconds);

// "230 MiB", "1.5GiB", "4 GB", "1048576" -> bytes. Throws Error that names `what` when it is no size.
int64_t parse_bytes(const std::string& text, const std::string& what);

}  // namespace tally
