// SPDX-License-Identifier: Apache-2.0
// Published FLOP formulas over any number type: exact integers for the table, doubles for papers'
// arguments that are no integers. All coefficients are whole, so both agree. Internal.
#pragma once

#include "torchtally/estimate.h"

namespace tally::estimate::published {

template <typename T>
struct LectureTerms {
  T linear, attention, softmax;
};

// One forward of BL(24 N D^2 + 4 N^2 D + 3 H N^2): q, k, v, out 8 D^2 and a 4D MLP 16 D^2 a token.
template <typename T>
LectureTerms<T> lecture_terms(T batch, T layers, T sequence, T width, T heads) {
  const T bl = batch * layers;
  return {bl * 24 * sequence * width * width, bl * 4 * sequence * sequence * width,
          bl * 3 * heads * sequence * sequence};
}

// 2 N + 2 L n_ctx d_attn: the paper counts the scores, not their product with v.
template <typename T>
T kaplan_forward_per_token(T layers, T width, T ffn, T attention_width, T context) {
  return 2 * (2 * width * layers * (2 * attention_width + ffn)) +
         2 * layers * context * attention_width;
}

template <typename T>
T chinchilla_forward(const ModelSpec& m, T s, bool embeddings, bool logits) {
  const T d = static_cast<T>(m.d_model), q = static_cast<T>(m.q_width()),
          a = static_cast<T>(m.heads),
          f = static_cast<T>(m.ffn) * static_cast<T>(m.experts > 0 ? m.top_k : 1),
          V = static_cast<T>(m.vocab), L = static_cast<T>(m.layers);
  const T layer =
      6 * s * d * q + 2 * s * s * q + 3 * a * s * s + 2 * s * s * q + 2 * s * q * d + 4 * s * d * f;
  return (embeddings ? 2 * s * V * d : T{0}) + L * layer + (logits ? 2 * s * d * V : T{0});
}

template <typename T>
T palm_per_token(T parameters, T layers, T heads, T head_dim, T sequence) {
  return 6 * parameters + 12 * layers * heads * head_dim * sequence;
}

// 72 B s L h^2 (1 + s/6h + V/12Lh); full recomputation runs the layers a fourth time (96, V/16Lh),
// selective only the scores again (s/3h).
template <typename T>
T megatron_step(T batch, T sequence, T layers, T width, T vocab, Recompute recompute) {
  const T linear = batch * sequence * layers * width * width;
  const T attention = batch * sequence * sequence * layers * width;
  const T head = 6 * batch * sequence * width * vocab;
  if (recompute == Recompute::kFull) return 96 * linear + 16 * attention + head;
  return 72 * linear + (recompute == Recompute::kSelective ? 24 : 12) * attention + head;
}

}  // namespace tally::estimate::published
