// SPDX-License-Identifier: Apache-2.0
// CUPTI's one place for subscribers in a process: taken for as long as names are asked for, then
// given back to whoever waits for it (torch.profiler).
#pragma once

#include <string>

#include "hooks/cupti/cupti_api.h"

namespace tally::hooks::cupti {

class Subscription {
 public:
  explicit Subscription(const Api& api) : api_(api) {}
  ~Subscription() { give_back(); }
  Subscription(const Subscription&) = delete;
  Subscription& operator=(const Subscription&) = delete;

  // `callback` gets `user` and what enable() asks for.
  CUptiResult take(CUpti_CallbackFunc callback, void* user);
  CUptiResult enable(CUpti_CallbackDomain domain, CUpti_CallbackId id);
  // Ends the callbacks as well.
  void give_back();

  // Why `call` answered `result`, and who has the place, if CUPTI says it.
  std::string explain(CUptiResult result, const char* call) const;

 private:
  const Api& api_;
  CUpti_SubscriberHandle handle_ = nullptr;
  char other_[CUPTI_OLD_SUBSCRIBER_NAME_MIN_LEN] = {};
};

}  // namespace tally::hooks::cupti
