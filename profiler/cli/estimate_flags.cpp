// SPDX-License-Identifier: Apache-2.0
// Mostly one table: a row a flag, with the words of --help and how its value is read.
// Long because that table is one thing: split, a flag would have to be looked for.
#include "profiler/cli/estimate_flags.h"

#include <charconv>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <iterator>

#include "profiler/core/error.h"
#include "profiler/core/units.h"

namespace tally::cli {
namespace {

using estimate::Attention;
using estimate::Checkpoint;
using estimate::Dtype;

int64_t whole(const std::string& text, std::string_view flag) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw Error("{}: '{}' is no whole number", flag, text);
  }
  return value;
}

int64_t positive(const std::string& text, std::string_view flag) {
  const int64_t value = whole(text, flag);
  if (value < 1) throw Error("{} must be at least 1, it is {}", flag, value);
  return value;
}

double real(const std::string& text, std::string_view flag) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) {
    throw Error("{}: '{}' is no number", flag, text);
  }
  return value;
}

estimate::Integer count(const std::string& text, std::string_view flag) {
  const estimate::Integer value = estimate::parse_count(text, std::string(flag));
  if (value < 1) throw Error("{} must be at least 1, it is {}", flag, text);
  return value;
}

bool yes(const std::string& text, std::string_view flag) {
  if (text == "yes" || text == "true" || text == "1") return true;
  if (text == "no" || text == "false" || text == "0") return false;
  throw Error("{}: '{}' is neither yes nor no", flag, text);
}

template <typename T>
T choice(const std::string& text, std::string_view flag,
         std::initializer_list<std::pair<std::string_view, T>> choices) {
  std::string names;
  for (const auto& [name, value] : choices) {
    if (name == text) return value;
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  throw Error("{}: '{}' is none of {}", flag, text, names);
}

void read_checkpoint(const std::string& text, std::string_view flag, EstimateJob& job) {
  if (text.rfind("every:", 0) == 0) {
    job.config.checkpoint = Checkpoint::kEvery;
    job.config.checkpoint_every = positive(text.substr(6), "--checkpoint every:K");
    return;
  }
  job.config.checkpoint = choice<Checkpoint>(text, flag,
                                             {{"none", Checkpoint::kNone},
                                              {"selective", Checkpoint::kSelective},
                                              {"full", Checkpoint::kFull},
                                              {"every:K", Checkpoint::kEvery},
                                              {"sqrt", Checkpoint::kSqrt}});
  if (job.config.checkpoint == Checkpoint::kEvery)
    throw Error("{}: write a number for K, as in every:4", flag);
}

void read_device_memory(const std::string& text, std::string_view flag, EstimateJob& job) {
  const int64_t bytes = parse_bytes(text, std::string(flag));
  if (bytes < 1) throw Error("{} must be at least 1 byte, it is '{}'", flag, text);
  job.config.device_memory = bytes;
}

// Dimensions that follow from another one follow it when it is changed.
void change_dimension(EstimateJob& job, int64_t estimate::ModelSpec::*field, int64_t value) {
  estimate::ModelSpec& m = job.model;
  const bool ffn_follows = m.ffn == 4 * m.d_model;
  const bool kv_follows = m.kv_heads == m.heads;
  const bool head_follows = m.d_model == m.heads * m.head_dim;
  m.*field = value;
  if (field == &estimate::ModelSpec::d_model && ffn_follows) m.ffn = 0;
  if (field == &estimate::ModelSpec::heads && kv_follows) m.kv_heads = 0;
  const bool width = field == &estimate::ModelSpec::d_model || field == &estimate::ModelSpec::heads;
  if (width && head_follows) m.head_dim = 0;
  if (field == &estimate::ModelSpec::context && m.positions > 0) m.positions = 0;
  m.published_parameters = m.published_active_parameters = 0;
}

template <int64_t estimate::ModelSpec::*field>
void read_dimension(const std::string& text, std::string_view flag, EstimateJob& job) {
  change_dimension(job, field, positive(text, flag));
}

template <int64_t estimate::TrainingConfig::*field>
void read_whole(const std::string& text, std::string_view flag, EstimateJob& job) {
  job.config.*field = positive(text, flag);
}

constexpr std::string_view kModel = "Model", kStep = "Step", kParallel = "Parallel",
                           kTime = "Device and time";

using Spec = estimate::ModelSpec;
using Config = estimate::TrainingConfig;

std::vector<EstimateFlag> make_flags() {
  return {
      {"--family", "NAME",
       "gpt, llama, moe, palm, gopher, megatron: the structure of a model given by dimensions",
       kModel, [](const std::string&, std::string_view, EstimateJob&) {}, true},
      {"--parameters", "N", "parameter count (65e9, 65B) in place of the computed one", kModel,
       [](const std::string& v, std::string_view f, EstimateJob& j) {
         j.model.given_parameters = count(v, f);
       },
       true},
      {"--active-parameters", "N", "parameters that one token passes", kModel,
       [](const std::string& v, std::string_view f, EstimateJob& j) {
         j.model.given_active_parameters = count(v, f);
       },
       true},
      {"--layers", "N", "blocks", kModel, read_dimension<&Spec::layers>, true},
      {"--d-model", "N", "width of the residual stream", kModel, read_dimension<&Spec::d_model>,
       true},
      {"--heads", "N", "attention heads", kModel, read_dimension<&Spec::heads>, true},
      {"--kv-heads", "N", "key and value heads (default: heads)", kModel,
       read_dimension<&Spec::kv_heads>, true},
      {"--head-dim", "N", "width of a head (default: d_model / heads)", kModel,
       read_dimension<&Spec::head_dim>, true},
      {"--ffn", "N", "width of the MLP (default: 4 d_model)", kModel, read_dimension<&Spec::ffn>,
       true},
      {"--vocab", "N", "vocabulary", kModel, read_dimension<&Spec::vocab>, true},
      {"--context", "N", "longest sequence (and rows of learned positions)", kModel,
       read_dimension<&Spec::context>, true},
      {"--experts", "N", "experts of each MLP", kModel, read_dimension<&Spec::experts>, true},
      {"--top-k", "N", "experts of a token", kModel, read_dimension<&Spec::top_k>, true},
      {"--tied", "yes|no", "head and embedding are one tensor", kModel,
       [](const std::string& v, std::string_view f, EstimateJob& j) { j.model.tied = yes(v, f); },
       true},
      {"--bias", "yes|no", "biases of the Linear layers", kModel,
       [](const std::string& v, std::string_view f, EstimateJob& j) {
         j.model.qkv_bias = j.model.out_bias = j.model.mlp_bias = yes(v, f);
       },
       true},

      {"--batch", "N", "sequences of one micro-batch of one data-parallel rank (default 1)", kStep,
       read_whole<&Config::batch>},
      {"--sequence", "N", "tokens of a sequence (default: the model's context)", kStep,
       read_whole<&Config::sequence>},
      {"--accumulate", "K", "micro-batches of one step", kStep, read_whole<&Config::accumulate>},
      {"--dtype", "NAME", "fp32, tf32, bf16, fp16, amp-bf16, amp-fp16", kStep,
       [](const std::string& v, std::string_view f, EstimateJob& j) {
         j.config.dtype = choice<Dtype>(v, f,
                                        {{"fp32", Dtype::kFp32},
                                         {"tf32", Dtype::kTf32},
                                         {"bf16", Dtype::kBf16},
                                         {"fp16", Dtype::kFp16},
                                         {"amp-bf16", Dtype::kAmpBf16},
                                         {"amp-fp16", Dtype::kAmpFp16}});
       }},
      {"--optimizer", "NAME",
       "adamw, adam, sgd, adafactor, adam8bit, ... (torchtally models --optimizers)", kStep,
       [](const std::string& v, std::string_view, EstimateJob& j) {
         estimate::find_optimizer(v);
         j.config.optimizer = v;
       }},
      {"--recipe", "NAME",
       "auto, fp32, autocast, pure-16, mixed-16, mixed-18, mixed-20, lora, qlora, inference", kStep,
       [](const std::string& v, std::string_view, EstimateJob& j) {
         if (v != "auto") estimate::find_recipe(v);
         j.config.recipe = v;
       }},
      {"--weights", "FORMAT", "of frozen weights: fp32, tf32, bf16, fp16, fp8, int8, int4, nf4",
       kStep,
       [](const std::string& v, std::string_view f, EstimateJob& j) {
         try {
           if (v != "auto") estimate::find_format(v);
         } catch (const Error& error) {
           throw Error("{}: {}", f, error.what());
         }
         j.config.weights = v;
       }},
      {"--lora-rank", "R", "rank of LoRA adapters (default 16)", kStep,
       read_whole<&Config::lora_rank>},
      {"--lora-targets", "all|attention", "every Linear of the blocks, or q and v", kStep,
       [](const std::string& v, std::string_view f, EstimateJob& j) {
         j.config.lora_attention_only = choice<bool>(v, f, {{"all", false}, {"attention", true}});
       }},
      {"--attention", "NAME", "eager, sdpa, flash", kStep,
       [](const std::string& v, std::string_view f, EstimateJob& j) {
         j.config.attention = choice<Attention>(v, f,
                                                {{"eager", Attention::kEager},
                                                 {"sdpa", Attention::kSdpa},
                                                 {"flash", Attention::kFlash}});
       }},
      {"--dropout", "P", "probability, 0 for none", kStep,
       [](const std::string& v, std::string_view f, EstimateJob& j) {
         j.config.dropout = real(v, f);
         if (!(j.config.dropout >= 0 && j.config.dropout < 1))
           throw Error("{} must be in [0, 1), it is {}", f, v);
       }},
      {"--norm", "fused|unfused", "RMSNorm as one operator or written out", kStep,
       [](const std::string& v, std::string_view f, EstimateJob& j) {
         j.config.fused_norm = choice<bool>(v, f, {{"fused", true}, {"unfused", false}});
       }},
      {"--mlp", "fused|unfused", "SwiGLU that makes its activation again in backward, or keeps it",
       kStep,
       [](const std::string& v, std::string_view f, EstimateJob& j) {
         j.config.fused_mlp = choice<bool>(v, f, {{"fused", true}, {"unfused", false}});
       }},
      {"--checkpoint", "HOW", "none, selective, full, every:K, sqrt", kStep, read_checkpoint},
      {"--keep-logits", "yes|no", "the program still holds the logits during backward", kStep,
       [](const std::string& v, std::string_view f, EstimateJob& j) {
         j.config.keep_logits = yes(v, f);
       }},
      {"--foreach", "yes|no", "multi-tensor optimizer (Python's default on CUDA)", kStep,
       [](const std::string& v, std::string_view f, EstimateJob& j) {
         j.config.foreach_optimizer = yes(v, f);
       }},
      {"--kernels", "cuda|cpu", "whose dropout masks: one byte, or the input's type", kStep,
       [](const std::string& v, std::string_view f, EstimateJob& j) {
         j.config.cpu = choice<bool>(v, f, {{"cuda", false}, {"cpu", true}});
       }},
      {"--causal", "full|half", "count the full square of scores, or what lies below the diagonal",
       kStep,
       [](const std::string& v, std::string_view f, EstimateJob& j) {
         j.config.causal_half = choice<bool>(v, f, {{"full", false}, {"half", true}});
       }},

      {"--dp", "N", "data-parallel ranks", kParallel, read_whole<&Config::dp>},
      {"--zero", "0..3", "ZeRO or FSDP stage: shard optimizer state, gradients, parameters",
       kParallel,
       [](const std::string& v, std::string_view f, EstimateJob& j) {
         j.config.zero = whole(v, f);
         if (j.config.zero < 0 || j.config.zero > 3)
           throw Error("{} must be 0, 1, 2 or 3, it is {}", f, v);
       }},
      {"--tp", "N", "tensor-parallel ranks", kParallel, read_whole<&Config::tp>},
      {"--sp", "yes|no", "sequence parallelism beside --tp", kParallel,
       [](const std::string& v, std::string_view f, EstimateJob& j) {
         j.config.sequence_parallel = yes(v, f);
       }},
      {"--cp", "N", "context-parallel ranks", kParallel, read_whole<&Config::cp>},
      {"--pp", "N", "pipeline stages (1F1B)", kParallel, read_whole<&Config::pp>},
      {"--interleave", "V", "model chunks of a pipeline stage", kParallel,
       read_whole<&Config::interleave>},
      {"--ep", "N", "expert-parallel ranks, among the data-parallel ones", kParallel,
       read_whole<&Config::ep>},
      {"--bucket-view", "yes|no", "DDP with gradient_as_bucket_view", kParallel,
       [](const std::string& v, std::string_view f, EstimateJob& j) {
         j.config.bucket_view = yes(v, f);
       }},

      {"--device", "NAME", "a row of torchtally models --devices", kTime,
       [](const std::string& v, std::string_view, EstimateJob& j) {
         estimate::find_device(v);
         j.config.device = v;
       }},
      {"--device-memory", "SIZE", "memory of one device, as 48GB or 80GiB", kTime,
       read_device_memory},
      {"--devices", "N", "devices for time (default: dp x tp x cp x pp)", kTime,
       read_whole<&Config::devices>},
      {"--tokens", "T", "tokens of the whole training, as 1.4T", kTime,
       [](const std::string& v, std::string_view f, EstimateJob& j) {
         j.config.tokens = count(v, f);
       }},
      {"--tokens-per-second", "X", "of all devices together", kTime,
       [](const std::string& v, std::string_view f, EstimateJob& j) {
         j.config.tokens_per_second = real(v, f);
         if (j.config.tokens_per_second <= 0) throw Error("{} must be positive, it is {}", f, v);
       }},
      {"--mfu", "F",
       "assumed model FLOPs utilisation where no tokens per second are given (default 0.4)", kTime,
       [](const std::string& v, std::string_view f, EstimateJob& j) {
         j.config.assumed_mfu = real(v, f);
         if (!(j.config.assumed_mfu > 0 && j.config.assumed_mfu <= 1))
           throw Error("{} must be in (0, 1], it is {}", f, v);
       }},
  };
}

// A recipe that names its precision brings it along.
void imply_dtype(Config& config) {
  const std::string& r = config.recipe;
  if (r == "autocast") config.dtype = Dtype::kAmpBf16;
  if (r == "pure-16" || r.rfind("mixed", 0) == 0 || r == "lora" || r == "qlora") {
    config.dtype = Dtype::kBf16;
  }
}

std::vector<std::string> values_of(const std::string& text, std::string_view flag) {
  std::vector<std::string> values;
  size_t begin = 0;
  while (true) {
    const size_t end = text.find(',', begin);
    values.push_back(text.substr(begin, end == std::string::npos ? end : end - begin));
    if (values.back().empty()) throw Error("{}: empty value in '{}'", flag, text);
    if (end == std::string::npos) return values;
    begin = end + 1;
  }
}

estimate::ModelSpec load_model(const std::string& name) {
  if (name == "-") {
    const std::string text{std::istreambuf_iterator<char>(std::cin), {}};
    return estimate::model_from_config(text, "the configuration");
  }
  namespace fs = std::filesystem;
  std::error_code ignored;
  if (fs::is_directory(name, ignored))
    return estimate::model_from_config_file((fs::path(name) / "config.json").string());
  const bool file = fs::path(name).extension() == ".json" || name.find('/') != std::string::npos;
  if (file || fs::is_regular_file(name, ignored)) return estimate::model_from_config_file(name);
  return estimate::find_model(name);
}

}  // namespace

const std::vector<EstimateFlag>& estimate_flags() {
  static const std::vector<EstimateFlag> flags = make_flags();
  return flags;
}

Sweep make_sweep(const std::vector<std::string>& models,
                 const std::map<std::string, std::string>& values) {
  Sweep sweep;
  std::vector<estimate::ModelSpec> bases;
  const auto family = values.find("--family");
  if (!models.empty() && family != values.end()) {
    throw Error("--family is for a model given by dimensions; {} has one", models[0]);
  }
  for (const std::string& name : models) bases.push_back(load_model(name));
  if (models.empty()) {
    if (family == values.end() && !values.count("--parameters") && !values.count("--layers")) {
      throw Error(
          "name a model, a config.json, or give --parameters or dimensions (torchtally models "
          "lists names)");
    }
    bases.push_back(estimate::family_model(family == values.end() ? "gpt" : family->second));
    bases[0].name = "custom";
  }
  if (bases.size() > 1) sweep.names.emplace_back("model");

  std::vector<std::pair<const EstimateFlag*, std::vector<std::string>>> axes;
  bool dimensions = false;
  for (const EstimateFlag& flag : estimate_flags()) {
    const auto at = values.find(std::string(flag.name));
    if (at == values.end()) continue;
    axes.emplace_back(&flag, values_of(at->second, flag.name));
    if (axes.back().second.size() > 1) {
      if (flag.name == "--family") throw Error("--family takes one name");
      sweep.names.emplace_back(flag.name.substr(2));
    }
    dimensions = dimensions || (flag.of_model && flag.name != "--family" &&
                                flag.name != "--parameters" && flag.name != "--active-parameters");
  }
  size_t total = bases.size();
  for (const auto& axis : axes) {
    total *= axis.second.size();
    if (total > 1'000'000) throw Error("the lists make more than 1,000,000 configurations");
  }
  for (size_t index = 0; index < total; ++index) {
    size_t rest = index;
    std::vector<size_t> digits(axes.size());  // the last axis runs fastest
    for (size_t i = axes.size(); i-- > 0;) {
      digits[i] = rest % axes[i].second.size();
      rest /= axes[i].second.size();
    }
    EstimateJob job;
    job.model = bases[rest];
    if (bases.size() > 1) job.swept.push_back(job.model.name);
    for (size_t i = 0; i < axes.size(); ++i) {
      const std::string& value = axes[i].second[digits[i]];
      axes[i].first->read(value, axes[i].first->name, job);
      if (axes[i].second.size() > 1) job.swept.push_back(value);
    }
    if (!values.count("--dtype")) imply_dtype(job.config);
    if (dimensions) {
      if (!models.empty()) job.model.name += " (changed)";
      estimate::complete(job.model, job.model.name + ": ");
    }
    sweep.jobs.push_back(std::move(job));
  }
  return sweep;
}

std::string_view dtype_name(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFp32:
      return "fp32";
    case Dtype::kTf32:
      return "tf32";
    case Dtype::kBf16:
      return "bf16";
    case Dtype::kFp16:
      return "fp16";
    case Dtype::kAmpBf16:
      return "amp-bf16";
    case Dtype::kAmpFp16:
      return "amp-fp16";
  }
  return "";
}

std::string_view attention_name(Attention attention) {
  return attention == Attention::kEager  ? "eager"
         : attention == Attention::kSdpa ? "sdpa"
                                         : "flash";
}

std::string checkpoint_name(const estimate::TrainingConfig& config) {
  switch (config.checkpoint) {
    case Checkpoint::kNone:
      return "none";
    case Checkpoint::kSelective:
      return "selective";
    case Checkpoint::kFull:
      return "full";
    case Checkpoint::kEvery:
      return fmt::format("every:{}", config.checkpoint_every);
    case Checkpoint::kSqrt:
      return "sqrt";
  }
  return "";
}

}  // namespace tally::cli
