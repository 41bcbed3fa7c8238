// SPDX-License-Identifier: Apache-2.0
// What the profiler adds to an event of LibTorch's CUDA allocator: allocations and frees on the
// virtual card with and without it, in turn. Exit code 1 when the bar of docs/benchmarks.md is
// missed.
#include <c10/cuda/CUDACachingAllocator.h>
#include <torch/torch.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <vector>

#include "torchtally/profiler.h"

namespace {

constexpr int kPairs = 9;
constexpr int kTensors = 50'000;
constexpr int kEventsOfATensor = 3;  // allocated, free requested, free completed
constexpr double kBarNs = 110;

// Below the operators: the allocator and its tracker alone.
double ns_a_tensor() {
  auto* allocator = c10::cuda::CUDACachingAllocator::get();
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < kTensors; ++i) allocator->raw_delete(allocator->raw_alloc(1000));
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - begin;
  return took.count() / kTensors;
}

}  // namespace

int main() {
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  const auto keeps_segment = torch::empty({1}, torch::kCUDA);
  const auto path =
      std::filesystem::temp_directory_path() / ("cuda-events-" + std::to_string(getpid()));
  ns_a_tensor();
  std::vector<double> added;
  double plain_ns = 0;
  for (int pair = 0; pair < kPairs; ++pair) {
    const double plain = ns_a_tensor();
    tally::Options options;
    options.recording = path;
    tally::Profiler profiler(options);
    double watched = 0;
    {
      auto step = profiler.step();
      watched = ns_a_tensor();
    }
    profiler.stop();
    added.push_back((watched - plain) / kEventsOfATensor);
    plain_ns = plain;
  }
  std::filesystem::remove(path);
  std::sort(added.begin(), added.end());
  const double median = added[added.size() / 2];
  std::printf(
      "allocation and free: %.0f ns; the profiler adds to each event: median %.0f ns (min %.0f, "
      "max %.0f, %d pairs), bar %.0f ns: %s\n",
      plain_ns, median, added.front(), added.back(), kPairs, kBarNs,
      median <= kBarNs ? "met" : "MISSED");
  return median <= kBarNs ? 0 : 1;
}
