// SPDX-License-Identifier: Apache-2.0
// The Summary as the page wants it: names and single values as JSON that is safe inside a script
// element, everything that repeats as packed columns. This file's .cpp and
// reports/web/src/data/layout.ts are the two places that know the layout; the version is in both.
#pragma once

#include <string>

#include "profiler/analysis/summary.h"

namespace tally::reports {

inline constexpr int kPageDataVersion = 4;

struct PageData {
  std::string meta;     // JSON: ASCII, without < > &
  std::string columns;  // base64 of gzip of the columns that meta lists
};
PageData page_data(const analysis::Summary& summary);

}  // namespace tally::reports
