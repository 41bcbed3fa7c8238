// SPDX-License-Identifier: Apache-2.0
#include "hooks/cupti/range_counter.h"

#include <dlfcn.h>
#include <fmt/format.h>

namespace tally::hooks::cupti {
namespace {

// A parameter structure of CUPTI's, with its size set.
#define TALLY_CUPTI_PARAMS(type, name) \
  type name{};                         \
  name.structSize = type##_STRUCT_SIZE

class RealDriver final : public Driver {
 public:
  std::string initialize() override {
    void* library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (!library) return "this program has not loaded the NVIDIA driver (libcuda.so.1)";
    const auto find = [library](const char* name) { return dlsym(library, name); };
    const auto init = reinterpret_cast<CUresult (*)(unsigned)>(find("cuInit"));
    context_ = reinterpret_cast<decltype(context_)>(find("cuCtxGetCurrent"));
    device_ = reinterpret_cast<decltype(device_)>(find("cuCtxGetDevice"));
    synchronize_ = reinterpret_cast<decltype(synchronize_)>(find("cuCtxSynchronize"));
    if (!init || !context_ || !device_ || !synchronize_) return "libcuda.so.1 lacks functions";
    if (const CUresult result = init(0))
      return fmt::format("cuInit said {}", static_cast<int>(result));
    return "";
  }
  CUcontext current_context() override {
    CUcontext context = nullptr;
    return context_(&context) == CUDA_SUCCESS ? context : nullptr;
  }
  int current_device() override {
    CUdevice device = 0;
    device_(&device);
    return device;
  }
  void synchronize() override { synchronize_(); }

 private:
  CUresult (*context_)(CUcontext*) = nullptr;
  CUresult (*device_)(CUdevice*) = nullptr;
  CUresult (*synchronize_)() = nullptr;
};

std::vector<const char*> pointers_to(const std::vector<std::string>& names) {
  std::vector<const char*> pointers;
  for (const std::string& name : names) pointers.push_back(name.c_str());
  return pointers;
}

}  // namespace

std::unique_ptr<Driver> make_driver() { return std::make_unique<RealDriver>(); }

void RangeCounter::check(CUptiResult result, const char* call) const {
  if (result != CUPTI_SUCCESS) throw Refused(result, explain(result, call, api_.text(result)));
}

// The order matters: without a driver, and before cuptiProfilerInitialize succeeded, the calls that
// ask the chip and its counters crash.
void RangeCounter::initialize() {
  if (initialized_) return;
  if (const std::string reason = driver_.initialize(); !reason.empty()) {
    throw Refused(CUPTI_ERROR_NOT_INITIALIZED, "there are no hardware counters: " + reason);
  }
  context_ = driver_.current_context();
  if (!context_) {
    throw Refused(CUPTI_ERROR_INVALID_CONTEXT,
                  "there are no hardware counters yet: this thread has no CUDA context");
  }
  TALLY_CUPTI_PARAMS(CUpti_Profiler_Initialize_Params, init);
  check(api_.cuptiProfilerInitialize(&init), "cuptiProfilerInitialize");
  initialized_ = true;
  TALLY_CUPTI_PARAMS(CUpti_Profiler_DeviceSupported_Params, supported);
  supported.cuDevice = driver_.current_device();
  supported.api = CUPTI_PROFILER_RANGE_PROFILING;
  check(api_.cuptiProfilerDeviceSupported(&supported), "cuptiProfilerDeviceSupported");
  if (supported.isSupported != CUPTI_PROFILER_CONFIGURATION_SUPPORTED) {
    const auto no = CUPTI_PROFILER_CONFIGURATION_UNSUPPORTED;
    CUptiResult code = CUPTI_ERROR_NOT_SUPPORTED;
    if (supported.sli == no) code = CUPTI_ERROR_SLI_DEVICE_NOT_SUPPORTED;
    if (supported.vGpu == no) code = CUPTI_ERROR_VIRTUALIZED_DEVICE_NOT_SUPPORTED;
    if (supported.confidentialCompute == no)
      code = CUPTI_ERROR_CONFIDENTIAL_COMPUTING_NOT_SUPPORTED;
    if (supported.cmp == no) code = CUPTI_ERROR_CMP_DEVICE_NOT_SUPPORTED;
    if (supported.wsl == no) code = CUPTI_ERROR_WSL_DEVICE_NOT_SUPPORTED;
    check(code, "cuptiProfilerDeviceSupported");
  }
  TALLY_CUPTI_PARAMS(CUpti_Device_GetChipName_Params, name);
  name.deviceIndex = static_cast<size_t>(driver_.current_device());
  check(api_.cuptiDeviceGetChipName(&name), "cuptiDeviceGetChipName");
  chip_ = name.pChipName;
  TALLY_CUPTI_PARAMS(CUpti_Profiler_GetCounterAvailability_Params, available);
  available.ctx = context_;
  check(api_.cuptiProfilerGetCounterAvailability(&available),
        "cuptiProfilerGetCounterAvailability");
  availability_.resize(available.counterAvailabilityImageSize);
  available.pCounterAvailabilityImage = availability_.data();
  check(api_.cuptiProfilerGetCounterAvailability(&available),
        "cuptiProfilerGetCounterAvailability");
}

std::string RangeCounter::chip() {
  try {
    initialize();
  } catch (...) {
    tear_down();
    throw;
  }
  return chip_;
}

void RangeCounter::build_configuration() {
  TALLY_CUPTI_PARAMS(CUpti_Profiler_Host_Initialize_Params, init);
  init.profilerType = CUPTI_PROFILER_TYPE_RANGE_PROFILER;
  init.pChipName = chip_.c_str();
  init.pCounterAvailabilityImage = availability_.empty() ? nullptr : availability_.data();
  check(api_.cuptiProfilerHostInitialize(&init), "cuptiProfilerHostInitialize");
  host_ = init.pHostObject;
  TALLY_CUPTI_PARAMS(CUpti_Profiler_Host_ConfigAddMetrics_Params, add);
  add.pHostObject = host_;
  add.ppMetricNames = name_pointers_.data();
  add.numMetrics = name_pointers_.size();
  check(api_.cuptiProfilerHostConfigAddMetrics(&add), "cuptiProfilerHostConfigAddMetrics");
  TALLY_CUPTI_PARAMS(CUpti_Profiler_Host_GetConfigImageSize_Params, size);
  size.pHostObject = host_;
  check(api_.cuptiProfilerHostGetConfigImageSize(&size), "cuptiProfilerHostGetConfigImageSize");
  configuration_.resize(size.configImageSize);
  TALLY_CUPTI_PARAMS(CUpti_Profiler_Host_GetConfigImage_Params, image);
  image.pHostObject = host_;
  image.configImageSize = configuration_.size();
  image.pConfigImage = configuration_.data();
  check(api_.cuptiProfilerHostGetConfigImage(&image), "cuptiProfilerHostGetConfigImage");
  TALLY_CUPTI_PARAMS(CUpti_Profiler_Host_GetNumOfPasses_Params, passes);
  passes.configImageSize = configuration_.size();
  passes.pConfigImage = configuration_.data();
  check(api_.cuptiProfilerHostGetNumOfPasses(&passes), "cuptiProfilerHostGetNumOfPasses");
  passes_ = passes.numOfPasses;
  if (passes_ > options_.most_passes) {
    throw Refused(CUPTI_ERROR_NOT_SUPPORTED,
                  fmt::format("{} would need {} passes over the same work for these counters",
                              chip_, passes_));
  }
}

void RangeCounter::make_counter_data() {
  TALLY_CUPTI_PARAMS(CUpti_RangeProfiler_GetCounterDataSize_Params, size);
  size.pRangeProfilerObject = profiler_;
  size.pMetricNames = name_pointers_.data();
  size.numMetrics = name_pointers_.size();
  size.maxNumOfRanges = options_.most_ranges;
  size.maxNumRangeTreeNodes = static_cast<uint32_t>(options_.most_ranges);
  check(api_.cuptiRangeProfilerGetCounterDataSize(&size), "cuptiRangeProfilerGetCounterDataSize");
  counter_data_.assign(size.counterDataSize, 0);
  TALLY_CUPTI_PARAMS(CUpti_RangeProfiler_CounterDataImage_Initialize_Params, init);
  init.pRangeProfilerObject = profiler_;
  init.counterDataSize = counter_data_.size();
  init.pCounterData = counter_data_.data();
  check(api_.cuptiRangeProfilerCounterDataImageInitialize(&init),
        "cuptiRangeProfilerCounterDataImageInitialize");
}

void RangeCounter::start(const MetricSet& set) {
  names_.clear();
  for (const Metric& metric : set.metrics) names_.push_back(metric.name);
  name_pointers_ = pointers_to(names_);
  try {
    initialize();
    build_configuration();
    TALLY_CUPTI_PARAMS(CUpti_RangeProfiler_Enable_Params, enable);
    enable.ctx = context_;
    check(api_.cuptiRangeProfilerEnable(&enable), "cuptiRangeProfilerEnable");
    profiler_ = enable.pRangeProfilerObject;
    make_counter_data();
    TALLY_CUPTI_PARAMS(CUpti_RangeProfiler_SetConfig_Params, config);
    config.pRangeProfilerObject = profiler_;
    config.configSize = configuration_.size();
    config.pConfig = configuration_.data();
    config.counterDataImageSize = counter_data_.size();
    config.pCounterDataImage = counter_data_.data();
    config.range = options_.per_kernel ? CUPTI_AutoRange : CUPTI_UserRange;
    config.replayMode = options_.per_kernel ? CUPTI_KernelReplay : CUPTI_UserReplay;
    config.maxRangesPerPass = options_.most_ranges;
    config.numNestingLevels = 1;
    config.minNestingLevel = 1;
    config.passIndex = 0;
    config.targetNestingLevel = 1;
    check(api_.cuptiRangeProfilerSetConfig(&config), "cuptiRangeProfilerSetConfig");
    begin_pass();
  } catch (...) {
    tear_down();
    throw;
  }
}

void RangeCounter::begin_pass() {
  TALLY_CUPTI_PARAMS(CUpti_RangeProfiler_Start_Params, start);
  start.pRangeProfilerObject = profiler_;
  check(api_.cuptiRangeProfilerStart(&start), "cuptiRangeProfilerStart");
  in_pass_ = true;
}

void RangeCounter::push(const std::string& range) {
  TALLY_CUPTI_PARAMS(CUpti_RangeProfiler_PushRange_Params, push);
  push.pRangeProfilerObject = profiler_;
  push.pRangeName = range.c_str();
  check(api_.cuptiRangeProfilerPushRange(&push), "cuptiRangeProfilerPushRange");
}
void RangeCounter::pop() {
  TALLY_CUPTI_PARAMS(CUpti_RangeProfiler_PopRange_Params, pop);
  pop.pRangeProfilerObject = profiler_;
  check(api_.cuptiRangeProfilerPopRange(&pop), "cuptiRangeProfilerPopRange");
}

bool RangeCounter::end_pass() {
  TALLY_CUPTI_PARAMS(CUpti_RangeProfiler_Stop_Params, stop);
  stop.pRangeProfilerObject = profiler_;
  in_pass_ = false;
  try {
    check(api_.cuptiRangeProfilerStop(&stop), "cuptiRangeProfilerStop");
    if (stop.isAllPassSubmitted) return true;
    begin_pass();
  } catch (...) {
    tear_down();
    throw;
  }
  return false;
}

RangeCounter::Result RangeCounter::finish() {
  Result result;
  result.passes = passes_;
  try {
    TALLY_CUPTI_PARAMS(CUpti_RangeProfiler_DecodeData_Params, decode);
    decode.pRangeProfilerObject = profiler_;
    check(api_.cuptiRangeProfilerDecodeData(&decode), "cuptiRangeProfilerDecodeData");
    result.dropped = decode.numOfRangeDropped;
    // Before any range is asked for: on data without one the next call crashes.
    TALLY_CUPTI_PARAMS(CUpti_RangeProfiler_GetCounterDataInfo_Params, info);
    info.pCounterDataImage = counter_data_.data();
    info.counterDataImageSize = counter_data_.size();
    check(api_.cuptiRangeProfilerGetCounterDataInfo(&info), "cuptiRangeProfilerGetCounterDataInfo");
    for (size_t i = 0; i < info.numTotalRanges; ++i) {
      TALLY_CUPTI_PARAMS(CUpti_RangeProfiler_CounterData_GetRangeInfo_Params, range);
      range.pCounterDataImage = counter_data_.data();
      range.counterDataImageSize = counter_data_.size();
      range.rangeIndex = i;
      range.rangeDelimiter = "/";
      check(api_.cuptiRangeProfilerCounterDataGetRangeInfo(&range),
            "cuptiRangeProfilerCounterDataGetRangeInfo");
      Row row;
      row.range = range.rangeName ? range.rangeName : "";
      row.values.assign(names_.size(), 0);
      TALLY_CUPTI_PARAMS(CUpti_Profiler_Host_EvaluateToGpuValues_Params, values);
      values.pHostObject = host_;
      values.pCounterDataImage = counter_data_.data();
      values.counterDataImageSize = counter_data_.size();
      values.rangeIndex = i;
      values.ppMetricNames = name_pointers_.data();
      values.numMetrics = name_pointers_.size();
      values.pMetricValues = row.values.data();
      check(api_.cuptiProfilerHostEvaluateToGpuValues(&values),
            "cuptiProfilerHostEvaluateToGpuValues");
      result.rows.push_back(std::move(row));
    }
  } catch (...) {
    tear_down();
    throw;
  }
  tear_down();
  return result;
}

void RangeCounter::tear_down() noexcept {
  if (in_pass_) {
    TALLY_CUPTI_PARAMS(CUpti_RangeProfiler_Stop_Params, stop);
    stop.pRangeProfilerObject = profiler_;
    api_.cuptiRangeProfilerStop(&stop);
    in_pass_ = false;
  }
  if (profiler_) {
    TALLY_CUPTI_PARAMS(CUpti_RangeProfiler_Disable_Params, disable);
    disable.pRangeProfilerObject = profiler_;
    api_.cuptiRangeProfilerDisable(&disable);
    profiler_ = nullptr;
  }
  if (host_) {
    TALLY_CUPTI_PARAMS(CUpti_Profiler_Host_Deinitialize_Params, end);
    end.pHostObject = host_;
    api_.cuptiProfilerHostDeinitialize(&end);
    host_ = nullptr;
  }
  if (initialized_) {
    TALLY_CUPTI_PARAMS(CUpti_Profiler_DeInitialize_Params, end);
    api_.cuptiProfilerDeInitialize(&end);
    initialized_ = false;
  }
}

int64_t count_passes(const Api& api, const std::string& chip, const std::vector<Metric>& metrics,
                     std::string& problem) {
  TALLY_CUPTI_PARAMS(CUpti_Profiler_Host_Initialize_Params, init);
  init.profilerType = CUPTI_PROFILER_TYPE_RANGE_PROFILER;
  init.pChipName = chip.c_str();
  CUptiResult result = api.cuptiProfilerHostInitialize(&init);
  if (result != CUPTI_SUCCESS) {
    problem = api.text(result);
    return -1;
  }
  std::vector<std::string> names;
  for (const Metric& metric : metrics) names.push_back(metric.name);
  std::vector<const char*> pointers = pointers_to(names);
  TALLY_CUPTI_PARAMS(CUpti_Profiler_Host_ConfigAddMetrics_Params, add);
  add.pHostObject = init.pHostObject;
  add.ppMetricNames = pointers.data();
  add.numMetrics = pointers.size();
  TALLY_CUPTI_PARAMS(CUpti_Profiler_Host_GetConfigImageSize_Params, size);
  size.pHostObject = init.pHostObject;
  TALLY_CUPTI_PARAMS(CUpti_Profiler_Host_GetConfigImage_Params, image);
  image.pHostObject = init.pHostObject;
  TALLY_CUPTI_PARAMS(CUpti_Profiler_Host_GetNumOfPasses_Params, passes);
  std::vector<uint8_t> configuration;
  result = api.cuptiProfilerHostConfigAddMetrics(&add);
  if (result == CUPTI_SUCCESS) result = api.cuptiProfilerHostGetConfigImageSize(&size);
  if (result == CUPTI_SUCCESS) {
    configuration.resize(size.configImageSize);
    image.configImageSize = configuration.size();
    image.pConfigImage = configuration.data();
    result = api.cuptiProfilerHostGetConfigImage(&image);
  }
  if (result == CUPTI_SUCCESS) {
    passes.configImageSize = configuration.size();
    passes.pConfigImage = configuration.data();
    result = api.cuptiProfilerHostGetNumOfPasses(&passes);
  }
  TALLY_CUPTI_PARAMS(CUpti_Profiler_Host_Deinitialize_Params, end);
  end.pHostObject = init.pHostObject;
  api.cuptiProfilerHostDeinitialize(&end);
  if (result == CUPTI_SUCCESS) return static_cast<int64_t>(passes.numOfPasses);
  problem = api.text(result);
  return -1;
}

}  // namespace tally::hooks::cupti
