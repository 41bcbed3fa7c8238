// SPDX-License-Identifier: Apache-2.0
// What was alive at the mark that the Summary explains, as comma-separated values (RFC 4180): a row
// for each block, or for each role and module; their bytes add up to the mark's. Names stand as
// they were recorded, numbers without separators.
#pragma once

#include <string>

#include "profiler/analysis/summary.h"

namespace tally::reports {

std::string render_csv(const analysis::Summary& summary);

// Work of the step that the Summary explains: a row for each operator of a phase and module, then
// for each kernel that has a name. What was not counted is empty.
std::string render_flops_csv(const analysis::Summary& summary);

}  // namespace tally::reports
