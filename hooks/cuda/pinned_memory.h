// SPDX-License-Identifier: Apache-2.0
// The source of pinned host memory, an allocator around the one that LibTorch's CUDA half has (see
// pinned_allocator.h). Found through libtorch_cpu; nothing of CUDA is linked or initialised. Blocks
// are on a device of their own, "pinned", after the CUDA devices.
#pragma once

#include <memory>

#include "profiler/core/source.h"

namespace tally::hooks {

std::unique_ptr<Source> make_pinned_memory_source();

}  // namespace tally::hooks
