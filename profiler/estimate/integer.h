// SPDX-License-Identifier: Apache-2.0
// Small helpers for exact 128-bit integers. Internal to the estimator.
#pragma once

#include <cmath>

#include "torchtally/estimate.h"

namespace tally::estimate {

constexpr Integer ceil_div(Integer a, Integer b) { return (a + b - 1) / b; }
constexpr double to_double(Integer value) { return static_cast<double>(value); }
// Bytes of `elements` at a size that may be a fraction (4-bit formats), rounded up.
inline Integer bytes_of(Integer elements, double size) {
  if (size == std::floor(size)) return elements * static_cast<Integer>(size);
  return static_cast<Integer>(std::ceil(static_cast<long double>(elements) * size));
}

}  // namespace tally::estimate
