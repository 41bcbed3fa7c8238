// SPDX-License-Identifier: Apache-2.0
#include "hooks/cupti/launch_names.h"

#include <cupti_driver_cbid.h>

namespace tally::hooks::cupti {
namespace {

// Every way of the runtime to launch ends in one of these of the driver.
constexpr CUpti_CallbackId kLaunches[] = {CUPTI_DRIVER_TRACE_CBID_cuLaunchKernel,
                                          CUPTI_DRIVER_TRACE_CBID_cuLaunchKernel_ptsz,
                                          CUPTI_DRIVER_TRACE_CBID_cuLaunchKernelEx,
                                          CUPTI_DRIVER_TRACE_CBID_cuLaunchKernelEx_ptsz,
                                          CUPTI_DRIVER_TRACE_CBID_cuLaunchCooperativeKernel,
                                          CUPTI_DRIVER_TRACE_CBID_cuLaunchCooperativeKernel_ptsz,
                                          CUPTI_DRIVER_TRACE_CBID_cuGraphLaunch,
                                          CUPTI_DRIVER_TRACE_CBID_cuGraphLaunch_ptsz};

}  // namespace

std::string LaunchNames::start() {
  const char* call = "cuptiSubscribe_v2";
  CUptiResult result = subscription_.take(&on_call, this);
  for (const CUpti_CallbackId id : kLaunches) {
    if (result != CUPTI_SUCCESS) break;
    call = "cuptiEnableCallback";
    result = subscription_.enable(CUPTI_CB_DOMAIN_DRIVER_API, id);
  }
  if (result == CUPTI_SUCCESS) return "";
  stop();
  return subscription_.explain(result, call);
}

std::vector<LaunchNames::Launch> LaunchNames::stop() {
  subscription_.give_back();
  const std::lock_guard lock(mutex_);
  return std::exchange(launches_, {});
}

void CUPTIAPI LaunchNames::on_call(void* self, CUpti_CallbackDomain, CUpti_CallbackId id,
                                   const void* data) {
  const auto* call = static_cast<const CUpti_CallbackData*>(data);
  if (call->callbackSite != CUPTI_API_ENTER) return;
  const bool is_graph = id == CUPTI_DRIVER_TRACE_CBID_cuGraphLaunch ||
                        id == CUPTI_DRIVER_TRACE_CBID_cuGraphLaunch_ptsz;
  auto* names = static_cast<LaunchNames*>(self);
  try {
    Launch launch{is_graph           ? "(a CUDA graph)"
                  : call->symbolName ? call->symbolName
                                     : "",
                  names->current_op_()};
    const std::lock_guard lock(names->mutex_);
    names->launches_.push_back(std::move(launch));
  } catch (...) {  // the numbers will not match, which is said
  }
}

}  // namespace tally::hooks::cupti
