// SPDX-License-Identifier: Apache-2.0
// The only place that touches CUPTI: a table of function pointers, filled from the library that is
// mapped already (or by a fake in tests). Nothing links libcupti, libcuda or libnvperf, so a build
// with this runs on machines without any of them.
#pragma once

#include <cupti.h>
#include <cupti_profiler_host.h>
#include <cupti_profiler_target.h>
#include <cupti_range_profiler.h>
#include <cupti_target.h>

#include <memory>
#include <string>

// The host half works without a GPU and without a driver. Of the target half some calls crash
// without a driver (cuptiDeviceGetChipName, cuptiProfilerGetCounterAvailability,
// cuptiRangeProfilerEnable): RangeCounter asks for the driver first.
#define TALLY_CUPTI_FUNCTIONS(X)                  \
  X(cuptiGetVersion)                              \
  X(cuptiGetResultString)                         \
  X(cuptiProfilerHostInitialize)                  \
  X(cuptiProfilerHostDeinitialize)                \
  X(cuptiProfilerHostConfigAddMetrics)            \
  X(cuptiProfilerHostGetConfigImageSize)          \
  X(cuptiProfilerHostGetConfigImage)              \
  X(cuptiProfilerHostGetNumOfPasses)              \
  X(cuptiProfilerHostEvaluateToGpuValues)         \
  X(cuptiProfilerInitialize)                      \
  X(cuptiProfilerDeInitialize)                    \
  X(cuptiProfilerDeviceSupported)                 \
  X(cuptiProfilerGetCounterAvailability)          \
  X(cuptiDeviceGetChipName)                       \
  X(cuptiRangeProfilerEnable)                     \
  X(cuptiRangeProfilerDisable)                    \
  X(cuptiRangeProfilerSetConfig)                  \
  X(cuptiRangeProfilerStart)                      \
  X(cuptiRangeProfilerStop)                       \
  X(cuptiRangeProfilerPushRange)                  \
  X(cuptiRangeProfilerPopRange)                   \
  X(cuptiRangeProfilerDecodeData)                 \
  X(cuptiRangeProfilerGetCounterDataSize)         \
  X(cuptiRangeProfilerCounterDataImageInitialize) \
  X(cuptiRangeProfilerGetCounterDataInfo)         \
  X(cuptiRangeProfilerCounterDataGetRangeInfo)    \
  X(cuptiSubscribe_v2)                            \
  X(cuptiUnsubscribe)                             \
  X(cuptiEnableCallback)                          \
  X(cuptiActivityRegisterCallbacks)               \
  X(cuptiActivityEnable)                          \
  X(cuptiActivityDisable)                         \
  X(cuptiActivityFlushAll)                        \
  X(cuptiActivityGetNextRecord)                   \
  X(cuptiActivityGetNumDroppedRecords)            \
  X(cuptiActivityPushExternalCorrelationId)       \
  X(cuptiActivityPopExternalCorrelationId)

namespace tally::hooks::cupti {

struct Api {
#define TALLY_CUPTI_FIELD(function) decltype(&::function) function = nullptr;
  TALLY_CUPTI_FUNCTIONS(TALLY_CUPTI_FIELD)
#undef TALLY_CUPTI_FIELD
  std::string path;  // of the library that is used

  // CUPTI's own words for `result`, "CUPTI_ERROR_INSUFFICIENT_PRIVILEGES".
  std::string text(CUptiResult result) const;
};

// The table of the libcupti that this process has mapped (LibTorch needs one), never of a second
// one. Null with a sentence in `reason` when there is none, or when it lacks a function. `path`, if
// not empty, is loaded instead: for tests.
std::unique_ptr<Api> load(std::string& reason, const std::string& path = {});

}  // namespace tally::hooks::cupti
