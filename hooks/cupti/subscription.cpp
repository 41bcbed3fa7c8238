// SPDX-License-Identifier: Apache-2.0
#include "hooks/cupti/subscription.h"

#include <fmt/format.h>

#include <utility>

#include "hooks/cupti/refusal.h"

namespace tally::hooks::cupti {

CUptiResult Subscription::take(CUpti_CallbackFunc callback, void* user) {
  CUpti_SubscriberParams params{};
  params.structSize = CUpti_SubscriberParams_STRUCT_SIZE;
  params.subscriberName = "TorchTally";
  params.oldSubscriberName = other_;
  params.oldSubscriberSize = sizeof other_;
  const CUptiResult result = api_.cuptiSubscribe_v2(&handle_, callback, user, &params);
  if (result != CUPTI_SUCCESS) handle_ = nullptr;
  return result;
}

CUptiResult Subscription::enable(CUpti_CallbackDomain domain, CUpti_CallbackId id) {
  return api_.cuptiEnableCallback(1, handle_, domain, id);
}

void Subscription::give_back() {
  if (handle_) api_.cuptiUnsubscribe(std::exchange(handle_, nullptr));
}

std::string Subscription::explain(CUptiResult result, const char* call) const {
  std::string reason = cupti::explain(result, call, api_.text(result), "to name kernels");
  if (*other_) reason += fmt::format(" (the other one calls itself '{}')", other_);
  return reason;
}

}  // namespace tally::hooks::cupti
