// SPDX-License-Identifier: Apache-2.0
// Weights, gradients and optimizer state by recipe and optimizer (data/recipes.csv,
// data/optimizers.csv), sharded by tensor, expert, pipeline and data parallelism.
#include "profiler/estimate/state.h"

#include <algorithm>

#include "profiler/core/error.h"
#include "profiler/estimate/integer.h"
#include "profiler/estimate/precision.h"
#include "profiler/estimate/table_data.h"

namespace tally::embedded {
extern const std::string_view estimate_recipes;
extern const std::string_view estimate_optimizers;
}  // namespace tally::embedded

namespace tally::estimate {
namespace {

constexpr Integer kBlock8Bit = 256;      // elements that share one fp32 scale
constexpr Integer kSmallest8Bit = 4096;  // bitsandbytes keeps smaller tensors in 32 bits
constexpr int kAdapterBytes = 4;         // LoRA matrices are trained in fp32

Integer optimizer_bytes(const Optimizer& optimizer, Integer numel, int64_t rows, int64_t columns,
                        double state_size) {
  const Integer plain = bytes_of(numel, optimizer.states * state_size);
  if (optimizer.kind == "8bit") {
    if (numel < kSmallest8Bit) return 8 * numel;
    return 2 * numel + 2 * 4 * ceil_div(numel, kBlock8Bit);
  }
  if (optimizer.kind == "adafactor") {
    return plain + (columns > 0 ? Integer{4} * (rows + columns) : 4 * numel);
  }
  return plain;
}

bool is_lora(const std::string& recipe) { return recipe == "lora" || recipe == "qlora"; }

// Elements of the two low-rank factors beside one matrix; 0 where none stands.
Integer adapter_elements(const TrainingConfig& config, const ParameterTensor& t) {
  if (!t.linear || t.part != Part::kBlock) return 0;
  const Integer one = Integer{config.lora_rank} * (t.rows + t.columns);
  if (!config.lora_attention_only) return one * t.copies;
  const bool adapted =
      t.name == "attention.q" || t.name == "attention.k, attention.v" || t.name == "attention.qkv";
  return adapted ? one : 0;  // of k and v only v
}

int64_t tensor_divisor(const ParameterTensor& t, const ModelSpec& model,
                       const TrainingConfig& config) {
  switch (t.shard) {
    case Shard::kReplicated:
      return 1;
    case Shard::kTensor:
    case Shard::kExpert:
      return config.tp;
    case Shard::kKeyValue:
      return std::min(config.tp, model.kv_heads);  // a head is not cut
  }
  return 1;
}

std::string weights_format(const TrainingConfig& config, const std::string& recipe) {
  if (config.weights != "auto") return config.weights;
  if (recipe == "qlora") return "nf4";
  if (recipe == "inference")
    return is_fp32(config.dtype) ? "fp32" : is_autocast(config.dtype) ? "fp32" : "bf16";
  return "";
}

// The format holds for the Linear weights of the blocks; what it leaves stays in 16 bits.
Integer tensor_weight_bytes(const std::string& format, double weight_size, const ParameterTensor& t,
                            Integer numel, int64_t divisor) {
  if (format.empty()) return bytes_of(numel, weight_size);
  const NumberFormat& f = find_format(format);
  if (f.bits >= 16) return bytes_of(numel, f.bytes_per_parameter);
  if (!t.linear || t.part != Part::kBlock || t.name == "router") return 2 * numel;
  return weight_bytes(format, ceil_div(t.rows, divisor), t.columns);
}

}  // namespace

const std::vector<Recipe>& recipes() {
  static const std::vector<Recipe> all = [] {
    const CsvTable table("recipes.csv", embedded::estimate_recipes);
    std::vector<Recipe> list;
    for (size_t i = 0; i < table.size(); ++i) {
      list.push_back({table.text(i, "name"), table.text(i, "title"), table.number(i, "weight"),
                      table.number(i, "gradient"), table.number(i, "master"),
                      table.number(i, "state"), table.text(i, "source")});
    }
    return list;
  }();
  return all;
}

const std::vector<Optimizer>& optimizers() {
  static const std::vector<Optimizer> all = [] {
    const CsvTable table("optimizers.csv", embedded::estimate_optimizers);
    std::vector<Optimizer> list;
    for (size_t i = 0; i < table.size(); ++i) {
      list.push_back({table.text(i, "name"), table.number(i, "states"),
                      table.number(i, "temporaries"), table.number(i, "flops"),
                      table.text(i, "kind"), table.text(i, "source")});
    }
    return list;
  }();
  return all;
}

namespace {
template <typename T>
const T& find_row(const std::vector<T>& rows, const std::string& name, const char* flag) {
  for (const T& row : rows) {
    if (row.name == name) return row;
  }
  std::vector<std::string> names;
  for (const T& row : rows) names.push_back(row.name);
  throw Error("{}: '{}' is none of {}", flag, name, join(names, ", "));
}
}  // namespace

const Recipe& find_recipe(const std::string& name) { return find_row(recipes(), name, "--recipe"); }
const Optimizer& find_optimizer(const std::string& name) {
  return find_row(optimizers(), name, "--optimizer");
}

std::string resolve_recipe(const TrainingConfig& config) {
  if (config.recipe != "auto") return config.recipe;
  return is_autocast(config.dtype) ? "autocast" : is_16bit(config.dtype) ? "pure-16" : "fp32";
}

namespace {

// Each tensor by itself: 8-bit and factored states follow sizes and shapes. On one rank of dp.
RankState state_of_tensors(const ModelSpec& model, const TrainingConfig& config) {
  const std::string recipe_name = resolve_recipe(config);
  const Recipe& recipe = find_recipe(recipe_name);
  const Optimizer& optimizer = find_optimizer(config.optimizer);
  const std::string format = weights_format(config, recipe_name);
  RankState s;
  for (const GivenTensor& t : model.tensors) {
    // torch.optim makes gradients and state in the parameter's own type.
    const auto own = static_cast<double>(t.element_bytes);
    const double weight = own > 0         ? own
                          : format.empty() ? recipe.weight
                                           : find_format(format).bytes_per_parameter;
    s.weights += bytes_of(t.numel, weight);
    if (!t.trainable || recipe_name == "inference") continue;
    const double state = own > 0 ? own : recipe.state;
    s.gradients += bytes_of(t.numel, own > 0 ? own : recipe.gradient);
    s.master += own > 0 ? 0 : bytes_of(t.numel, recipe.master);
    s.moments += optimizer_bytes(optimizer, t.numel, t.rows, t.columns, state);
    if (is_autocast(config.dtype) && t.columns > 0) s.autocast_copies += 2 * t.numel;
    const Integer temporaries = bytes_of(t.numel, optimizer.temporaries * state);
    if (!config.foreach_optimizer) {
      s.optimizer_temporaries = std::max(s.optimizer_temporaries, temporaries);
    } else if (optimizer.temporaries > 0) {
      s.optimizer_temporaries += bytes_of(t.numel, state);
    }
  }
  if (config.zero >= 3) s.weights = ceil_div(s.weights, config.dp);
  if (config.zero >= 2) s.gradients = ceil_div(s.gradients, config.dp);
  if (config.zero >= 1) {
    s.master = ceil_div(s.master, config.dp);
    s.moments = ceil_div(s.moments, config.dp);
    if (!config.foreach_optimizer)
      s.optimizer_temporaries = ceil_div(s.optimizer_temporaries, config.dp);
  }
  return s;
}

}  // namespace

RankState rank_state(const ModelSpec& model, const TrainingConfig& config, const Stage& stage) {
  if (!model.tensors.empty()) return state_of_tensors(model, config);
  const std::string recipe_name = resolve_recipe(config);
  const Recipe& recipe = find_recipe(recipe_name);
  const Optimizer& optimizer = find_optimizer(config.optimizer);
  const std::string format = weights_format(config, recipe_name);
  const bool lora = is_lora(recipe_name), inference = recipe_name == "inference";
  const double state_size = recipe.state;
  const double temporary_size = recipe.state;
  RankState s;

  const int64_t shard_w = config.zero >= 3 ? config.dp : 1,
                shard_g = config.zero >= 2 ? config.dp : 1,
                shard_o = config.zero >= 1 ? config.dp : 1;
  // Experts are spread over ep of the dp ranks already; what is left of dp shards them further.
  const auto share = [&](Integer bytes, int64_t shards, bool expert) {
    return ceil_div(bytes, expert ? std::max<int64_t>(1, shards / config.ep) : shards);
  };

  if (!model.has_shape()) {
    const Integer n = ceil_div(count_parameters(model).total, Integer{config.tp} * config.pp);
    const Integer weights = format.empty() ? bytes_of(n, recipe.weight)
                                           : bytes_of(n, find_format(format).bytes_per_parameter);
    s.weights = ceil_div(weights, shard_w);
    if (inference) return s;
    s.gradients = ceil_div(bytes_of(n, recipe.gradient), shard_g);
    s.master = ceil_div(bytes_of(n, recipe.master), shard_o);
    s.moments =
        ceil_div(optimizer_bytes(optimizer, n, n > INT64_MAX ? INT64_MAX : static_cast<int64_t>(n),
                                 0, state_size),
                 shard_o);
    if (is_autocast(config.dtype)) s.autocast_copies = 2 * n;
    return s;
  }

  Integer largest = 0, block_unit = 0, outer_unit = 0, outer_elements = 0, block_elements = 0;
  for (const ParameterTensor& t : parameter_tensors(model)) {
    const bool tied_head = t.name == "embedding" && model.tied && stage.last;
    if (t.part == Part::kEmbedding && !stage.first && !tied_head) continue;
    if (t.part == Part::kHead && !stage.last) continue;
    const bool expert = t.shard == Shard::kExpert;
    const int64_t divisor = tensor_divisor(t, model, config);
    const Integer numel = ceil_div(t.numel(), divisor);
    const Integer copies = expert ? ceil_div(t.copies, config.ep) : Integer{t.copies};
    const Integer count = t.part == Part::kBlock ? copies * stage.layers : copies;

    const Integer w = tensor_weight_bytes(format, recipe.weight, t, numel, divisor);
    const Integer adapters = lora ? adapter_elements(config, t) * copies / t.copies : 0;
    const Integer layers = t.part == Part::kBlock ? stage.layers : 1;
    // Per layer (or once): gradients, and the state that follows them.
    Integer g = 0, master = 0, moments = 0;
    if (lora) {
      g = adapters * kAdapterBytes;
      moments = optimizer_bytes(optimizer, adapters, 0, 0, state_size);
      if (optimizer.kind == "adafactor")
        moments =
            bytes_of(adapters, optimizer.states * state_size) +
            (adapters > 0 ? Integer{4} * (t.rows + t.columns + 2 * config.lora_rank) * copies : 0);
      largest = std::max(largest, Integer{config.lora_rank} * std::max(t.rows, t.columns));
    } else if (!inference) {
      g = bytes_of(numel, recipe.gradient) * copies;
      master = bytes_of(numel, recipe.master) * copies;
      moments =
          optimizer_bytes(optimizer, numel, ceil_div(t.rows, divisor), t.columns, state_size) *
          copies;
      largest = std::max(largest, numel);
    }
    s.weights += share(w * count, shard_w, expert);
    s.adapters += share(adapters * kAdapterBytes * layers, shard_w, expert);
    s.gradients += share(g * layers, shard_g, expert);
    s.master += share(master * layers, shard_o, expert);
    s.moments += share(moments * layers, shard_o, expert);

    const Integer live = share(g, shard_g, expert);
    const bool lower = t.part == Part::kBlock && t.name.substr(0, 9) == "attention" &&
                       t.name.substr(0, 13) != "attention.out";
    if (t.part == Part::kHead || tied_head) {
      s.head_gradients += live;
      if (tied_head && stage.first) s.embedding_temporary = live;
    } else if (t.part == Part::kEmbedding) {
      s.embedding_gradients += live;
    } else if (lower) {
      s.lower_gradients += live;
    } else if (t.name == "norm" || t.name == "norm.bias") {
      s.lower_gradients += live / t.copies;
      s.upper_gradients += live - live / t.copies;
    } else {
      s.upper_gradients += live;
      if (t.name.substr(0, 8) == "mlp.down") s.down_gradients += live;
    }

    const bool cast = t.linear || tied_head;
    if (is_autocast(config.dtype) && cast && recipe.weight == 4)
      s.autocast_copies += 2 * numel * count;
    (t.part == Part::kBlock ? block_elements : outer_elements) += numel * copies;
    block_unit = block_elements;
    outer_unit = outer_elements;
    s.blocks.emplace_back(expert ? share(w, shard_w, true) : ceil_div(w, shard_w), count);
    if (!lora && !inference) {
      const Integer g_one = bytes_of(numel, recipe.gradient),
                    m_one = bytes_of(numel, recipe.master);
      if (g_one > 0) s.blocks.emplace_back(share(g_one, shard_g, expert), count);
      if (m_one > 0) s.blocks.emplace_back(share(m_one, shard_o, expert), count);
      const Integer per_state =
          optimizer.states > 0 ? moments / copies / static_cast<Integer>(optimizer.states) : 0;
      if (per_state > 0) {
        s.blocks.emplace_back(share(per_state, shard_o, expert),
                              count * static_cast<Integer>(optimizer.states));
      }
    }
  }

  if (config.zero >= 3 && config.dp > 1) {
    const Integer unit = std::max(block_unit, outer_unit);
    const int compute = recipe.weight < 4 || is_autocast(config.dtype) ? 2 : 4;
    // This unit and the prefetched next one, and the unsharded gradient of one.
    s.gathered = 2 * unit * compute + (inference || lora ? 0 : bytes_of(unit, recipe.gradient));
  }
  if (!inference) {
    s.optimizer_temporaries = bytes_of(largest, optimizer.temporaries * temporary_size);
    if (config.foreach_optimizer && optimizer.temporaries > 0) {
      // The list of one temporary for every trained tensor.
      const double gradient_size = lora ? kAdapterBytes : recipe.gradient;
      const Integer elements =
          gradient_size > 0 ? static_cast<Integer>(to_double(s.gradients) / gradient_size) : 0;
      s.optimizer_temporaries = bytes_of(elements, temporary_size);
    }
    s.optimizer_temporaries =
        ceil_div(s.optimizer_temporaries, config.foreach_optimizer ? 1 : shard_o);
  }

  // A given count scales what the dimensions say.
  const Integer computed = count_parameters(model).computed, given = model.given_parameters;
  if (given > 0 && given != computed) {
    for (Integer* part : {&s.weights, &s.gradients, &s.master, &s.moments, &s.autocast_copies,
                          &s.gathered, &s.head_gradients, &s.down_gradients, &s.upper_gradients,
                          &s.lower_gradients, &s.embedding_gradients, &s.embedding_temporary}) {
      *part = ceil_div(*part * given, computed);
    }
  }
  return s;
}

StateBytes state_bytes(const ModelSpec& model, const TrainingConfig& config) {
  TrainingConfig alone = config;
  alone.dp = alone.tp = alone.cp = alone.pp = alone.ep = 1;
  alone.zero = 0;
  const RankState s = rank_state(model, alone, {model.layers, true, true});
  return {s.weights + s.adapters, s.gradients, s.master + s.moments};
}

}  // namespace tally::estimate
