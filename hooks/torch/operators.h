// SPDX-License-Identifier: Apache-2.0
// The source of operator, node and scope events: one global callback of at::RecordFunction. It also
// notices that a backward pass begins and ends, and what each AccumulateGrad leaves in a .grad.
#pragma once

#include <memory>

#include "profiler/core/source.h"

namespace tally::hooks {

struct OperatorOptions {
  // While this many steps are not over, what each operator should save is worked out from rules.
  uint64_t theory_steps = 2;
};

std::unique_ptr<Source> make_operator_source(OperatorOptions options);

}  // namespace tally::hooks
