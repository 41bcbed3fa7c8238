// SPDX-License-Identifier: Apache-2.0
// What the training samples share: common flags, optimizers by name, a loss that must fall, and
// errors as one sentence.
#pragma once

#include <torch/torch.h>
#include <torchtally/profiler.h>

#include <CLI/CLI.hpp>
#include <cctype>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace sample {

// Wrong use or bad input: exit code 2.
struct BadInput : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct TrainFlags {
  int64_t steps = 10;
  int64_t batch = 8;
  int64_t accumulate = 1;
  std::string optimizer = "adamw";
  double learning_rate = 0;  // 0: what suits the optimizer
  double sgd_rate = 0.1;     // what suits this model under SGD; others care less for the model
  int64_t threads = 0;       // 0: LibTorch decides
  uint64_t seed = 0;
  bool no_profile = false;
  std::string recording = "run.tally";
  std::string report = "report.html";
};

inline void add_train_flags(CLI::App& app, TrainFlags& flags) {
  app.add_option("--steps", flags.steps, "Optimizer updates")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--batch", flags.batch, "Examples in a micro-batch")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--accumulate", flags.accumulate, "Micro-batches of one update")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--optimizer", flags.optimizer, "How parameters are updated")
      ->check(CLI::IsMember({"adamw", "adam", "sgd", "sgd-momentum", "rmsprop", "adagrad"}))
      ->capture_default_str();
  app.add_option("--learning-rate", flags.learning_rate, "Default: what suits the optimizer")
      ->check(CLI::PositiveNumber);
  app.add_option("--threads", flags.threads, "Threads of one operator (default: LibTorch decides)")
      ->check(CLI::PositiveNumber);
  app.add_option("--seed", flags.seed, "Of parameters and batches")->capture_default_str();
  app.add_flag("--no-profile", flags.no_profile, "Train without the profiler");
  app.add_option("--recording", flags.recording, "Recording to write")->capture_default_str();
  app.add_option("--report", flags.report, "Page to write; \"\" for none")->capture_default_str();
}

inline tally::Options profiler_options(const TrainFlags& flags) {
  tally::Options options;
  options.recording = flags.recording;
  options.report = flags.report;
  options.enabled = !flags.no_profile;
  return options;
}

inline std::unique_ptr<torch::optim::Optimizer> make_optimizer(
    const TrainFlags& flags, std::vector<torch::Tensor> parameters) {
  namespace optim = torch::optim;
  const auto rate = [&](double suitable) {
    return flags.learning_rate > 0 ? flags.learning_rate : suitable;
  };
  if (flags.optimizer == "adamw") {
    return std::make_unique<optim::AdamW>(parameters, optim::AdamWOptions(rate(1e-3)));
  }
  if (flags.optimizer == "adam") {
    return std::make_unique<optim::Adam>(parameters, optim::AdamOptions(rate(1e-3)));
  }
  if (flags.optimizer == "rmsprop") {
    return std::make_unique<optim::RMSprop>(parameters, optim::RMSpropOptions(rate(2e-4)));
  }
  if (flags.optimizer == "adagrad") {
    return std::make_unique<optim::Adagrad>(parameters, optim::AdagradOptions(rate(3e-3)));
  }
  const bool momentum = flags.optimizer == "sgd-momentum";
  optim::SGDOptions options(rate(flags.sgd_rate * (momentum ? 0.2 : 1)));
  return std::make_unique<optim::SGD>(parameters, options.momentum(momentum ? 0.9 : 0.0));
}

// Prints the loss of each step and remembers whether it fell.
class Losses {
 public:
  void add(double loss) {
    values_.push_back(loss);
    std::printf("step %zu: loss %.4f\n", values_.size() - 1, loss);
    std::fflush(stdout);
  }
  // A handful of steps must show it; single steps are noise.
  void check() const {
    if (values_.size() < 5) return;
    const double first = values_.front();
    const double last = (values_[values_.size() - 1] + values_[values_.size() - 2]) / 2;
    if (last < first) return;  // also false for a NaN
    throw std::runtime_error("the loss did not fall: " + std::to_string(first) + " at first, " +
                             std::to_string(last) +
                             " at last; lower --learning-rate or take more --steps");
  }

 private:
  std::vector<double> values_;
};

inline int complain(const char* program, std::string sentence, int exit_code) {
  // CLI11's messages begin in upper case and may run over several lines.
  for (char& c : sentence) {
    if (c == '\n') c = ' ';
  }
  while (!sentence.empty() && (sentence.back() == ' ' || sentence.back() == '.'))
    sentence.pop_back();
  if (sentence.size() > 1 && std::islower(static_cast<unsigned char>(sentence[1]))) {
    sentence[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(sentence[0])));
  }
  std::fprintf(stderr, "%s: %s\n", program, sentence.c_str());
  return exit_code;
}

// Parses the command line and calls train(). Exit code 2: wrong use or bad input. 1: the loss did
// not fall, or LibTorch failed.
template <typename Train>
int run(const char* program, CLI::App& app, int argc, char** argv, Train&& train) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    const std::string hint = std::string("; see '") + program + " --help'";
    return complain(program, error.what() + hint, 2);
  }
  try {
    const Losses losses = train();
    try {
      losses.check();
    } catch (const std::runtime_error& error) {
      return complain(program, error.what(), 1);
    }
    return 0;
  } catch (const c10::Error& error) {
    return complain(program, error.what_without_backtrace(), 1);
  } catch (const std::runtime_error& error) {  // BadInput, and tally::ProfilerError is one
    return complain(program, error.what(), 2);
  } catch (const std::exception& error) {
    return complain(program, error.what(), 1);
  }
}

}  // namespace sample
