// SPDX-License-Identifier: Apache-2.0
// A CUPTI of our own for tests: a table of functions that keep a log of their calls, run the range
// profiler's states, refuse where a test wants it, and give values that tell range and metric
// apart.
#pragma once

#include <algorithm>
#include <cstring>
#include <mutex>
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
  bool kernel_by_kernel = false;  // as the last configuration said
  // The one place for subscribers; activity records, as long as somebody takes them.
  CUpti_CallbackFunc callback = nullptr;
  void* callback_data = nullptr;
  bool subscribed = false;
  bool records = false;
  CUpti_BuffersCallbackRequestFunc buffer_wanted = nullptr;
  CUpti_BuffersCallbackCompleteFunc buffer_full = nullptr;
  std::vector<CUpti_ActivityKernel10> kernels;
  std::vector<CUpti_ActivityExternalCorrelation> correlations;
  uint32_t launches = 0;
  std::recursive_mutex mutex;
  static std::vector<uint64_t>& external_ids() {
    static thread_local std::vector<uint64_t> ids;
    return ids;
  }

  // A kernel of `nanoseconds` is launched on this thread.
  void launch(const char* name, uint64_t nanoseconds) {
    const std::lock_guard lock(mutex);
    ++launches;
    if (started && kernel_by_kernel) ranges.push_back(std::to_string(ranges.size()));
    if (subscribed && callback && !records) {
      CUpti_CallbackData data{};
      data.callbackSite = CUPTI_API_ENTER;
      data.symbolName = name;
      callback(callback_data, CUPTI_CB_DOMAIN_DRIVER_API, 0, &data);
      data.callbackSite = CUPTI_API_EXIT;
      callback(callback_data, CUPTI_CB_DOMAIN_DRIVER_API, 0, &data);
    }
    if (!records) return;
    CUpti_ActivityKernel10 kernel{};
    kernel.kind = CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL;
    kernel.name = name;
    kernel.start = 1000;
    kernel.end = 1000 + nanoseconds;
    kernel.correlationId = launches;
    kernels.push_back(kernel);
    if (external_ids().empty()) return;
    CUpti_ActivityExternalCorrelation id{};
    id.kind = CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION;
    id.externalKind = CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM2;
    id.externalId = external_ids().back();
    id.correlationId = launches;
    correlations.push_back(id);
  }
  // Hands the records over, those of kernels first.
  void flush() {
    if (!buffer_wanted || !records) return;
    uint8_t* buffer = nullptr;
    size_t bytes = 0, most = 0, at = 0;
    buffer_wanted(&buffer, &bytes, &most);
    const auto put = [&](const auto& record) {
      if (at + sizeof record > bytes) return;
      std::memcpy(buffer + at, &record, sizeof record);
      at += sizeof record;
    };
    for (const auto& kernel : kernels) put(kernel);
    for (const auto& correlation : correlations) put(correlation);
    kernels.clear();
    correlations.clear();
    buffer_full(nullptr, 0, buffer, bytes, at);
  }

  static FakeCupti& instance() {
    static FakeCupti fake;
    return fake;
  }
  static void reset() {
    instance().~FakeCupti();
    new (&instance()) FakeCupti;
  }
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
  void synchronize() override { ++synchronized; }
  int synchronized = 0;
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
  TALLY_FAKE(cuptiRangeProfilerSetConfig, fake.pass = 0; fake.ranges.clear();
             fake.kernel_by_kernel = p->range == CUPTI_AutoRange);
  TALLY_FAKE(cuptiRangeProfilerStart, fake.started = true);
  TALLY_FAKE(cuptiRangeProfilerStop, fake.started = false; ++fake.pass;
             p->isAllPassSubmitted = fake.kernel_by_kernel || fake.pass >= fake.passes);
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
  api.cuptiSubscribe_v2 = [](CUpti_SubscriberHandle* handle, CUpti_CallbackFunc callback,
                             void* data, CUpti_SubscriberParams* p) -> CUptiResult {
    FakeCupti& fake = instance();
    CUptiResult result = called("cuptiSubscribe_v2");
    if (result == CUPTI_SUCCESS && fake.subscribed) {
      result = CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED;
    }
    if (result == CUPTI_SUCCESS) {
      *handle = reinterpret_cast<CUpti_SubscriberHandle>(0x40);
      fake.subscribed = true;
      fake.callback = callback;
      fake.callback_data = data;
    } else if (p->oldSubscriberName) {
      fake.other_subscriber.copy(p->oldSubscriberName, p->oldSubscriberSize - 1);
    }
    return result;
  };
  api.cuptiUnsubscribe = [](CUpti_SubscriberHandle) -> CUptiResult {
    instance().subscribed = instance().records = false;
    instance().callback = nullptr;
    return called("cuptiUnsubscribe");
  };
  api.cuptiEnableCallback = [](uint32_t, CUpti_SubscriberHandle, CUpti_CallbackDomain,
                               CUpti_CallbackId) -> CUptiResult {
    return called("cuptiEnableCallback");
  };
  api.cuptiActivityRegisterCallbacks = [](CUpti_BuffersCallbackRequestFunc wanted,
                                          CUpti_BuffersCallbackCompleteFunc full) -> CUptiResult {
    instance().buffer_wanted = wanted;
    instance().buffer_full = full;
    return called("cuptiActivityRegisterCallbacks");
  };
  api.cuptiActivityEnable = [](CUpti_ActivityKind) -> CUptiResult {
    instance().records = true;
    return called("cuptiActivityEnable");
  };
  api.cuptiActivityDisable = [](CUpti_ActivityKind) -> CUptiResult {
    return called("cuptiActivityDisable");
  };
  api.cuptiActivityFlushAll = [](uint32_t) -> CUptiResult {
    instance().flush();
    return called("cuptiActivityFlushAll");
  };
  api.cuptiActivityGetNextRecord = [](uint8_t* buffer, size_t valid,
                                      CUpti_Activity** record) -> CUptiResult {
    uint8_t* next = buffer;
    if (*record) {
      next = reinterpret_cast<uint8_t*>(*record) +
             ((*record)->kind == CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION
                  ? sizeof(CUpti_ActivityExternalCorrelation)
                  : sizeof(CUpti_ActivityKernel10));
    }
    if (next >= buffer + valid) return CUPTI_ERROR_MAX_LIMIT_REACHED;
    *record = reinterpret_cast<CUpti_Activity*>(next);
    return CUPTI_SUCCESS;
  };
  api.cuptiActivityGetNumDroppedRecords = [](CUcontext, uint32_t, size_t* dropped) -> CUptiResult {
    *dropped = 0;
    return CUPTI_SUCCESS;
  };
  api.cuptiActivityPushExternalCorrelationId = [](CUpti_ExternalCorrelationKind,
                                                  uint64_t id) -> CUptiResult {
    external_ids().push_back(id);
    return CUPTI_SUCCESS;
  };
  api.cuptiActivityPopExternalCorrelationId = [](CUpti_ExternalCorrelationKind,
                                                 uint64_t* id) -> CUptiResult {
    if (external_ids().empty()) return CUPTI_ERROR_QUEUE_EMPTY;
    *id = external_ids().back();
    external_ids().pop_back();
    return CUPTI_SUCCESS;
  };
  return api;
}
#undef TALLY_FAKE

}  // namespace tally::test
