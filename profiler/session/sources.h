// SPDX-License-Identifier: Apache-2.0
// The sources of this build, in the order in which they start. Whoever adds a folder to hooks/ adds
// one line to sources.cpp.
#pragma once

#include <memory>
#include <vector>

#include "profiler/core/source.h"

namespace tally {

namespace hooks {
class ObjectSource;
}

struct Sources {
  std::vector<std::unique_ptr<Source>> all;
  hooks::ObjectSource* objects = nullptr;  // of `all`: takes what the program watches
};

struct SourceOptions {
  uint64_t theory_steps = 2;
  int64_t stop_at_bytes = 0;  // this and the next: see CpuAllocatorOptions
  int64_t source_lines_bytes = 0;
  bool counters = false;  // hardware counters of what kernels execute
  bool counters_per_kernel = false;
};

Sources make_sources(const SourceOptions& options);

}  // namespace tally
