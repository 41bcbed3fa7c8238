// SPDX-License-Identifier: Apache-2.0
// What the model's configuration alone says a step should need: the closed forms of
// profiler/estimate, beside the rules over the recorded shapes. Batch, sequence, types, optimizer
// and attention are read off the recording, never bytes.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <optional>

#include <fmt/format.h>

#include "profiler/analysis/parts.h"
#include "profiler/core/error.h"
#include "profiler/core/tensor_table.h"
#include "profiler/core/units.h"
#include "torchtally/estimate.h"

namespace tally::analysis {
namespace {

using estimate::Estimate;
using estimate::Integer;

// Why there is no closed form; becomes "not applicable because ...".
struct NotApplicable {
  std::string why;
};

estimate::ModelSpec model_of(const std::string& text) {
  if (text.empty()) {
    throw NotApplicable{
        "the model's configuration is not known (torchtally report --model gives it)"};
  }
  try {
    const bool is_json = text.find('{') != std::string::npos;
    return is_json ? estimate::model_from_config(text, "the model's configuration")
                   : estimate::find_model(text);
  } catch (const Error& error) {
    throw NotApplicable{fmt::format("the model's configuration cannot be used: {}", error.what())};
  }
}

// Batch and sequence: of the input whose elements are the tokens of a micro-step.
void fill_batch(const Summary& summary, estimate::TrainingConfig* config) {
  const StepSummary& step = summary.step();
  const auto micro_steps = static_cast<int64_t>(std::max(1, step.micro_steps));
  const auto tokens = static_cast<int64_t>(step.tokens) / micro_steps;
  if (tokens <= 0) throw NotApplicable{"the model has no embedding, so its tokens are not known"};
  for (const DeviceStep& device : step.devices) {
    for (const BlockRow& block : device.peak_blocks) {
      if (block.role != Role::kInput) continue;
      const std::vector<int64_t> shape = parse_shape(block.shape);
      // As loaders cut them: [batch, sequence], or [batch, sequence + 1] where the targets are
      // the same tokens, one further.
      for (const int64_t more : {0, 1}) {
        if (shape.size() != 2 || shape[0] * (shape[1] - more) != tokens) continue;
        config->batch = shape[0];
        config->sequence = shape[1] - more;
        config->accumulate = micro_steps;
        return;
      }
    }
  }
  throw NotApplicable{fmt::format(
      "the batch's shape is not known: no input of {} tokens is among the blocks of the peak",
      format_integer(tokens))};
}

void fill_types(const recording::Run& run, estimate::TrainingConfig* config) {
  std::map<std::string, int64_t> bytes;
  for (const ParameterInfo& p : run.info.parameters) {
    if (!p.is_buffer) bytes[run.text(p.dtype)] += p.bytes;
  }
  if (bytes.empty()) throw NotApplicable{"no module with parameters was watched"};
  static const std::map<std::string, estimate::Dtype> kTypes{{"float32", estimate::Dtype::kFp32},
                                                             {"bfloat16", estimate::Dtype::kBf16},
                                                             {"float16", estimate::Dtype::kFp16}};
  const auto type = kTypes.find(bytes.begin()->first);
  if (bytes.size() > 1 || type == kTypes.end()) {
    throw NotApplicable{"the parameters are of several types, or of one without a closed form"};
  }
  config->dtype = type->second;
}

// The recipe "sgd-momentum" may be a row of its own, or its base is.
void fill_optimizer(const recording::Run& run, estimate::TrainingConfig* config) {
  if (run.info.optimizers.empty()) throw NotApplicable{"no optimizer was watched"};
  if (run.info.optimizers.size() > 1) throw NotApplicable{"several optimizers were watched"};
  const std::string recipe = run.text(run.info.optimizers.front().recipe);
  for (const estimate::Optimizer& known : estimate::optimizers()) {
    if (known.name != recipe) continue;
    config->optimizer = recipe;
    return;
  }
  throw NotApplicable{
      fmt::format("no closed form is known for the optimizer {}",
                  recipe.empty() ? run.text(run.info.optimizers.front().type) : recipe)};
}

void fill_operators(const Summary& summary, estimate::TrainingConfig* config) {
  for (const OperatorRow& row : summary.step().operators) {
    if (row.op.find("scaled_dot_product") != std::string::npos ||
        row.op.find("flash_attention") != std::string::npos) {
      config->attention = estimate::Attention::kSdpa;
    }
  }
  if (summary.step().flops.recompute > 0) config->checkpoint = estimate::Checkpoint::kFull;
  config->cpu = summary.device == "cpu";
}

Estimate estimate_of(const recording::Run& run, const std::string& model, const Summary& summary) {
  const estimate::ModelSpec spec = model_of(model);
  if (summary.trainable_count != summary.parameter_count) {
    throw NotApplicable{
        fmt::format("{} of the {} parameters are frozen, and closed forms are of training them all",
                    format_integer(summary.parameter_count - summary.trainable_count),
                    format_integer(summary.parameter_count))};
  }
  estimate::TrainingConfig config;
  fill_types(run, &config);
  fill_optimizer(run, &config);
  fill_batch(summary, &config);
  fill_operators(summary, &config);
  try {
    return estimate::estimate(spec, config);
  } catch (const Error& error) {
    throw NotApplicable{error.what()};
  }
}

std::string described(const Estimate& e) {
  const estimate::TrainingConfig& c = e.config;
  return fmt::format(
      "{}, batch {} x {} tokens{}, {}, {} attention{}",
      e.model.name.empty() ? "the configuration" : e.model.name, c.batch, c.sequence,
      c.accumulate > 1 ? fmt::format(" x {} micro-steps", c.accumulate) : "", c.optimizer,
      c.attention == estimate::Attention::kEager ? "eager" : "fused",
      c.checkpoint == estimate::Checkpoint::kFull ? ", every layer checkpointed" : "");
}

}  // namespace

void add_closed_forms(const recording::Run& run, const std::string& model, Summary* filled) {
  const Summary& summary = *filled;
  std::optional<Estimate> e;
  std::string why_not;
  try {
    e = estimate_of(run, model.empty() ? run.info.model : model, summary);
  } catch (const NotApplicable& reason) {
    why_not = "not applicable because " + reason.why;
  }
  if (e) filled->closed_form_of = described(*e);
  for (TheoryRow& row : filled->theory) {
    row.closed_form_cause = why_not;
    if (!e) continue;
    const auto say = [&](Integer value, const std::string& formula) {
      row.closed_form = static_cast<double>(value);
      row.closed_form_cause = formula;
    };
    const auto& memory = e->memory;
    if (row.key == "parameter") {
      say(memory.group(estimate::Group::kParameters), "bytes a parameter x parameters");
      if (e->parameters.total != summary.parameter_count) {
        row.closed_form_cause += fmt::format("; the configuration has {} parameters, the run {}",
                                             estimate::to_string(e->parameters.total),
                                             format_integer(summary.parameter_count));
      }
    } else if (row.key == "gradient") {
      say(memory.group(estimate::Group::kGradients), "bytes a gradient x parameters");
    } else if (row.key == "optimizer_state") {
      say(memory.group(estimate::Group::kOptimizerState), "states of the optimizer x parameters");
    } else if (row.key == "activation") {
      const Integer held = estimate::held_logits_bytes(e->model, e->config);
      const Integer loss = (estimate::logits_bytes(e->model, e->config) - held) / 3;
      say(memory.group(estimate::Group::kActivations) + loss,
          "what each layer keeps x layers, and the log-probabilities");
    } else if (row.key == "peak") {
      const auto& moment = memory.moments[memory.peak_moment];
      say(memory.peak, fmt::format("{}: {}", moment.title, moment.formula));
    } else if (row.key == "flops_forward") {
      say(e->flops.forward, "products of the layers and the head");
    } else if (row.key == "flops_backward") {
      say(e->flops.backward, "2 x forward");
    } else if (row.key == "flops_total") {
      say(e->flops.forward + e->flops.backward + e->flops.recompute,
          "forward, backward and recomputation");
    } else {
      row.closed_form_cause = "not applicable because the configuration does not say it";
    }
    if (row.closed_form && *row.closed_form > 0 && row.measured != *row.closed_form) {
      row.closed_form_cause += fmt::format(
          "; measured: {:+.2f} %", 100 * (row.measured - *row.closed_form) / *row.closed_form);
      if (row.unit == "bytes" && row.measured > *row.closed_form &&
          row.measured < 1.01 * *row.closed_form) {
        row.closed_form_cause += ", indices, targets and counters, which it does not count";
      }
    }
  }
}

}  // namespace tally::analysis
