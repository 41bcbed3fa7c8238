// SPDX-License-Identifier: Apache-2.0
#include "tests/estimate/reference_functions.h"

#include "torchtally/estimate.h"

namespace tally::estimate::testing {
namespace {

double real(Integer value) { return static_cast<double>(value); }
int64_t whole(const Call& call, size_t index) { return static_cast<int64_t>(call.number(index)); }
Integer large(const Call& call, size_t index) { return static_cast<Integer>(call.number(index)); }

ModelSpec spec(const std::string& family, int64_t layers, int64_t width, int64_t heads,
               int64_t vocab, int64_t context) {
  ModelSpec m = family_model(family);
  m.name = family;
  m.layers = layers;
  m.d_model = width;
  m.heads = heads;
  m.vocab = vocab;
  m.context = context;
  return m;
}

// p_moe(L, h, a, kv, f, V, E, k)
ModelSpec moe(const Call& call) {
  ModelSpec m = spec("moe", whole(call, 0), whole(call, 1), whole(call, 2), whole(call, 5), 2048);
  m.kv_heads = whole(call, 3);
  m.ffn = whole(call, 4);
  m.experts = whole(call, 6);
  m.top_k = whole(call, 7);
  complete(m);
  return m;
}

// p_gopher(L, h, a, head size, V, f)
ModelSpec gopher(int64_t layers, int64_t width, int64_t heads, int64_t head_dim, int64_t vocab,
                 int64_t ffn) {
  ModelSpec m = spec("gopher", layers, width, heads, vocab, 2048);
  m.head_dim = head_dim;
  m.ffn = ffn;
  complete(m);
  return m;
}

Dtype dtype_of(const std::string& name) {
  return name == "fp32" ? Dtype::kFp32 : name == "bf16" ? Dtype::kBf16 : Dtype::kAmpBf16;
}

// Bytes per token and channel of one layer, without what the papers leave out: statistics, masks,
// log-sum-exp, and autocast's further casts of one input.
double layer_per_value(const ModelSpec& m, const TrainingConfig& config) {
  double sum = 0;
  for (const ActivationTensor& row : layer_activations(m, config)) {
    if (row.key.find(".statistics") != std::string_view::npos || row.key == "attention.mask" ||
        row.key == "attention.logsumexp" || row.key == "attention.input.casts" ||
        row.key == "mlp.input.casts") {
      continue;
    }
    sum += real(row.bytes);
  }
  return sum /
         (static_cast<double>(config.batch * config.sequence) * static_cast<double>(m.d_model));
}

// A shape with a s / h as asked: heads of one channel each would do, but keep it whole.
void shape_for_scores(ModelSpec& m, TrainingConfig& config, double as_h) {
  m.d_model = 64;
  m.heads = 4;
  config.sequence = static_cast<int64_t>(as_h * 64 / 4);
  m.context = config.sequence;
}

// act_gpt(precision, attention, dropout, a s / h)
double act_gpt(const Call& call) {
  TrainingConfig config;
  config.dtype = dtype_of(call.positional.at(0).text());
  config.attention =
      call.positional.at(1).text() == "eager" ? Attention::kEager : Attention::kFlash;
  config.dropout = call.positional.at(2).flag() ? 0.1 : 0;
  ModelSpec m = spec("gpt", 1, 64, 4, 100, 1);
  shape_for_scores(m, config, call.number(3));
  complete(m);
  return layer_per_value(m, config);
}

// act_llama(precision, attention, a s / h, f / h, mean_bug=)
double act_llama(const Call& call) {
  TrainingConfig config;
  config.dtype = dtype_of(call.positional.at(0).text());
  config.attention =
      call.positional.at(1).text() == "eager" ? Attention::kEager : Attention::kFlash;
  ModelSpec m = spec("llama", 1, 64, 4, 100, 1);
  shape_for_scores(m, config, call.number(2));
  m.ffn = static_cast<int64_t>(call.number(3) * 64);
  complete(m);
  // PyTorch 1.13 also kept the square inside each RMSNorm; it is older than what is supported.
  const double old_mean = call.named.count("mean_bug") ? 8 : 0;
  return layer_per_value(m, config) + old_mean;
}

// gpt_peak_fp32(V, T, h, a, L, B, keep_logits)
double gpt_peak(const Call& call) {
  ModelSpec m =
      spec("gpt", whole(call, 4), whole(call, 2), whole(call, 3), whole(call, 0), whole(call, 1));
  complete(m);
  TrainingConfig config;
  config.batch = whole(call, 5);
  config.keep_logits = call.number(6, "keep_logits", 0) != 0;
  const MemoryEstimate memory = estimate_memory(m, config);
  return real(memory.peak - memory.group(Group::kParameters) -
              memory.group(Group::kOptimizerState));
}

// zero_gb(billions of parameters, stage, ranks): 16-bit mixed precision with Adam, GB a rank
double zero_gb(const Call& call) {
  ModelSpec m;
  m.given_parameters = static_cast<Integer>(call.number(0) * 1e9);
  TrainingConfig config;
  config.recipe = "mixed-16";
  config.dtype = Dtype::kBf16;
  config.zero = whole(call, 1);
  config.dp = whole(call, 2);
  const MemoryEstimate memory = estimate_memory(m, config);
  return real(memory.group(Group::kParameters) + memory.group(Group::kGradients) +
              memory.group(Group::kOptimizerState)) /
         1e9;
}

double llama_forward(const Call& call) {
  ModelSpec m =
      spec("llama", whole(call, 1), whole(call, 3), whole(call, 4), whole(call, 7), whole(call, 2));
  m.kv_heads = whole(call, 5);
  m.ffn = whole(call, 6);
  complete(m);
  TrainingConfig config;
  config.batch = whole(call, 0);
  return real(estimate_flops(m, config).forward);
}

std::string law_of(const Call& call, size_t index) {
  return call.positional.size() > index ? call.positional[index].text() : "hoffmann-3-printed";
}

double count_of(const char* model) { return real(count_parameters(find_model(model)).total); }

std::vector<Integer> integers(const Value& value) {
  std::vector<Integer> list;
  for (const Value& each : value.list()) list.push_back(static_cast<Integer>(each.number()));
  return list;
}

Scope make_scope() {
  Scope s;
  s.names.emplace("GiB", 0x1p30);
  s.names.emplace("MiB", 0x1p20);
  s.names.emplace("PFDAY", kPfDay);
  s.names.emplace("HOFF_UNR", std::string("hoffmann-3"));
  s.tables["LL"] = {{"l65", count_of("llama-65b")}};
  s.tables["CUBLAS_WS"] = {{"pre_hopper", real(cublas_workspace(false))},
                           {"hopper", real(cublas_workspace(true))}};
  auto& f = s.functions;
  f["act_gpt"] = act_gpt;
  f["act_llama"] = act_llama;
  f["gpt_peak_fp32"] = gpt_peak;
  f["zero_gb"] = zero_gb;
  f["llama_fwd"] = llama_forward;
  f["p_moe"] = [](const Call& c) {
    const ParameterCount count = count_parameters(moe(c));
    return Value(std::vector<Value>{real(count.total), real(count.active)});
  };
  f["p_gopher"] = [](const Call& c) {
    return real(count_parameters(gopher(whole(c, 0), whole(c, 1), whole(c, 2), whole(c, 3),
                                        whole(c, 4), whole(c, 5)))
                    .total);
  };
  // chinchilla_fwd(s, V, d, f, a, k, L, embeddings, logits)
  f["chinchilla_fwd"] = [](const Call& c) {
    const ModelSpec m =
        gopher(whole(c, 6), whole(c, 2), whole(c, 4), whole(c, 5), whole(c, 1), whole(c, 3));
    return chinchilla_forward(m, c.number(0), c.number(7, "emb", 1) != 0,
                              c.number(8, "logits", 1) != 0);
  };
  f["lecture_fwd"] = [](const Call& c) {
    return lecture_forward(c.number(0), c.number(1), c.number(2), c.number(3), c.number(4));
  };
  f["naive_outputs_act"] = [](const Call& c) {
    return every_output_activations(c.number(0), c.number(1), c.number(2), c.number(3),
                                    c.number(4));
  };
  f["lecture_notes_act"] = [](const Call& c) {
    return lecture_notes_activations(c.number(0), c.number(1), c.number(2), c.number(3),
                                     c.number(4));
  };
  f["korth"] = [](const Call& c) {
    return korthikanti_layer(c.number(0), c.number(1), c.number(2), c.number(3),
                             c.number(4, "t", 1), c.number(5, "sp", 0) != 0,
                             c.number(7, "full", 0) != 0  ? Recompute::kFull
                             : c.number(6, "sel", 0) != 0 ? Recompute::kSelective
                                                          : Recompute::kNone);
  };
  const auto megatron = [](Recompute recompute) {
    return [recompute](const Call& c) {
      return Value(megatron_step(c.number(0), c.number(1), c.number(2), c.number(3), c.number(4),
                                 recompute));
    };
  };
  f["model_iter"] = megatron(Recompute::kNone);
  f["hw_iter_selective"] = megatron(Recompute::kSelective);
  f["megatron_iter"] = megatron(Recompute::kFull);
  f["kaplan_fwd_per_token"] = [](const Call& c) {
    return kaplan_forward_per_token(c.number(0), c.number(1), c.number(2));
  };
  f["palm_per_token"] = [](const Call& c) {
    return palm_per_token(c.number(0), c.number(1), c.number(2), c.number(3), c.number(4));
  };
  f["mfu"] = [](const Call& c) {
    return model_flops_utilisation(c.number(0), c.number(1), c.number(2), c.number(3, "n", 1));
  };
  f["train_days"] = [](const Call& c) {
    return training_days(c.number(0), c.number(1), c.number(2), c.number(3), c.number(4, "k", 8));
  };
  f["sdpa_fwd"] = [](const Call& c) {
    return real(sdpa_forward_flops(large(c, 0), large(c, 1), large(c, 2), large(c, 3), large(c, 4),
                                   large(c, 5)));
  };
  f["sdpa_bwd"] = [](const Call& c) {
    return real(sdpa_backward_flops(large(c, 0), large(c, 1), large(c, 2), large(c, 3), large(c, 4),
                                    large(c, 5)));
  };
  f["conv_fwd"] = [](const Call& c) {
    return real(convolution_flops(large(c, 0), large(c, 1), large(c, 2),
                                  integers(c.positional.at(3)), integers(c.positional.at(4))));
  };
  f["alloc_round"] = [](const Call& c) { return real(allocator_round(large(c, 0))); };
  f["segment"] = [](const Call& c) { return real(allocator_segment(large(c, 0))); };
  f["quad_forwards"] = [](const Call& c) { return real(quadratic_forwards(large(c, 0))); };
  f["revolve_max"] = [](const Call& c) { return real(revolve_steps(large(c, 0), large(c, 1))); };
  f["ckpt_opt"] = [](const Call& c) {
    const double segments = best_segments(c.number(0), c.number(1), c.number(2));
    return Value(std::vector<Value>{
        segments, checkpoint_memory(c.number(0), c.number(1), c.number(2), segments)});
  };
  f["loss"] = [](const Call& c) { return predicted_loss(law_of(c, 2), c.number(0), c.number(1)); };
  f["dopt_for_n"] = [](const Call& c) { return optimal_tokens(law_of(c, 1), c.number(0)); };
  f["kaplan_L_N"] = [](const Call& c) { return kaplan_loss_of_parameters(c.number(0)); };
  return s;
}

}  // namespace

const Scope& reference_scope() {
  static const Scope scope = make_scope();
  return scope;
}

}  // namespace tally::estimate::testing
