// SPDX-License-Identifier: Apache-2.0
// Bytes an element under a dtype, in the three places where it matters. Internal to the estimator.
#pragma once

#include "torchtally/estimate.h"

namespace tally::estimate {

inline bool is_autocast(Dtype dtype) {
  return dtype == Dtype::kAmpBf16 || dtype == Dtype::kAmpFp16;
}
inline bool is_16bit(Dtype dtype) { return dtype == Dtype::kBf16 || dtype == Dtype::kFp16; }
inline bool is_fp32(Dtype dtype) { return dtype == Dtype::kFp32 || dtype == Dtype::kTf32; }
// What a Linear computes in and keeps its input in.
inline int compute_bytes(Dtype dtype) { return is_fp32(dtype) ? 4 : 2; }
// The residual stream: autocast leaves it in fp32.
inline int residual_bytes(Dtype dtype) { return is_16bit(dtype) ? 2 : 4; }

}  // namespace tally::estimate
