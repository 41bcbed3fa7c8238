// SPDX-License-Identifier: Apache-2.0
// The names that data/cases.csv uses, each answered by the estimator's public API.
#pragma once

#include "tests/estimate/expression.h"

namespace tally::estimate::testing {

const Scope& reference_scope();

}  // namespace tally::estimate::testing
