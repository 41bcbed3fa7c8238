// SPDX-License-Identifier: Apache-2.0
// Puts the memory of one rank together: model state, activations under checkpointing and pipeline,
// logits, transient memory; then the moments at which a step can peak; then the worst rank.
// Long because the moments of the peak are sums of the rows above them.
#include <algorithm>
#include <cmath>

#include "profiler/core/error.h"
#include "profiler/estimate/checkpoint.h"
#include "profiler/estimate/integer.h"
#include "profiler/estimate/precision.h"
#include "profiler/estimate/state.h"

namespace tally::estimate {
namespace {

// What does not depend on the stage.
struct Layer {
  std::vector<ActivationTensor> rows, head;  // bytes after tensor parallelism
  Integer all = 0, core = 0, gone = 0, alias = 0, head_all = 0;
  Integer residual = 0;  // one residual stream: the checkpoint of a layer
  Integer score_gradients = 0;
  Integer mlp_temporaries = 0;
  Integer attention_temporaries = 0;
  Integer before_attention = 0;  // the first norm's tensors and the input of q, k, v
  Integer qkv_gradients = 0;     // of q, k, v and of their input
};

Integer sharded(const ActivationTensor& row, const TrainingConfig& c) {
  return row.region == Region::kTensorParallel || c.sequence_parallel ? ceil_div(row.bytes, c.tp)
                                                                      : row.bytes;
}

Layer describe_layer(const ModelSpec& m, const TrainingConfig& c) {
  Layer layer;
  if (!m.has_shape()) return layer;
  layer.rows = layer_activations(m, c);
  layer.head = head_activations(m, c);
  for (ActivationTensor& row : layer.rows) {
    row.bytes = sharded(row, c);
    layer.all += row.bytes;
    if (row.attention_core) layer.core += row.bytes;
    if (row.gone_before_attention) layer.gone += row.bytes;
    if (row.block_input) layer.alias = row.bytes;
    if (row.key.substr(0, 5) == "norm1" || row.key.substr(0, 15) == "attention.input") {
      layer.before_attention += row.bytes;
    }
  }
  for (ActivationTensor& row : layer.head) {
    row.bytes = sharded(row, c);
    layer.head_all += row.bytes;
  }
  const int e = compute_bytes(c.dtype);
  const Integer tokens = ceil_div(c.sequence, c.cp) * c.batch;
  layer.residual = residual_bytes(c.dtype) * tokens * m.d_model;
  if (c.sequence_parallel) layer.residual = ceil_div(layer.residual, c.tp);
  const Integer scores = ceil_div(tokens * c.sequence * m.heads, c.tp);
  const bool upcast = e == 2 && (is_autocast(c.dtype) || m.softmax_fp32);
  // Backward of softmax: the gradient that comes and the one that goes.
  layer.score_gradients = c.attention == Attention::kEager ? 2 * (upcast ? 4 : e) * scores : 0;
  // Backward of the activation function: gradients of what it made and of what it read, less its
  // output, which the Linear behind it has let go of.
  const Integer wide = ceil_div(e * tokens * m.ffn * std::max<int64_t>(1, m.top_k), c.tp);
  layer.mlp_temporaries = m.mlp == Mlp::kGated ? 2 * wide : wide;
  // A fused attention kernel makes the gradients of q, k and v from the one of its output.
  layer.attention_temporaries = ceil_div(e * tokens * (2 * m.q_width() + 2 * m.kv_width()), c.tp);
  layer.qkv_gradients =
      ceil_div(e * tokens * (m.q_width() + 2 * m.kv_width()), c.tp) + e * tokens * m.d_model;
  return layer;
}

struct StageResult {
  std::vector<Row> rows;
  std::array<Integer, kGroupCount> groups{};
  Integer total = 0;
  std::vector<Moment> moments;
  size_t peak_moment = 0;
  Integer rounded = 0, reserved = 0;
};

constexpr std::string_view kKvSource = "keys and values of every layer and token";

class StageBuilder {
 public:
  StageBuilder(const ModelSpec& m, const TrainingConfig& c, const Layer& layer, int64_t index)
      : m_(m), c_(c), layer_(layer), index_(index) {
    stage_.layers = m.has_shape() ? stage_layers(m.layers, c.pp, index) : 0;
    stage_.first = index == 0;
    stage_.last = index == c.pp - 1;
    state_ = rank_state(m, c, stage_);
    inference_ = c.recipe == "inference";
  }

  StageResult build() {
    state_rows();
    if (inference_) {
      inference_rows();
    } else {
      activation_rows();
      workspace_rows();
    }
    if (has_cublas_) {
      add("cublas_workspace", "cuBLAS workspace", cublas_, "one a handle and stream",
          "ATen/cuda/CublasHandlePool.cpp", Group::kWorkspace);
    }
    for (const Row& row : r_.rows) {
      r_.groups[static_cast<size_t>(row.group)] += row.bytes;
      r_.total += row.bytes;
    }
    moments();
    allocator();
    return std::move(r_);
  }

  void use_cublas(Integer bytes) {
    cublas_ = bytes;
    has_cublas_ = true;
  }

 private:
  void add(std::string_view key, std::string_view title, Integer bytes, std::string_view formula,
           std::string_view source, Group group) {
    if (bytes > 0) r_.rows.push_back({key, title, bytes, formula, source, group});
  }

  Integer group_sum(Group group) const {
    Integer sum = 0;
    for (const Row& row : r_.rows) sum += row.group == group ? row.bytes : 0;
    return sum;
  }

  void state_rows() {
    const Recipe& recipe = find_recipe(resolve_recipe(c_));
    const Optimizer& optimizer = find_optimizer(c_.optimizer);
    const bool z1 = c_.zero >= 1, z2 = c_.zero >= 2, z3 = c_.zero >= 3;
    if (!m_.tensors.empty()) {
      constexpr std::string_view kShapes = "the shapes of the parameters";
      add("weights", "weights", state_.weights, "bytes of each parameter", kShapes,
          Group::kParameters);
      add("gradients", "gradients", state_.gradients, "bytes of each trainable parameter", kShapes,
          Group::kGradients);
      add("master_weights", "fp32 master weights", state_.master, "4 P", recipe.source,
          Group::kOptimizerState);
      add("moments", "optimizer state", state_.moments, "states x trainable parameters",
          optimizer.source, Group::kOptimizerState);
      return;
    }
    add("weights", "weights", state_.weights, z3 ? "w P / dp" : "w P", recipe.source,
        Group::kParameters);
    add("adapters", "LoRA adapters", state_.adapters, "4 r (d_in + d_out) a matrix",
        "LoRA arXiv 2106.09685", Group::kParameters);
    add("gradients", "gradients", state_.gradients, z2 ? "g P / dp" : "g P", recipe.source,
        Group::kGradients);
    add("master_weights", "fp32 master weights", state_.master, z1 ? "4 P / dp" : "4 P",
        recipe.source, Group::kOptimizerState);
    add("moments", "optimizer state", state_.moments,
        z1 ? "states x bytes x P / dp" : "states x bytes x P", optimizer.source,
        Group::kOptimizerState);
  }

  void inference_rows() {
    if (!m_.has_shape()) return;
    const Integer cache = Integer{2} * compute_bytes(c_.dtype) * c_.batch * c_.sequence *
                          ceil_div(m_.kv_width(), std::min(c_.tp, m_.kv_heads)) * stage_.layers;
    add("kv_cache", "KV cache", ceil_div(cache, c_.cp), "2 E L kv d s b", kKvSource,
        Group::kActivations);
    if (stage_.last) {
      add("logits", "logits of the last token",
          Integer{compute_bytes(c_.dtype)} * c_.batch * ceil_div(m_.vocab, c_.tp), "E b V",
          "head on the last position", Group::kLogits);
    }
  }

  void activation_rows() {
    if (!m_.has_shape()) return;
    in_flight_ = layers_in_flight(m_.layers, c_, index_);
    if (c_.checkpoint == Checkpoint::kNone || c_.checkpoint == Checkpoint::kSelective) {
      for (const ActivationTensor& row : layer_.rows) {
        if (c_.checkpoint == Checkpoint::kSelective && row.attention_core) continue;
        add(row.key, row.title, row.bytes * in_flight_, row.formula, row.source,
            Group::kActivations);
      }
      if (c_.checkpoint == Checkpoint::kSelective) recomputed_ = layer_.core;
    } else {
      every_ = checkpoint_stride(stage_.layers, c_, layer_.residual, layer_.all);
      // Segments of the layers in flight; a shorter last one also needs its checkpoint.
      const Integer segments =
          ceil_div(stage_.layers, every_) * in_flight_ / std::max<Integer>(1, stage_.layers) +
          (in_flight_ % std::max<Integer>(1, stage_.layers) ? 1 : 0);
      add("checkpoints", "inputs of the checkpointed segments", segments * layer_.residual,
          "R sbh a segment", "Chen et al. arXiv 1604.06174", Group::kActivations);
      const Integer segment = std::min<Integer>(every_, stage_.layers);
      recomputed_ =
          segment * layer_.all - layer_.alias;  // the first input is the checkpoint itself
    }
    activations_ = group_sum(Group::kActivations);
    if (stage_.last) {
      for (const ActivationTensor& row : layer_.head) {
        if (row.key == "embedding.dropout" && c_.pp > 1) continue;
        add(row.key, row.title, row.bytes, row.formula, row.source, Group::kActivations);
      }
      logits_ = logits_bytes(m_, c_);
      add("logits", "logits, log-probabilities and their gradients", logits_,
          c_.keep_logits || m_.logit_softcap ? "(12 + held) bsV" : "12 bsV",
          "log_softmax keeps its output; backward adds two gradients", Group::kLogits);
    }
    if (c_.pp > 1 && stage_.first) {
      for (const ActivationTensor& row : layer_.head) {
        if (row.key != "embedding.dropout") continue;
        add(row.key, row.title, row.bytes * std::min(c_.pp, c_.accumulate), "p sbh", row.source,
            Group::kActivations);
      }
    }
  }

  void workspace_rows() {
    add("recomputed", "one segment made again in backward", recomputed_,
        "K layers, or one attention core", "Korthikanti et al. arXiv 2205.05198 section 4.2",
        Group::kWorkspace);
    add("autocast_copies", "16-bit copies of the Linear weights", state_.autocast_copies,
        "2 P of Linear", "torch.autocast's weight cache, until the end of backward",
        Group::kWorkspace);
    add("gathered", "gathered FSDP units", state_.gathered, "2 units E + 1 unit of gradients",
        "PyTorch FSDP arXiv 2304.11277 section 3.3", Group::kWorkspace);
    if (c_.zero == 0 && c_.dp > 1 && !c_.bucket_view) {
      buckets_ = state_.gradients;
      add("ddp_buckets", "gradient buckets of DDP", buckets_, "g P",
          "DistributedDataParallel without gradient_as_bucket_view", Group::kWorkspace);
    }
  }

  void moments() {
    const Integer state = state_.weights + state_.adapters + state_.master + state_.moments;
    const Integer base = state + buckets_ + cublas_;
    if (inference_) {
      if (m_.tensors.empty()) {
        push("decode", "decoding the last token", r_.total, "W + KV cache + logits");
      } else {
        push("weights", "weights", r_.total, "W");
      }
      return finish();
    }
    const Integer compute = base + state_.autocast_copies + state_.gathered;
    const bool kept = c_.accumulate > 1;
    const Integer held = kept ? state_.gradients : 0;  // of earlier micro-batches
    const Integer acts = group_sum(Group::kActivations);
    if (!m_.tensors.empty()) {
      // Where activations are not known, the moments at which they live are not either.
    } else if (stage_.last) {
      push("loss", "loss: logits and their gradients", compute + held + acts + logits_,
           kept ? "W + O + G + A + logits" : "W + O + A + logits");
    } else {
      push("forward_end", "end of the stage's forward", compute + held + acts, "W + O + A");
    }
    // Logits that the program holds live on until its step ends.
    const Integer program = stage_.last && m_.has_shape() ? held_logits_bytes(m_, c_) : 0;
    if (m_.has_shape() && stage_.layers > 0) backward_moments(compute + program, kept);
    push("optimizer_step", "optimizer step",
         base + program + state_.gradients + state_.optimizer_temporaries,
         c_.foreach_optimizer ? "W + O + G + one temporary a parameter"
                              : "W + O + G + temporaries of the largest tensor");
    finish();
  }

  // Backward at its two ends: activations fall and gradients rise along the layers, so the peak is
  // at one of them. Verified to the byte against allocator traces of fp32 GPTs (docs/estimates.md).
  void backward_moments(Integer compute, bool kept) {
    const Integer flow = layer_.residual, twice = c_.batch == 1 ? 2 * flow : flow;
    const bool whole =
        c_.checkpoint == Checkpoint::kNone || c_.checkpoint == Checkpoint::kSelective;
    const bool selective = c_.checkpoint == Checkpoint::kSelective;
    // Earlier micro-batches left .grad alive; a tied head's new gradient waits beside it for the
    // embedding's. Gradients of single weights are added in place and gone.
    const Integer tied = state_.embedding_temporary;
    const Integer all = state_.gradients, held = all + tied;
    const Integer late = all - state_.lower_gradients - state_.embedding_gradients;
    const Integer attention =
        c_.attention == Attention::kEager ? layer_.score_gradients : layer_.attention_temporaries;
    push("mlp_backward", "MLP backward of the last layer",
         compute + activations_ + (selective ? 0 : recomputed_) + layer_.mlp_temporaries + flow +
             (kept ? held : state_.head_gradients) + state_.down_gradients,
         "W + O + A + gradients around the activation + G of head and down");
    push("attention_backward", "attention backward of the last layer",
         compute + activations_ + recomputed_ - layer_.gone + attention + twice +
             (kept ? held : state_.head_gradients + state_.upper_gradients),
         "W + O + A - the MLP's + 2 score gradients + G of head and MLP");
    if (!whole && every_ > 1) {
      const Integer segment = std::min<Integer>(every_, stage_.layers);
      const Integer layer = state_.upper_gradients + state_.lower_gradients;
      push("first_segment_backward", "attention backward at the end of the first segment",
           compute + flow + recomputed_ - layer_.gone + attention + twice +
               (kept ? held : late - (segment - 1) * layer),
           "W + O + one segment - the MLP's + 2 score gradients + G behind it");
    }
    push("first_layer_backward", "attention backward of the first layer",
         compute + layer_.all + (whole ? 0 : flow - layer_.alias) - layer_.gone + attention +
             twice + (kept ? held : late),
         "W + O + one layer - the MLP's + 2 score gradients + G but q, k, v and embeddings");
    push("first_qkv_backward", "q, k, v backward of the first layer",
         compute + layer_.before_attention + (whole ? 0 : flow - layer_.alias) +
             layer_.qkv_gradients + flow +
             (kept ? held + state_.lower_gradients : all - state_.embedding_gradients),
         "W + O + the first norm's + gradients of q, k, v and their input + G");
    if (stage_.first) {
      push("embedding_backward", "embedding backward",
           compute + (kept ? held + state_.embedding_gradients : all) + tied + std::max(flow, tied),
           "W + O + G + the embedding's gradient and its sum with a tied head's");
    }
  }

  void push(std::string_view key, std::string_view title, Integer bytes, std::string_view formula) {
    r_.moments.push_back({key, title, bytes, formula});
  }
  void finish() {
    for (size_t i = 1; i < r_.moments.size(); ++i) {
      if (r_.moments[i].bytes > r_.moments[r_.peak_moment].bytes) r_.peak_moment = i;
    }
  }

  // Rounding tensor by tensor; segments as if equal sizes packed alone. What has no known shape is
  // taken as one block.
  void allocator() {
    constexpr Integer kMiBytes = Integer{1} << 20;
    Integer small = 0, known = 0;
    const auto take = [&](Integer size, Integer count) {
      if (size <= 0 || count <= 0) return;
      const Integer block = allocator_round(size);
      r_.rounded += block * count;
      known += size * count;
      if (block <= kMiBytes) {
        small += block * count;
      } else if (block < 10 * kMiBytes) {
        r_.reserved += ceil_div(count, std::max<Integer>(1, 20 * kMiBytes / block)) * 20 * kMiBytes;
      } else {
        r_.reserved += allocator_segment(size) * count;
      }
    };
    for (const auto& [size, count] : state_.blocks) take(size, count);
    if (!inference_ && c_.checkpoint == Checkpoint::kNone) {
      for (const ActivationTensor& row : layer_.rows) take(row.bytes, in_flight_);
    }
    const Integer rest = std::max<Integer>(0, r_.total - known);
    if (rest > 0) take(rest, 1);
    r_.reserved += ceil_div(small, 2 * kMiBytes) * 2 * kMiBytes;
  }

  const ModelSpec& m_;
  const TrainingConfig& c_;
  const Layer& layer_;
  const int64_t index_;
  Stage stage_;
  RankState state_;
  bool inference_ = false;
  Integer in_flight_ = 0, every_ = 1;
  Integer activations_ = 0;  // of the layers
  Integer recomputed_ = 0, logits_ = 0, buckets_ = 0, cublas_ = 0;
  bool has_cublas_ = false;
  StageResult r_;
};

}  // namespace

std::string_view group_key(Group group) {
  constexpr std::array<std::string_view, kGroupCount> kKeys{
      "parameters", "gradients", "optimizer_state", "activations", "logits", "workspace"};
  return kKeys[static_cast<size_t>(group)];
}

// Earlier stages take the remainder, one layer each.
int64_t stage_layers(int64_t layers, int64_t stages, int64_t index) {
  return layers / stages + (index < layers % stages ? 1 : 0);
}

// Layers whose activations a stage holds at once. 1F1B: the stage's own, for each micro-batch ahead
// of it. Interleaved (Narayanan et al. arXiv 2104.04473): 2 (p-k-1) + (v-1) p + 1 chunks, which on
// the first stage is L (1 + (p-1)/(p v)).
Integer layers_in_flight(int64_t layers, const TrainingConfig& c, int64_t index) {
  const int64_t own = stage_layers(layers, c.pp, index);
  if (c.pp == 1) return own;
  if (c.interleave == 1) return Integer{own} * std::min(c.pp - index, c.accumulate);
  const Integer chunk = ceil_div(own, c.interleave);
  const Integer ahead = Integer{2} * (c.pp - index - 1) + Integer{c.interleave - 1} * c.pp + 1;
  return chunk * std::min<Integer>(ahead, Integer{c.accumulate} * c.interleave);
}

MemoryEstimate estimate_memory(const ModelSpec& model, const TrainingConfig& given) {
  validate(model, given);
  TrainingConfig config = given;
  if (config.sequence == 0) config.sequence = std::max<int64_t>(1, model.context);
  const Layer layer = describe_layer(model, config);
  MemoryEstimate memory;
  const DeviceSpec* device = config.device.empty() ? nullptr : &find_device(config.device);
  for (int64_t index = 0; index < config.pp; ++index) {
    // The stages between behave alike but for what they hold in flight: the second holds most.
    StageBuilder builder(model, config, layer, index);
    if (device && device->nvidia) {
      const std::string& arch = device->architecture;
      builder.use_cublas(
          cublas_workspace(arch.rfind("Hopper", 0) == 0 || arch.rfind("Blackwell", 0) == 0));
    }
    StageResult stage = builder.build();
    memory.stage_totals.push_back(stage.total);
    const Integer peak = stage.moments[stage.peak_moment].bytes;
    if (index == 0 || stage.total > memory.total) {
      memory.rows = std::move(stage.rows);
      memory.groups = stage.groups;
      memory.total = stage.total;
      memory.rounded = stage.rounded;
      memory.reserved = stage.reserved;
      memory.worst_stage = static_cast<size_t>(index);
    }
    if (index == 0 || peak > memory.peak) {
      memory.moments = std::move(stage.moments);
      memory.peak = peak;
      memory.peak_moment = stage.peak_moment;
      memory.peak_stage = static_cast<size_t>(index);
    }
  }
  if (device && device->nvidia) memory.context = cuda_context();
  return memory;
}

}  // namespace tally::estimate
