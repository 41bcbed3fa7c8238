// SPDX-License-Identifier: Apache-2.0
// Kernels by name, where a step has recorded them.
#include <algorithm>

#include "profiler/analysis/parts.h"

namespace tally::analysis {

void fill_kernels(const recording::Run& run, Summary* summary) {
  constexpr double kNano = 1e-9;
  const StepBooks* of = nullptr;
  for (const recording::RecordedStep& step : run.steps) {
    if (step.books.kernels.empty()) continue;
    of = &step.books;
    if (step.books.index == summary->step().index) break;
  }
  if (!of) return;
  summary->kernels_step = of->index;
  for (const tally::KernelRow& k : of->kernels) {
    summary->kernels.push_back(
        {k.phase,
         run.text(k.module),
         run.text(k.op),
         run.text(k.kernel),
         k.calls,
         {k.tensor_flops, k.scalar_flops, k.device_ns * kNano, k.dram_bytes, k.by_format}});
  }
  std::stable_sort(summary->kernels.begin(), summary->kernels.end(),
                   [](const KernelRow& a, const KernelRow& b) {
                     return a.executed.device_seconds > b.executed.device_seconds;
                   });
}

}  // namespace tally::analysis
