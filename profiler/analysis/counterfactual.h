// SPDX-License-Identifier: Apache-2.0
// What the peak of a recorded step would have been under another setting: its timeline, with the
// bytes that the setting would have kept away taken out of the moments where it would. Nothing is
// assumed about the model but its units and when each was needed.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "profiler/analysis/heights.h"
#include "profiler/analysis/summary.h"

namespace tally::analysis {

// Consecutive units (indices, last included) that run as one checkpoint: the output of the last one
// is kept, everything else that they save is made again.
struct Segment {
  size_t first = 0;
  size_t last = 0;
};
using Plan = std::vector<Segment>;

struct Prediction {
  int64_t peak_bytes = 0;
  double extra_flops = 0;  // of the step; negative: recomputation that is no longer done
};

class Counterfactual {
 public:
  // Both must outlive it. Of a step without a timeline or units nothing can be said.
  Counterfactual(const StepSummary& step, const DeviceStep& device);

  // Units that could be a checkpoint and are none: repeated blocks ("h.3") whose forward and
  // backward were seen, in the order of the forward pass.
  struct Unit {
    std::string name;
    int64_t activation_bytes = 0;  // of the micro-step where they are the most
    int64_t output_bytes = 0;
    double forward_flops = 0;      // of the step
  };
  const std::vector<Unit>& units() const { return units_; }

  Prediction with_checkpoints(const Plan& plan) const;
  // Segments of `size` units each; the last one may be shorter.
  Plan uniform(size_t size) const;
  // One unit after the other where it lowers the peak most for its FLOPs, as long as it does. Each
  // is tried again for each that is taken: of very many only those that keep the most.
  static constexpr size_t kMostTried = 500;
  Plan greedy() const;

  // Without the regions whose module is in `modules`: what they made again stays alive instead.
  Prediction without_regions(const std::vector<std::string>& modules) const;

  // With micro-batches of `share` of this one's size, accumulated: what grows with the batch
  // shrinks, gradients are there from the first micro-step on.
  int64_t with_micro_batch(double share) const { return with({}, share, true); }

  // Both at once. `accumulated`: gradients wait through every micro-step; else there is one
  // micro-step, and they come in its backward pass.
  int64_t with(const Plan& plan, double share, bool accumulated) const;

 private:
  struct Span {  // where a unit's activations wait for their backward pass
    double begin = 0;
    double end = 0;       // its backward pass (or recomputation) begins
    double backward = 0;  // it ends
    int64_t activation_bytes = 0;
    int64_t output_bytes = 0;
  };
  // By unit, its span in each micro-step.
  const std::vector<Span>* spans_of(const std::string& unit) const;
  // What one checkpoint takes away and makes again, of a micro-batch of `share` of the size; with
  // -1, undone.
  void add_segment(const Segment& segment, double share, Heights& heights) const;

  const StepSummary& step_;
  const DeviceStep& device_;
  Heights heights_;  // as recorded
  std::unordered_map<std::string, std::vector<Span>> spans_;  // of all units of the step
  std::vector<Unit> units_;
};

// The last component is a number: an entry of a ModuleList or Sequential.
bool is_repeated(const std::string& unit);
// "h.3" of "h.3.attn" and of "after h.3.ln_1"; a module outside any list is its own.
std::string unit_of(std::string module);
// "h.0" covers "h.0.attn" and "h.0".
bool covers(const std::string& unit, const std::string& module);
// "h.0 to h.11" or "h.0, h.4, h.8".
std::string names_of(const Counterfactual& of, const Plan& plan);

}  // namespace tally::analysis
