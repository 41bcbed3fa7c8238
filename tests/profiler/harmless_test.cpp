// SPDX-License-Identifier: Apache-2.0
// The third promise: results are the same to the bit, errors pass through, starting and stopping
// leaves nothing behind, and a killed process leaves a recording.
#include <signal.h>
#include <sys/wait.h>

#include <fstream>
#include <thread>

#include "tests/support/profiled_run.h"

namespace tally::test {
namespace {

namespace nn = torch::nn;
namespace F = torch::nn::functional;

struct Result {
  std::vector<float> losses;
  std::vector<at::Tensor> parameters;
};

Result train(Profiler* profiler) {
  torch::manual_seed(7);
  nn::Sequential model(nn::Linear(32, 64), nn::ReLU(), nn::Dropout(0.3), nn::LayerNorm(nn::LayerNormOptions({64})),
                       nn::Linear(64, 8));
  torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(1e-2));
  if (profiler) {
    profiler->watch(*model);
    profiler->watch(optimizer);
  }
  Result result;
  for (int i = 0; i < 5; ++i) {
    std::optional<Step> step;
    if (profiler) step.emplace(profiler->step());
    auto x = torch::randn({16, 32}), y = torch::randint(8, {16});
    optimizer.zero_grad();
    auto loss = F::cross_entropy(model->forward(x), y);
    loss.backward();
    optimizer.step();
    result.losses.push_back(loss.item<float>());
  }
  for (auto& parameter : model->parameters()) result.parameters.push_back(parameter.detach().clone());
  return result;
}

TEST(Harmless, LossesAndParametersAreTheSameToTheBit) {
  const Result plain = train(nullptr);
  Result watched;
  profiled([&](Profiler& profiler) { watched = train(&profiler); });
  ASSERT_EQ(plain.losses, watched.losses);
  ASSERT_EQ(plain.parameters.size(), watched.parameters.size());
  for (size_t i = 0; i < plain.parameters.size(); ++i) {
    EXPECT_TRUE(plain.parameters[i].equal(watched.parameters[i]));
  }
}

TEST(Harmless, StartsAndStopsAHundredTimes) {
  auto kept = torch::randn({1000});  // alive all the time, adopted by each session
  for (int i = 0; i < 100; ++i) {
    const auto run = profiled([&](Profiler& profiler) {
      auto step = profiler.step();
      auto w = torch::randn({10}, torch::requires_grad());
      (w * kept.slice(0, 0, 10)).sum().backward();
    });
    ASSERT_EQ(run.steps.size(), 1u);
  }
  EXPECT_NE(c10::GetCPUAllocator(), nullptr);
  EXPECT_EQ(c10::GetCPUAllocator(), c10::GetDefaultCPUAllocator());
}

TEST(Harmless, AnOperatorsErrorPassesThroughAndTheRunGoesOn) {
  const auto run = profiled([](Profiler& profiler) {
    for (int i = 0; i < 3; ++i) {
      auto step = profiler.step();
      EXPECT_THROW((void)torch::randn({2, 3}).mm(torch::randn({2, 3})), c10::Error);
      auto w = torch::randn({10}, torch::requires_grad());
      w.exp().sum().backward();
    }
  });
  EXPECT_EQ(run.steps.size(), 3u);
  EXPECT_EQ(marks_of(run, 2, Mark::kForwardEdge).size(), 1u);
}

struct Failing : torch::autograd::Function<Failing> {
  static at::Tensor forward(torch::autograd::AutogradContext*, const at::Tensor& x) { return x.exp(); }
  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext*,
                                               torch::autograd::tensor_list) {
    throw std::runtime_error("on purpose");
  }
};

TEST(Harmless, ABackwardThatThrowsIsNotTheEndOfTheBooks) {
  const auto run = profiled([](Profiler& profiler) {
    auto model = nn::Sequential(nn::Linear(4, 4));
    torch::optim::SGD optimizer(model->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
    profiler.watch(*model);
    for (int i = 0; i < 3; ++i) {
      auto step = profiler.step();
      EXPECT_THROW(Failing::apply(model->forward(torch::randn({2, 4}))).sum().backward(), std::runtime_error);
      optimizer.zero_grad();
      model->forward(torch::randn({2, 4})).sum().backward();
      optimizer.step();
    }
  });
  EXPECT_EQ(marks_of(run, 2, Mark::kForwardEdge).size(), 2u);
  EXPECT_EQ(marks_of(run, 2, Mark::kBackwardEnd).size(), 1u);
  EXPECT_EQ(bytes_of(mark_of(run, 2, Mark::kEnd), Role::kOptimizerState), (4 * 4 + 4) * 4);
}

TEST(Harmless, AnExceptionOutOfTheLoopIsHowTheRunEnded) {
  const TemporaryFolder folder;
  const std::string path = folder / "run.tally";
  try {
    Options options;
    options.recording = path;
    Profiler profiler(options);
    auto step = profiler.step();
    (void)torch::randn({2, 3}).mm(torch::randn({2, 3}));
    FAIL();
  } catch (const c10::Error&) {
  }
  const auto run = read_all(path);
  EXPECT_EQ(run.end.ended, "exception");
  EXPECT_EQ(run.steps.size(), 1u);
}

TEST(Harmless, TensorsMayOutliveTheProfilerAndTheOtherWayRound) {
  at::Tensor outlives;
  auto before = torch::ones({100});
  profiled([&](Profiler& profiler) {
    auto step = profiler.step();
    outlives = torch::ones({1000}) + before.sum();
    before = at::Tensor();
  });
  EXPECT_EQ(outlives.sum().item<float>(), 1000 + 100 * 1000);
  outlives = at::Tensor();
  std::thread([] { (void)torch::ones({10}).add(1); }).join();
}

TEST(Harmless, ASecondProfilerIsRefusedWithASentence) {
  const TemporaryFolder folder;
  Options options;
  options.recording = folder / "a.tally";
  Profiler profiler(options);
  options.recording = folder / "b.tally";
  try {
    Profiler second(options);
    FAIL();
  } catch (const ProfilerError& error) {
    EXPECT_NE(std::string(error.what()).find("another profiler is recording"), std::string::npos);
  }
  EXPECT_FALSE(std::filesystem::exists(options.recording));
}

TEST(Harmless, WrongPathsAndVariablesAreOneSentenceBeforeAnythingStarts) {
  Options options;
  options.recording = "/nonexistent/folder/run.tally";
  EXPECT_THROW(Profiler{options}, ProfilerError);
  const TemporaryFolder folder;
  options.recording = folder / "run.tally";
  for (const auto& [name, value] : std::vector<std::pair<const char*, const char*>>{
           {"TORCHTALLY_BUDGET", "much"}, {"TORCHTALLY_DETAIL", "-1"}, {"TORCHTALLY_ENABLED", "maybe"},
           {"TORCHTALLY_RECORDNIG", "x"}}) {
    setenv(name, value, 1);
    try {
      Profiler profiler(options);
      ADD_FAILURE() << name;
    } catch (const ProfilerError& error) {
      EXPECT_NE(std::string(error.what()).find(name), std::string::npos) << error.what();
    }
    unsetenv(name);
  }
  EXPECT_FALSE(std::filesystem::exists(options.recording));
  Profiler works(options);  // nothing of the attempts stayed behind
}

TEST(Harmless, DisabledDoesNothing) {
  const TemporaryFolder folder;
  Options options;
  options.recording = folder / "run.tally";
  options.enabled = false;
  {
    Profiler profiler(options);
    auto step = profiler.step();
    Scope scope("x");
    (void)torch::ones({2});
  }
  EXPECT_FALSE(std::filesystem::exists(options.recording));
}

TEST(Harmless, ABudgetLeavesAMark) {
  Options options;
  options.budget_bytes = 100'000;
  const auto run = profiled([](Profiler& profiler) {
    auto step = profiler.step();
    auto small = torch::empty({100});
    auto large = torch::empty({100'000});
  }, options);
  const MarkBook mark = mark_of(run, 0, Mark::kOom);
  EXPECT_EQ(mark.bytes, 400 + 400'000);
}

// 32 MiB and 100 bytes a live block, by the profiler's own count of its tables and logs.
TEST(Harmless, ItsTablesStayWithinTheirBounds) {
  constexpr size_t kBlocks = 100'000;
  const auto run = profiled([](Profiler& profiler) {
    std::vector<at::Tensor> kept;
    kept.reserve(kBlocks);
    for (int i = 0; i < 2; ++i) {
      auto step = profiler.step();
      while (kept.size() < kBlocks / 2 * static_cast<size_t>(i + 1)) kept.push_back(torch::empty({4}));
    }
  });
  EXPECT_EQ(mark_of(run, 1, Mark::kEnd).bytes, static_cast<int64_t>(kBlocks * 16));
  EXPECT_GT(run.end.overhead_bytes, 0);
  EXPECT_LE(run.end.overhead_bytes, (32 << 20) + static_cast<int64_t>(100 * kBlocks));
}

// The child is killed inside a step; what it had committed is there, and how it ended is said.
TEST(Harmless, AKilledProcessLeavesItsCommittedSteps) {
  const TemporaryFolder folder;
  const std::string path = folder / "run.tally";
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    Options options;
    options.recording = path;
    Profiler profiler(options);
    auto w = torch::randn({1000}, torch::requires_grad());
    for (int i = 0;; ++i) {
      auto step = profiler.step();
      w.exp().sum().backward();
      if (i == 20) {
        (void)!write(ready[1], "x", 1);
        pause();
      }
    }
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  // The bookkeeper may be some steps behind; it commits without being asked.
  for (int tries = 0; tries < 500; ++tries) {
    try {
      if (!read_all(path).steps.empty()) break;
    } catch (const std::exception&) {
    }
    usleep(20'000);
  }
  kill(child, SIGKILL);
  int status = 0;
  waitpid(child, &status, 0);
  close(ready[0]);
  close(ready[1]);
  const auto run = read_all(path);
  EXPECT_EQ(run.end.ended, "killed");
  ASSERT_GE(run.steps.size(), 1u);
  EXPECT_LE(run.steps.size(), 20u);
  expect_closed_books(run);
}

TEST(Harmless, AForkedChildRecordsNothingAndLives) {
  const auto run = profiled([](Profiler& profiler) {
    auto step = profiler.step();
    auto tensor = torch::ones({100});
    const pid_t child = fork();
    if (child == 0) {
      auto sum = (tensor + 1).sum();
      _exit(sum.item<float>() == 200 ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    (void)(tensor + 2);
  });
  EXPECT_EQ(run.steps.size(), 1u);
}

}  // namespace
}  // namespace tally::test
