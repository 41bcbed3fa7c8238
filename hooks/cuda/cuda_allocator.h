// SPDX-License-Identifier: Apache-2.0
// The source of memory events on CUDA devices: LibTorch's caching allocator. Built whenever
// LibTorch has CUDA, active only where there is a device, so one build serves machines with and
// without.
#pragma once

#include <memory>

#include "profiler/core/source.h"

namespace tally::hooks {

std::unique_ptr<Source> make_cuda_allocator_source();

}  // namespace tally::hooks
