// SPDX-License-Identifier: Apache-2.0
// What the report does not know, in sentences. Nothing that was lost or not seen stays unsaid.
#include <algorithm>
#include <cstdlib>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "profiler/analysis/parts.h"
#include "profiler/core/units.h"

namespace tally::analysis {
namespace {

void add_ending(const Summary& summary, std::vector<std::string>* notes) {
  uint64_t last = summary.steps.back().index;
  for (const StepSummary& step : summary.steps) {
    if (step.ended) last = step.index;
  }
  if (!summary.steps.back().ended && summary.steps.size() > 1) {
    notes->push_back(fmt::format("An allocation failed behind step {}, and no step came to its end after it: the books "
                                 "of step {} are of that moment alone.",
                                 last, summary.steps.back().index));
  }
  if (summary.ended == "killed") {
    notes->push_back(
        fmt::format("The process was killed: the report ends with step {}, the last "
                    "that was finished.",
                    last));
  } else if (summary.ended == "exception") {
    notes->push_back(fmt::format("The program ended with an exception after step {}.", last));
  } else if (summary.ended == "running") {
    notes->push_back(fmt::format("The program still runs: the report ends with step {}.", last));
  }
}

// Over all steps, so that a loss in a step not shown is not hidden by the one that is.
void add_books(const recording::Run& run, const Summary& summary, std::vector<std::string>* notes) {
  int64_t unattributed = 0;
  int64_t foreign = 0;
  int64_t difference = 0;
  uint64_t unattributed_step = 0;
  for (const StepSummary& step : summary.steps) {
    for (const DeviceStep& device : step.devices) {
      foreign = std::max(foreign, device.foreign_bytes);
      difference = std::max(difference, device.largest_difference);
      for (const MarkSummary& mark : device.marks) {
        difference = std::max(difference, std::abs(mark.difference));
        const int64_t bytes = mark.roles[static_cast<size_t>(Role::kUnattributed)];
        if (bytes <= unattributed) continue;
        unattributed = bytes;
        unattributed_step = step.index;
      }
    }
  }
  if (unattributed > 0) {
    notes->push_back(
        fmt::format("Up to {} at a mark (step {}) are unattributed: no evidence names "
                    "what they are for.",
                    format_bytes(unattributed), unattributed_step));
  }
  if (difference > 0) {
    notes->push_back(fmt::format("The books and the allocator's own count differ by up to {}.",
                                 format_bytes(difference)));
  }
  if (foreign > 0) {
    notes->push_back(
        fmt::format("Tensors of up to {} bypass the allocators (from_blob, numpy, shared "
                    "or mapped memory); they are in no sum.",
                    format_bytes(foreign)));
  }
  uint64_t unmatched = 0;
  for (const auto& step : run.steps) unmatched += step.books.unmatched_frees;
  if (unmatched > 0) {
    notes->push_back(
        fmt::format("{} of blocks that were alive before recording began could not be "
                    "matched.",
                    count_of(static_cast<int64_t>(unmatched), "free")));
  }
  if (summary.dropped_events > 0) {
    notes->push_back(fmt::format("Events were lost: {}; the sums may be wrong.",
                                 format_integer(static_cast<int64_t>(summary.dropped_events))));
  }
}

void add_inferred(const Summary& summary, std::vector<std::string>* notes) {
  const DeviceStep* device = summary.device_step();
  if (!device) return;
  int64_t inferred = 0;
  for (const Cell& cell : device->peak.cells) {
    if (cell.module.starts_with("after ")) inferred += cell.bytes;
  }
  if (inferred > 0) {
    notes->push_back(
        fmt::format("The module of {} at the peak is inferred: \"after X\" means that X was "
                    "the last known module when they were made.",
                    format_bytes(inferred)));
  }
  if (!summary.step().detailed) {
    notes->push_back(
        fmt::format("Step {} was not kept in detail: its blocks are not listed and its "
                    "timeline is thinned.",
                    summary.step().index));
  }
}

// Sources that miss the same thing share a line.
void add_sources(const Summary& summary, std::vector<std::string>* notes) {
  std::vector<std::pair<std::string, std::vector<std::string>>> missing;  // a reason, and whose
  for (const Source& source : summary.sources) {
    if (source.available && source.reason.empty()) continue;
    std::string reason = source.reason.empty() ? "no reason was recorded" : source.reason;
    if (!reason.ends_with('.')) reason += '.';
    if (source.available) {
      notes->push_back(fmt::format("{}: {}", source.name, reason));
    } else if (!missing.empty() && missing.back().first == reason) {
      missing.back().second.push_back(source.name);
    } else {
      missing.push_back({reason, {source.name}});
    }
  }
  for (const auto& [reason, names] : missing) {
    notes->push_back(fmt::format("{} {} not available: {}", fmt::join(names, ", "),
                                 names.size() == 1 ? "was" : "were", reason));
  }
}

}  // namespace

std::vector<std::string> notes(const recording::Run& run, const Summary& summary) {
  std::vector<std::string> notes;
  add_ending(summary, &notes);
  add_books(run, summary, &notes);
  add_inferred(summary, &notes);
  add_sources(summary, &notes);
  notes.insert(notes.end(), run.end.notes.begin(), run.end.notes.end());
  return notes;
}

}  // namespace tally::analysis
