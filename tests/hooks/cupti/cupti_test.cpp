// SPDX-License-Identifier: Apache-2.0
// CUPTI without a GPU: the order of calls, passes and every refusal over a fake table; metric names
// and pass counts against CUPTI's own host library; activity records through its own reader.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "hooks/cupti/activity_recorder.h"
#include "hooks/cupti/flop_metrics.h"
#include "hooks/cupti/range_counter.h"
#include "hooks/cupti/refusal.h"
#include "tests/hooks/cupti/fake_cupti.h"

namespace tally::hooks::cupti {
namespace {

using test::FakeCupti;
using test::FakeDriver;

class RangeCounterOverAFake : public testing::Test {
 protected:
  void SetUp() override { FakeCupti::reset(); }
  FakeCupti& fake() { return FakeCupti::instance(); }
  // What was begun is ended, in the opposite order.
  void expect_ended() {
    const auto same = [this](const char* begin, const char* end) {
      EXPECT_EQ(FakeCupti::times(begin) - (fake().refused_call == begin), FakeCupti::times(end))
          << begin;
    };
    same("cuptiProfilerInitialize", "cuptiProfilerDeInitialize");
    same("cuptiProfilerHostInitialize", "cuptiProfilerHostDeinitialize");
    same("cuptiRangeProfilerEnable", "cuptiRangeProfilerDisable");
    // What refuses to stop goes on.
    EXPECT_EQ(fake().started, fake().refused_call == "cuptiRangeProfilerStop");
  }
  Api api_ = FakeCupti::make_api();
  FakeDriver driver_;
};

TEST_F(RangeCounterOverAFake, OnePassOverTwoRanges) {
  RangeCounter counter(api_, driver_);
  EXPECT_EQ(counter.chip(), "GH100");
  counter.start(metric_sets("GH100").front());
  counter.push("first");
  counter.pop();
  counter.push("second");
  counter.pop();
  EXPECT_TRUE(counter.end_pass());
  const RangeCounter::Result result = counter.finish();
  ASSERT_EQ(result.rows.size(), 2u);
  EXPECT_EQ(result.rows[0].range, "first");
  EXPECT_EQ(result.rows[1].values[2], FakeCupti::value(1, 2));
  EXPECT_EQ(result.passes, 1u);
  expect_ended();
  EXPECT_EQ(fake().calls.back(), "cuptiProfilerDeInitialize");
}

TEST_F(RangeCounterOverAFake, ThreePassesRunTheSameWorkThreeTimes) {
  fake().passes = 3;
  RangeCounter counter(api_, driver_);
  counter.start(metric_sets("GH100").back());
  int runs = 0;
  do {
    ++runs;
    counter.push("step");
    counter.pop();
  } while (!counter.end_pass());
  EXPECT_EQ(runs, 3);
  EXPECT_EQ(counter.finish().rows.size(), 1u);
  EXPECT_EQ(fake().open_ranges, 0);
  expect_ended();
}

TEST_F(RangeCounterOverAFake, ASetOfTooManyPassesIsRefused) {
  fake().passes = 9;
  RangeCounter counter(api_, driver_, {.most_ranges = 16, .most_passes = 8});
  EXPECT_THROW(counter.start(metric_sets("GH100").front()), Refused);
  expect_ended();
}

TEST_F(RangeCounterOverAFake, WithoutADriverNothingOfCuptiIsCalled) {
  driver_.reason = "no driver";
  RangeCounter counter(api_, driver_);
  EXPECT_THROW(counter.chip(), Refused);
  EXPECT_THROW(counter.start(metric_sets("GH100").front()), Refused);
  EXPECT_TRUE(fake().calls.empty());
}

TEST_F(RangeCounterOverAFake, WithoutAContextItCanBeAskedAgain) {
  driver_.has_context = false;
  RangeCounter counter(api_, driver_);
  try {
    counter.chip();
    FAIL();
  } catch (const Refused& refused) {
    EXPECT_EQ(refused.code(), CUPTI_ERROR_INVALID_CONTEXT);
  }
  driver_.has_context = true;
  EXPECT_EQ(counter.chip(), "GH100");
}

TEST_F(RangeCounterOverAFake, AnUnsupportedDeviceSaysWhichKind) {
  fake().supported = false;  // a virtual GPU
  RangeCounter counter(api_, driver_);
  try {
    counter.chip();
    FAIL();
  } catch (const Refused& refused) {
    EXPECT_EQ(refused.code(), CUPTI_ERROR_VIRTUALIZED_DEVICE_NOT_SUPPORTED);
    EXPECT_THAT(refused.what(), testing::HasSubstr("virtual GPU"));
  }
  expect_ended();
}

// Each call that can fail, made to fail: everything that was begun before it is ended.
class EveryCall : public RangeCounterOverAFake, public testing::WithParamInterface<const char*> {};

TEST_P(EveryCall, FailsCleanly) {
  fake().refused_call = GetParam();
  fake().refusal = CUPTI_ERROR_INSUFFICIENT_PRIVILEGES;
  auto counter = std::make_unique<RangeCounter>(api_, driver_);
  bool refused = false;
  try {
    counter->start(metric_sets("GH100").front());
    counter->push("range");
    counter->pop();
    counter->end_pass();
    counter->finish();
  } catch (const Refused& refusal) {
    refused = true;
    EXPECT_EQ(refusal.code(), CUPTI_ERROR_INSUFFICIENT_PRIVILEGES);
    EXPECT_THAT(refusal.what(), testing::HasSubstr(GetParam()));
    EXPECT_THAT(refusal.what(), testing::HasSubstr("NVreg_RestrictProfilingToAdminUsers=0"));
  }
  EXPECT_TRUE(refused);
  counter.reset();
  expect_ended();
}
INSTANTIATE_TEST_SUITE_P(
    Cupti, EveryCall,
    testing::Values("cuptiProfilerInitialize", "cuptiProfilerDeviceSupported",
                    "cuptiDeviceGetChipName", "cuptiProfilerGetCounterAvailability",
                    "cuptiProfilerHostInitialize", "cuptiProfilerHostConfigAddMetrics",
                    "cuptiProfilerHostGetConfigImageSize", "cuptiProfilerHostGetConfigImage",
                    "cuptiProfilerHostGetNumOfPasses", "cuptiRangeProfilerEnable",
                    "cuptiRangeProfilerGetCounterDataSize",
                    "cuptiRangeProfilerCounterDataImageInitialize", "cuptiRangeProfilerSetConfig",
                    "cuptiRangeProfilerStart", "cuptiRangeProfilerPushRange",
                    "cuptiRangeProfilerPopRange", "cuptiRangeProfilerStop",
                    "cuptiRangeProfilerDecodeData", "cuptiRangeProfilerGetCounterDataInfo",
                    "cuptiRangeProfilerCounterDataGetRangeInfo",
                    "cuptiProfilerHostEvaluateToGpuValues"));

TEST(Refusals, EachKnownCodeHasARemedy) {
  for (const CUptiResult code :
       {CUPTI_ERROR_INSUFFICIENT_PRIVILEGES, CUPTI_ERROR_HARDWARE_BUSY,
        CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED, CUPTI_ERROR_NOT_INITIALIZED,
        CUPTI_ERROR_NOT_SUPPORTED, CUPTI_ERROR_VIRTUALIZED_DEVICE_NOT_SUPPORTED,
        CUPTI_ERROR_VIRTUALIZED_DEVICE_INSUFFICIENT_PRIVILEGES,
        CUPTI_ERROR_CONFIDENTIAL_COMPUTING_NOT_SUPPORTED, CUPTI_ERROR_CMP_DEVICE_NOT_SUPPORTED,
        CUPTI_ERROR_MIG_DEVICE_NOT_SUPPORTED, CUPTI_ERROR_SLI_DEVICE_NOT_SUPPORTED,
        CUPTI_ERROR_WSL_DEVICE_NOT_SUPPORTED, CUPTI_ERROR_OLD_PROFILER_API_INITIALIZED}) {
    const std::string sentence = explain(code, "aCall", "WORDS");
    EXPECT_THAT(sentence, testing::HasSubstr("aCall said WORDS"));
    EXPECT_THAT(sentence, testing::HasSubstr("). ")) << code;  // and what to do
  }
}

// ---- the place for subscribers

TEST_F(RangeCounterOverAFake, AnotherSubscriberIsNamedAndLeftAlone) {
  fake().refused_call = "cuptiSubscribe_v2";
  fake().refusal = CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED;
  fake().other_subscriber = "Kineto";
  ActivityRecorder recorder(api_);
  const std::string reason = recorder.start();
  EXPECT_THAT(reason, testing::HasSubstr("use one at a time"));
  EXPECT_THAT(reason, testing::HasSubstr("'Kineto'"));
  EXPECT_EQ(FakeCupti::times("cuptiActivityRegisterCallbacks"), 0u);
  EXPECT_EQ(FakeCupti::times("cuptiUnsubscribe"), 0u);
}

TEST_F(RangeCounterOverAFake, ThePlaceIsGivenBack) {
  {
    ActivityRecorder recorder(api_);
    EXPECT_EQ(recorder.start(), "");
    ActivityRecorder second(api_);
    EXPECT_EQ(second.start(), "another recording of kernels runs in this process");
    recorder.stop();
    EXPECT_EQ(second.start(), "");
  }
  EXPECT_EQ(FakeCupti::times("cuptiSubscribe_v2"), FakeCupti::times("cuptiUnsubscribe"));
  EXPECT_EQ(FakeCupti::times("cuptiActivityEnable"), FakeCupti::times("cuptiActivityDisable"));
}

TEST_F(RangeCounterOverAFake, WhatCannotBeEnabledLeavesNothingBehind) {
  fake().refused_call = "cuptiActivityEnable";
  fake().refusal = CUPTI_ERROR_NOT_SUPPORTED;
  ActivityRecorder recorder(api_);
  EXPECT_THAT(recorder.start(), testing::HasSubstr("cuptiActivityEnable"));
  EXPECT_EQ(FakeCupti::times("cuptiUnsubscribe"), 1u);
}

// ---- CUPTI's own library

class RealCupti : public testing::Test {
 protected:
  void SetUp() override {
    if (std::string(TALLY_CUPTI_LIBRARY).empty()) GTEST_SKIP() << "no libcupti beside LibTorch";
    std::string reason;
    api_ = load(reason, TALLY_CUPTI_LIBRARY);
    ASSERT_TRUE(api_) << reason;
  }
  int64_t passes(const std::string& chip, const std::vector<Metric>& metrics) {
    std::string problem;
    const int64_t count = count_passes(*api_, chip, metrics, problem);
    EXPECT_GT(count, 0) << chip << ": " << problem;
    return count;
  }
  std::unique_ptr<Api> api_;
};

TEST_F(RealCupti, KnowsEveryMetricOfEveryChip) {
  for (const char* chip :
       {"GA100", "GA102", "AD102", "GH100", "GB100", "GB102", "GB110", "GB202"}) {
    for (const MetricSet& set : metric_sets(chip)) {
      const int64_t needed = passes(chip, set.metrics);
      EXPECT_TRUE(set.passes == 0 || needed == set.passes)
          << chip << " " << set.name << ": " << needed;
    }
  }
}

TEST_F(RealCupti, RefusesANameItDoesNotKnow) {
  std::string problem;
  EXPECT_EQ(count_passes(*api_, "GH100", {{"sm__flops_of_my_dreams.sum", 1, Counted::kTensorFlops}}, problem), -1);
  EXPECT_FALSE(problem.empty());
  EXPECT_EQ(count_passes(*api_, "ZX81", metric_sets("GH100")[0].metrics, problem), -1);
}

TEST_F(RealCupti, HoppersFirstSetIsOnePassWithTimeAndTraffic) {
  const MetricSet set = metric_sets("GH100").front();
  EXPECT_EQ(set.metrics.size(), 9u);
  EXPECT_EQ(passes("GH100", set.metrics), 1);
  // Instrumented counters share a pass with nothing else.
  std::vector<Metric> both = set.metrics;
  const MetricSet scalar = metric_sets("GH100").back();
  both.insert(both.end(), scalar.metrics.begin(), scalar.metrics.end());
  EXPECT_EQ(passes("GH100", both), 2);
}

// Without a driver the real library is asked nothing that would crash it.
TEST_F(RealCupti, WithoutADriverTheCounterSaysSo) {
  const auto driver = make_driver();
  RangeCounter counter(*api_, *driver);
  try {
    counter.start(metric_sets("GH100").front());
    GTEST_SKIP() << "there is a GPU here";
  } catch (const Refused& refused) {
    EXPECT_THAT(refused.what(), testing::HasSubstr("there are no hardware counters"));
  }
}

TEST_F(RealCupti, ReadsActivityRecords) {
  alignas(8) uint8_t buffer[4096] = {};
  size_t at = 0;
  const auto put = [&](const auto& record) {
    std::memcpy(buffer + at, &record, sizeof record);
    at += sizeof record;
  };
  CUpti_ActivityKernel10 kernel{};
  kernel.kind = CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL;
  kernel.name = "gemm";
  kernel.correlationId = 5;
  kernel.start = 10;
  kernel.end = 30;
  put(kernel);  // before its id: records come in any order
  CUpti_ActivityExternalCorrelation id{};
  id.kind = CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION;
  id.externalKind = CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM2;
  id.externalId = 77;
  id.correlationId = 5;
  put(id);
  id.externalKind = CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0;  // torch.profiler's
  id.externalId = 99;
  put(id);
  CUpti_ActivityMemory4 memory{};
  memory.kind = CUPTI_ACTIVITY_KIND_MEMORY2;
  memory.memoryOperationType = CUPTI_ACTIVITY_MEMORY_OPERATION_TYPE_ALLOCATION;
  memory.bytes = 4096;
  memory.correlationId = 6;
  put(memory);
  ActivityRecorder recorder(*api_);
  recorder.parse(buffer, at);
  const ActivityRecorder::Report report = recorder.stop();
  ASSERT_EQ(report.kernels.size(), 1u);
  EXPECT_EQ(report.kernels[0].name, "gemm");
  EXPECT_EQ(report.kernels[0].op, 77u);
  EXPECT_EQ(report.kernels[0].end_ns - report.kernels[0].begin_ns, 20u);
  ASSERT_EQ(report.memory.size(), 1u);
  EXPECT_EQ(report.memory[0].bytes, 4096u);
  EXPECT_EQ(report.memory[0].op, 0u);
}

TEST(Load, WhereNoCuptiIsMappedItSaysSo) {
  std::string reason;
  EXPECT_FALSE(load(reason, "/nowhere/libcupti.so.13"));
  EXPECT_THAT(reason, testing::HasSubstr("CUPTI cannot be used"));
}

}  // namespace
}  // namespace tally::hooks::cupti
