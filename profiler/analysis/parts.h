// SPDX-License-Identifier: Apache-2.0
// The parts of build_summary, a file each; inside this room only. Each reads the Summary as far as
// it is built: steps, shown and modules come first.
#pragma once

#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "profiler/analysis/summary.h"
#include "profiler/recording/reader.h"

namespace tally::analysis {

struct SummaryOptions;

inline int64_t bytes_of(const RoleBytes& roles, Role role) { return roles[static_cast<size_t>(role)]; }
// `share` of so many bytes; -1 and 1 leave them as they are.
inline int64_t scaled(double share, int64_t bytes) {
  return static_cast<int64_t>(std::llround(share * static_cast<double>(bytes)));
}
inline bool is_of_micro_step(Phase phase) {
  return phase == Phase::kForward || phase == Phase::kBackward || phase == Phase::kRecompute;
}

// The index of the step to explain; throws when there is none.
size_t choose_step(const recording::Run& run, const SummaryOptions& options);
// False: an allocation failed in it, and the run came to its end first. Its books are of that moment.
bool has_ended(const StepBooks& books);
std::vector<TheoryRow> theory_rows(const recording::Run& run, const Summary& summary);
// Fills what the rows of theory say of the closed forms, and what those are of.
void add_closed_forms(const recording::Run& run, const std::string& model, Summary* summary);
// Kernels of the step shown, or of the last one that has some.
void fill_kernels(const recording::Run& run, Summary* summary);
// What tensor cores executed, and why it is not what the formulas say; nothing where the step shown
// did not count them.
void add_executed(const recording::Run& run, const Summary& summary, Utilization* out);
Utilization utilization(const recording::Run& run, const Summary& summary);
// Of one recording, as a row of the table of ranks.
RankSummary rank_row(const Summary& summary);
Verdict rank_verdict(const std::vector<RankSummary>& ranks);
std::vector<Verdict> verdicts(const recording::Run& run, const Summary& summary);
// Of the step shown, one card each; nothing where there is nothing to judge.
std::optional<Verdict> checkpointing_verdict(const recording::Run& run, const Summary& summary);
std::optional<Verdict> accumulation_verdict(const recording::Run& run, const Summary& summary);
std::vector<TradeOffRow> trade_off(const Summary& summary);
// Of the first failed allocation or crossed budget of the run.
std::optional<Verdict> oom_verdict(const Summary& summary);
std::vector<std::string> notes(const recording::Run& run, const Summary& summary);

// The device of the step with the highest peak. Null: none.
const DeviceStep* main_device(const StepSummary& step);
// "1 parameter", "3 parameters"
// "a 2.0 MiB, b 1.0 MiB": the most bytes first, at most `count` of them.
std::string largest_of(const std::map<std::string, int64_t>& bytes, size_t count);
std::string count_of(int64_t count, const std::string& what);

}  // namespace tally::analysis
