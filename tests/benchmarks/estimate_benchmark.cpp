// SPDX-License-Identifier: Apache-2.0
// The estimator's two bars: a sweep of 100,000 configurations in under 2 s, one answer of the
// program in under 20 ms.
#include <cstdlib>
#include <string>

#include <benchmark/benchmark.h>

#include "torchtally/estimate.h"

namespace {

using namespace tally::estimate;

TrainingConfig configuration(int64_t index) {
  TrainingConfig config;
  config.batch = 1 + index % 32;
  config.sequence = 128 * (1 + index / 32 % 16);
  config.dtype = index / 512 % 2 ? Dtype::kAmpBf16 : Dtype::kFp32;
  config.attention = index / 1024 % 2 ? Attention::kFlash : Attention::kEager;
  config.checkpoint = index / 2048 % 2 ? Checkpoint::kFull : Checkpoint::kNone;
  config.dropout = index / 4096 % 2 ? 0.1 : 0;
  config.dp = 8;
  config.zero = index / 8192 % 4;
  config.tp = index / 32768 % 2 ? 4 : 1;
  config.device = "H100";
  return config;
}

void whole_estimate(benchmark::State& state) {
  const ModelSpec model = find_model("llama-3-8b");
  int64_t index = 0;
  for (auto _ : state)
    benchmark::DoNotOptimize(estimate(model, configuration(index++)).memory.peak);
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(whole_estimate)->Unit(benchmark::kMicrosecond);

void sweep_of_100000(benchmark::State& state) {
  const ModelSpec model = find_model("llama-3-8b");
  for (auto _ : state) {
    for (int64_t i = 0; i < 100'000; ++i) {
      benchmark::DoNotOptimize(estimate(model, configuration(i)).memory.peak);
    }
  }
}
BENCHMARK(sweep_of_100000)->Unit(benchmark::kMillisecond)->Iterations(1);

#ifdef TALLY_PROGRAM
void program_answers(benchmark::State& state) {
  const std::string command = std::string(TALLY_PROGRAM) + " estimate llama-65b --json > /dev/null";
  for (auto _ : state) {
    if (std::system(command.c_str()) != 0) state.SkipWithError("the program failed");
  }
}
BENCHMARK(program_answers)->Unit(benchmark::kMillisecond)->UseRealTime();
#endif

}  // namespace

BENCHMARK_MAIN();
