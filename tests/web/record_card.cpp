// SPDX-License-Identifier: Apache-2.0
// record_card RECORDING [BATCH]: trains a small GPT on a CUDA device under the profiler, for the
// browser tests. On the virtual card: the allocator and its numbers are real, values are not. With
// a BATCH that the card has no room for it ends in a failed allocation, as a program of a user does.
#include <torch/torch.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "samples/gpt.h"
#include "torchtally/profiler.h"

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fputs("usage: record_card RECORDING [BATCH]\n", stderr);
    return 2;
  }
  const int64_t batch = argc > 2 ? std::strtoll(argv[2], nullptr, 10) : 4;
  const sample::GptConfig config{.vocabulary = 512,
                                 .context = 64,
                                 .layers = 3,
                                 .width = 128,
                                 .heads = 4,
                                 .untied = false,
                                 .sdpa = false,
                                 .checkpoint = false};
  try {
    at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
    sample::Gpt model(config);
    model->to(torch::kCUDA);
    torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(1e-3));
    tally::Options options;
    options.recording = argv[1];
    tally::Profiler profiler(options);
    profiler.watch(*model);
    profiler.watch(optimizer);
    for (int i = 0; i < 4; ++i) {
      const auto step = profiler.step();
      const auto x = torch::randint(config.vocabulary, {i < 2 ? 4 : batch, config.context},
                                    torch::TensorOptions(torch::kCUDA).dtype(torch::kLong));
      const auto logits = model->forward(x);
      torch::nn::functional::cross_entropy(logits.view({-1, config.vocabulary}), x.view({-1}))
          .backward();
      optimizer.step();
      optimizer.zero_grad();
    }
  } catch (const c10::OutOfMemoryError& error) {
    std::fprintf(stderr, "record_card: %s\n", error.what_without_backtrace());
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "record_card: %s\n", error.what());
    return 2;
  }
}
