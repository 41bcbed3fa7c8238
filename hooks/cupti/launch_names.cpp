// SPDX-License-Identifier: Apache-2.0
#include "hooks/cupti/launch_names.h"

#include <cupti_driver_cbid.h>
#include <fmt/format.h>

#include "hooks/cupti/refusal.h"

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
  char other[CUPTI_OLD_SUBSCRIBER_NAME_MIN_LEN] = {};
  CUpti_SubscriberParams subscriber{};
  subscriber.structSize = CUpti_SubscriberParams_STRUCT_SIZE;
  subscriber.subscriberName = "TorchTally";
  subscriber.oldSubscriberName = other;
  subscriber.oldSubscriberSize = sizeof other;
  const char* call = "cuptiSubscribe_v2";
  CUptiResult result = api_.cuptiSubscribe_v2(&subscriber_, &on_call, this, &subscriber);
  if (result != CUPTI_SUCCESS) subscriber_ = nullptr;
  for (const CUpti_CallbackId id : kLaunches) {
    if (result != CUPTI_SUCCESS) break;
    call = "cuptiEnableCallback";
    result = api_.cuptiEnableCallback(1, subscriber_, CUPTI_CB_DOMAIN_DRIVER_API, id);
  }
  if (result == CUPTI_SUCCESS) return "";
  std::string reason = explain(result, call, api_.text(result), "to name kernels");
  if (*other) reason += fmt::format(" (the other one calls itself '{}')", other);
  stop();
  return reason;
}

std::vector<LaunchNames::Launch> LaunchNames::stop() {
  // Ends the callbacks as well.
  if (subscriber_) api_.cuptiUnsubscribe(std::exchange(subscriber_, nullptr));
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
