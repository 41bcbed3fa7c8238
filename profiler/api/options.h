// SPDX-License-Identifier: Apache-2.0
// The environment variables TORCHTALLY_* applied to Options.
#pragma once

#include "torchtally/profiler.h"

namespace tally {

// Throws Error that names the variable which has no sense, an unknown TORCHTALLY_ name included.
Options apply_environment(Options options);

}  // namespace tally
