// SPDX-License-Identifier: Apache-2.0
// Batch x accumulation x checkpointing for this model: the peak and the FLOPs of each combination,
// predicted from the step shown (counterfactual.h).
#include <algorithm>
#include <cmath>

#include "profiler/analysis/counterfactual.h"
#include "profiler/analysis/parts.h"

namespace tally::analysis {
namespace {

constexpr int kMostParts = 4;  // micro-batches of 1, 1/2 and 1/4 of the size

struct Checkpoints {
  std::string text;
  Plan plan;
};

}  // namespace

std::vector<TradeOffRow> trade_off(const Summary& summary) {
  const DeviceStep* device = summary.device_step();
  const StepSummary& step = summary.step();
  if (!device || device->timeline.empty() || step.micro_steps < 1 || step.flops.backward <= 0)
    return {};
  const Counterfactual of(step, *device);
  std::vector<Checkpoints> ways = {{step.regions.empty() ? "none" : "as recorded", {}}};
  const size_t units = of.units().size();
  if (units >= 2) {
    ways.push_back({"each of " + names_of(of, of.uniform(1)), of.uniform(1)});
    const auto root = static_cast<size_t>(std::ceil(std::sqrt(static_cast<double>(units))));
    if (root > 1 && root < units)
      ways.push_back({"segments of " + std::to_string(root), of.uniform(root)});
  }
  std::vector<TradeOffRow> rows;
  for (const Checkpoints& way : ways) {
    const double extra = of.with_checkpoints(way.plan).extra_flops;
    for (int parts = 1; parts <= kMostParts; parts *= 2) {
      for (const bool accumulated : {false, true}) {
        TradeOffRow row;
        row.parts = parts;
        row.accumulated = accumulated;
        row.checkpointing = way.text;
        row.tokens = step.tokens / step.micro_steps / parts;
        row.peak_bytes = of.with(way.plan, 1.0 / parts, accumulated);
        // Of one token or example: the whole step's, whatever it is cut into.
        row.extra_flops = step.flops.total() > 0 ? extra / step.flops.total() : 0;
        row.is_recorded = parts == 1 && way.plan.empty() && accumulated == (step.micro_steps > 1);
        rows.push_back(row);
      }
    }
  }
  return rows;
}

}  // namespace tally::analysis
