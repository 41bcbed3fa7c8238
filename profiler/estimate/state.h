// SPDX-License-Identifier: Apache-2.0
// Model state of one rank: what of each tensor lives there and what recipe and optimizer add to it.
// Internal to the estimator.
#pragma once

#include <utility>
#include <vector>

#include "torchtally/estimate.h"

namespace tally::estimate {

// Sizes with their counts, as the allocator sees them.
using Blocks = std::vector<std::pair<Integer, Integer>>;

// One pipeline stage's share of the model.
struct Stage {
  Integer layers = 0;
  bool first = true, last = true;
};

struct RankState {
  Integer weights = 0, adapters = 0, gradients = 0, master = 0, moments = 0;
  Integer autocast_copies = 0;
  Integer gathered = 0;  // FSDP units in transit
  // Gradients by when they come to life in backward.
  Integer head_gradients = 0;       // head (or its tied embedding) and final norm
  Integer down_gradients = 0;       // the MLP's last Linear of one layer
  Integer upper_gradients = 0;      // of one layer, all but q, k, v and the first norm
  Integer lower_gradients = 0;      // of one layer, q, k, v and the first norm
  Integer embedding_gradients = 0;  // what only the embedding's backward makes
  Integer embedding_temporary = 0;  // the second gradient of a tied embedding
  Integer optimizer_temporaries = 0;
  Blocks blocks;
};
RankState rank_state(const ModelSpec& model, const TrainingConfig& config, const Stage& stage);

}  // namespace tally::estimate
