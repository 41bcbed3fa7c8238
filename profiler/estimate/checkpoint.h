// SPDX-License-Identifier: Apache-2.0
// Which layers a stage holds and which of them are checkpointed together. Internal to the
// estimator.
#pragma once

#include "torchtally/estimate.h"

namespace tally::estimate {

int64_t stage_layers(int64_t layers, int64_t stages, int64_t index);
Integer layers_in_flight(int64_t layers, const TrainingConfig& config, int64_t index);
// Layers a segment: 1 for full, K for every:K, the best for sqrt.
Integer checkpoint_stride(Integer layers, const TrainingConfig& config, Integer checkpoint,
                          Integer layer);

}  // namespace tally::estimate
