// SPDX-License-Identifier: Apache-2.0
// The presets (data/models.csv) and the structure each family gives to its dimensions.
#include <algorithm>
#include <cmath>

#include "profiler/core/error.h"
#include "profiler/estimate/integer.h"
#include "profiler/estimate/table_data.h"

namespace tally::embedded {
extern const std::string_view estimate_models;
}

namespace tally::estimate {
namespace {

struct Preset {
  ModelSpec model;
  std::vector<std::string> names;  // plain
};

const std::vector<Preset>& presets() {
  static const std::vector<Preset> all = [] {
    const CsvTable table("models.csv", embedded::estimate_models);
    std::vector<Preset> list;
    for (size_t row = 0; row < table.size(); ++row) {
      const auto whole = [&](const char* column) {
        return static_cast<int64_t>(table.number(row, column));
      };
      const std::string& arch = table.text(row, "arch");
      const bool published = arch != "unpublished";
      ModelSpec m = family_model(published ? arch : "gpt");
      m.family = arch;
      m.name = table.text(row, "slug");
      m.source = table.text(row, "source");
      m.note = table.text(row, "note");
      if (published) {
        m.layers = whole("layers");
        m.d_model = whole("d_model");
        m.heads = whole("heads");
        m.head_dim = whole("head_dim");
        m.kv_heads = whole("kv_heads");
        m.ffn = whole("ffn");
        m.vocab = whole("vocab");
        m.context = whole("ctx");
        m.experts = whole("experts");
        m.top_k = whole("top_k");
        m.tied = whole("tied") == 1;
        m.published_parameters = static_cast<Integer>(table.number(row, "published_params"));
        m.published_active_parameters = static_cast<Integer>(table.number(row, "published_active"));
        m.published_tolerance = table.number(row, "tol");
        complete(m, m.name + ": ");
      }
      Preset preset{m, {plain_name(m.name), plain_name(table.text(row, "name"))}};
      for (const std::string& alias : split(table.text(row, "aliases"), '|')) {
        if (!alias.empty()) preset.names.push_back(plain_name(alias));
      }
      list.push_back(std::move(preset));
    }
    return list;
  }();
  return all;
}

void need(int64_t value, const char* field, const std::string& context) {
  if (value <= 0) throw Error("{}{} must be at least 1, it is {}", context, field, value);
}

// Above these no product of dimensions leaves 128 bits; see also validate().
void limit(int64_t value, int64_t most, const char* field, const std::string& context) {
  if (value > most)
    throw Error("{}{} is {}, more than {} is not supported", context, field, value, most);
}

}  // namespace

const std::vector<ModelSpec>& model_presets() {
  static const std::vector<ModelSpec> models = [] {
    std::vector<ModelSpec> list;
    for (const Preset& preset : presets()) list.push_back(preset.model);
    return list;
  }();
  return models;
}

ModelSpec find_model(const std::string& name) {
  const std::string plain = plain_name(name);
  for (const Preset& preset : presets()) {
    if (std::find(preset.names.begin(), preset.names.end(), plain) != preset.names.end()) {
      return preset.model;
    }
  }
  throw Error("no model is called '{}'; nearest: {} (all: torchtally models)", name,
              join(nearest_models(name, 3), ", "));
}

std::vector<std::string> nearest_models(const std::string& name, size_t count) {
  std::vector<std::string> names;
  for (const Preset& preset : presets()) names.push_back(preset.model.name);
  return nearest(name, names, count);
}

ModelSpec family_model(const std::string& family) {
  ModelSpec m;
  m.family = family;
  if (family == "gpt") return m;
  if (family == "megatron") {
    m.final_norm_counted = false;
    return m;
  }
  if (family == "gopher") {
    m.relative_positions = true;
    m.fused_qkv = false;
    return m;
  }
  if (family == "llama" || family == "moe" || family == "palm") {
    m.norm_bias = m.qkv_bias = m.out_bias = m.mlp_bias = false;
    m.fused_qkv = m.masks_scores = false;
    m.mlp = Mlp::kGated;
    m.norm = Norm::kRmsNorm;
    m.softmax_fp32 = true;
    m.tied = false;
  }
  if (family == "palm") {
    m.norm = Norm::kLayerNorm;
    m.norms = 1;
    m.parallel_block = true;
    m.softmax_fp32 = false;
    m.tied = true;
    m.kv_heads = 1;
  }
  if (family == "moe") m.experts = 8, m.top_k = 2;
  if (family == "llama" || family == "moe" || family == "palm") return m;
  throw Error("--family: '{}' is none of gpt, llama, moe, palm, gopher, megatron", family);
}

void complete(ModelSpec& m, const std::string& context) {
  need(m.layers, "layers", context);
  need(m.d_model, "d_model", context);
  need(m.heads, "heads", context);
  need(m.vocab, "vocab", context);
  need(m.context, "context", context);
  if (m.head_dim == 0) {
    if (m.d_model % m.heads != 0) {
      throw Error("{}d_model {} is not divisible by {} heads; give head_dim", context, m.d_model,
                  m.heads);
    }
    m.head_dim = m.d_model / m.heads;
  }
  need(m.head_dim, "head_dim", context);
  if (m.kv_heads == 0) m.kv_heads = m.heads;
  need(m.kv_heads, "kv_heads", context);
  if (m.heads % m.kv_heads != 0) {
    throw Error("{}heads {} is not divisible by kv_heads {}", context, m.heads, m.kv_heads);
  }
  if (m.ffn == 0) m.ffn = 4 * m.d_model;
  need(m.ffn, "ffn", context);
  if (m.experts < 0) need(m.experts, "experts", context);
  if (m.experts > 0) {
    need(m.top_k, "top_k", context);
    if (m.top_k > m.experts) {
      throw Error("{}top_k {} is more than {} experts", context, m.top_k, m.experts);
    }
  }
  if ((m.family == "gpt" || m.family == "megatron") && m.positions == 0) m.positions = m.context;
  limit(m.layers, 100'000, "layers", context);
  limit(m.d_model, 10'000'000, "d_model", context);
  limit(m.heads, 1'000'000, "heads", context);
  limit(m.head_dim, 1'000'000, "head_dim", context);
  limit(m.ffn, 100'000'000, "ffn", context);
  limit(m.vocab, 1'000'000'000, "vocab", context);
  limit(m.context, 1'000'000'000, "context", context);
  limit(m.experts, 1'000'000, "experts", context);
}

}  // namespace tally::estimate
