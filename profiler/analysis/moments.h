// SPDX-License-Identifier: Apache-2.0
// The moments at which memory could run out: all of a complete step, and that of a failure. What a
// remedy gives back is how much lower the highest of them is with it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "profiler/analysis/oom.h"
#include "profiler/analysis/summary.h"

namespace tally::analysis {

struct Moment {
  const StepSummary* step = nullptr;
  double seconds = 0;
  RoleBytes roles{};
  Phase phase = Phase::kOther;
  int micro_step = 0;
  std::string unit;       // of the operator that runs
  bool has_begun = true;  // the backward pass of its micro-step
};

class Moments {
 public:
  // All that it points to must outlive it.
  explicit Moments(const Failure& failure);

  // How much lower the highest moment is when each changes by `change(moment)` bytes.
  template <typename Change>
  int64_t gained(Change&& change) const {
    int64_t highest = 0;
    for (const Moment& m : moments_) highest = std::max(highest, sum(m.roles) + change(m));
    return highest_ - highest;
  }

  // Gradients that the backward pass has made at this moment, at most.
  int64_t made(const Moment& m) const;
  // The same of parameters outside of repeated blocks.
  int64_t made_outside(const Moment& m) const;
  // What autograd keeps and is in use: in forward the program may still have all of the block that
  // runs, in backward a node gets back what it saved.
  int64_t in_use(const Moment& m) const;

  size_t blocks() const { return blocks_; }  // repeated ones that have parameters
  int64_t largest_block_bytes() const { return largest_block_bytes_; }
  int64_t outside_bytes() const { return outside_.total; }  // of parameters in no repeated block

 private:
  // When gradients of some parameters are made, in the order of time; bytes are summed up.
  struct Schedule {
    std::vector<std::pair<double, int64_t>> made;
    int64_t told = 0;  // of all of them, those whose time is known or that are never made
  };
  struct Part {
    int64_t total = 0;
    std::map<std::pair<const StepSummary*, int>, Schedule> of;  // by micro-step
    void note(const StepSummary& step, const UnitRow& row, double seconds, int64_t bytes);
    void sum_up();
    int64_t made(const Moment& m) const;
  };
  void note_parameters(const MarkSummary& mark);
  void note_units(const StepSummary& step);

  const StepSummary* failed_step_;
  std::vector<Moment> moments_;
  int64_t highest_ = 0;
  std::map<std::string, int64_t> parameters_;   // these by unit
  std::map<std::string, int64_t> activations_;  // at the failure
  std::map<std::string, int64_t> largest_activations_;
  std::map<std::pair<std::string, int>, int64_t> unit_activations_;  // of the complete step
  Part all_, outside_;
  size_t blocks_ = 0;
  int64_t largest_block_bytes_ = 0;
};

}  // namespace tally::analysis
