// SPDX-License-Identifier: Apache-2.0
// The Summary as one HTML page: the page that reports/web was built into, with the data of this
// run in it. It needs nothing else, works from a file and as an attachment of a mail.
#pragma once

#include <string>

#include "profiler/analysis/summary.h"

namespace tally::reports {

std::string render_html(const analysis::Summary& summary);

}  // namespace tally::reports
