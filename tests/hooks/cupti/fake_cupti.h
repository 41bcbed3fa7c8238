// SPDX-License-Identifier: Apache-2.0
// A CUPTI of our own for tests: a table of functions that keep a log of their calls, run the range
// profiler's states, refuse where a test wants it, and give values that tell range and metric
// apart.
#pragma once

#include <string>
#include <vector>

#include "hooks/cupti/cupti_api.h"
#include "hooks/cupti/range_counter.h"

namespace tally::test {

struct FakeCupti {
  std::vector<std::string> calls;
  std::vector<std::string> ranges;  // of the first pass
  std::string refused_call;         // answers with `refusal`
  CUptiResult refusal = CUPTI_SUCCESS;
  size_t passes = 1;  // that every set needs
  size_t pass = 0;
  int open_ranges = 0;
  bool started = false;
  bool supported = true;
  std::string chip = "GH100";
  std::string other_subscriber;
  double mma_instructions = 0;  // more than wgmma's

  static FakeCupti& instance() {
    static FakeCupti fake;
    return fake;
  }
  static void reset() { instance() = FakeCupti{}; }
  static CUptiResult called(const char* call) {
    FakeCupti& fake = instance();
    fake.calls.emplace_back(call);
    return fake.refused_call == call ? fake.refusal : CUPTI_SUCCESS;
  }
  static size_t times(const std::string& call) {
    size_t count = 0;
    for (const std::string& other : instance().calls) count += other == call;
    return count;
  }
  // Of metric i of range r, in a set of n metrics.
  static double value(size_t range, size_t metric) {
    return 1000.0 * static_cast<double>(range) + static_cast<double>(metric) + 1;
  }
  static hooks::cupti::Api make_api();
};

struct FakeDriver final : hooks::cupti::Driver {
  std::string reason;
  bool has_context = true;
  std::string initialize() override { return reason; }
  CUcontext current_context() override {
    return has_context ? reinterpret_cast<CUcontext>(0x10) : nullptr;
  }
  int current_device() override { return 0; }
};

// `answer` sees the parameters as `p` and the state as `fake`.
#define TALLY_FAKE(function, answer)                                             \
  api.function = [](auto* p) -> CUptiResult {                                    \
    [[maybe_unused]] FakeCupti& fake = FakeCupti::instance();                    \
    (void)p;                                                                     \
    if (const CUptiResult result = called(#function); result != CUPTI_SUCCESS) { \
      return result;                                                             \
    }                                                                            \
    answer;                                                                      \
    return CUPTI_SUCCESS;                                                        \
  }

inline hooks::cupti::Api FakeCupti::make_api() {
  hooks::cupti::Api api;
  api.cuptiGetResultString = [](CUptiResult, const char** text) -> CUptiResult {
    *text = "CUPTI_ERROR_OF_THE_TEST";
    return CUPTI_SUCCESS;
  };
  TALLY_FAKE(cuptiProfilerInitialize, {});
  TALLY_FAKE(cuptiProfilerDeInitialize, {});
  TALLY_FAKE(cuptiProfilerDeviceSupported,
             p->isSupported = fake.supported ? CUPTI_PROFILER_CONFIGURATION_SUPPORTED
                                             : CUPTI_PROFILER_CONFIGURATION_UNSUPPORTED;
             p->vGpu = p->isSupported; p->sli = p->wsl = p->cmp = p->confidentialCompute =
                                           CUPTI_PROFILER_CONFIGURATION_SUPPORTED);
  TALLY_FAKE(cuptiDeviceGetChipName, p->pChipName = fake.chip.c_str());
  TALLY_FAKE(cuptiProfilerGetCounterAvailability, p->counterAvailabilityImageSize = 8);
  TALLY_FAKE(cuptiProfilerHostInitialize,
             p->pHostObject = reinterpret_cast<CUpti_Profiler_Host_Object*>(0x20));
  TALLY_FAKE(cuptiProfilerHostDeinitialize, {});
  TALLY_FAKE(cuptiProfilerHostConfigAddMetrics, {});
  TALLY_FAKE(cuptiProfilerHostGetConfigImageSize, p->configImageSize = 16);
  TALLY_FAKE(cuptiProfilerHostGetConfigImage, {});
  TALLY_FAKE(cuptiProfilerHostGetNumOfPasses, p->numOfPasses = fake.passes);
  TALLY_FAKE(cuptiRangeProfilerEnable,
             p->pRangeProfilerObject = reinterpret_cast<CUpti_RangeProfiler_Object*>(0x30));
  TALLY_FAKE(cuptiRangeProfilerDisable, {});
  TALLY_FAKE(cuptiRangeProfilerGetCounterDataSize, p->counterDataSize = 64);
  TALLY_FAKE(cuptiRangeProfilerCounterDataImageInitialize, {});
  TALLY_FAKE(cuptiRangeProfilerSetConfig, fake.pass = 0; fake.ranges.clear());
  TALLY_FAKE(cuptiRangeProfilerStart, fake.started = true);
  TALLY_FAKE(cuptiRangeProfilerStop, fake.started = false; ++fake.pass;
             p->isAllPassSubmitted = fake.pass >= fake.passes);
  TALLY_FAKE(cuptiRangeProfilerPushRange,
             if (fake.pass == 0) fake.ranges.emplace_back(p->pRangeName);
             ++fake.open_ranges);
  TALLY_FAKE(cuptiRangeProfilerPopRange, --fake.open_ranges);
  TALLY_FAKE(cuptiRangeProfilerDecodeData, p->numOfRangeDropped = 0);
  TALLY_FAKE(cuptiRangeProfilerGetCounterDataInfo, p->numTotalRanges = fake.ranges.size());
  TALLY_FAKE(cuptiRangeProfilerCounterDataGetRangeInfo,
             p->rangeName = fake.ranges[p->rangeIndex].c_str());
  TALLY_FAKE(
      cuptiProfilerHostEvaluateToGpuValues, for (size_t i = 0; i < p->numMetrics; ++i) {
        const std::string name = p->ppMetricNames[i];
        double value = FakeCupti::value(p->rangeIndex, i);
        if (name.find("inst_executed") != std::string::npos &&
            name.find("sass") == std::string::npos) {
          value = name.find("op_hmma") != std::string::npos ? fake.mma_instructions : 0;
        }
        p->pMetricValues[i] = value;
      });
  api.cuptiSubscribe_v2 = [](CUpti_SubscriberHandle* handle, CUpti_CallbackFunc, void*,
                             CUpti_SubscriberParams* p) -> CUptiResult {
    const CUptiResult result = called("cuptiSubscribe_v2");
    if (result == CUPTI_SUCCESS) {
      *handle = reinterpret_cast<CUpti_SubscriberHandle>(0x40);
    } else if (p->oldSubscriberName) {
      instance().other_subscriber.copy(p->oldSubscriberName, p->oldSubscriberSize - 1);
    }
    return result;
  };
  api.cuptiUnsubscribe = [](CUpti_SubscriberHandle) -> CUptiResult {
    return called("cuptiUnsubscribe");
  };
  api.cuptiActivityRegisterCallbacks = [](CUpti_BuffersCallbackRequestFunc,
                                          CUpti_BuffersCallbackCompleteFunc) -> CUptiResult {
    return called("cuptiActivityRegisterCallbacks");
  };
  api.cuptiActivityEnable = [](CUpti_ActivityKind) -> CUptiResult {
    return called("cuptiActivityEnable");
  };
  api.cuptiActivityDisable = [](CUpti_ActivityKind) -> CUptiResult {
    return called("cuptiActivityDisable");
  };
  api.cuptiActivityFlushAll = [](uint32_t) -> CUptiResult {
    return called("cuptiActivityFlushAll");
  };
  return api;
}
#undef TALLY_FAKE

}  // namespace tally::test
