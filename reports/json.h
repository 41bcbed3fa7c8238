// SPDX-License-Identifier: Apache-2.0
// The Summary as JSON, for programs. The keys are fixed (docs/recording.md lists them); more may
// be added. Bytes are integers, FLOPs too where they are whole; names stand as they were recorded.
#pragma once

#include <string>

#include "profiler/analysis/summary.h"

namespace tally::reports {

// A line for each member, and for each element of its lists.
std::string render_json(const analysis::Summary& summary);

}  // namespace tally::reports
