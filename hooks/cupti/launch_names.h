// SPDX-License-Identifier: Apache-2.0
// The names of the kernels that are launched, in their order, each with the operator that launched
// it: what counters that are read kernel by kernel are called. CUPTI's one place for subscribers is
// taken by start() and given back by stop().
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "hooks/cupti/subscription.h"

namespace tally::hooks::cupti {

class LaunchNames {
 public:
  struct Launch {
    std::string kernel;
    uint64_t op = 0;  // as current_op() said on the launching thread; 0: of no operator
  };

  // `current_op` is asked on the thread that launches.
  LaunchNames(const Api& api, uint64_t (*current_op)()) : subscription_(api), current_op_(current_op) {}
  ~LaunchNames() { stop(); }
  LaunchNames(const LaunchNames&) = delete;
  LaunchNames& operator=(const LaunchNames&) = delete;

  // "", or why not; nothing stays behind then.
  std::string start();
  std::vector<Launch> stop();

 private:
  static void CUPTIAPI on_call(void* self, CUpti_CallbackDomain domain, CUpti_CallbackId id,
                               const void* data);

  Subscription subscription_;
  uint64_t (*current_op_)();
  std::mutex mutex_;  // of what follows
  std::vector<Launch> launches_;
};

}  // namespace tally::hooks::cupti
