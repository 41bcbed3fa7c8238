// SPDX-License-Identifier: Apache-2.0
// Every parameter tensor of a model: the one list that counts, shards, rounds and quantises.
#include "profiler/estimate/integer.h"

namespace tally::estimate {
namespace {

void add_norm(std::vector<ParameterTensor>& list, const ModelSpec& m, std::string_view name,
              int64_t width, int64_t copies, Part part) {
  list.push_back({name, "h", width, 0, copies, part, Shard::kReplicated, false});
  if (m.norm_bias)
    list.push_back({"norm.bias", "h", width, 0, copies, part, Shard::kReplicated, false});
}

void add_attention(std::vector<ParameterTensor>& list, const ModelSpec& m) {
  const int64_t h = m.d_model, q = m.q_width(), kv = m.kv_width();
  const auto linear = [&](std::string_view name, std::string_view formula, int64_t rows,
                          int64_t columns, int64_t copies, Shard shard) {
    list.push_back({name, formula, rows, columns, copies, Part::kBlock, shard, true});
  };
  const auto vector = [&](std::string_view name, std::string_view formula, int64_t rows,
                          int64_t copies, Shard shard) {
    list.push_back({name, formula, rows, 0, copies, Part::kBlock, shard, false});
  };
  if (m.fused_qkv) {
    linear("attention.qkv", "h(a + 2 kv)d", q + 2 * kv, h, 1, Shard::kTensor);
    if (m.qkv_bias) vector("attention.qkv.bias", "(a + 2 kv)d", q + 2 * kv, 1, Shard::kTensor);
  } else {
    linear("attention.q", "h a d", q, h, 1, Shard::kTensor);
    linear("attention.k, attention.v", "2 h kv d", kv, h, 2, Shard::kKeyValue);
    if (m.qkv_bias) {
      vector("attention.q.bias", "a d", q, 1, Shard::kTensor);
      vector("attention.k.bias, attention.v.bias", "2 kv d", kv, 2, Shard::kKeyValue);
    }
  }
  if (m.relative_positions) {
    linear("attention.relative_positions", "h a d", q, h, 1, Shard::kTensor);
    vector("attention.relative_positions.bias", "2 a d", q, 2, Shard::kTensor);
  }
  if (m.qk_norm) vector("attention.qk_norm", "2 d", m.head_dim, 2, Shard::kReplicated);
  linear("attention.out", "a d h", h, q, 1, Shard::kTensor);
  if (m.out_bias) vector("attention.out.bias", "h", h, 1, Shard::kReplicated);
}

void add_mlp(std::vector<ParameterTensor>& list, const ModelSpec& m) {
  const int64_t h = m.d_model, f = m.ffn, copies = m.experts > 0 ? m.experts : 1;
  const Shard shard = m.experts > 0 ? Shard::kExpert : Shard::kTensor;
  if (m.experts > 0) {
    list.push_back({"router", "h E", m.experts, h, 1, Part::kBlock, Shard::kReplicated, true});
  }
  if (m.mlp == Mlp::kGated) {
    list.push_back({"mlp.gate, mlp.up", "2 h f", f, h, 2 * copies, Part::kBlock, shard, true});
    if (m.mlp_bias) {
      list.push_back(
          {"mlp.gate.bias, mlp.up.bias", "2 f", f, 0, 2 * copies, Part::kBlock, shard, false});
    }
  } else {
    list.push_back({"mlp.up", "h f", f, h, copies, Part::kBlock, shard, true});
    if (m.mlp_bias) list.push_back({"mlp.up.bias", "f", f, 0, copies, Part::kBlock, shard, false});
  }
  list.push_back({"mlp.down", "f h", h, f, copies, Part::kBlock, shard, true});
  if (m.mlp_bias) {
    list.push_back({"mlp.down.bias", "h", h, 0, copies, Part::kBlock,
                    m.experts > 0 ? Shard::kExpert : Shard::kReplicated, false});
  }
}

}  // namespace

std::vector<ParameterTensor> parameter_tensors(const ModelSpec& m) {
  std::vector<ParameterTensor> list;
  if (!m.has_shape()) return list;
  list.reserve(24);
  const int64_t width = m.embedding_width > 0 ? m.embedding_width : m.d_model;
  list.push_back({"embedding", "V h", m.vocab, width, 1, Part::kEmbedding, Shard::kTensor, false});
  if (m.positions > 0) {
    list.push_back({"positions", "positions h", m.positions, m.d_model, 1, Part::kEmbedding,
                    Shard::kReplicated, false});
  }
  if (width != m.d_model) {
    list.push_back({"embedding.project_in", "e h", m.d_model, width, 1, Part::kEmbedding,
                    Shard::kReplicated, true});
  }
  add_attention(list, m);
  add_mlp(list, m);
  if (m.norms > 0) add_norm(list, m, "norm", m.d_model, m.norms, Part::kBlock);
  if (m.final_norm && m.final_norm_counted)
    add_norm(list, m, "final_norm", m.d_model, 1, Part::kHead);
  if (width != m.d_model) {
    list.push_back(
        {"head.project_out", "h e", width, m.d_model, 1, Part::kHead, Shard::kReplicated, true});
  }
  if (!m.tied)
    list.push_back({"head", "V h", m.vocab, width, 1, Part::kHead, Shard::kTensor, true});
  return list;
}

ParameterCount count_parameters(const ModelSpec& m) {
  ParameterCount count;
  Integer idle = 0;  // of the experts that a token does not pass
  for (const ParameterTensor& t : parameter_tensors(m)) {
    const Integer elements = t.elements();
    if (t.part == Part::kBlock) count.block += elements;
    count.total += t.part == Part::kBlock ? elements * m.layers : elements;
    if (t.shard == Shard::kExpert) idle += elements / m.experts * (m.experts - m.top_k) * m.layers;
    if (t.name == "embedding" || t.name == "positions" || t.name == "head")
      count.embedding += elements;
  }
  for (const GivenTensor& t : m.tensors) count.total += t.numel;
  count.computed = count.total;
  count.active = count.total - idle;
  if (m.given_parameters > 0) {
    count.total = m.given_parameters;
    count.active = m.given_active_parameters > 0 ? m.given_active_parameters
                   : count.computed > 0
                       ? static_cast<Integer>(static_cast<long double>(count.active) /
                                              static_cast<long double>(count.computed) *
                                              static_cast<long double>(m.given_parameters))
                       : m.given_parameters;
    if (m.experts == 0 && m.given_active_parameters == 0) count.active = count.total;
  } else if (m.given_active_parameters > 0) {
    count.active = m.given_active_parameters;
  }
  return count;
}

}  // namespace tally::estimate
