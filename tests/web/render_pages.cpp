// SPDX-License-Identifier: Apache-2.0
// render_pages FOLDER: the pages that the browser tests look at, each NAME.html, with the same
// Summary as NAME.json beside all but the long one. Most come from synthetic runs through the real
// analysis; what a CPU run never shows (several devices, recomputation, broken books) is made by
// hand.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <random>
#include <string>

#include "profiler/analysis/build.h"
#include "reports/compare.h"
#include "reports/html.h"
#include "reports/json.h"
#include "reports/memory_snapshot.h"
#include "reports/write_file.h"
#include "tests/support/synthetic_run.h"

namespace tally::test {
namespace {

using analysis::Summary;

SyntheticOptions gpt2_small() {
  SyntheticOptions options;
  options.layers = 12;
  options.width = 768;
  options.heads = 12;
  options.vocabulary = 50257;
  options.batch = 8;
  options.sequence = 1024;
  return options;
}

Summary summary_of(const SyntheticOptions& options) {
  return analysis::build_summary(make_synthetic_run(options).as_recorded());
}

Summary accumulation() {
  SyntheticOptions options = gpt2_small();
  options.layers = 6;
  options.batch = 2;
  options.micro_steps = 4;
  return summary_of(options);
}

Summary leak() {
  SyntheticOptions options;
  options.steps = 12;
  options.leak_bytes = 65536;
  return summary_of(options);
}

// Every role of every mark is another number in every step: the worst case for the size of the
// page. Steps that are not in detail are as a reader gives them back.
Summary long_run() {
  SyntheticOptions options;
  options.layers = 2;
  options.steps = 10'000;
  options.vary = true;
  options.detailed_steps = 6;
  Summary summary = summary_of(options);
  std::minstd_rand noise;
  for (analysis::StepSummary& step : summary.steps) {
    if (step.detailed) continue;
    step.operators.clear();
    for (analysis::DeviceStep& device : step.devices) {
      device.timeline.clear();
      for (analysis::MarkSummary& mark : device.marks) {
        mark.cells.clear();
        for (int64_t& bytes : mark.roles) {
          if (bytes > 0) bytes += 4 * static_cast<int64_t>(noise() % 500'000);
        }
        mark.bytes = mark.allocator_bytes = sum(mark.roles);
        if (mark.mark == Mark::kPeak) device.peak = mark;
      }
    }
  }
  return summary;
}

// A step of a device with a caching allocator, beside the CPU: checkpointing, an OOM, verdicts,
// books that are off, bytes that nobody knows.
Summary everything() {
  SyntheticOptions options = gpt2_small();
  options.layers = 4;
  options.steps = 3;
  options.detailed_steps = 3;
  Summary summary = summary_of(options);
  summary.ended = "killed";
  summary.devices.push_back({"cuda:0", "a card", int64_t{12} << 30});
  summary.dropped_events = 3;
  for (analysis::StepSummary& step : summary.steps) {
    analysis::DeviceStep card = step.devices.front();
    card.device = "cuda:0";
    const auto change = [&](RoleBytes& roles) {
      roles[static_cast<size_t>(Role::kUnattributed)] += int64_t{150} << 20;
    };
    for (analysis::MarkSummary& mark : card.marks) {
      change(mark.roles);
      mark.bytes = sum(mark.roles);
      mark.allocator_bytes = mark.bytes - 512;
      mark.difference = 512;
      CachingBook& caching = mark.caching.emplace();
      caching.active_bytes = caching.allocated_bytes = mark.bytes + 78'668;
      caching.reserved_bytes = caching.active_bytes + (int64_t{700} << 20);
      caching.largest_free_bytes = int64_t{12} << 20;
      caching.allocator_active_bytes = caching.active_bytes;
      caching.allocator_reserved_bytes = caching.reserved_bytes - (2 << 20);
      caching.is_exact = false;
    }
    for (analysis::MarkSummary& mark : card.marks) {
      if (mark.mark == Mark::kPeak) card.peak = mark;
    }
    for (analysis::TimelinePoint& point : card.timeline) {
      change(point.roles);
      point.active_bytes = sum(point.roles) + 78'668;
      point.reserved_bytes = std::max(int64_t{3} << 30, point.active_bytes);
      point.largest_free_bytes = int64_t{12} << 20;
    }
    card.largest_difference = 512;
    analysis::MarkSummary oom = card.peak;
    oom.mark = Mark::kOom;
    card.marks.push_back(oom);
    step.devices.push_back(card);
    step.flops.recompute = 0.2 * step.flops.forward;
    // Every second tenth of the backward pass is recomputation.
    std::vector<analysis::PhaseSpan> phases;
    for (const analysis::PhaseSpan& span : step.phases) {
      if (span.phase != Phase::kBackward) {
        phases.push_back(span);
        continue;
      }
      const double tenth = (span.end - span.begin) / 10;
      for (int k = 0; k < 10; ++k) {
        phases.push_back({k % 2 ? Phase::kRecompute : Phase::kBackward, span.micro_step,
                          span.begin + k * tenth, span.begin + (k + 1) * tenth});
      }
    }
    step.phases = phases;
  }
  summary.device = "cuda:0";
  summary.unattributed_bytes = int64_t{150} << 20;
  summary.headline =
      "Peak 1.64 GiB in step 1, backward of h.3.mlp; 64 % activations. Theory says 1.63 GiB "
      "(measured: +0.6 %). Checkpointing would save 0.9 GiB for +31 % FLOPs.";
  summary.verdicts = {{"checkpointing",
                       "works: 2 of 4 blocks are recomputed",
                       {"h.0, h.2: 36.0 MiB each"},
                       1 << 27,
                       {{"checkpoint h.1 and h.3 as well", 72 << 20, "+17 % FLOPs"},
                        {"checkpoint the attention cores only", 96 << 20, "+2 % FLOPs"},
                        {std::string("a smaller batch ") + kHostileName, 0, ""}}},
                      {"accumulation", "not judged: one micro-step", {}, 0, {}},
                      {"oom",
                       "an allocation of 64.0 MiB failed in backward",
                       {"reserved 11.9 GiB", "free 12 MiB"},
                       0,
                       {}},
                      {"leak",
                       "suspected: the bytes at the end of a step grew in each of the last 3 steps",
                       {},
                       512,
                       {}}};
  // A device whose peak rate is known, and a model whose configuration is.
  summary.utilization.device = "A100-SXM4-80GB";
  summary.utilization.peak = 19.5e12;
  summary.utilization.bytes_per_second = 2.039e12;
  summary.utilization.mfu = 0.412;
  summary.utilization.hfu = 0.447;
  summary.utilization.cause = "of 19.5 TFLOP/s, the dense fp32 rate of A100-SXM4-80GB";
  for (analysis::TheoryRow& row : summary.theory) {
    if (row.key == "buffer") continue;
    row.closed_form = 1.01 * row.measured;
    row.closed_form_cause = "by the configuration; measured: -0.99 %";
  }
  summary.notes.push_back(std::string("hostile: ") + kHostileName);
  return summary;
}

// A run on a card whose hardware counters were read.
Summary card() {
  SyntheticOptions options;
  options.on_card = true;
  return summary_of(options);
}

// Four ranks, of which one has twice the batch.
analysis::RankedSummaries ranks() {
  std::vector<recording::Run> runs;
  for (int rank = 0; rank < 4; ++rank) {
    SyntheticOptions options;
    options.batch = rank == 2 ? 4 : 2;
    options.hostile = false;
    SyntheticRun run = make_synthetic_run(options);
    run.info.rank = rank;
    run.info.world_size = 4;
    runs.push_back(std::move(run).as_recorded());
    runs.back().path = "rank" + std::to_string(rank) + ".tally";
  }
  return analysis::build_ranks(runs, {});
}

// As little as a report can hold.
Summary bare() {
  Summary summary;
  summary.started = "2026-01-01T00:00:00Z";
  summary.ended = "running";
  analysis::StepSummary step;
  step.index = 7;
  step.seconds = 0.25;
  summary.steps.push_back(step);
  summary.headline = "Step 7 has no books of memory.";
  return summary;
}

void write(const std::string& folder, const std::string& name, const Summary& summary) {
  const std::string path = (std::filesystem::path(folder) / name).string();
  reports::write_file(path + ".html", reports::render_html(summary));
  if (summary.steps.size() < 1000) {
    reports::write_file(path + ".json", reports::render_json(summary));
  }
}

}  // namespace
}  // namespace tally::test

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: render_pages FOLDER\n", stderr);
    return 2;
  }
  try {
    const std::string folder = argv[1];
    std::filesystem::create_directories(folder);
    using namespace tally::test;
    write(folder, "gpt", summary_of(gpt2_small()));
    write(folder, "small", summary_of({}));
    write(folder, "accumulation", accumulation());
    write(folder, "leak", leak());
    write(folder, "everything", everything());
    write(folder, "card", card());
    tally::reports::write_file(folder + "/card.pickle",
                               tally::reports::render_memory_snapshot(card()));
    write(folder, "bare", bare());
    const auto ranked = ranks();
    tally::reports::write_file(folder + "/ranks.html",
                               tally::reports::render_html(ranked.summaries, ranked.explained));
    for (const auto& summary : ranked.summaries) {
      tally::reports::write_file(folder + "/ranks-" + std::to_string(summary.rank) + ".json",
                                 tally::reports::render_json(summary));
    }
    tally::reports::write_file(folder + "/compare.html",
                               tally::reports::render_compare_html(tally::analysis::compare(
                                   {ranked.summaries[0], ranked.summaries[2]})));
    tally::reports::write_file(
        folder + "/compare4.html",
        tally::reports::render_compare_html(tally::analysis::compare(ranked.summaries)));
    write(folder, "long", long_run());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "render_pages: %s\n", error.what());
    return 2;
  }
}
