// SPDX-License-Identifier: Apache-2.0
// Trains a GPT of GPT-2's shape on text for a few steps, with the profiler around it.
#include <torch/torch.h>
#include <torchtally/profiler.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "gpt.h"
#include "sample.h"
#include "text_data.h"

namespace {

struct Flags : sample::TrainFlags {
  sample::GptConfig model;
  std::string attention = "eager";
  std::vector<std::string> text = {SAMPLE_TEXT};
  bool small = false;
  bool keep_logits = false;
};

void add_flags(CLI::App& app, Flags& flags) {
  app.add_option("--layers", flags.model.layers, "Blocks")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--width", flags.model.width, "Channels of a token")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--heads", flags.model.heads, "Attention heads; must divide the width")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--sequence", flags.model.context, "Tokens of an example")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--attention", flags.attention, "Operator by operator, or the fused operator")
      ->check(CLI::IsMember({"eager", "sdpa"}))
      ->capture_default_str();
  app.add_flag("--checkpoint", flags.model.checkpoint,
               "Keep only the input of each block, run the block again in the backward pass");
  app.add_flag("--keep-logits", flags.keep_logits,
               "Keep the logits of each micro-batch until the update: a common mistake, for the report to find");
  app.add_flag("--untied", flags.model.untied, "Give the head a weight of its own");
  app.add_flag("--small", flags.small,
               "2 layers, width 64, 2 heads, batch 4, sequence 64, 5 steps");
  app.add_option("--text", flags.text, "Files to train on, or folders with sources")
      ->capture_default_str();
  sample::add_train_flags(app, flags);
  app.footer(
      "Examples:\n"
      "  train_gpt                                   4 layers on this repository's sources\n"
      "  train_gpt --attention sdpa --checkpoint     what each saves\n"
      "  train_gpt --accumulate 4 --batch 2          the same batch in four micro-steps\n"
      "  train_gpt --accumulate 4 --keep-logits      a mistake that the report finds\n"
      "  train_gpt --text book.txt --steps 50 --recording book.tally --report book.html\n"
      "  train_gpt --small --no-profile              a second or two, nothing written");
}

// The preset fills in what was not given.
void apply_small(const CLI::App& app, Flags& flags) {
  const auto set = [&app](const char* flag, int64_t& value, int64_t small) {
    if (app.count(flag) == 0) value = small;
  };
  set("--layers", flags.model.layers, 2);
  set("--width", flags.model.width, 64);
  set("--heads", flags.model.heads, 2);
  set("--batch", flags.batch, 4);
  set("--sequence", flags.model.context, 64);
  set("--steps", flags.steps, 5);
}

// Without `kept` the logits go as soon as the loss is there.
torch::Tensor loss_of(sample::Gpt& model, const torch::Tensor& tokens,
                      const torch::Tensor& targets, std::vector<torch::Tensor>* kept) {
  auto logits = model(tokens);
  if (kept) kept->push_back(logits);
  const tally::Scope scope("loss");
  return torch::cross_entropy_loss(logits.flatten(0, 1), targets.flatten());
}

// For the report's closed forms.
std::string description(const sample::GptConfig& model) {
  std::ostringstream text;
  text << R"({"family": "gpt", "name": "train_gpt", "layers": )" << model.layers
       << R"(, "d_model": )" << model.width << R"(, "heads": )" << model.heads << R"(, "vocab": )"
       << model.vocabulary << R"(, "context": )" << model.context << R"(, "tied": )"
       << (model.untied ? "false" : "true") << "}";
  return text.str();
}

sample::Losses train(const Flags& flags) {
  if (flags.model.width % flags.model.heads != 0) {
    throw sample::BadInput("--heads " + std::to_string(flags.model.heads) +
                           " does not divide --width " + std::to_string(flags.model.width));
  }
  torch::manual_seed(flags.seed);
  if (flags.threads > 0) torch::set_num_threads(static_cast<int>(flags.threads));
  sample::TextData data(flags.text, flags.model.context, flags.seed);
  sample::Gpt model(flags.model);
  const auto optimizer = sample::make_optimizer(flags, model->parameters());
  int64_t parameters = 0;
  for (const auto& parameter : model->parameters()) parameters += parameter.numel();
  std::printf("%lld parameters, %zu bytes of text\n", static_cast<long long>(parameters),
              data.bytes());

  sample::Losses losses;
  tally::Options options = sample::profiler_options(flags);
  options.model = description(flags.model);
  tally::Profiler profiler(std::move(options));
  profiler.watch(*model);
  profiler.watch(*optimizer);
  for (int64_t i = 0; i < flags.steps; ++i) {
    auto step = profiler.step();
    double total = 0;
    std::vector<torch::Tensor> kept;
    optimizer->zero_grad();
    for (int64_t micro = 0; micro < flags.accumulate; ++micro) {
      const auto [tokens, targets] = data.batch(flags.batch);
      auto loss = loss_of(model, tokens, targets, flags.keep_logits ? &kept : nullptr) /
                  static_cast<double>(flags.accumulate);
      loss.backward();
      total += loss.item<double>();
    }
    optimizer->step();
    losses.add(total);
  }
  profiler.stop();
  std::cout << profiler.summary();
  return losses;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Trains a GPT of GPT-2's shape on text and says where every byte and FLOP went.",
               "train_gpt"};
  Flags flags;
  add_flags(app, flags);
  return sample::run("train_gpt", app, argc, argv, [&] {
    if (flags.small) apply_small(app, flags);
    flags.model.sdpa = flags.attention == "sdpa";
    return train(flags);
  });
}
