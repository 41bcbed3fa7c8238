// SPDX-License-Identifier: Apache-2.0
// The smallest program that uses the profiler from outside. Exit code 0: it has a report, and its
// books close.
#include <torch/nn/modules/linear.h>
#include <torch/optim/sgd.h>
#include <torchtally/profiler.h>
#include <torchtally/testing.h>

#include <iostream>

int main() {
  torch::nn::Linear model(8, 4);
  torch::optim::SGD optimizer(model->parameters(), 0.1);
  tally::Profiler profiler({"consumer.tally", "consumer.html"});
  profiler.watch(*model);
  profiler.watch(optimizer);
  for (int i = 0; i < 2; ++i) {
    auto step = profiler.step();
    optimizer.zero_grad();
    model->forward(at::ones({2, 8})).sum().backward();
    optimizer.step();
  }
  profiler.stop();
  const std::string summary = profiler.summary();
  std::cout << summary;
  const auto budget = tally::testing::StaysWithin("1 MiB");
  if (!budget.MatchAndExplain(profiler, &std::cout)) return 1;
  return summary.find("Books of step") == std::string::npos;
}
