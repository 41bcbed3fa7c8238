// SPDX-License-Identifier: Apache-2.0
// What was alive on the CUDA devices at the peak, in the layout of torch.cuda.memory._snapshot()
// that PyTorch's memory_viz reads (pytorch.org/memory_viz, torch/cuda/_memory_viz.py): a pickle of
// plain dictionaries, lists, strings and integers.
#pragma once

#include <string>

#include "profiler/analysis/summary.h"

namespace tally::reports {

// A segment a device, with a block for each that was alive, in the order of their birth. Addresses
// are made up: the recording keeps none. Throws Error when the step has no CUDA device, or its
// blocks were not kept.
std::string render_memory_snapshot(const analysis::Summary& summary);

}  // namespace tally::reports
