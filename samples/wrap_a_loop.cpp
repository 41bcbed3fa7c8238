// SPDX-License-Identifier: Apache-2.0
// The ten lines of the README: an ordinary LibTorch training loop, wrapped.
#include <torch/torch.h>
#include <torchtally/profiler.h>

#include <iostream>

int main() {
  torch::manual_seed(0);
  torch::nn::Sequential model(torch::nn::Linear(64, 256), torch::nn::ReLU(),
                              torch::nn::Linear(256, 10));
  torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(1e-3));

  // [README: wrap]
  tally::Profiler profiler({.recording = "run.tally", .report = "report.html"});
  profiler.watch(*model);
  profiler.watch(optimizer);
  for (int i = 0; i < 3; ++i) {
    auto step = profiler.step();  // one optimizer update, until the end of this scope
    auto x = torch::randn({32, 64}), y = torch::randint(10, {32});
    auto loss = torch::nn::functional::cross_entropy(model->forward(x), y);
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
  }
  profiler.stop();  // or its destructor: writes the recording's end and the page
  // [README: end]

  std::cout << profiler.summary();
}
