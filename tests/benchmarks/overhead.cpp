// SPDX-License-Identifier: Apache-2.0
// What the profiler costs. Time: steps with and without it, in turn, in one process, and the ratio
// of each pair. Memory: the most that a process with it and one without ever had resident.
// overhead_benchmark [gpt2|tiny] [pairs]; exit code 1 when a bar of docs/benchmarks.md is missed.
// overhead_benchmark gpt2|tiny plain|callback|watched STEPS only trains, for a tool that looks from
// outside: as it is, under a RecordFunction callback that asks for inputs and does nothing,
// watched.
#include <ATen/record_function.h>
#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <torch/torch.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "torchtally/profiler.h"

namespace {

namespace nn = torch::nn;

struct Workload {
  std::string name;
  std::function<void()> step;
  std::function<void(tally::Profiler&)> watch;
  int steps_a_round;
  double most;  // highest allowed median ratio
};

struct Block : nn::Module {
  explicit Block(int64_t width, int64_t heads) : heads_(heads) {
    ln_1 = register_module("ln_1", nn::LayerNorm(nn::LayerNormOptions({width})));
    c_attn = register_module("c_attn", nn::Linear(width, 3 * width));
    c_proj = register_module("c_proj", nn::Linear(width, width));
    ln_2 = register_module("ln_2", nn::LayerNorm(nn::LayerNormOptions({width})));
    c_fc = register_module("c_fc", nn::Linear(width, 4 * width));
    out = register_module("out", nn::Linear(4 * width, width));
  }
  at::Tensor forward(at::Tensor x) {
    const int64_t b = x.size(0), s = x.size(1), h = x.size(2);
    auto qkv = c_attn(ln_1(x)).view({b, s, 3, heads_, h / heads_}).permute({2, 0, 3, 1, 4});
    auto context = at::scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], {}, 0.0, true);
    x = x + c_proj(context.transpose(1, 2).reshape({b, s, h}));
    return x + out(torch::gelu(c_fc(ln_2(x))));
  }
  nn::LayerNorm ln_1{nullptr}, ln_2{nullptr};
  nn::Linear c_attn{nullptr}, c_proj{nullptr}, c_fc{nullptr}, out{nullptr};

 private:
  int64_t heads_;
};

// The shape of GPT-2 small, with a short sequence so that a pair takes seconds, not minutes.
Workload gpt2() {
  constexpr int64_t kWidth = 768, kVocabulary = 50257, kSequence = 64;
  auto wte = std::make_shared<nn::EmbeddingImpl>(kVocabulary, kWidth);
  auto blocks = std::make_shared<std::vector<std::shared_ptr<Block>>>();
  std::vector<at::Tensor> parameters = wte->parameters();
  for (int i = 0; i < 12; ++i) {
    blocks->push_back(std::make_shared<Block>(kWidth, 12));
    for (auto& parameter : blocks->back()->parameters()) parameters.push_back(parameter);
  }
  auto optimizer =
      std::make_shared<torch::optim::AdamW>(parameters, torch::optim::AdamWOptions(1e-4));
  auto step = [=] {
    auto tokens = torch::randint(kVocabulary, {1, kSequence});
    optimizer->zero_grad();
    auto x = wte->forward(tokens);
    for (auto& block : *blocks) x = block->forward(x);
    auto logits = torch::matmul(x, wte->weight.t()).view({kSequence, kVocabulary});
    nn::functional::cross_entropy(logits, tokens.view({-1})).backward();
    optimizer->step();
  };
  auto watch = [=](tally::Profiler& profiler) {
    profiler.watch(*wte, "wte");
    for (size_t i = 0; i < blocks->size(); ++i)
      profiler.watch(*(*blocks)[i], "h." + std::to_string(i));
    profiler.watch(*optimizer);
  };
  return {"gpt2", step, watch, 1, 1.02};
}

// Nearly nothing but calls: 300 layers of 16 x 16.
Workload tiny() {
  nn::Sequential model;
  for (int i = 0; i < 300; ++i) model->push_back(nn::Linear(16, 16));
  auto optimizer =
      std::make_shared<torch::optim::AdamW>(model->parameters(), torch::optim::AdamWOptions(1e-3));
  auto step = [=]() mutable {
    optimizer->zero_grad();
    model->forward(torch::randn({8, 16})).sum().backward();
    optimizer->step();
  };
  auto watch = [=](tally::Profiler& profiler) {
    profiler.watch(*model);
    profiler.watch(*optimizer);
  };
  return {"tiny", step, watch, 20, 1.5};
}

double seconds(clockid_t clock = CLOCK_MONOTONIC) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double quantile(std::vector<double>& values, double of) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(of * static_cast<double>(values.size() - 1))];
}

// glibc keeps what a step frees, where it would give it back and take it anew every step: a fifth
// of GPT-2's step are such page faults, and no two steps have the same of them.
void keep_heap() {
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
}

// What is resident is what lives: in a heap it depends on where its free pieces lie, which is
// chance and worth a hundred MiB.
void map_blocks() { mallopt(M_MMAP_THRESHOLD, 128 << 10); }

bool measure(Workload workload, int pairs) {
  const auto path =
      std::filesystem::temp_directory_path() / ("overhead-" + std::to_string(getpid()));
  for (int i = 0; i < 3; ++i) workload.step();
  // Of each step: its seconds, and those that a processor spent on the thread that trains.
  struct Steps {
    std::vector<double> seconds, processor;
  } plain_steps, watched_steps;
  std::vector<double> ratios;
  // The seconds of a round.
  const auto run = [&](Steps& steps, tally::Profiler* profiler) {
    const double begin = seconds();
    for (int i = 0; i < workload.steps_a_round; ++i) {
      const double begin_of_step = seconds();
      const double processor = seconds(CLOCK_THREAD_CPUTIME_ID);
      {
        std::optional<tally::Step> step;
        if (profiler) step.emplace(profiler->step());
        workload.step();
      }
      steps.seconds.push_back(seconds() - begin_of_step);
      steps.processor.push_back(seconds(CLOCK_THREAD_CPUTIME_ID) - processor);
    }
    return seconds() - begin;
  };
  for (int pair = 0; pair < pairs; ++pair) {
    // The two take turns in going first: a machine that slows down favours neither.
    double plain = pair % 2 == 0 ? run(plain_steps, nullptr) : 0;
    tally::Options options;
    options.recording = path.string();
    tally::Profiler profiler(options);
    workload.watch(profiler);
    for (int i = 0; i < 3; ++i) {  // detail and theory are for the first steps
      auto step = profiler.step();
      workload.step();
    }
    const double watched = run(watched_steps, &profiler);
    profiler.stop();
    if (pair % 2 == 1) plain = run(plain_steps, nullptr);
    ratios.push_back(watched / plain);
  }
  std::filesystem::remove(path);
  const double median = quantile(ratios, 0.5);
  const bool good = median <= workload.most;
  std::printf(
      "%-5s step with / without: median %.3f (min %.3f, max %.3f, %d pairs of %d steps), bar %.2f: "
      "%s; the fastest tenth of the steps: %.3f; processor time of the training thread: %.3f\n",
      workload.name.c_str(), median, ratios.front(), ratios.back(), pairs, workload.steps_a_round,
      workload.most, good ? "met" : "MISSED",
      quantile(watched_steps.seconds, 0.1) / quantile(plain_steps.seconds, 0.1),
      quantile(watched_steps.processor, 0.5) / quantile(plain_steps.processor, 0.5));
  return good;
}

void watch_nothing() {
  using at::RecordScope;
  at::addGlobalCallback(
      at::RecordFunctionCallback(
          [](const at::RecordFunction&) -> std::unique_ptr<at::ObserverContext> { return nullptr; },
          [](const at::RecordFunction&, at::ObserverContext*) {})
          .needsInputs(true)
          .scopes(
              {RecordScope::FUNCTION, RecordScope::BACKWARD_FUNCTION, RecordScope::USER_SCOPE}));
}

// A process of its own for measure_resident().
int train(Workload workload, const std::string& how, int steps) {
  std::optional<tally::Profiler> profiler;
  const auto path =
      std::filesystem::temp_directory_path() / ("resident-" + std::to_string(getpid()));
  if (how == "callback") watch_nothing();
  if (how == "watched") {
    tally::Options options;
    options.recording = path.string();
    profiler.emplace(options);
    workload.watch(*profiler);
  }
  for (int i = 0; i < steps; ++i) {
    std::optional<tally::Step> step;
    if (profiler) step.emplace(profiler->step());
    workload.step();
  }
  profiler.reset();
  std::filesystem::remove(path);
  return 0;
}

// The most that such a process ever had resident, in MiB.
double highest_resident(const std::string& name, const char* how) {
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  const pid_t child = fork();
  if (child == 0) {
    execl(self.c_str(), self.c_str(), name.c_str(), how, static_cast<char*>(nullptr));
    _exit(127);
  }
  int status = 0;
  rusage usage{};
  if (child < 0 || wait4(child, &status, 0, &usage) != child || status != 0) {
    std::fprintf(stderr, "overhead_benchmark: the process of %s, %s, failed\n", name.c_str(), how);
    std::exit(2);
  }
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

bool measure_resident(const std::string& name) {
  constexpr double kMost = 32;  // MiB; the 100 bytes of each live block are not even counted
  std::vector<double> plain, watched;
  for (int i = 0; i < 5; ++i) {
    plain.push_back(highest_resident(name, "plain"));
    watched.push_back(highest_resident(name, "watched"));
  }
  const double more = quantile(watched, 0.5) - quantile(plain, 0.5);
  const bool good = more <= kMost;
  std::printf(
      "%-5s resident at most, medians of 5: %.1f MiB with (%.1f to %.1f), %.1f MiB without (%.1f "
      "to "
      "%.1f): %+.1f MiB, bar %.0f: %s\n",
      name.c_str(), quantile(watched, 0.5), watched.front(), watched.back(), quantile(plain, 0.5),
      plain.front(), plain.back(), more, kMost, good ? "met" : "MISSED");
  return good;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string which = argc > 1 ? argv[1] : "";
  const std::string how = argc > 2 ? argv[2] : "";
  if (how == "plain" || how == "callback" || how == "watched") {
    map_blocks();
    const Workload workload = which == "tiny" ? tiny() : gpt2();
    return train(workload, how, argc > 3 ? std::atoi(argv[3]) : 3 * workload.steps_a_round + 3);
  }
  keep_heap();
  const int pairs = argc > 2 ? std::max(1, std::atoi(argv[2])) : 9;
  bool good = true;
  for (const char* name : {"tiny", "gpt2"}) {
    if (!which.empty() && which != name) continue;
    good &= measure_resident(name);
    good &= measure(std::string(name) == "tiny" ? tiny() : gpt2(), pairs);
  }
  return good ? 0 : 1;
}
