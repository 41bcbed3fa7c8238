// SPDX-License-Identifier: Apache-2.0
// When the source of CUDA memory begins, and what the recording says where there is nothing to
// watch.
#include <c10/cuda/CUDACachingAllocator.h>
#include <gmock/gmock.h>

#include "tests/support/profiled_run.h"

namespace tally::test {
namespace {

namespace cuda_allocator = c10::cuda::CUDACachingAllocator;

const SourceInfo& cuda_source(const recording::Run& run) {
  for (const SourceInfo& source : run.info.sources) {
    if (source.name == "cuda.allocator") return source;
  }
  ADD_FAILURE() << "no source cuda.allocator";
  return run.info.sources.at(0);
}

recording::Run on_the_cpu() {
  return profiled([](Profiler& profiler) {
    const auto step = profiler.step();
    torch::ones({10}).requires_grad_(true).sum().backward();
  });
}

TEST(CudaSource, ReadyButNeverUsed) {
  if (cuda_allocator::get()->initialized()) GTEST_SKIP() << "needs a process of its own";
  const SourceInfo source = cuda_source(on_the_cpu());
  EXPECT_FALSE(source.available);
  EXPECT_EQ(source.reason, "the program did not use CUDA");
}

TEST(CudaSource, FirstUsedInTheMiddleOfAStep) {
  if (cuda_allocator::get()->initialized()) GTEST_SKIP() << "needs a process of its own";
  const auto run = profiled([](Profiler& profiler) {
    for (int i = 0; i < 2; ++i) {
      const auto step = profiler.step();
      const auto on_cpu = torch::ones({10, 10});
      auto weight = torch::ones({10, 10}).to(torch::kCUDA).requires_grad_(true);
      on_cpu.to(torch::kCUDA).mm(weight).sum().backward();
    }
  });
  EXPECT_TRUE(cuda_source(run).available);
  EXPECT_EQ(run.steps[0].books.devices.size(), 2u);
}

TEST(CudaSource, TheDriversAllocatorIsRefusedWithItsSentence) {
  if (cuda_allocator::get()->name() != "cudaMallocAsync") GTEST_SKIP() << "needs that allocator";
  const auto run = profiled([](Profiler& profiler) {
    const auto step = profiler.step();
    const auto weight = torch::ones({1 << 20}, torch::kCUDA).requires_grad_(true);
    weight.sum().backward();
  });
  EXPECT_EQ(run.steps[0].books.devices.size(), 1u);  // the CPU's
  EXPECT_THAT(run.end.notes,
              testing::Contains(testing::HasSubstr("cuda:0: LibTorch's statistics say")));
  const SourceInfo source = cuda_source(run);
  EXPECT_FALSE(source.available);
  EXPECT_THAT(source.reason,
              testing::HasSubstr("does not yet support attachAllocatorTraceTracker"));
}

TEST(CudaSource, WithoutTheCacheItSaysSo) {
  if (!std::getenv("PYTORCH_NO_CUDA_MEMORY_CACHING")) GTEST_SKIP() << "needs caching switched off";
  EXPECT_THAT(cuda_source(on_the_cpu()).reason, testing::HasSubstr("caching is switched off"));
}

TEST(CudaSource, HiddenDevicesAreNamed) {
  if (!std::getenv("CUDA_VISIBLE_DEVICES")) GTEST_SKIP() << "needs hidden devices";
  EXPECT_EQ(cuda_source(on_the_cpu()).reason,
            "CUDA_VISIBLE_DEVICES hides every CUDA device from this program");
}

}  // namespace
}  // namespace tally::test
