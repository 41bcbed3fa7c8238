// SPDX-License-Identifier: Apache-2.0
// The source of memory events on the CPU: a c10::Allocator around the one that was there. Once
// installed, the object stays for good, because the deleters of live tensors point to it.
#pragma once

#include <c10/core/Allocator.h>

#include <cstddef>
#include <memory>

#include "profiler/core/source.h"

namespace tally::hooks {

struct CpuAllocatorOptions {
  // An allocation that would pass this many live bytes fails with c10::OutOfMemoryError, as a device
  // that is full would. 0: none does.
  int64_t stop_at_bytes = 0;
  // Blocks of at least so many bytes are told with the line of Python that makes them. 0: none is.
  int64_t source_lines_bytes = 0;
};
std::unique_ptr<Source> make_cpu_allocator_source(CpuAllocatorOptions options = {});

// The deleter of every block that we watch.
void free_watched_block(void* pointer);
inline bool is_watched(const c10::DataPtr& data) noexcept {
  return data.get_deleter() == &free_watched_block;
}

enum class Watched : uint8_t {
  kOurs,     // allocated through us, or adopted before
  kAdopted,  // just adopted: it was alive before the session
  kForeign,  // another deleter: its free would never reach us
};
// Makes the block behind `data`, of `bytes`, one of ours if it came from the allocator that we
// stand before. Any thread; the caller holds a reference to the storage.
Watched adopt(c10::DataPtr& data, size_t bytes) noexcept;

}  // namespace tally::hooks
