// SPDX-License-Identifier: Apache-2.0
// The Summary as one HTML page: the page that reports/web was built into, with the data of this
// run in it. It needs nothing else, works from a file and as an attachment of a mail.
#pragma once

#include <string>
#include <vector>

#include "profiler/analysis/summary.h"

namespace tally::reports {

std::string render_html(const analysis::Summary& summary);

// The ranks of one run in one page, which switches between them; it opens with `explained`. Where
// all of them would make it too large, the table of ranks still has every one.
std::string render_html(const std::vector<analysis::Summary>& ranks, size_t explained);

}  // namespace tally::reports
