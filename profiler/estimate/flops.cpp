// SPDX-License-Identifier: Apache-2.0
// FLOPs of one step, operator by operator, and the published ways to count them beside it.
// A multiply-accumulate is 2 FLOPs; element-wise work, softmax and norms count 0, as in
// torch.utils.flop_counter. Backward of a matrix product is two products of the same size.
#include <algorithm>

#include "profiler/estimate/integer.h"
#include "profiler/estimate/published_flops.h"

namespace tally::estimate {

Integer matmul_flops(Integer m, Integer k, Integer n) { return 2 * m * k * n; }
Integer bmm_flops(Integer batch, Integer m, Integer k, Integer n) { return 2 * batch * m * k * n; }
Integer sdpa_forward_flops(Integer batch, Integer heads, Integer queries, Integer keys,
                           Integer head_dim, Integer value_dim) {
  return bmm_flops(batch * heads, queries, head_dim, keys) +
         bmm_flops(batch * heads, queries, keys, value_dim);
}
// Five products: the scores again, and the gradients of v, of the scores, of q and of k.
Integer sdpa_backward_flops(Integer batch, Integer heads, Integer queries, Integer keys,
                            Integer head_dim, Integer value_dim) {
  return 3 * bmm_flops(batch * heads, queries, head_dim, keys) +
         2 * bmm_flops(batch * heads, queries, keys, value_dim);
}
Integer convolution_flops(Integer batch, Integer in_channels_per_group, Integer out_channels,
                          const std::vector<Integer>& kernel, const std::vector<Integer>& output) {
  Integer flops = 2 * batch * out_channels * in_channels_per_group;
  for (const Integer k : kernel) flops *= k;
  for (const Integer o : output) flops *= o;
  return flops;
}
Integer vector_sum_flops(Integer n) { return n; }
Integer dot_product_flops(Integer n) { return n > 0 ? 2 * n - 1 : 0; }

double lecture_forward(double batch, double layers, double sequence, double width, double heads) {
  const auto t = published::lecture_terms(batch, layers, sequence, width, heads);
  return t.linear + t.attention + t.softmax;
}
double kaplan_forward_per_token(double layers, double width, double context) {
  return published::kaplan_forward_per_token(layers, width, 4 * width, width, context);
}
double chinchilla_forward(const ModelSpec& m, double sequence, bool embeddings, bool logits) {
  return published::chinchilla_forward<double>(m, sequence, embeddings, logits);
}
double palm_per_token(double parameters, double layers, double heads, double head_dim,
                      double sequence) {
  return published::palm_per_token(parameters, layers, heads, head_dim, sequence);
}
double megatron_step(double batch, double sequence, double layers, double width, double vocab,
                     Recompute recompute) {
  return published::megatron_step(batch, sequence, layers, width, vocab, recompute);
}
double model_flops_utilisation(double tokens_per_second, double flops_per_token, double peak,
                               double count) {
  return tokens_per_second * flops_per_token / (peak * count);
}
double training_days(double parameters, double tokens, double count, double flops_per_second,
                     double k) {
  return k * parameters * tokens / (count * flops_per_second) / 86400;
}

namespace {

class FlopBuilder {
 public:
  FlopBuilder(const ModelSpec& m, const TrainingConfig& c) : m_(m), c_(c) {
    s_ = c.sequence > 0 ? c.sequence : m.context;
    tokens_ = s_ * c.batch * c.accumulate * c.dp;
    const std::string recipe = resolve_recipe(c);
    frozen_ = recipe == "lora" || recipe == "qlora";
    inference_ = recipe == "inference";
  }

  FlopEstimate build() {
    FlopEstimate f;
    f.tokens = tokens_;
    if (m_.has_shape()) {
      operators();
      for (const OperatorRow& row : rows_) {
        f.forward += row.forward;
        f.backward += row.backward;
        f.counter_forward += row.counter_forward;
        f.counter_backward += row.counter_backward;
      }
      if (!inference_) {
        if (c_.checkpoint == Checkpoint::kSelective)
          f.recompute = core_;
        else if (c_.checkpoint != Checkpoint::kNone)
          f.recompute = blocks_;  // the head is not run again
      }
      f.counter_backward += f.recompute;  // the counter sees it where it happens
      f.operators = std::move(rows_);
    }
    if (!m_.tensors.empty()) return f;  // how often a step uses a parameter is not known
    const ParameterCount count = count_parameters(m_);
    f.six_nd = 6 * count.active * tokens_;
    if (!m_.has_shape()) {
      f.forward = 2 * count.active * tokens_;
      f.backward = inference_ ? 0 : 2 * f.forward;
      f.counter_forward = f.forward;
      f.counter_backward = f.backward;
    }
    if (!inference_) {
      const StateBytes state = trained(count);
      f.optimizer = bytes_of(state.gradients, find_optimizer(c_.optimizer).flops);
    }
    f.step = f.forward + f.backward + f.recompute + f.optimizer;
    methods(f, count);
    return f;
  }

 private:
  // Trained elements, in `gradients`.
  StateBytes trained(const ParameterCount& count) const {
    StateBytes s;
    s.gradients = count.total;
    if (frozen_ && m_.has_shape())
      s.gradients = state_bytes(m_, c_).gradients / 4;  // fp32 adapters
    return s;
  }

  // A Linear from `in` to `out` features; `times` of them a token in every layer (or once).
  void linear(std::string_view key, std::string_view title, std::string_view formula, Integer in,
              Integer out, Integer layers, bool block) {
    const Integer forward = matmul_flops(tokens_, in, out) * layers;
    // A frozen weight needs no gradient of its own.
    const Integer backward = inference_ ? 0 : frozen_ ? forward : 2 * forward;
    rows_.push_back({key, title, formula, forward, backward, forward, backward});
    if (block) blocks_ += forward;
  }

  void product(std::string_view key, std::string_view title, std::string_view formula) {
    const Integer sequences = tokens_ / s_, width = m_.q_width();
    const Integer full = bmm_flops(sequences, s_, width, s_) * m_.layers;
    // Below the diagonal: s (s + 1) / 2 of s^2 scores.
    const Integer forward = c_.causal_half ? sequences * s_ * (s_ + 1) * width * m_.layers : full;
    const Integer backward = inference_ ? 0 : 2 * forward;
    const bool fused = c_.attention != Attention::kEager;  // its backward makes the scores again
    rows_.push_back({key, title, formula, forward, backward, full,
                     inference_ ? 0
                     : fused    ? 5 * full / 2
                                : 2 * full});
    blocks_ += forward;
    core_ += forward;
  }

  void operators() {
    const Integer h = m_.d_model, q = m_.q_width(), kv = m_.kv_width(), L = m_.layers;
    linear("qkv", "q, k, v projections", "2 T h (a + 2 kv) d L", h, q + 2 * kv, L, true);
    product("scores", "scores q k^T", c_.causal_half ? "T (s + 1) a d L" : "2 T s a d L");
    product("context", "scores times v", c_.causal_half ? "T (s + 1) a d L" : "2 T s a d L");
    linear("attention_out", "output projection", "2 T a d h L", q, h, L, true);
    if (m_.experts > 0) linear("router", "router", "2 T h E L", h, m_.experts, L, true);
    const Integer matrices = m_.mlp == Mlp::kGated ? 3 : 2;
    const Integer experts = m_.experts > 0 ? m_.top_k : 1;
    linear("mlp", m_.experts > 0 ? "MLP of the chosen experts" : "MLP",
           m_.experts > 0          ? "2 T k 3 h f L"
           : m_.mlp == Mlp::kGated ? "2 T 3 h f L"
                                   : "2 T 2 h f L",
           h, matrices * m_.ffn * experts, L, true);
    const Integer width = m_.embedding_width > 0 ? m_.embedding_width : m_.d_model;
    if (width != h)
      linear("projections", "embedding projections", "4 T e h", h, 2 * width, 1, false);
    linear("head", "head (logits)", "2 T h V", width, m_.vocab, 1, false);
    if (frozen_) {
      Integer adapters = 0;
      const StateBytes state = state_bytes(m_, c_);
      adapters = state.gradients / 4;
      rows_.push_back({"adapters", "LoRA adapters", "2 T r (d_in + d_out)", 2 * tokens_ * adapters,
                       4 * tokens_ * adapters, 2 * tokens_ * adapters, 4 * tokens_ * adapters});
      blocks_ += 2 * tokens_ * adapters;
    }
  }

  void methods(FlopEstimate& f, const ParameterCount& count) {
    const auto add = [&](std::string_view key, std::string_view title, std::string_view formula,
                         std::string_view leaves_out, std::string_view source, Integer step) {
      f.methods.push_back({key, title, formula, leaves_out, source, step});
    };
    const Integer forward_backward = f.forward + f.backward;
    add("exact", "this program, by operators", "sum of matrix products, backward twice forward",
        "element-wise work, softmax, norms, the optimizer", "torch.utils.flop_counter conventions",
        forward_backward);
    add("six_nd", "6 N D", "6 x active parameters x tokens",
        "attention scores; counts embedding rows as products",
        "Kaplan et al. arXiv 2001.08361 section 2.1 (the lecture credits Hoffmann et al.)",
        f.six_nd);
    if (!m_.has_shape()) return;
    const Integer L = m_.layers, h = m_.d_model, sequences = tokens_ / s_;
    const Integer f_active = Integer{m_.ffn} * (m_.experts > 0 ? m_.top_k : 1);
    const Integer kaplan_n = 2 * h * L * (2 * Integer{m_.q_width()} + f_active);
    add("kaplan", "Kaplan C = 6 N D", "6 x 2 d L (2 d_attn + f) x tokens",
        "embeddings, head, attention scores, a third MLP matrix", "arXiv 2001.08361 section 2.1",
        6 * kaplan_n * tokens_);
    add("kaplan_attention", "Kaplan with its context term", "3 (2 N + 2 L s d_attn) x tokens",
        "head; half of the attention scores", "arXiv 2001.08361 Table 1",
        3 * tokens_ *
            published::kaplan_forward_per_token<Integer>(L, h, f_active, m_.q_width(), s_));
    add("chinchilla", "Chinchilla Appendix F",
        "3 (2sVd + L(6sdq + 4s^2q + 3as^2 + 2sqd + 4sdf) + 2sdV)",
        "a third MLP matrix; counts the embedding as a product", "arXiv 2203.15556 Appendix F",
        3 * sequences * published::chinchilla_forward<Integer>(m_, s_, true, true));
    add("chinchilla_layers", "Chinchilla, layers only", "the same without both 2sVd",
        "embedding and head; reproduces the paper's Table A4", "arXiv 2203.15556 Table A4",
        3 * sequences * published::chinchilla_forward<Integer>(m_, s_, false, false));
    add("palm", "PaLM", "(6 N + 12 L a d s) x tokens",
        "nothing of the products; counts embedding rows as products", "arXiv 2204.02311 Appendix B",
        tokens_ * published::palm_per_token<Integer>(count.active, L, m_.heads, m_.head_dim, s_));
    add("megatron", "Megatron without recomputation", "72 B s L h^2 (1 + s/6h + V/12Lh)",
        "anything but a 4h GELU MLP with full heads", "arXiv 2104.04473 section 3.2",
        published::megatron_step<Integer>(sequences, s_, L, h, m_.vocab, Recompute::kNone));
    const auto terms = published::lecture_terms<Integer>(sequences, L, s_, h, m_.heads);
    add("lecture", "the lecture", "3 BL(24 N D^2 + 4 N^2 D + 3 H N^2)",
        "head; assumes a 4h GELU MLP and full heads",
        "lecture \"Deep Learning at Scale for the GPU poor\"",
        3 * (terms.linear + terms.attention + terms.softmax));
    f.lecture_terms = {{"BL 24 N D^2 (Linear layers)", terms.linear},
                       {"BL 4 N^2 D (scores and their product with v)", terms.attention},
                       {"BL 3 H N^2 (softmax: subtract, exponential, divide)", terms.softmax}};
  }

  const ModelSpec& m_;
  const TrainingConfig& c_;
  Integer s_ = 0, tokens_ = 0, blocks_ = 0, core_ = 0;
  bool frozen_ = false, inference_ = false;
  std::vector<OperatorRow> rows_;
};

}  // namespace

FlopEstimate estimate_flops(const ModelSpec& model, const TrainingConfig& config) {
  validate(model, config);
  return FlopBuilder(model, config).build();
}

}  // namespace tally::estimate
