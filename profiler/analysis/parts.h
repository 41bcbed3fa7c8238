// SPDX-License-Identifier: Apache-2.0
// The parts of build_summary, a file each; inside this room only. Each reads the Summary as far as
// it is built: steps, shown and modules come first.
#pragma once

#include <string>
#include <vector>

#include "profiler/analysis/summary.h"
#include "profiler/recording/reader.h"

namespace tally::analysis {

std::vector<TheoryRow> theory_rows(const recording::Run& run, const Summary& summary);
std::vector<Verdict> verdicts(const Summary& summary);
std::vector<std::string> notes(const recording::Run& run, const Summary& summary);

// The device of the step with the highest peak: the one that a report is about. Null: none.
const DeviceStep* main_device(const StepSummary& step);
// "1 parameter", "3 parameters"
std::string count_of(int64_t count, const std::string& what);

}  // namespace tally::analysis
