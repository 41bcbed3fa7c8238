// SPDX-License-Identifier: Apache-2.0
// The matcher for programs' own tests, and what it says when it fails.
#include "torchtally/testing.h"

#include <gmock/gmock.h>
#include <gtest/gtest-spi.h>

#include "tests/support/profiled_run.h"

namespace tally::test {
namespace {

using tally::testing::StaysWithin;
using ::testing::HasSubstr;
using ::testing::Not;

// Two steps of a 256 x 256 matrix: 256 KiB of parameters and as much of gradients.
void train(Profiler& profiler) {
  torch::nn::Linear net(torch::nn::LinearOptions(256, 256).bias(false));
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.1));
  profiler.watch(*net);
  profiler.watch(optimizer);
  for (int i = 0; i < 2; ++i) {
    auto step = profiler.step();
    optimizer.zero_grad();
    net->forward(torch::ones({4, 256})).sum().backward();
    optimizer.step();
  }
}

Options options_in(const TemporaryFolder& folder) {
  Options options;
  options.recording = folder / "run.tally";
  return options;
}

TEST(StaysWithin, HoldsPeaksAndRolesAgainstEveryMark) {
  const TemporaryFolder folder;
  Profiler profiler(options_in(folder));
  train(profiler);
  profiler.stop();
  EXPECT_THAT(profiler, StaysWithin("2 MiB"));
  EXPECT_THAT(profiler, StaysWithin({{"peak", "2 MiB"}}));
  EXPECT_THAT(profiler, StaysWithin({{"peak", "2 MiB"},
                                     {"parameter", "262144"},
                                     {"gradients", "256 KiB"},
                                     {"optimizer_state", "0"},
                                     {"activations", "8 KiB"},
                                     {"saved", "4 KiB"}}));
  EXPECT_THAT(profiler, Not(StaysWithin("512 KiB")));
  // One byte less is too little.
  EXPECT_EQ(profiler.over_budget({{"gradients", "262143"}, {"peak", "2 MiB"}}),
            "gradients: 256.0 KiB (262,144 bytes) in step 0 at peak, 256.0 KiB allowed");
}

TEST(StaysWithin, FailsWithWhatWasTooMuchAndWhen) {
  const TemporaryFolder folder;
  static Profiler* profiler = nullptr;  // the failure is caught in a function of its own
  Profiler own(options_in(folder));
  train(own);
  own.stop();
  profiler = &own;
  const std::string expected =
      "Value of: *profiler\nExpected: stays within peak 4 MiB, parameters 100 kB\n  Actual: the "
      "recording " +
      own.options().recording +
      " (of type tally::Profiler), parameters: 256.0 KiB (262,144 bytes) in step 0 at start, 97.7 "
      "KiB allowed";
  EXPECT_NONFATAL_FAILURE(
      EXPECT_THAT(*profiler, StaysWithin({{"peak", "4 MiB"}, {"parameters", "100 kB"}})), expected);
}

TEST(StaysWithin, WithoutSenseItFailsAndSaysWhy) {
  const TemporaryFolder folder;
  Profiler profiler(options_in(folder));
  EXPECT_THAT(profiler.over_budget({{"peak", "1 MiB"}}), HasSubstr("stop() comes before"));
  train(profiler);
  profiler.stop();
  EXPECT_THAT(
      profiler.over_budget({{"weights", "1 MiB"}}),
      HasSubstr(
          "'weights' is no role; there are peak, saved, activations, temporaries, parameter"));
  EXPECT_THAT(profiler.over_budget({{"peak", "lots"}}), HasSubstr("lots"));
  EXPECT_THAT(profiler.over_budget({}), HasSubstr("no budget"));
}

}  // namespace
}  // namespace tally::test
