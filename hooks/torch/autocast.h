// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/autocast_mode.h>

namespace tally::hooks {

// Whether a cast of a parameter inside another operator is autocast's, which keeps the copy for the
// operators to come. Autocast itself is out of the way meanwhile; that its region is open is told
// by the nesting alone.
inline bool fills_autocast_cache(const at::Tensor& parameter) noexcept {
  const c10::Device device = parameter.device();
  if (!(device.is_cpu() || device.is_cuda()) || !at::autocast::is_autocast_cache_enabled() ||
      at::autocast::is_autocast_enabled(device.type())) {
    return false;
  }
  at::autocast::increment_nesting();
  return at::autocast::decrement_nesting() > 0;
}

}  // namespace tally::hooks
