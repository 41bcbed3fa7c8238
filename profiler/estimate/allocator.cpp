// SPDX-License-Identifier: Apache-2.0
// The CUDA caching allocator's sizes, as c10/cuda/CUDACachingAllocator.cpp has them: blocks are
// rounded to 512 B and cut from segments of 2 MiB, 20 MiB or, from 10 MiB on, their own.
#include "profiler/estimate/integer.h"

namespace tally::estimate {
namespace {
constexpr Integer kMinBlock = 512;
constexpr Integer kMiBytes = Integer{1} << 20;
}  // namespace

Integer allocator_round(Integer bytes) {
  return bytes < kMinBlock ? kMinBlock : ceil_div(bytes, kMinBlock) * kMinBlock;
}

Integer allocator_segment(Integer bytes) {
  const Integer size = allocator_round(bytes);
  if (size <= kMiBytes) return 2 * kMiBytes;
  if (size < 10 * kMiBytes) return 20 * kMiBytes;
  return ceil_div(size, 2 * kMiBytes) * 2 * kMiBytes;
}

// CUBLAS_WORKSPACE_CONFIG defaults (ATen/cuda/CublasHandlePool.cpp): ":4096:2:16:8" in KiB before
// Hopper, 32 MiB since; per handle and stream, through the allocator.
Integer cublas_workspace(bool hopper_or_newer) {
  return hopper_or_newer ? 32 * kMiBytes : (Integer{2} * 4096 + 8 * 16) * 1024;
}

// With lazy module loading (PyTorch pull request 86509); eager loading needs 666,632,192 B.
Integer cuda_context() { return 287'047'680; }

}  // namespace tally::estimate
