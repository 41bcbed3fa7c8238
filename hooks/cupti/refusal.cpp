// SPDX-License-Identifier: Apache-2.0
#include "hooks/cupti/refusal.h"

#include <fmt/format.h>

namespace tally::hooks::cupti {
namespace {

std::string_view remedy(CUptiResult code) {
  switch (code) {
    case CUPTI_ERROR_INSUFFICIENT_PRIVILEGES:
      return "The driver lets only administrators read counters: run as root or with "
             "CAP_SYS_ADMIN, or "
             "load the driver with NVreg_RestrictProfilingToAdminUsers=0 (RmProfilingAdminOnly in "
             "/proc/driver/nvidia/params shows it)";
    case CUPTI_ERROR_HARDWARE_BUSY:
      return "Another profiler holds the counters of this GPU: end it, or pause DCGM with "
             "'dcgmi profile --pause'";
    case CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED:
      return "Another tool of this process (torch.profiler, Nsight) has CUPTI's one place for "
             "subscribers: use one at a time";
    case CUPTI_ERROR_NOT_INITIALIZED:
      return "libnvperf_host.so was not found beside libcupti, or the driver is not running";
    case CUPTI_ERROR_NOT_SUPPORTED:
    case CUPTI_ERROR_INVALID_DEVICE:
      return "This GPU, or how it is shared, does not allow it";
    case CUPTI_ERROR_VIRTUALIZED_DEVICE_NOT_SUPPORTED:
      return "It is a virtual GPU: ask its administrator to allow profiling, or use a whole one";
    case CUPTI_ERROR_VIRTUALIZED_DEVICE_INSUFFICIENT_PRIVILEGES:
      return "It is a virtual GPU whose administrator has not allowed profiling";
    case CUPTI_ERROR_CONFIDENTIAL_COMPUTING_NOT_SUPPORTED:
      return "The GPU runs in confidential computing mode, which has no counters";
    case CUPTI_ERROR_CMP_DEVICE_NOT_SUPPORTED:
      return "Mining processors have no counters";
    case CUPTI_ERROR_MIG_DEVICE_NOT_SUPPORTED:
      return "This MIG instance shares its compute units: use an instance with its own, or a whole "
             "GPU";
    case CUPTI_ERROR_SLI_DEVICE_NOT_SUPPORTED:
      return "GPUs joined by SLI have no counters: switch SLI off";
    case CUPTI_ERROR_WSL_DEVICE_NOT_SUPPORTED:
      return "Under WSL this GPU or driver has no counters: run on Linux itself";
    case CUPTI_ERROR_OLD_PROFILER_API_INITIALIZED:
      return "Another tool of this process uses CUPTI's older interface: use one at a time";
    default:
      return "";
  }
}

}  // namespace

std::string explain(CUptiResult code, std::string_view call, std::string_view words,
                    std::string_view what) {
  std::string sentence =
      fmt::format("CUPTI refuses {}: {} said {} ({})", what, call, words, static_cast<int>(code));
  if (const std::string_view advice = remedy(code); !advice.empty())
    sentence += fmt::format(". {}", advice);
  return sentence;
}

}  // namespace tally::hooks::cupti
