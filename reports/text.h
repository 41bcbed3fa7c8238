// SPDX-License-Identifier: Apache-2.0
// The Summary for a terminal: at most 60 lines of 100 columns, the answer first. What was cut for
// them is said in the last line.
#pragma once

#include <string>

#include "profiler/analysis/summary.h"

namespace tally::reports {

struct TextOptions {
  bool color = false;  // 24-bit escape sequences and block characters; plain ASCII bars without
  bool dark = true;    // the terminal's ground
  bool full = false;   // as many lines as it takes, nothing cut
};

std::string render_text(const analysis::Summary& summary, const TextOptions& options = {});

}  // namespace tally::reports
