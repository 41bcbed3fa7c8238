// SPDX-License-Identifier: Apache-2.0
// Which line of Python makes a block: asked at large blocks only, on the thread that makes them.
// Nothing of Python is linked; a process without an interpreter has no lines.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "profiler/core/source.h"

namespace tally::hooks {

// From now on blocks of at least `from_bytes` are told with their line; 0: none is.
void watch_source_lines(int64_t from_bytes) noexcept;

// Files in these folders are nobody's own code (the package torch, ours, Python's library): the
// line is that of the innermost frame outside them. Packages that are installed inside one of them
// count as the program's.
void pass_over_folders(std::vector<std::string> folders);

// Tells the line of the block that this thread is about to make, where it is large enough. May wait
// for Python's lock: never while a lock of ours or of a device's allocator is held.
void tell_source_line(Context& context, int64_t bytes) noexcept;
// The same of an allocation that failed, however small.
void tell_source_line_of_failure(Context& context) noexcept;

// The same where such a lock is held: the blocks are remembered, and told when this thread's
// operator ends.
void tell_source_line_later(Context& context, uint64_t pointer, int64_t bytes) noexcept;
void tell_remembered_blocks(Context& context) noexcept;

}  // namespace tally::hooks
