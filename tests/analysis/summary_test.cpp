// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "profiler/analysis/build.h"
#include "profiler/core/error.h"
#include "profiler/recording/writer.h"
#include "tests/support/synthetic_run.h"
#include "tests/support/temporary_folder.h"

namespace tally::analysis {
namespace {

recording::Run recorded(const test::SyntheticOptions& options = {}) {
  return test::make_synthetic_run(options).as_recorded();
}
MarkBook* peak_of(recording::Run* run, size_t step) {
  for (MarkBook& mark : run->steps[step].books.devices[0].marks) {
    if (mark.mark == Mark::kPeak) return &mark;
  }
  return nullptr;
}

TEST(Summary, BooksOfEveryMarkOfEveryStepAreTheRecordedOnes) {
  const test::SyntheticRun source = test::make_synthetic_run();
  const Summary summary = build_summary(recorded());
  ASSERT_EQ(summary.steps.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    const DeviceStep& device = summary.steps[i].devices.at(0);
    const DeviceBooks& books = source.steps[i].devices[0];
    EXPECT_EQ(device.device, "cpu");
    ASSERT_EQ(device.marks.size(), books.marks.size());
    for (size_t m = 0; m < device.marks.size(); ++m) {
      EXPECT_EQ(device.marks[m].roles, books.marks[m].roles);
      EXPECT_EQ(device.marks[m].bytes, books.marks[m].bytes);
      EXPECT_EQ(sum(device.marks[m].roles), device.marks[m].bytes);
      EXPECT_EQ(device.marks[m].difference, 0);
      int64_t cells = 0;
      for (const Cell& cell : device.marks[m].cells) cells += cell.bytes;
      EXPECT_EQ(cells, device.marks[m].bytes);
    }
    EXPECT_EQ(device.peak.mark, Mark::kPeak);
    EXPECT_EQ(device.timeline.size(), source.steps[i].detailed ? books.timeline.size() : 0u);
  }
}

TEST(Summary, RunParametersAndOverhead) {
  const Summary summary = build_summary(recorded());
  EXPECT_EQ(summary.ended, "clean");
  EXPECT_EQ(summary.started, "2026-01-01T00:00:00Z");
  EXPECT_EQ(summary.parameter_count, 440160);  // lm_head is tied to wte
  EXPECT_EQ(summary.parameter_bytes, 4 * 440160);
  EXPECT_EQ(summary.trainable_count, 440160);
  EXPECT_THAT(summary.optimizers, testing::ElementsAre("AdamW"));
  double seconds = 0;
  for (const StepSummary& step : summary.steps) seconds += step.seconds;
  EXPECT_DOUBLE_EQ(summary.overhead.share, summary.overhead.seconds / seconds);
  EXPECT_EQ(summary.overhead.bytes, 3 << 20);
}

TEST(Summary, ModulesCarryThePeakAndTheWork) {
  const Summary summary = build_summary(recorded());
  int64_t bytes = 0;
  double flops = 0;
  for (const ModuleSummary& module : summary.modules) {
    bytes += sum(module.bytes);
    flops += module.flops.total();
  }
  EXPECT_EQ(bytes, summary.step().devices[0].peak.bytes);
  EXPECT_EQ(flops, summary.step().flops.total());
  EXPECT_EQ(summary.modules[0].name, "wte");
  EXPECT_EQ(summary.modules[0].type, "torch::nn::EmbeddingImpl");
  EXPECT_EQ(summary.modules[0].bytes[static_cast<size_t>(Role::kParameter)], 4 * 1024 * 96);
}

TEST(Summary, FlopsAreThoseOfTheOperators) {
  const Summary summary = build_summary(recorded());
  const Flops& flops = summary.step().flops;
  // 2 x tokens x (3 layers x 12 C^2 + C V) + 3 layers x 4 tokens C T, by hand
  const double tokens = 128, c = 96, v = 1024, t = 64;
  EXPECT_EQ(flops.forward, 2 * tokens * (3 * 12 * c * c + c * v) + 3 * 4 * tokens * c * t);
  EXPECT_EQ(flops.backward, 2 * flops.forward);
  EXPECT_EQ(flops.torch, flops.total());
  EXPECT_GT(flops.elementwise, 0);
}

TEST(Shown, TheHighestDetailedPeakAndNotTheWarmUpIfALaterOneIsAsHigh) {
  EXPECT_EQ(build_summary(recorded()).step().index, 1u);  // steps 1, 2, 3 are alike, 0 is lower
  recording::Run run = recorded();
  peak_of(&run, 0)->bytes = peak_of(&run, 1)->bytes;
  EXPECT_EQ(build_summary(run).step().index, 1u) << "as high as the warm-up";
  peak_of(&run, 0)->bytes += 1;
  EXPECT_EQ(build_summary(run).step().index, 0u) << "the warm-up is higher";
  peak_of(&run, 3)->bytes *= 2;
  EXPECT_EQ(build_summary(run).step().index, 0u) << "step 3 was not kept in detail";
  for (auto& step : run.steps) step.books.detailed = false;
  EXPECT_EQ(build_summary(run).step().index, 3u) << "none was";
}

TEST(Shown, TheAskedOneOrAnErrorThatListsWhatThereIs) {
  const recording::Run run = recorded();
  EXPECT_EQ(build_summary(run, {.step = 3}).step().index, 3u);
  EXPECT_FALSE(build_summary(run, {.step = 3}).step().devices[0].timeline.empty());
  try {
    build_summary(run, {.step = 9});
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "synthetic.tally has no step 9: it holds 4 steps, 0 to 3");
  }
}

TEST(Shown, ARecordingWithoutASingleStepSaysWhy) {
  recording::Run run = recorded();
  run.steps.clear();
  run.end.ended = "killed";
  try {
    build_summary(run);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "synthetic.tally has no finished step to report on: its process was "
                 "killed in the first one");
  }
}

TEST(Headline, SaysBytesPlaceRoleAndTheory) {
  EXPECT_EQ(
      build_summary(recorded()).headline,
      "Peak 9.6 MiB in step 1, backward, after lm_head; 41 % activations. Theory says 9.0 MiB "
      "(measured: +6.1 %).");
  recording::Run run = recorded();
  peak_of(&run, 1)->module = run.info.modules[5].name;
  EXPECT_THAT(build_summary(run).headline,
              testing::StartsWith("Peak 9.6 MiB in step 1, backward of " +
                                  run.text(run.info.modules[5].name) + ";"));
  peak_of(&run, 1)->module = {};
  EXPECT_THAT(build_summary(run).headline,
              testing::StartsWith("Peak 9.6 MiB in step 1, backward; "));
  run.info.parameters.clear();
  EXPECT_EQ(build_summary(run).headline, "Peak 9.6 MiB in step 1, backward; 41 % activations.");
}

// User time, because other programs share the machine.
double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

TEST(Summary, TenThousandStepsLoadAndSummariseInAboutASecond) {
  const test::TemporaryFolder folder;
  test::SyntheticOptions options;
  options.layers = 1;
  test::SyntheticRun run = test::make_synthetic_run(options);
  {
    recording::Writer writer(folder / "long.tally", *run.strings);
    writer.write_run(run.info);
    for (uint64_t i = 0; i < 10'000; ++i) {
      StepBooks& step = run.steps[i == 0 ? 0 : i == 1 ? 1 : 2];
      step.index = i;
      writer.write_step(step, run.end);
    }
    writer.finish(run.end);
    ASSERT_EQ(writer.problem(), "");
  }
  const double before = cpu_seconds();
  const recording::Run back = recording::read_run(folder / "long.tally");
  const double loaded = cpu_seconds();
  const Summary summary = build_summary(back);
  const double done = cpu_seconds();
  EXPECT_EQ(summary.steps.size(), 10'000u);
  std::printf("10,000 steps: read %.2f s, summarised %.2f s\n", loaded - before, done - loaded);
  EXPECT_LT(done - before, 2.5);
}

}  // namespace
}  // namespace tally::analysis
