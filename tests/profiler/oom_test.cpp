// SPDX-License-Identifier: Apache-2.0
// Allocations that fail: the state is on disk before the exception unwinds, and what the report
// proposes then fits.
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>

#include "profiler/analysis/build.h"
#include "tests/support/profiled_run.h"

namespace tally::test {
namespace {

namespace nn = torch::nn;

constexpr int64_t kMiB = 1 << 20;

// As a run that names its budget in the environment.
Options with_budget(const TemporaryFolder& folder, int64_t bytes) {
  Options options;
  options.recording = folder / "run.tally";
  options.budget_bytes = bytes;
  options.budget_stops = true;
  return options;
}

TEST(OutOfMemory, ABudgetThatStopsLeavesItsBooksBeforeTheExceptionUnwinds) {
  const TemporaryFolder folder;
  Profiler profiler(with_budget(folder, 8 * kMiB));
  auto kept = torch::zeros({kMiB / 4});
  recording::Run at_once;
  {
    auto step = profiler.step();
    try {
      auto first = torch::zeros({kMiB});  // 4 MiB
      auto second = torch::zeros({kMiB});
      FAIL() << "8 MiB and more were allowed";
    } catch (const c10::OutOfMemoryError& error) {
      EXPECT_NE(std::string(error.what()).find("TORCHTALLY_BUDGET_ACTION=stop"), std::string::npos);
      at_once = recording::read_run(folder / "run.tally");
    }
    auto small = torch::zeros({16});  // the program goes on
  }
  ASSERT_EQ(at_once.steps.size(), 1u);
  const MarkBook& written = mark_of(at_once, 0, Mark::kOom);
  EXPECT_EQ(written.wanted_bytes, 4 * kMiB);
  EXPECT_EQ(written.limit_bytes, 8 * kMiB);
  EXPECT_EQ(written.bytes, written.allocator_bytes);
  EXPECT_EQ(written.bytes, 5 * kMiB);
  profiler.stop();
  const recording::Run run = recording::read_run(folder / "run.tally");
  expect_closed_books(run);
  ASSERT_EQ(run.steps.size(), 1u);
  EXPECT_EQ(mark_of(run, 0, Mark::kOom).wanted_bytes, 4 * kMiB);
  EXPECT_EQ(run.end.ended, "clean");
}

TEST(OutOfMemory, AFailureOfTheAllocatorItselfIsTold) {
  const TemporaryFolder folder;
  Options options;
  options.recording = folder / "run.tally";
  Profiler profiler(options);
  {
    auto step = profiler.step();
    EXPECT_ANY_THROW(torch::empty({int64_t{1} << 55}));
  }
  profiler.stop();
  const recording::Run run = recording::read_run(folder / "run.tally");
  EXPECT_EQ(mark_of(run, 0, Mark::kOom).wanted_bytes, int64_t{1} << 57);
  EXPECT_GT(mark_of(run, 0, Mark::kOom).limit_bytes, kMiB);
}

// Blocks whose activations are most of the memory.
std::string train(const Options& options, int64_t batch, int micro_batches) {
  nn::Sequential model;
  for (int i = 0; i < 4; ++i) {
    model->push_back(nn::Linear(64, 64));
    model->push_back(nn::Tanh());
  }
  torch::optim::SGD optimizer(model->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
  Profiler profiler(options);
  profiler.watch(*model);
  profiler.watch(optimizer);
  try {
    for (int i = 0; i < 3; ++i) {
      auto step = profiler.step();
      optimizer.zero_grad();
      for (int m = 0; m < micro_batches; ++m) model->forward(torch::ones({batch / micro_batches, 64})).sum().backward();
      optimizer.step();
    }
  } catch (const c10::OutOfMemoryError& error) {
    return error.what_without_backtrace();
  }
  return "";
}

TEST(OutOfMemory, ASmallerMicroBatchFitsAsPromised) {
  const TemporaryFolder folder;
  Options free;
  free.recording = folder / "free.tally";
  ASSERT_EQ(train(free, 4096, 1), "");
  const analysis::Summary before = analysis::build_summary(recording::read_run(folder / "free.tally"));
  const int64_t peak = before.step().devices[0].peak.bytes;
  // Less than it needs. A first step that fails can promise nothing, so this one only records.
  Options recorded;
  recorded.recording = folder / "recorded.tally";
  recorded.budget_bytes = peak * 3 / 4;
  ASSERT_EQ(train(recorded, 4096, 1), "");
  const analysis::Summary crossed = analysis::build_summary(recording::read_run(folder / "recorded.tally"));
  ASSERT_EQ(crossed.verdicts[0].kind, "oom");
  const analysis::Remedy* half = nullptr;
  for (const analysis::Remedy& remedy : crossed.verdicts[0].remedies) {
    if (remedy.text.starts_with("micro-batches of 1/2")) half = &remedy;
  }
  ASSERT_NE(half, nullptr);
  const int64_t promised = peak - half->bytes;
  ASSERT_LT(promised, peak * 3 / 4);
  EXPECT_NE(train(with_budget(folder, peak * 3 / 4), 4096, 1), "");
  const TemporaryFolder other;
  EXPECT_EQ(train(with_budget(other, peak * 3 / 4), 4096, 2), "");
  const analysis::Summary after = analysis::build_summary(recording::read_run(other / "run.tally"));
  const int64_t measured = after.step().devices[0].peak.bytes;
  EXPECT_NEAR(static_cast<double>(promised), static_cast<double>(measured), 0.02 * static_cast<double>(measured));
}

TEST(OutOfMemory, ThePostMortemOfManyBlocksIsWrittenInASecond) {
  const TemporaryFolder folder;
  Profiler profiler(with_budget(folder, 64 * kMiB));
  std::vector<at::Tensor> blocks;
  for (int i = 0; i < 200'000; ++i) blocks.push_back(at::detail::empty_cpu({1}, at::kFloat, false));
  auto step = profiler.step();
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_THROW(torch::empty({int64_t{100} * kMiB}), c10::OutOfMemoryError);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  EXPECT_LT(seconds, 1.0);
  const recording::Run run = recording::read_run(folder / "run.tally");
  EXPECT_GE(mark_of(run, 0, Mark::kOom).bytes, 200'000 * 4);
  std::printf("written within %.3f s\n", seconds);
}

// So much more address space than is mapped now.
class AddressSpaceLimit {
 public:
  explicit AddressSpaceLimit(int64_t more) {
    getrlimit(RLIMIT_AS, &before_);
    int64_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    rlimit limit = before_;
    limit.rlim_cur = static_cast<rlim_t>(pages * sysconf(_SC_PAGESIZE) + more);
    setrlimit(RLIMIT_AS, &limit);
  }
  ~AddressSpaceLimit() { setrlimit(RLIMIT_AS, &before_); }

 private:
  rlimit before_{};
};

TEST(OutOfMemory, TheBooksAreWrittenWhenTheHostHasNoMemoryLeft) {
  constexpr int64_t kLast = 3 * kMiB;
  const TemporaryFolder folder;
  Options options;
  options.recording = folder / "run.tally";
  Profiler profiler(options);
  std::vector<at::Tensor> kept;
  std::vector<void*> small;
  kept.reserve(100'000);
  small.reserve(10'000'000);
  std::vector<void*> spare;
  for (int i = 0; i < 64; ++i) spare.push_back(std::malloc(256));
  int64_t bytes = 0;
  int failures = 0;
  recording::Run at_once;
  {
    auto step = profiler.step();
    {
      const AddressSpaceLimit limit(256 * kMiB);
      const auto fill = [&](int64_t size) {
        try {
          for (;;) {
            kept.push_back(at::detail::empty_cpu({size}, at::kByte, false));
            bytes += size;
          }
        } catch (...) {  // c10's error, or that there was no memory for an object around the block
          ++failures;
        }
      };
      for (int64_t size = 64 * kMiB; size >= 16 * 1024; size /= 8) fill(size);
      // Nothing is left for anybody's small objects either.
      for (size_t piece = 4096; piece >= 16; piece /= 4) {
        while (void* memory = std::malloc(piece)) small.push_back(memory);
      }
      // But for a tensor's own: without it the allocator would not even be asked.
      for (void* memory : spare) std::free(memory);
      fill(kLast);
    }
    for (void* memory : small) std::free(memory);
    at_once = recording::read_run(folder / "run.tally");
    kept.clear();
  }
  EXPECT_EQ(failures, 6);
  ASSERT_EQ(at_once.steps.size(), 1u);
  const MarkBook last = mark_of(at_once, 0, Mark::kOom);
  EXPECT_EQ(last.wanted_bytes, kLast);
  EXPECT_EQ(last.bytes, bytes);
  EXPECT_EQ(last.allocator_bytes, bytes);
  profiler.stop();
  const recording::Run run = recording::read_run(folder / "run.tally");
  expect_closed_books(run);
  EXPECT_EQ(run.end.ended, "clean");
  EXPECT_EQ(run.end.dropped_events, 0u);
  EXPECT_EQ(marks_of(run, 0, Mark::kOom).back().wanted_bytes, kLast);
}

}  // namespace
}  // namespace tally::test
