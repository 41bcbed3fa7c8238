// SPDX-License-Identifier: Apache-2.0
// The source of counters in a real training step, over a fake CUPTI: each operator's executed FLOPs
// reach its row of the recording; where CUPTI refuses, the run goes on and the recording says why.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "hooks/cupti/counters.h"
#include "hooks/torch/cpu_allocator.h"
#include "hooks/torch/operators.h"
#include "hooks/torch/runtime.h"
#include "profiler/recording/reader.h"
#include "profiler/session/session.h"
#include "tests/hooks/cupti/fake_cupti.h"
#include "tests/support/temporary_folder.h"

namespace tally::test {
namespace {

class Counters : public testing::Test {
 protected:
  void SetUp() override { FakeCupti::reset(); }

  recording::Run run(int steps) {
    const TemporaryFolder folder;
    const hooks::cupti::Api api = FakeCupti::make_api();
    hooks::prepare(Session::context());
    std::vector<std::unique_ptr<Source>> sources;
    sources.push_back(hooks::make_cpu_allocator_source());
    sources.push_back(hooks::make_operator_source({0}));
    sources.push_back(hooks::cupti::make_counter_source(api, driver_));
    SessionOptions options;
    options.recording = folder / "run.tally";
    options.ledger.detailed_steps = 1000;
    {
      Session session(options, std::move(sources));
      const auto weight = torch::randn({8, 8}).requires_grad_(true);
      for (int i = 0; i < steps; ++i) {
        session.step_begin();
        torch::randn({4, 8}).mm(weight).sum().backward();
        ranges_of_step_.push_back(FakeCupti::instance().ranges.size());
        session.step_end(false);
      }
      session.stop("clean");
    }
    return recording::read_run(options.recording, {.load = recording::Load::kAll, .step = {}});
  }
  static double sum(const recording::Run& run, size_t step, double OperatorRow::*member) {
    double total = 0;
    for (const OperatorRow& row : run.steps.at(step).books.operators) total += row.*member;
    return total;
  }
  static std::string reason(const recording::Run& run) {
    for (const SourceInfo& source : run.info.sources) {
      if (source.name == "cupti.counters") return source.available ? "" : source.reason;
    }
    return "no such source";
  }
  FakeDriver driver_;
  std::vector<size_t> ranges_of_step_;
};

TEST_F(Counters, EachOperatorHasWhatItExecuted) {
  const recording::Run recorded = run(3);
  EXPECT_EQ(reason(recorded), "");
  const size_t ranges = ranges_of_step_[0];
  ASSERT_GT(ranges, 3u);
  // Hopper's first set: five tensor counters, two of instructions, time, traffic.
  double tensor = 0, time = 0, traffic = 0;
  for (size_t range = 0; range < ranges; ++range) {
    for (size_t metric = 0; metric < 5; ++metric) tensor += FakeCupti::value(range, metric);
    time += FakeCupti::value(range, 7);
    traffic += FakeCupti::value(range, 8);
  }
  EXPECT_EQ(sum(recorded, 0, &OperatorRow::tensor_flops), tensor);
  EXPECT_EQ(sum(recorded, 0, &OperatorRow::device_ns), time);
  EXPECT_EQ(sum(recorded, 0, &OperatorRow::dram_bytes), traffic);
  EXPECT_EQ(sum(recorded, 0, &OperatorRow::scalar_flops), 0);
  // No mma.sync ran: the second step has the scalar set, the third the first one again.
  EXPECT_GT(sum(recorded, 1, &OperatorRow::scalar_flops), 0);
  EXPECT_EQ(sum(recorded, 1, &OperatorRow::tensor_flops), 0);
  EXPECT_GT(sum(recorded, 2, &OperatorRow::tensor_flops), 0);
  // The product's row has the values of its own range; its gradient belongs to the backward pass.
  bool forward = false, backward = false;
  for (const OperatorRow& row : recorded.steps[0].books.operators) {
    if (recorded.text(row.op) != "aten::mm") continue;
    (row.phase == Phase::kForward ? forward : backward) = row.tensor_flops > 0;
  }
  EXPECT_TRUE(forward);
  EXPECT_TRUE(backward);
}

TEST_F(Counters, MmaSyncIsCountedWhereItRan) {
  FakeCupti::instance().mma_instructions = 5;
  const recording::Run recorded = run(3);
  EXPECT_GT(sum(recorded, 1, &OperatorRow::tensor_flops), 0);  // of mma.sync
  EXPECT_EQ(sum(recorded, 1, &OperatorRow::device_ns), 0);
  EXPECT_GT(sum(recorded, 2, &OperatorRow::scalar_flops), 0);
}

TEST_F(Counters, TwoPassesAreTwoSteps) {
  FakeCupti::instance().passes = 2;
  const recording::Run recorded = run(2);
  EXPECT_EQ(sum(recorded, 0, &OperatorRow::tensor_flops), 0);
  EXPECT_GT(sum(recorded, 1, &OperatorRow::tensor_flops), 0);
}

TEST_F(Counters, ARefusalEndsNothingAndIsExplained) {
  for (const char* call :
       {"cuptiProfilerInitialize", "cuptiRangeProfilerEnable", "cuptiRangeProfilerPushRange",
        "cuptiRangeProfilerStop", "cuptiRangeProfilerDecodeData"}) {
    FakeCupti::reset();
    FakeCupti::instance().refused_call = call;
    FakeCupti::instance().refusal = CUPTI_ERROR_HARDWARE_BUSY;
    const recording::Run recorded = run(2);
    EXPECT_EQ(recorded.end.ended, "clean");
    EXPECT_EQ(recorded.steps.size(), 2u);
    EXPECT_THAT(reason(recorded), testing::HasSubstr("dcgmi profile --pause")) << call;
    EXPECT_THAT(recorded.end.notes, testing::Contains(testing::HasSubstr(call)));
    EXPECT_EQ(sum(recorded, 1, &OperatorRow::tensor_flops), 0);
    EXPECT_GT(sum(recorded, 1, &OperatorRow::flops), 0);  // the formulas stay
  }
}

TEST_F(Counters, AProgramWithoutAContextIsAskedAgainEachStep) {
  driver_.has_context = false;
  const recording::Run recorded = run(2);
  EXPECT_THAT(reason(recorded), testing::HasSubstr("no CUDA context"));
  EXPECT_EQ(FakeCupti::times("cuptiProfilerInitialize"), 0u);
}

}  // namespace
}  // namespace tally::test
