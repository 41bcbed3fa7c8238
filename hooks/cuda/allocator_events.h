// SPDX-License-Identifier: Apache-2.0
// Turns what the CUDA caching allocator tells its trackers into events of the log, and keeps counts
// that its statistics are checked against.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hooks/cuda/torch_cuda.h"
#include "profiler/core/source.h"

namespace tally::hooks::cuda {

// Attaches once a process and for good (LibTorch has no detach), then begins a session: blocks that
// live now are told as adopted, and every later event of every device follows without a gap. False
// while the program has not initialised CUDA. Throws c10::Error when the allocator takes no
// trackers. Not thread-safe.
bool begin(Context& context, Allocator& allocator);
void end() noexcept;

// Tells the log what the allocator's own statistics say, and which blocks are workspaces. Any
// thread.
void tell_statistics(Context& context, Allocator& allocator) noexcept;
// Asks each device that has segments how much of it is in use, by whomever. Some microseconds.
void ask_devices(Allocator& allocator) noexcept;

}  // namespace tally::hooks::cuda
