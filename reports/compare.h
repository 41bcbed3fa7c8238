// SPDX-License-Identifier: Apache-2.0
// A Comparison as text, JSON and one HTML page that needs no script and loads nothing.
#pragma once

#include <string>

#include "profiler/analysis/compare.h"

namespace tally::reports {

// At most `rows` modules and operators each.
std::string render_compare_text(const analysis::Comparison& comparison, size_t rows = 8);
std::string render_compare_json(const analysis::Comparison& comparison);
std::string render_compare_html(const analysis::Comparison& comparison);

}  // namespace tally::reports
