// SPDX-License-Identifier: Apache-2.0
// What autograd keeps of one layer, tensor by tensor, by the save rules of PyTorch's operators:
// Linear keeps its input, LayerNorm its input and two statistics, softmax its output, bmm both
// operands, GELU and SiLU their input, a product an operand whose partner needs a gradient; adding,
// scaling, viewing and additive masks keep nothing. Storage that two nodes share counts once.
#include <algorithm>

#include "profiler/estimate/integer.h"
#include "profiler/estimate/precision.h"

namespace tally::estimate {
namespace {

constexpr std::string_view kRules = "save rules of torch autograd (derivatives.yaml), measured";
constexpr std::string_view kKorthikanti = "Korthikanti et al. arXiv 2205.05198 section 4.1";
constexpr std::string_view kLlamaNorm = "RMSNorm as written in Llama's code, measured";
constexpr std::string_view kDropoutRule = "native_dropout keeps one byte an element on CUDA";

struct NormNames {
  std::string_view input, normed, statistics, scale;
  std::string_view input_title, normed_title, statistics_title, scale_title;
};
#define TALLY_NORM(key, title)                                                           \
  NormNames {                                                                            \
    key ".input", key ".normed", key ".statistics", key ".scale", "input of the " title, \
        "normed by the " title ", before its scale", "statistics of the " title,         \
        "1 + scale of the " title ", made anew in fp32"                                  \
  }
constexpr NormNames kFirst = TALLY_NORM("norm1", "first norm");
constexpr NormNames kSecond = TALLY_NORM("norm2", "second norm");
constexpr NormNames kBehindAttention = TALLY_NORM("attention.norm", "norm behind attention");
constexpr NormNames kBehindMlp = TALLY_NORM("mlp.norm", "norm behind the MLP");
constexpr NormNames kFinal = TALLY_NORM("final_norm", "final norm");
#undef TALLY_NORM

class LayerBuilder {
 public:
  LayerBuilder(const ModelSpec& model, const TrainingConfig& config)
      : m_(model), c_(config), e_(compute_bytes(config.dtype)), r_(residual_bytes(config.dtype)) {
    const Integer sequence = config.sequence > 0 ? config.sequence : model.context;
    local_ = ceil_div(sequence, config.cp);
    tokens_ = local_ * config.batch;
    scores_ = tokens_ * sequence * model.heads;
    rows_.reserve(24);
  }

  std::vector<ActivationTensor> layer() {
    const int qkv = m_.fused_qkv ? 1 : 3;
    const int mlp_readers = m_.mlp == Mlp::kGated && !m_.fused_gate_up && m_.experts == 0 ? 2 : 1;
    norm(kFirst, false);
    if (m_.norms == 1) {
      linear_input("attention.input", "input of q, k, v and the MLP", qkv + mlp_readers, false);
    } else {
      linear_input("attention.input", "input of q, k, v", qkv, false);
    }
    attention();
    if (m_.norms == 4) norm(kBehindAttention, true);
    if (m_.norms != 1) {
      norm(kSecond, true);
      linear_input("mlp.input", m_.experts > 0 ? "input of the router" : "input of the MLP",
                   mlp_readers, true);
    }
    m_.experts > 0 ? experts() : mlp();
    if (m_.norms == 4) norm(kBehindMlp, true);
    return std::move(rows_);
  }

  std::vector<ActivationTensor> head() {
    if (c_.dropout > 0 && has_output_dropout()) {
      add("embedding.dropout", "mask of the embedding's dropout",
          mask_bytes(r_) * tokens_ * m_.d_model, "sbh", kDropoutRule);
    }
    if (rotary()) {
      const Integer width = m_.rotary_dim > 0 ? m_.rotary_dim : m_.head_dim;
      add("rotary", "cosines and sines, shared by the layers", 2 * r_ * local_ * width, "2 R s d");
    }
    if (m_.final_norm) norm(kFinal, false);
    add("head.input", "input of the head", e_ * tokens_ * m_.d_model, "E sbh");
    return std::move(rows_);
  }

 private:
  ActivationTensor& add(std::string_view key, std::string_view title, Integer bytes,
                        std::string_view formula, std::string_view source = kRules,
                        Region region = Region::kReplicated, bool gone = false) {
    rows_.push_back({key, title, bytes, formula, source, region, false, gone, false});
    return rows_.back();
  }

  bool rotary() const { return m_.positions == 0 && !m_.relative_positions; }
  bool has_output_dropout() const { return m_.norm == Norm::kLayerNorm; }
  // CUDA keeps one byte; the CPU kernel keeps its scaled noise in the input's own type.
  int mask_bytes(int input_bytes) const { return c_.cpu ? input_bytes : 1; }

  void norm(const NormNames& name, bool gone) {
    const Integer sbh = tokens_ * m_.d_model;
    const bool first = &name == &kFirst;
    const auto keep = [&](std::string_view key, std::string_view title, Integer bytes,
                          std::string_view formula, std::string_view source) -> ActivationTensor& {
      return add(key, title, bytes, formula, source, Region::kReplicated, gone);
    };
    if (m_.norm == Norm::kLayerNorm) {
      // In a parallel block both norms read the same tensor.
      if (&name != &kSecond || !m_.parallel_block) {
        keep(name.input, name.input_title, r_ * sbh, "R sbh", kRules).block_input = first;
      }
      // Mean and 1/deviation: fp32 on CUDA; the CPU kernel keeps them in the input's own type.
      keep(name.statistics, name.statistics_title, Integer{c_.cpu ? 2 * r_ : 8} * tokens_, "8 sb",
           kRules);
      return;
    }
    if (c_.fused_norm) {
      keep(name.input, name.input_title, r_ * sbh, "R sbh", kRules).block_input = first;
    } else {
      keep(name.input, name.input_title, 4 * sbh, "4 sbh", kLlamaNorm).block_input =
          first && r_ == 4;
      keep(name.normed, name.normed_title, (m_.fp32_norm_scale ? 4 : r_) * sbh,
           m_.fp32_norm_scale ? "4 sbh" : "R sbh", kLlamaNorm);
      if (m_.fp32_norm_scale) {
        keep(name.scale, name.scale_title, Integer{4} * m_.d_model, "4 h", kLlamaNorm);
      }
    }
    keep(name.statistics, name.statistics_title, Integer{4} * tokens_, "4 sb", kRules);
  }

  // What stands between a norm and the Linear layers behind it. Autocast casts an fp32 output for
  // each of them anew: its cache holds weights only.
  void linear_input(std::string_view key, std::string_view title, int readers, bool gone) {
    const Integer sbh = tokens_ * m_.d_model;
    add(key, title, e_ * sbh, "E sbh", kRules, Region::kReplicated, gone);
    if (is_autocast(c_.dtype) && readers > 1) {
      add(gone ? "mlp.input.casts" : "attention.input.casts",
          "16-bit casts for the other Linear layers that read it", e_ * (readers - 1) * sbh,
          "E (readers - 1) sbh", "torch.autocast caches casts of weights only, measured",
          Region::kReplicated, gone);
    }
  }

  void attention() {
    const Integer q = tokens_ * m_.q_width(), kv = tokens_ * m_.kv_width();
    const bool eager = c_.attention == Attention::kEager;
    if (m_.qk_norm) {
      if (!c_.fused_norm) {
        add("qk_norm.input", "input of the norms of q and k in fp32", 4 * (q + kv), "4 sb(a + kv)d",
            kLlamaNorm, Region::kTensorParallel);
        add("qk_norm.normed", "normed q and k, before their scale", e_ * (q + kv), "E sb(a + kv)d",
            kLlamaNorm, Region::kTensorParallel);
      } else {
        add("qk_norm.input", "input of the norms of q and k", e_ * (q + kv), "E sb(a + kv)d",
            kRules, Region::kTensorParallel);
      }
      add("qk_norm.statistics", "1/deviation of each head of q and k",
          4 * tokens_ * (m_.heads + m_.kv_heads), "4 sb(a + kv)", kRules, Region::kTensorParallel);
    }
    // Eager attention repeats k and v to all heads; so does what calls the memory-efficient kernel,
    // which takes fp32 on CUDA but no grouped queries.
    const bool repeats =
        eager || (c_.attention == Attention::kSdpa && is_fp32(c_.dtype) && !c_.cpu);
    add("attention.qkv", repeats ? "q, k, v (k and v for every head)" : "q, k, v",
        e_ * (q + 2 * (repeats ? q : kv)), repeats ? "3 E sb a d" : "E sb(a + 2 kv)d", kRules,
        Region::kTensorParallel);
    if (!repeats && m_.fused_qkv && rotary()) {
      add("attention.fused_qkv", "unrotated q and k behind the view that is v", e_ * (q + kv),
          "E sb(a + kv)d", "v is a view: its whole storage stays, measured",
          Region::kTensorParallel);
    }
    if (m_.relative_positions) {
      add("attention.relative_positions", "q with its second bias, projected positions",
          e_ * (q + local_ * m_.q_width()), "E(sb + s)a d", "Transformer-XL arXiv 1901.02860",
          Region::kTensorParallel);
    }
    if (eager) {
      eager_scores();
    } else {
      Integer rows = local_;
      // The memory-efficient kernel, which serves fp32 on CUDA, pads its rows to 32.
      if (is_fp32(c_.dtype) && !c_.cpu) rows = ceil_div(rows, 32) * 32;
      add("attention.logsumexp", "log-sum-exp of each row of scores",
          4 * rows * c_.batch * m_.heads, "4 a s b",
          "scaled_dot_product_attention saves q, k, v, out and logsumexp", Region::kTensorParallel)
          .attention_core = true;
    }
    add("attention.context", "input of the output projection", e_ * q, "E sb a d", kRules,
        Region::kTensorParallel, true);
    if (c_.dropout > 0 && has_output_dropout()) {
      add("attention.out.dropout", "mask of the output's dropout",
          mask_bytes(e_) * tokens_ * m_.d_model, "sbh", kDropoutRule, Region::kReplicated, true);
    }
  }

  void eager_scores() {
    const auto core = [&](std::string_view key, std::string_view title, Integer bytes,
                          std::string_view formula, bool gone = false) {
      add(key, title, bytes, formula, kKorthikanti, Region::kTensorParallel, gone).attention_core =
          true;
    };
    if (m_.score_softcap)
      core("attention.softcap", "tanh of the capped scores", e_ * scores_, "E a s^2 b");
    // Autocast and Llama's code take softmax in fp32; the product with v reads a 16-bit copy.
    const bool upcast = e_ == 2 && (is_autocast(c_.dtype) || m_.softmax_fp32);
    core("attention.softmax", upcast ? "softmax of the scores in fp32" : "softmax of the scores",
         (upcast ? 4 : e_) * scores_, upcast ? "4 a s^2 b" : "E a s^2 b");
    if (c_.dropout > 0) {
      core("attention.dropout", "mask of the scores' dropout",
           mask_bytes(upcast && m_.masks_scores ? 4 : e_) * scores_, "a s^2 b");
      core("attention.dropped", "scores after dropout, read by the product with v", e_ * scores_,
           "E a s^2 b", true);
    } else if (upcast) {
      core("attention.probabilities", "16-bit copy read by the product with v", 2 * scores_,
           "2 a s^2 b", true);
    }
    if (m_.masks_scores) {
      add("attention.mask", "boolean causal mask of the layer",
          local_ * (scores_ / tokens_ / m_.heads), "s^2", kRules);
    }
  }

  void mlp() {
    const Integer f = tokens_ * m_.ffn;
    const auto wide = [&](std::string_view key, std::string_view title, Integer bytes,
                          std::string_view formula) {
      add(key, title, bytes, formula, kRules, Region::kTensorParallel, true);
    };
    switch (m_.mlp) {
      case Mlp::kGated:
        wide("mlp.gate", "gate, input of its activation", e_ * f, "E sbf");
        if (!c_.fused_mlp) wide("mlp.activated", "activated gate", e_ * f, "E sbf");
        wide("mlp.up", "up, the other factor", e_ * f, "E sbf");
        wide("mlp.product", "product, input of down", e_ * f, "E sbf");
        break;
      case Mlp::kRelu:
        wide("mlp.relu", "output of ReLU, input of down", e_ * f, "E sbf");
        break;
      case Mlp::kGelu:
        wide("mlp.gelu_input", "input of GELU", e_ * f, "E sbf");
        wide("mlp.gelu_output", "output of GELU, input of down", e_ * f, "E sbf");
        break;
      case Mlp::kGeluNew: {
        // On CUDA autocast takes pow in fp32, and what follows with it.
        const int promoted = is_autocast(c_.dtype) && !c_.cpu ? 4 : e_;
        wide("mlp.gelu_input", "input of GELU's cube", promoted * f, "E sbf");
        wide("mlp.gelu_half", "half the input", e_ * f, "E sbf");
        wide("mlp.gelu_tanh", "tanh, and 1 + tanh", 2 * promoted * f, "2 E sbf");
        wide("mlp.gelu_output", "output of GELU, input of down", e_ * f, "E sbf");
        break;
      }
    }
    if (c_.dropout > 0 && has_output_dropout()) {
      add("mlp.dropout", "mask of the MLP's dropout", mask_bytes(e_) * tokens_ * m_.d_model, "sbh",
          kDropoutRule, Region::kReplicated, true);
    }
  }

  // k experts a token; a balanced router gives each expert's rank the same share.
  void experts() {
    const Integer routed = tokens_ * m_.top_k, f = routed * m_.ffn, h = routed * m_.d_model;
    const std::string_view source = "Mixtral's block in transformers, balanced router";
    const auto wide = [&](std::string_view key, std::string_view title, Integer bytes,
                          std::string_view formula) {
      add(key, title, bytes, formula, source, Region::kTensorParallel, true);
    };
    add("router.probabilities", "softmax of the router in fp32", 4 * tokens_ * m_.experts, "4 sbE",
        source, Region::kReplicated, true);
    add("router.routing", "indices, weights and token lists of the routing",
        tokens_ * (40 * m_.top_k + 4), "(40 k + 4) sb", source, Region::kReplicated, true);
    wide("experts.input", "tokens gathered for their experts", e_ * h, "E k sbh");
    wide("experts.gate", "gate, input of its activation", e_ * f, "E k sbf");
    if (!c_.fused_mlp) wide("experts.activated", "activated gate", e_ * f, "E k sbf");
    wide("experts.up", "up, the other factor", e_ * f, "E k sbf");
    wide("experts.product", "product, input of down", e_ * f, "E k sbf");
    wide("experts.output", "expert output, weighted by the router", e_ * h, "E k sbh");
  }

  const ModelSpec& m_;
  const TrainingConfig& c_;
  const int e_, r_;
  Integer local_ = 0, tokens_ = 0, scores_ = 0;
  std::vector<ActivationTensor> rows_;
};

}  // namespace

std::vector<ActivationTensor> layer_activations(const ModelSpec& model,
                                                const TrainingConfig& config) {
  if (!model.has_shape()) return {};
  return LayerBuilder(model, config).layer();
}

std::vector<ActivationTensor> head_activations(const ModelSpec& model,
                                               const TrainingConfig& config) {
  if (!model.has_shape()) return {};
  return LayerBuilder(model, config).head();
}

Integer layer_activation_bytes(const ModelSpec& model, const TrainingConfig& config) {
  Integer sum = 0;
  for (const ActivationTensor& row : layer_activations(model, config)) {
    const bool sharded = row.region == Region::kTensorParallel || config.sequence_parallel;
    sum += sharded ? ceil_div(row.bytes, config.tp) : row.bytes;
  }
  return sum;
}

namespace {
Integer logit_count(const ModelSpec& model, const TrainingConfig& config) {
  const Integer sequence = config.sequence > 0 ? config.sequence : model.context;
  return ceil_div(sequence, config.cp) * config.batch * ceil_div(model.vocab, config.tp);
}
}  // namespace

Integer logits_bytes(const ModelSpec& model, const TrainingConfig& config) {
  if (!model.has_shape()) return 0;
  const int softcap = model.logit_softcap ? compute_bytes(config.dtype) : 0;
  return logit_count(model, config) * (12 + softcap) + held_logits_bytes(model, config);
}

Integer held_logits_bytes(const ModelSpec& model, const TrainingConfig& config) {
  if (!model.has_shape() || !config.keep_logits) return 0;
  return logit_count(model, config) * compute_bytes(config.dtype);
}

double korthikanti_layer(double s, double b, double h, double a, double t, bool sequence_parallel,
                         Recompute recompute) {
  if (recompute == Recompute::kFull) return 2 * s * b * h;
  const double scores = recompute == Recompute::kSelective ? 0 : 5 * a * s / h;
  return s * b * h * ((sequence_parallel ? 34 / t : 10 + 24 / t) + scores / t);
}

double lecture_notes_activations(double layers, double batch, double sequence, double width,
                                 double heads) {
  return layers * batch * sequence * (66 * width + 9 * heads * sequence);
}

double every_output_activations(double layers, double batch, double sequence, double width,
                                double heads) {
  return 4 * layers * batch * sequence * (18 * width + 2 * heads * sequence);
}

double interleave_factor(double stages, double chunks) {
  return 1 + (stages - 1) / (stages * chunks);
}

}  // namespace tally::estimate
