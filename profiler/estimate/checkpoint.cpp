// SPDX-License-Identifier: Apache-2.0
// Checkpointing: what is kept, what is made again, and what that costs, from nothing to everything.
#include "profiler/estimate/checkpoint.h"

#include <algorithm>
#include <cmath>

#include "profiler/estimate/integer.h"
#include "profiler/estimate/precision.h"

namespace tally::estimate {

double checkpoint_memory(double layers, double checkpoint, double layer, double segments) {
  return segments * checkpoint + layers / segments * layer;
}

// d/dS (S c + L A / S) = 0 at S = sqrt(L A / c), where the memory is 2 sqrt(L A c).
double best_segments(double layers, double checkpoint, double layer) {
  return std::sqrt(layers * layer / checkpoint);
}

// Nothing is stored: layer i is run again for each of the layers behind it and itself.
Integer quadratic_forwards(Integer layers) { return layers * (layers + 1) / 2; }

// Steps that c slots reverse with at most r recomputations of each: C(c + r, c) (Griewank,
// Walther).
Integer revolve_steps(Integer slots, Integer recomputations) {
  Integer result = 1;
  for (Integer i = 1; i <= slots; ++i) result = result * (recomputations + i) / i;
  return result;
}

Integer checkpoint_stride(Integer layers, const TrainingConfig& config, Integer checkpoint,
                          Integer layer) {
  if (layers <= 1 || config.checkpoint == Checkpoint::kFull) return 1;
  if (config.checkpoint == Checkpoint::kEvery)
    return std::min<Integer>(config.checkpoint_every, layers);
  if (checkpoint <= 0) return 1;
  // The integers around the real optimum; segments are whole layers.
  const double ideal =
      to_double(layers) / best_segments(to_double(layers), to_double(checkpoint), to_double(layer));
  Integer best = 1, best_bytes = -1;
  for (Integer stride = std::max<Integer>(1, static_cast<Integer>(ideal) - 1);
       stride <= static_cast<Integer>(ideal) + 2; ++stride) {
    const Integer s = std::min(stride, layers);
    const Integer bytes = ceil_div(layers, s) * checkpoint + s * layer;
    if (best_bytes < 0 || bytes < best_bytes) best = s, best_bytes = bytes;
  }
  return best;
}

std::vector<CheckpointPlan> checkpoint_tradeoffs(const ModelSpec& model,
                                                 const TrainingConfig& given) {
  validate(model, given);
  std::vector<CheckpointPlan> plans;
  if (!model.has_shape()) return plans;
  TrainingConfig config = given;
  if (config.sequence == 0) config.sequence = model.context;
  config.pp = 1;
  config.checkpoint = Checkpoint::kNone;
  const Integer layers = model.layers;
  const Integer layer = layer_activation_bytes(model, config);
  Integer core = 0, alias = 0;
  for (const ActivationTensor& row : layer_activations(model, config)) {
    const bool split = row.region == Region::kTensorParallel || config.sequence_parallel;
    const Integer bytes = split ? ceil_div(row.bytes, config.tp) : row.bytes;
    if (row.attention_core) core += bytes;
    if (row.block_input) alias = bytes;
  }
  Integer checkpoint = residual_bytes(config.dtype) * ceil_div(config.sequence, config.cp) *
                       config.batch * model.d_model;
  if (config.sequence_parallel) checkpoint = ceil_div(checkpoint, config.tp);

  const FlopEstimate none = estimate_flops(model, config);
  config.checkpoint = Checkpoint::kSelective;
  const Integer selective_flops = estimate_flops(model, config).recompute;
  config.checkpoint = Checkpoint::kFull;
  const Integer forward_flops = estimate_flops(model, config).recompute;  // of all layers

  const auto segments = [&](std::string_view key, std::string_view title, Integer stride,
                            std::string_view note) {
    const Integer count = ceil_div(layers, stride);
    plans.push_back({key, title, static_cast<int64_t>(count), count * checkpoint,
                     std::min(stride, layers) * layer - alias, layers, forward_flops, note});
  };
  plans.push_back({"none", "none: everything is kept", 0, layers * layer, 0, 0, 0, ""});
  plans.push_back({"selective", "selective: attention cores again", 0, layers * (layer - core),
                   core, 0, selective_flops, "Korthikanti et al. arXiv 2205.05198 section 5"});
  segments("full", "full: every layer", 1, "one more forward of the layers");
  for (const int64_t stride : {2, 4, 8}) {
    if (stride < layers) {
      segments(stride == 2   ? "every:2"
               : stride == 4 ? "every:4"
                             : "every:8",
               stride == 2   ? "every 2 layers"
               : stride == 4 ? "every 4 layers"
                             : "every 8 layers",
               stride, "");
    }
  }
  config.checkpoint = Checkpoint::kSqrt;
  segments("sqrt", "square-root optimum", checkpoint_stride(layers, config, checkpoint, layer),
           "S* = sqrt(L A / c), memory 2 sqrt(L A c): Chen et al. arXiv 1604.06174");
  segments("chen", "sqrt(L) segments",
           std::max<Integer>(1, static_cast<Integer>(std::lround(std::sqrt(to_double(layers))))),
           "the optimum where a layer keeps as much as its checkpoint");
  // Halving: log2(L) checkpoints, each level runs its half again.
  Integer levels = 0;
  while ((Integer{1} << static_cast<int>(levels)) < layers) ++levels;
  plans.push_back({"recursive", "recursive halving", 0, (levels + 1) * checkpoint, layer - alias,
                   layers * std::max<Integer>(1, levels),
                   forward_flops * std::max<Integer>(1, levels),
                   "O(log L) memory, O(L log L) forwards: Chen et al. section 4.3"});
  const Integer all = quadratic_forwards(layers);
  plans.push_back({"nothing", "nothing kept but the input", 1, checkpoint, layer - alias,
                   all - layers, forward_flops * (all - layers) / layers,
                   "the lecture's corner: O(1) memory, O(L^2) compute, layer i runs L-i+1 times"});
  return plans;
}

}  // namespace tally::estimate
