// SPDX-License-Identifier: Apache-2.0
// The books of a step as text, every field of it: two steps are the same when their texts are, and
// a test that fails shows the line that differs.
#pragma once

#include <string>

#include "profiler/core/ids.h"
#include "profiler/ledger/books.h"

namespace tally::test {

// Cells are listed by role and module, as a recording gives them back.
std::string describe(const StepBooks& step, const StringTable& strings);
std::string describe(const RunInfo& info, const StringTable& strings);
std::string describe(const RunEnd& end);

}  // namespace tally::test
