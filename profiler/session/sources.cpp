// SPDX-License-Identifier: Apache-2.0
#include "profiler/session/sources.h"

#ifdef TORCHTALLY_HAS_CUDA
#include "hooks/cuda/cuda_allocator.h"
#include "hooks/cuda/pinned_memory.h"
#endif
#ifdef TORCHTALLY_HAS_CUPTI
#include "hooks/cupti/counters.h"
#endif
#include "hooks/torch/cpu_allocator.h"
#include "hooks/torch/objects.h"
#include "hooks/torch/operators.h"

namespace tally {

Sources make_sources(const SourceOptions& options) {
  Sources sources;
  auto objects = hooks::ObjectSource::make();
  sources.objects = objects.get();
  sources.all.push_back(
      hooks::make_cpu_allocator_source({options.stop_at_bytes, options.source_lines_bytes}));
#ifdef TORCHTALLY_HAS_CUDA
  sources.all.push_back(hooks::make_cuda_allocator_source());
  sources.all.push_back(hooks::make_pinned_memory_source());
#endif
  sources.all.push_back(std::move(objects));
  sources.all.push_back(hooks::make_operator_source({options.theory_steps}));
#ifdef TORCHTALLY_HAS_CUPTI
  if (options.counters)
    sources.all.push_back(hooks::make_counter_source({options.counters_per_kernel}));
#endif
  return sources;
}

}  // namespace tally
