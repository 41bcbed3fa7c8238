// SPDX-License-Identifier: Apache-2.0
// The ranks of a distributed run side by side.
#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "profiler/analysis/build.h"
#include "profiler/analysis/parts.h"
#include "profiler/core/error.h"
#include "profiler/core/units.h"

namespace tally::analysis {
namespace {

// An imbalance above this is one: below, ranks differ by their data.
constexpr double kUneven = 0.05;

// The rank of each recording; throws when they cannot be of one run.
std::vector<int64_t> ranks_of(const std::vector<recording::Run>& runs) {
  std::vector<int64_t> ranks;
  std::set<int64_t> seen;
  const bool numbered = runs.front().info.rank >= 0;
  for (size_t i = 0; i < runs.size(); ++i) {
    const RunInfo& info = runs[i].info;
    for (size_t k = 0; k < i; ++k) {
      if (runs[k].path == runs[i].path) throw Error("{} was given twice", runs[i].path);
    }
    if ((info.rank >= 0) != numbered) {
      const size_t with = numbered ? 0 : i;
      throw Error(
          "{} is rank {} of a distributed run and {} says no rank: they are not of one run; "
          "'torchtally compare' sets runs side by side",
          runs[with].path, runs[with].info.rank, runs[numbered ? i : 0].path);
    }
    if (info.world_size != runs.front().info.world_size) {
      throw Error("{} is of a run of {} ranks and {} of one of {}: they are not of one run",
                  runs.front().path, runs.front().info.world_size, runs[i].path, info.world_size);
    }
    const int64_t rank = numbered ? info.rank : static_cast<int64_t>(i);
    if (!seen.insert(rank).second) {
      const auto first = std::find(ranks.begin(), ranks.end(), rank);
      throw Error("{} and {} are both rank {}: give one recording a rank",
                  runs[static_cast<size_t>(first - ranks.begin())].path, runs[i].path, rank);
    }
    ranks.push_back(rank);
  }
  return ranks;
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

bool has_step(const recording::Run& run, uint64_t index) {
  return std::any_of(run.steps.begin(), run.steps.end(),
                     [&](const recording::RecordedStep& s) { return s.books.index == index; });
}

// Each rank has devices of its own: what one of them lacks is no error of another.
SummaryOptions options_for(const recording::Run& run, SummaryOptions options, bool explained) {
  if (explained) return options;
  if (options.step && !has_step(run, *options.step)) options.step.reset();
  options.device.clear();
  options.at = Mark::kPeak;
  return options;
}

}  // namespace

RankSummary rank_row(const Summary& summary) {
  RankSummary row;
  row.rank = summary.rank;
  row.recording = summary.recording;
  row.ended = summary.ended;
  row.steps = summary.steps.size();
  std::vector<double> seconds;
  for (const StepSummary& step : summary.steps) {
    if (&step != &summary.steps.front() || summary.steps.size() == 1)
      seconds.push_back(step.seconds);
    const DeviceStep* device = main_device(step);
    if (!device || device->peak.bytes <= row.peak_bytes) continue;
    row.device = device->device;
    row.peak_bytes = device->peak.bytes;
    row.peak_step = step.index;
    row.roles = device->peak.roles;
    row.flops = step.flops.total();
  }
  row.seconds = median(seconds);
  return row;
}

Verdict rank_verdict(const std::vector<RankSummary>& ranks) {
  Verdict verdict{.kind = "rank_imbalance", .verdict = "", .evidence = {}, .bytes = 0};
  double bytes = 0;
  double seconds = 0;
  const auto count = static_cast<double>(ranks.size());
  for (const RankSummary& r : ranks) {
    bytes += static_cast<double>(r.peak_bytes) / count;
    seconds += r.seconds / count;
  }
  const auto& highest =
      *std::max_element(ranks.begin(), ranks.end(),
                        [](const auto& a, const auto& b) { return a.peak_bytes < b.peak_bytes; });
  const auto& slowest =
      *std::max_element(ranks.begin(), ranks.end(),
                        [](const auto& a, const auto& b) { return a.seconds < b.seconds; });
  const double above = bytes > 0 ? static_cast<double>(highest.peak_bytes) / bytes - 1 : 0;
  const std::string peak = fmt::format("rank {} peaks at {}, {:.1f} % above the mean of {}",
                                       highest.rank, format_bytes(highest.peak_bytes), 100 * above,
                                       count_of(static_cast<int64_t>(ranks.size()), "rank"));
  if (above > kUneven) {
    verdict.tone = Tone::kBad;
    verdict.verdict = "uneven: " + peak;
    verdict.bytes = highest.peak_bytes - static_cast<int64_t>(bytes);
    for (size_t role = 0; role < kRoleCount; ++role) {
      double mean = 0;
      for (const RankSummary& r : ranks) mean += static_cast<double>(r.roles[role]) / count;
      const double more = static_cast<double>(highest.roles[role]) - mean;
      if (more < 0.1 * static_cast<double>(verdict.bytes)) continue;
      verdict.evidence.push_back(fmt::format("{}: {} on rank {}, {} on average",
                                             kRoleWords[role].title,
                                             format_bytes(highest.roles[role]), highest.rank,
                                             format_bytes(static_cast<int64_t>(mean))));
    }
  } else {
    verdict.tone = Tone::kGood;
    verdict.verdict = "even: " + peak;
  }
  if (seconds > 0) {
    verdict.evidence.push_back(fmt::format(
        "a step takes {} on rank {}, the slowest, and {} on average (medians without the first)",
        format_seconds(slowest.seconds), slowest.rank, format_seconds(seconds)));
  }
  return verdict;
}

RankedSummaries build_ranks(const std::vector<recording::Run>& runs, std::optional<int64_t> rank,
                            const SummaryOptions& options) {
  RankedSummaries out;
  if (runs.size() == 1 && !rank) {
    out.summaries.push_back(build_summary(runs.front(), options));  // not copied: it may be large
    return out;
  }
  const std::vector<int64_t> ranks = ranks_of(runs);
  std::vector<size_t> order(runs.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return ranks[a] < ranks[b]; });
  std::vector<RankSummary> rows;
  for (const size_t i : order) {
    const bool asked = rank && *rank == ranks[i];
    if (asked) out.explained = out.summaries.size();
    out.summaries.push_back(build_summary(runs[i], options_for(runs[i], options, asked)));
    out.summaries.back().rank = ranks[i];
    rows.push_back(rank_row(out.summaries.back()));
  }
  if (rank && std::find(ranks.begin(), ranks.end(), *rank) == ranks.end()) {
    std::string known;
    for (const RankSummary& r : rows)
      known += fmt::format("{}{}", known.empty() ? "" : ", ", r.rank);
    throw Error("no recording of rank {} was given; there {} {}", *rank,
                rows.size() == 1 ? "is only rank" : "are the ranks", known);
  }
  if (!rank) {
    const auto highest =
        std::max_element(rows.begin(), rows.end(),
                         [](const auto& a, const auto& b) { return a.peak_bytes < b.peak_bytes; });
    out.explained = static_cast<size_t>(highest - rows.begin());
    const size_t i = order[out.explained];
    out.summaries[out.explained] = build_summary(runs[i], options);
    out.summaries[out.explained].rank = ranks[i];
  }
  if (rows.size() > 1) {
    for (Summary& summary : out.summaries) {
      summary.ranks = rows;
      summary.verdicts.push_back(rank_verdict(rows));
      if (runs.front().info.rank < 0) {
        summary.notes.emplace_back(
            "The recordings say no rank: they are numbered in the order in which they were given.");
      } else if (static_cast<int64_t>(rows.size()) < summary.world_size) {
        summary.notes.push_back(fmt::format("{} of {} ranks were given; the others are not known.",
                                            rows.size(), summary.world_size));
      }
    }
  }
  return out;
}

}  // namespace tally::analysis
