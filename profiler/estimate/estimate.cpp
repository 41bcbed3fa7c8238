// SPDX-License-Identifier: Apache-2.0
// Checks a configuration and puts the whole answer together: memory, FLOPs, devices, time and what
// was assumed.
#include <algorithm>
#include <cmath>

#include "profiler/core/error.h"
#include "profiler/estimate/integer.h"
#include "profiler/estimate/precision.h"
#include "profiler/estimate/table_data.h"

namespace tally::estimate {
namespace {

void at_least_one(int64_t value, const char* flag, int64_t most = 1'000'000'000) {
  if (value < 1) throw Error("{} must be at least 1, it is {}", flag, value);
  if (value > most) throw Error("{} is {}, more than {} is not supported", flag, value, most);
}

void divides(int64_t parts, const char* flag, int64_t whole, const char* what) {
  if (whole % parts != 0) throw Error("{} {} does not divide {} {}", flag, parts, whole, what);
}

void assumption(std::vector<std::string>& list, bool holds, const char* text) {
  if (holds) list.emplace_back(text);
}

std::vector<std::string> assumptions(const ModelSpec& m, const TrainingConfig& c,
                                     const TimeEstimate& time) {
  std::vector<std::string> list;
  const bool inference = c.recipe == "inference";
  const bool lora = c.recipe == "lora" || c.recipe == "qlora";
  if (!m.note.empty()) list.push_back(m.name + ": " + m.note);
  const bool shapes = !m.tensors.empty();
  bool own_types = false, trained = false, frozen = false;
  for (const GivenTensor& t : m.tensors) {
    own_types = own_types || t.element_bytes > 0;
    (t.trainable ? trained : frozen) = true;
  }
  assumption(list, own_types,
             "each parameter's own type rules its gradient and its state, not --recipe");
  assumption(list, frozen && !inference, "frozen parameters have no gradient and no state");
  assumption(list, shapes && trained && !inference,
             "step counters of the optimizer (4 B a tensor) are not counted");
  assumption(list, shapes && is_autocast(c.dtype),
             "every trainable matrix is taken to be cast to 16 bits");
  assumption(list, shapes && c.zero >= 3, "gathered FSDP units are not counted");
  assumption(list, !m.has_shape() && !shapes,
             "no dimensions are known: activations, logits and the step peak leave them out");
  assumption(list, m.has_shape() && m.positions > 0 && c.sequence > m.context,
             "the sequence is longer than the model's table of positions: it could not run so");
  assumption(list, m.given_parameters > 0 && m.has_shape(),
             "the given parameter count scales the model state; activations and FLOPs follow the "
             "dimensions");
  assumption(list, !inference,
             "memory.total adds every row as if all were alive at once; memory.peak is the largest "
             "real moment of a step");
  assumption(list, !inference && c.accumulate == 1 && c.pp == 1,
             "gradients are freed before each step (zero_grad with set_to_none, the default)");
  assumption(list, m.has_shape() && !inference,
             "token ids and targets (16 B a token) belong to the input and are not counted");
  assumption(list, !inference && m.norm == Norm::kRmsNorm && !c.fused_norm,
             "RMSNorm is written out in elementary operators; --norm fused for one operator");
  assumption(list, m.norm == Norm::kLayerNorm && c.fused_norm,
             "LayerNorm is one operator in PyTorch: --norm changes nothing");
  assumption(list, c.attention != Attention::kEager && is_fp32(c.dtype),
             "no flash kernel takes fp32: the memory-efficient one is meant");
  assumption(list, m.experts > 0, "the router spreads tokens evenly over the experts");
  assumption(list, m.relative_positions,
             "relative-position products are left out of the FLOPs, as in Chinchilla Appendix F");
  assumption(list, is_16bit(c.dtype) && m.has_shape() && !inference,
             "logits are taken to fp32 before the loss");
  assumption(list, c.dropout > 0 && m.norm == Norm::kRmsNorm,
             "dropout acts on the attention scores only: the family has no other");
  assumption(list, lora,
             "adapters are fp32 and every activation of the base is kept (an upper bound)");
  assumption(list, c.sequence_parallel && c.tp == 1, "--sp changes nothing without --tp");
  assumption(list, c.pp > 1 && c.accumulate < c.pp,
             "fewer micro-batches than pipeline stages: the pipeline never fills");
  assumption(list, c.cp > 1,
             "context parallelism divides the tokens; model state is sharded over --dp alone");
  assumption(list, c.ep > 1, "expert-parallel ranks are among the data-parallel ones");
  assumption(list,
             !c.device.empty() && c.device_memory == 0 && !find_device(c.device).memory_reported,
             "the device's memory is its nominal size in GB (1e9 B); the driver reports somewhat "
             "more or less");
  assumption(
      list, !c.device.empty() && find_device(c.device).nvidia,
      "the CUDA context (287 MB, lazy loading) lies outside the allocator and beside the total");
  if (time.from_assumed_mfu)
    list.push_back(fmt::format("time assumes {:.0f} % of the device's dense peak (--mfu)",
                               c.assumed_mfu * 100));
  const bool weights_16 = find_recipe(c.recipe).weight == 2;
  assumption(
      list, !inference && !lora && !own_types && weights_16 != is_16bit(c.dtype),
      "recipe and dtype differ: the recipe rules the model state, the dtype the activations");
  assumption(list, c.recipe == "autocast" && !is_autocast(c.dtype),
             "recipe autocast without an amp dtype: no 16-bit copies are counted");
  assumption(list, !c.device.empty() && find_device(c.device).peak(c.dtype) <= 0,
             "no peak of this dtype is published for the device: no time and no MFU");
  assumption(list, c.causal_half, "attention FLOPs are counted below the diagonal only");
  assumption(
      list, !c.causal_half && m.has_shape(),
      "attention FLOPs are counted for the full square of scores (--causal half for useful work)");
  return list;
}

void estimate_time(Estimate& e) {
  const TrainingConfig& c = e.config;
  if (e.flops.tokens <= 0) return;
  const double per_token =
      to_double(e.flops.forward + e.flops.backward) / to_double(e.flops.tokens);
  const double hardware = per_token + to_double(e.flops.recompute) / to_double(e.flops.tokens);
  const double count = static_cast<double>(c.devices > 0 ? c.devices : c.world());
  double peak = 0;
  if (!c.device.empty()) peak = find_device(c.device).peak(c.dtype);
  double rate = c.tokens_per_second;
  if (rate <= 0 && peak > 0 && per_token > 0) {
    rate = c.assumed_mfu * peak * count / per_token;
    e.time.from_assumed_mfu = true;
  }
  if (rate > 0) {
    e.time.tokens_per_second = rate;
    e.time.seconds_per_step = to_double(e.flops.tokens) / rate;
    if (c.tokens > 0) e.time.days = to_double(c.tokens) / rate / 86400;
    if (peak > 0) {
      e.time.mfu = model_flops_utilisation(rate, per_token, peak, count);
      e.time.hfu = model_flops_utilisation(rate, hardware, peak, count);
    }
  }
  if (c.tokens > 0) e.time.pf_days = per_token * to_double(c.tokens) / kPfDay;
}

}  // namespace

void validate(const ModelSpec& m, const TrainingConfig& c) {
  at_least_one(c.batch, "--batch");
  if (c.sequence < 0) throw Error("--sequence must be at least 1, it is {}", c.sequence);
  if (c.sequence > 1'000'000'000)
    throw Error("--sequence is {}, more than 1000000000 is not supported", c.sequence);
  at_least_one(c.accumulate, "--accumulate");
  for (const auto& [value, flag] : {std::pair{c.dp, "--dp"},
                                    {c.tp, "--tp"},
                                    {c.cp, "--cp"},
                                    {c.pp, "--pp"},
                                    {c.ep, "--ep"},
                                    {c.interleave, "--interleave"}}) {
    at_least_one(value, flag, 1'000'000);
  }
  if (c.zero < 0 || c.zero > 3) throw Error("--zero must be 0, 1, 2 or 3, it is {}", c.zero);
  if (!(c.dropout >= 0 && c.dropout < 1))
    throw Error("--dropout must be in [0, 1), it is {}", c.dropout);
  if (c.checkpoint == Checkpoint::kEvery) at_least_one(c.checkpoint_every, "--checkpoint every:K");
  if (!(c.assumed_mfu > 0 && c.assumed_mfu <= 1))
    throw Error("--mfu must be in (0, 1], it is {}", c.assumed_mfu);
  if (!(c.tokens_per_second >= 0) || !std::isfinite(c.tokens_per_second)) {
    throw Error("--tokens-per-second must be positive, it is {}", c.tokens_per_second);
  }
  constexpr Integer kMostParameters = 1'000'000'000'000'000'000;
  if (m.given_parameters > kMostParameters || m.given_active_parameters > kMostParameters) {
    throw Error("--parameters and --active-parameters beyond 1e18 are not supported");
  }
  if (c.tokens < 0) throw Error("--tokens must be positive, it is {}", to_string(c.tokens));
  if (c.device_memory < 0)
    throw Error("--device-memory must be positive, it is {}", to_string(c.device_memory));
  if (c.devices < 0) throw Error("--devices must be at least 1, it is {}", c.devices);
  if (!c.device.empty()) find_device(c.device);
  find_optimizer(c.optimizer);
  const std::string recipe = resolve_recipe(c);
  find_recipe(recipe);
  const bool inference = recipe == "inference", lora = recipe == "lora" || recipe == "qlora";
  if (c.weights != "auto") {
    const NumberFormat& format = find_format(c.weights);
    if (!inference && !lora && format.bits < 16) {
      throw Error("--weights {} holds frozen weights only: use --recipe inference, lora or qlora",
                  c.weights);
    }
    if (!inference && !lora)
      throw Error(
          "--weights is for --recipe inference, lora or qlora; --recipe and --dtype decide here");
  }
  if (lora) at_least_one(c.lora_rank, "--lora-rank", 1'000'000);
  const std::string where = m.name.empty() ? "" : m.name + ": ";
  if (m.has_shape() && !m.tensors.empty()) {
    throw Error("{}dimensions and the shapes of the parameters exclude each other", where);
  }
  if (!m.has_shape()) {
    const bool shapes = !m.tensors.empty();
    if (m.given_parameters <= 0 && !shapes) {
      if (m.family == "unpublished") {
        throw Error(
            "{}its size was never published: give --parameters (the lecture's rumour is 1700B)",
            where);
      }
      throw Error(
          "{}give --parameters, or dimensions (--layers, --d-model, --heads, --vocab, --context)",
          where);
    }
    if (m.given_parameters > 0 && shapes) {
      throw Error("{}--parameters and the shapes of the parameters exclude each other", where);
    }
    if (shapes && c.tp * c.cp * c.pp * c.ep > 1) {
      throw Error("{}--tp, --cp, --pp and --ep need a model's dimensions, not only shapes", where);
    }
    if (find_optimizer(c.optimizer).kind == "adafactor" && !inference && !shapes) {
      throw Error("--optimizer {} needs the model's dimensions: its state follows their shapes",
                  c.optimizer);
    }
    if (lora) {
      throw Error("--recipe {} needs the model's dimensions: adapters follow their shapes", recipe);
    }
  } else {
    if (m.heads <= 0 || m.head_dim <= 0 || m.kv_heads <= 0 || m.d_model <= 0 || m.ffn <= 0 ||
        m.vocab <= 0) {
      throw Error("{}incomplete dimensions: call complete() first", where);
    }
    if (c.tp > 1) divides(c.tp, "--tp", m.heads, "heads");
    if (c.cp > 1)
      divides(c.cp, "--cp", c.sequence > 0 ? c.sequence : m.context, "tokens of a sequence");
    if (c.pp * c.interleave > m.layers) {
      throw Error("--pp {} x --interleave {} needs as many layers, the model has {}", c.pp,
                  c.interleave, m.layers);
    }
    if (c.ep > 1) {
      if (m.experts == 0)
        throw Error("--ep {} needs a mixture of experts, {} has none", c.ep, m.name);
      divides(c.ep, "--ep", m.experts, "experts");
    }
  }
  if (c.ep > 1 && c.dp % c.ep != 0) throw Error("--ep {} does not divide --dp {}", c.ep, c.dp);
  if (c.interleave > 1 && c.pp == 1) throw Error("--interleave {} needs --pp", c.interleave);
  const double both = to_double(count_parameters(m).computed) * to_double(m.given_parameters);
  if (both > 1e36) throw Error("{}--parameters and the dimensions are too large together", where);
  // No product of the above may leave 128 bits: bound the largest, the FLOPs of a step.
  const double sequence =
      static_cast<double>(c.sequence > 0 ? c.sequence : std::max<int64_t>(1, m.context));
  const double tokens = sequence * static_cast<double>(c.batch) *
                        static_cast<double>(c.accumulate) * static_cast<double>(c.dp);
  const double per_token =
      100 * to_double(count_parameters(m).total) +
      100 * static_cast<double>(m.layers) * static_cast<double>(m.q_width() + m.heads) * sequence;
  if (tokens * per_token > 1e37)
    throw Error("--batch, --sequence, --accumulate and --dp make a step of more than 1e37 FLOPs");
}

namespace {

void say_what_shapes_do_not(Estimate& e) {
  if (e.model.tensors.empty()) return;
  const std::string only = "not applicable because only the shapes of the parameters are known";
  for (const std::string_view key : {"activations", "logits"}) {
    e.not_applicable.emplace_back(
        key, only + ": what the forward pass keeps needs a run (torchtally run)");
  }
  e.not_applicable.emplace_back(
      "peak", only + ": the peak given here is of the model state, without activations");
  e.not_applicable.emplace_back(
      "flops", only + ", not how often a step uses each: FLOPs need a run (torchtally run)");
}

}  // namespace

Estimate estimate(const ModelSpec& model, const TrainingConfig& config) {
  validate(model, config);
  Estimate e;
  e.model = model;
  e.config = config;
  if (e.config.sequence == 0) e.config.sequence = std::max<int64_t>(1, model.context);
  e.config.recipe = resolve_recipe(config);
  e.parameters = count_parameters(model);
  e.memory = estimate_memory(model, e.config);
  e.flops = estimate_flops(model, e.config);
  e.device.memory_bytes = config.device_memory;
  e.device.name = config.device_memory > 0 ? "given memory" : "";
  if (!config.device.empty()) {
    const DeviceSpec& device = find_device(config.device);
    e.device.name = device.name;
    if (config.device_memory == 0) e.device.memory_bytes = device.memory_bytes;
  }
  if (e.device.memory_bytes > 0) {
    const Integer ranks = config.world();
    e.device.needed = ranks * ceil_div(e.memory.total, e.device.memory_bytes);
    e.device.needed_at_peak = ranks * ceil_div(e.memory.peak, e.device.memory_bytes);
  }
  estimate_time(e);
  e.assumptions = assumptions(model, e.config, e.time);
  say_what_shapes_do_not(e);
  return e;
}

}  // namespace tally::estimate
