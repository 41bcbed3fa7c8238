// SPDX-License-Identifier: Apache-2.0
// Reads the config.json of a Hugging Face checkpoint into a ModelSpec. Each model_type below is
// counted as its transformers implementation builds it (checked against it, biases and q/k norms
// included); a type that is not listed is refused rather than guessed.
#include <algorithm>
#include <fstream>
#include <iterator>
#include <limits>

#include <nlohmann/json.hpp>

#include "profiler/core/error.h"
#include "profiler/estimate/table_data.h"
#include "torchtally/estimate.h"

namespace tally::estimate {
namespace {

using Json = nlohmann::json;

class Fields {
 public:
  Fields(const Json& json, std::string file) : json_(json), file_(std::move(file)) {}

  const std::string& file() const { return file_; }
  bool has(const char* name) const { return json_.contains(name) && !json_[name].is_null(); }

  int64_t dimension(const char* name) const {
    if (!has(name)) throw Error("{}: field '{}' is missing", file_, name);
    const Json& value = json_[name];
    if (!value.is_number_integer()) {
      throw Error("{}: field '{}' must be a whole number, it is {}", file_, name, shown(value));
    }
    constexpr auto kMost = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    if (value.is_number_unsigned() && value.get<uint64_t>() > kMost) {
      throw Error("{}: field '{}' is too large: {}", file_, name, shown(value));
    }
    if (value.get<int64_t>() <= 0) {
      throw Error("{}: field '{}' must be positive, it is {}", file_, name, shown(value));
    }
    return value.get<int64_t>();
  }
  int64_t dimension(const char* name, int64_t otherwise) const {
    return has(name) ? dimension(name) : otherwise;
  }
  bool flag(const char* name, bool otherwise) const {
    if (!has(name)) return otherwise;
    if (!json_[name].is_boolean()) {
      throw Error("{}: field '{}' must be true or false, it is {}", file_, name,
                  shown(json_[name]));
    }
    return json_[name].get<bool>();
  }
  std::string word(const char* name, const std::string& otherwise) const {
    if (!has(name)) return otherwise;
    if (!json_[name].is_string()) {
      throw Error("{}: field '{}' must be a string, it is {}", file_, name, shown(json_[name]));
    }
    return json_[name].get<std::string>();
  }
  // A field whose presence with another value means an architecture that is not covered.
  void refuse(bool wrong, const char* name, const char* why) const {
    if (wrong) throw Error("{}: field '{}': {}", file_, name, why);
  }
  bool number_set(const char* name) const {
    if (!has(name)) return false;
    if (!json_[name].is_number()) {
      throw Error("{}: field '{}' must be a number or null, it is {}", file_, name,
                  shown(json_[name]));
    }
    return true;
  }
  double number(const char* name, double otherwise) const {
    return number_set(name) ? json_[name].get<double>() : otherwise;
  }
  bool list_empty(const char* name) const {
    if (!has(name)) return true;
    if (!json_[name].is_array()) {
      throw Error("{}: field '{}' must be a list, it is {}", file_, name, shown(json_[name]));
    }
    return json_[name].empty();
  }

 private:
  static std::string shown(const Json& value) {
    std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
    if (text.size() > 40) text = text.substr(0, 37) + "...";
    return text;
  }
  const Json& json_;
  std::string file_;
};

Mlp dense_activation(const Fields& fields, const char* name, const char* otherwise) {
  const std::string activation = fields.word(name, otherwise);
  if (activation == "gelu_new") return Mlp::kGeluNew;
  if (activation.rfind("gelu", 0) == 0) return Mlp::kGelu;
  if (activation == "relu") return Mlp::kRelu;
  throw Error("{}: field '{}' is '{}', covered are gelu... and relu", fields.file(), name,
              activation);
}

// The dimensions under the names that most architectures share.
void common_dimensions(const Fields& fields, ModelSpec& m) {
  m.vocab = fields.dimension("vocab_size");
  m.d_model = fields.dimension("hidden_size");
  m.layers = fields.dimension("num_hidden_layers");
  m.heads = fields.dimension("num_attention_heads");
  m.context = fields.dimension("max_position_embeddings");
}

void read_gpt2(const Fields& fields, ModelSpec& m) {
  m.vocab = fields.dimension("vocab_size");
  m.d_model = fields.dimension("n_embd");
  m.layers = fields.dimension("n_layer");
  m.heads = fields.dimension("n_head");
  m.context =
      fields.has("n_positions") ? fields.dimension("n_positions") : fields.dimension("n_ctx");
  m.positions = m.context;
  m.ffn = fields.dimension("n_inner", 4 * m.d_model);
  m.mlp = dense_activation(fields, "activation_function", "gelu_new");
  m.tied = fields.flag("tie_word_embeddings", true);
  m.masks_scores = false;  // transformers adds its mask to the scores
  fields.refuse(fields.flag("add_cross_attention", false), "add_cross_attention",
                "cross-attention is not covered");
}

void read_gpt_neox(const Fields& fields, ModelSpec& m) {
  common_dimensions(fields, m);
  m.ffn = fields.dimension("intermediate_size");
  m.mlp = dense_activation(fields, "hidden_act", "gelu");
  m.tied = fields.flag("tie_word_embeddings", false);
  m.parallel_block = fields.flag("use_parallel_residual", true);
  m.qkv_bias = m.out_bias = fields.flag("attention_bias", true);
  m.masks_scores = false;
  m.softmax_fp32 = true;
  // Part of each head rotates; read for the size of the tables of cosines only.
  const double part = fields.number("rotary_pct", 0.25);
  m.rotary_dim = std::max<int64_t>(
      1,
      static_cast<int64_t>(part * static_cast<double>(m.d_model / std::max<int64_t>(1, m.heads))));
}

void read_opt(const Fields& fields, ModelSpec& m) {
  common_dimensions(fields, m);
  m.ffn = fields.dimension("ffn_dim");
  m.positions = m.context + 2;  // OPT's table starts at an offset of 2
  m.embedding_width = fields.dimension("word_embed_proj_dim", m.d_model);
  m.mlp = dense_activation(fields, "activation_function", "relu");
  m.tied = fields.flag("tie_word_embeddings", true);
  m.fused_qkv = m.masks_scores = false;
  m.softmax_fp32 = true;
  m.qkv_bias = m.out_bias = m.mlp_bias = fields.flag("enable_bias", true);
  const bool affine = fields.flag("layer_norm_elementwise_affine", true);
  m.norm_bias = affine;
  if (!affine) m.norms = 0;
  m.final_norm = affine && fields.flag("do_layer_norm_before", true) &&
                 !fields.flag("_remove_final_layer_norm", false);
  m.note = fields.flag("do_layer_norm_before", true)
               ? ""
               : "norms stand behind the blocks (post-LN); activations are counted as in front";
}

void read_llama_like(const Fields& fields, ModelSpec& m, const std::string& type) {
  const std::string structure = type == "mixtral" || type == "qwen3_moe" ? "moe" : "llama";
  m = family_model(structure);
  common_dimensions(fields, m);
  const bool old_llama = type == "llama" || type == "phi3";
  // null stands for "as many as heads"; only the first Llama configs leave the field out.
  m.kv_heads = fields.has("num_key_value_heads") || !old_llama
                   ? fields.dimension("num_key_value_heads")
                   : m.heads;
  const bool gemma = type == "gemma" || type == "gemma2";
  if (fields.has("head_dim")) {
    m.head_dim = fields.dimension("head_dim");
  } else if (gemma) {
    m.head_dim = 256;  // the default of transformers
  } else if (type == "qwen3") {
    m.head_dim = 128;
  }
  m.ffn = fields.dimension("intermediate_size");
  m.tied = fields.flag("tie_word_embeddings", gemma);
  const bool attention_bias = fields.flag("attention_bias", false);
  if (type == "llama") m.mlp_bias = fields.flag("mlp_bias", false);
  if (type == "llama" || type == "qwen3" || type == "qwen3_moe" || gemma) {
    m.qkv_bias = m.out_bias = attention_bias;
  }
  if (type == "qwen2") m.qkv_bias = true;
  m.qk_norm = type == "qwen3" || type == "qwen3_moe";
  m.fused_qkv = m.fused_gate_up = type == "phi3";
  if (type == "mixtral") {
    m.experts = fields.dimension("num_local_experts");
    m.top_k = fields.dimension("num_experts_per_tok");
  }
  if (type == "qwen3_moe") {
    m.experts = fields.has("num_experts") ? fields.dimension("num_experts")
                                          : fields.dimension("num_local_experts");
    m.top_k = fields.dimension("num_experts_per_tok");
    m.ffn = fields.dimension("moe_intermediate_size");
    fields.refuse(!fields.list_empty("mlp_only_layers"), "mlp_only_layers",
                  "dense layers between are not covered");
    fields.refuse(fields.dimension("decoder_sparse_step", 1) != 1, "decoder_sparse_step",
                  "dense layers between are not covered");
  }
  m.fp32_norm_scale = gemma;
  if (type == "gemma2") {
    m.norms = 4;
    m.score_softcap = fields.number_set("attn_logit_softcapping");
    m.logit_softcap = fields.number_set("final_logit_softcapping");
  }
  if (fields.has("sliding_window") && fields.flag("use_sliding_window", true)) {
    m.note = "sliding-window attention is counted with the full square of scores";
  }
}

}  // namespace

namespace {

GivenTensor read_tensor(const Json& entry, const std::string& where) {
  if (!entry.is_object()) throw Error("{}: an object with a shape is expected", where);
  const Fields fields(entry, where);
  if (!fields.has("shape") || !entry["shape"].is_array()) {
    throw Error("{}: field 'shape' must be a list of whole numbers", where);
  }
  GivenTensor t;
  t.numel = 1;
  std::vector<int64_t> shape;
  for (const Json& size : entry["shape"]) {
    if (!size.is_number_unsigned() || size.get<uint64_t>() > 1'000'000'000'000) {
      throw Error("{}: field 'shape' must be a list of whole numbers", where);
    }
    shape.push_back(size.get<int64_t>());
    t.numel *= shape.back();
    if (t.numel > Integer{1'000'000'000'000'000'000}) throw Error("{}: too many elements", where);
  }
  t.rows = static_cast<int64_t>(t.numel);
  if (shape.size() >= 2 && t.numel > 0) {
    t.rows = static_cast<int64_t>(t.numel / shape.back());
    t.columns = static_cast<int64_t>(t.numel / shape[shape.size() - 2]);
  }
  t.element_bytes = fields.dimension("element_bytes", 0);
  if (t.element_bytes > 64) throw Error("{}: field 'element_bytes' is too large", where);
  t.trainable = fields.flag("trainable", true);
  return t;
}

// A family of ours and its dimensions, named as the flags of the command line.
ModelSpec model_from_dimensions(const Json& json, const std::string& file) {
  const Fields fields(json, file);
  ModelSpec m = family_model(fields.word("family", ""));
  m.name = fields.word("name", file);
  m.source = "its dimensions";
  m.layers = fields.dimension("layers");
  m.d_model = fields.dimension("d_model");
  m.heads = fields.dimension("heads");
  m.vocab = fields.dimension("vocab");
  m.context = fields.dimension("context");
  m.kv_heads = fields.dimension("kv_heads", 0);
  m.head_dim = fields.dimension("head_dim", 0);
  m.ffn = fields.dimension("ffn", 0);
  m.experts = fields.dimension("experts", m.experts);
  m.top_k = fields.dimension("top_k", m.top_k);
  m.tied = fields.flag("tied", m.tied);
  complete(m, file + ": ");
  return m;
}

ModelSpec model_from_shapes(const Json& json, const std::string& file) {
  const Fields fields(json, file);
  ModelSpec m;
  m.name = fields.word("name", file);
  m.family = "shapes of the parameters";
  m.source = "the shapes of its parameters";
  size_t number = 0;
  for (const Json& entry : json["parameters"]) {
    m.tensors.push_back(read_tensor(entry, fmt::format("{}: parameter {}", file, number++)));
  }
  if (m.tensors.empty()) throw Error("{}: field 'parameters' is empty", file);
  return m;
}

}  // namespace

std::vector<std::string> config_model_types() {
  return {"gpt2",  "gpt_neox", "opt",       "llama", "mistral", "mixtral",
          "qwen2", "qwen3",    "qwen3_moe", "gemma", "gemma2",  "phi3"};
}

ModelSpec model_from_config(std::string_view text, const std::string& file) {
  Json json;
  try {
    json = Json::parse(text.begin(), text.end());
  } catch (const Json::parse_error& error) {
    throw Error("{} is no JSON (byte {})", file, error.byte);
  }
  if (!json.is_object()) throw Error("{}: a JSON object is expected", file);
  const Fields fields(json, file);
  if (!fields.has("model_type") && fields.has("family")) return model_from_dimensions(json, file);
  if (!fields.has("model_type") && fields.has("parameters") && json["parameters"].is_array()) {
    return model_from_shapes(json, file);
  }
  if (!fields.has("model_type")) throw Error("{}: field 'model_type' is missing", file);
  const std::string type = fields.word("model_type", "");
  ModelSpec m;
  if (type == "gpt2") {
    read_gpt2(fields, m);
  } else if (type == "gpt_neox") {
    read_gpt_neox(fields, m);
  } else if (type == "opt") {
    read_opt(fields, m);
  } else {
    const std::vector<std::string> types = config_model_types();
    bool known = false;
    for (const std::string& each : types) known = known || each == type;
    if (!known) {
      throw Error("{}: field 'model_type' is '{}', covered are {}", file, type, join(types, ", "));
    }
    read_llama_like(fields, m, type);
  }
  m.name = file;
  m.family = type;
  m.source = "config.json, as transformers builds a " + type + " for causal language modelling";
  complete(m, file + ": ");
  return m;
}

ModelSpec model_from_config_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error("cannot open {}", path);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (file.bad()) throw Error("cannot read {}", path);
  return model_from_config(text, path);
}

}  // namespace tally::estimate
