// SPDX-License-Identifier: Apache-2.0
// What would have helped against a failed allocation. A remedy takes bytes away at some moments of
// a step; what it gives back is how much lower the highest moment is then, of the complete step
// that the run has and of the failure. Without a complete step the failure is the only moment
// known.
#include <algorithm>
#include <map>
#include <string>

#include <fmt/format.h>

#include "profiler/analysis/counterfactual.h"
#include "profiler/analysis/moments.h"
#include "profiler/analysis/oom.h"
#include "profiler/analysis/parts.h"
#include "profiler/core/units.h"

namespace tally::analysis {
namespace {

constexpr double kNotable = 0.005;  // of the bytes alive: below it a remedy is none
constexpr size_t kModules = 2;      // of held outputs, named

class Remedies {
 public:
  explicit Remedies(const Failure& failure)
      : failure_(failure), mark_(*failure.mark), moments_(failure) {}

  std::vector<Remedy> list() {
    add_outputs();
    add_formats();
    add_ranks();
    add_updates();
    add_gradients();
    if (failure_.device->device != "cpu") {
      add("offload what autograd saves (torch.autograd.graph.save_on_cpu): all but what the block "
          "in hand uses",
          gained([&](const Moment& m) {
            return std::min<int64_t>(0, moments_.in_use(m) - bytes_of(m.roles, Role::kActivation));
          }),
          "copies to the host and back");
    }
    if (failure_.reference_device) add_other_settings();
    return std::move(remedies_);
  }

 private:
  void add(const std::string& text, int64_t bytes, const std::string& cost) {
    if (static_cast<double>(bytes) < kNotable * static_cast<double>(mark_.bytes)) return;
    remedies_.push_back({text, bytes, cost});
  }

  template <typename Change>
  int64_t gained(Change&& change) const {
    return moments_.gained(change);
  }

  void add_outputs() {
    std::map<std::string, int64_t> modules;
    for (const Cell& cell : mark_.cells) {
      if (cell.role != Role::kHeldOutput) continue;
      modules[cell.module.empty() ? "no module" : cell.module] += cell.bytes;
    }
    add("let go of the outputs that the program keeps (a list of losses or logits: keep .item() or "
        ".detach()): " +
            largest_of(modules, kModules),
        gained([](const Moment& m) { return -bytes_of(m.roles, Role::kHeldOutput); }), "");
  }

  // ---- another numeric format

  // Of the blocks of a role, as far as their types are known, the share that is float32.
  double wide_share(Role role) const {
    int64_t wide = 0, all = 0;
    for (const DeviceStep* device : {failure_.device, failure_.reference_device}) {
      if (!device) continue;
      for (const BlockRow& block : device->peak_blocks) {
        if (block.role != role || block.dtype.empty()) continue;
        all += block.bytes * block.count;
        if (block.dtype == "float32") wide += block.bytes * block.count;
      }
    }
    if (all > 0) return static_cast<double>(wide) / static_cast<double>(all);
    // None is alive at a peak: they have the types of what they are for.
    if (role == Role::kGradient) return wide_share(Role::kParameter);
    if (role == Role::kTemporaryOptimizer) return wide_share(Role::kOptimizerState);
    return 0;
  }

  void add_formats() {
    const double state = wide_share(Role::kOptimizerState);
    add("an optimizer with 8-bit state, by formula: a quarter of what is float32, and an update in "
        "place",
        gained([&](const Moment& m) {
          return -scaled(0.75 * state, bytes_of(m.roles, Role::kOptimizerState)) -
                 bytes_of(m.roles, Role::kTemporaryOptimizer);
        }),
        "another numeric format of the state");
    std::map<Role, double> halved;
    for (const Role role : {Role::kParameter, Role::kBuffer, Role::kGradient, Role::kOptimizerState,
                            Role::kInput, Role::kActivation, Role::kRecomputedActivation,
                            Role::kHeldOutput, Role::kTemporaryForward, Role::kTemporaryBackward,
                            Role::kTemporaryOptimizer, Role::kUnattributed}) {
      halved[role] = 0.5 * wide_share(role);
    }
    add("the model in bfloat16, by formula: half of all that is float32",
        gained([&](const Moment& m) {
          int64_t change = 0;
          for (const auto& [role, share] : halved) change -= scaled(share, bytes_of(m.roles, role));
          return change;
        }),
        "another numeric format of all");
  }

  // ---- more processes

  void add_ranks() {
    const auto zero = [&](int ranks) {
      return gained([&](const Moment& m) { return -scaled(1 - 1.0 / ranks, of_update(m)); });
    };
    add(fmt::format(
            "ZeRO-1, by formula: each of n ranks holds 1/n of the optimizer's state, and updates "
            "as much; 2 ranks give {} back, 8 give {}",
            format_bytes(zero(2)), format_bytes(zero(8))),
        zero(2), "more processes");
    const auto fsdp = [&](int ranks) {
      return gained([&](const Moment& m) {
        const int64_t gradients = bytes_of(m.roles, Role::kGradient);
        const int64_t sharded = bytes_of(m.roles, Role::kParameter) + of_update(m) + gradients;
        int64_t change = -scaled(1 - 1.0 / ranks, sharded);
        if (!is_of_micro_step(m.phase)) return change;
        // What is outside of blocks is whole through forward and backward, gradients too; of blocks
        // the one that runs and the one before it in forward, behind it in backward.
        change += moments_.outside_bytes();
        const bool is_backward = m.phase != Phase::kForward;
        if (is_repeated(m.unit)) change += (is_backward ? 3 : 2) * moments_.largest_block_bytes();
        if (is_backward) change += std::min(gradients, moments_.made_outside(m));
        return change;
      });
    };
    add(fmt::format(
            "FSDP (ZeRO-3){}, by formula: each of n ranks holds 1/n of parameters, gradients "
            "and state, and whole what it works with; 2 ranks give {} back, 8 give {}",
            moments_.blocks() > 1 ? fmt::format(" of {} blocks", moments_.blocks()) : "",
            format_bytes(fsdp(2)), format_bytes(fsdp(8))),
        fsdp(2), "more processes, gathers");
  }

  static int64_t of_update(const Moment& m) {
    return bytes_of(m.roles, Role::kOptimizerState) + bytes_of(m.roles, Role::kTemporaryOptimizer);
  }

  // ---- the update, and the gradients that it leaves

  void add_updates() {
    if (mark_.phase != Phase::kOptimizer) return;
    add("an optimizer with fused=True: its update makes nothing beside the state",
        gained([](const Moment& m) { return -bytes_of(m.roles, Role::kTemporaryOptimizer); }), "");
    int64_t largest = 0;
    for (const BlockRow& block : failure_.device->peak_blocks) {
      if (block.role == Role::kParameter) largest = std::max(largest, block.bytes);
    }
    add("an optimizer with foreach=False: temporaries of one parameter at a time",
        gained([&](const Moment& m) {
          const int64_t temporaries = bytes_of(m.roles, Role::kTemporaryOptimizer);
          return std::min<int64_t>(0, 2 * largest - temporaries);
        }),
        "more and smaller kernels");
  }

  // Gradients of the step before that are there while nobody needs them: through the first forward
  // pass and until the backward pass makes them anew.
  void add_gradients() {
    if (mark_.micro_step > 0) return;
    if (mark_.phase == Phase::kOptimizer || mark_.phase == Phase::kOther) return;
    add("zero_grad(set_to_none=True) before the forward pass", gained([&](const Moment& m) {
          if (m.micro_step > 0 || !is_of_micro_step(m.phase)) return int64_t{0};
          return std::min<int64_t>(0, moments_.made(m) - bytes_of(m.roles, Role::kGradient));
        }),
        "");
  }

  // Predicted from the complete step.
  void add_other_settings() {
    const StepSummary& step = *failure_.reference;
    const Counterfactual counterfactual(step, *failure_.reference_device);
    const int64_t peak = failure_.reference_device->peak.bytes;
    for (const int parts : {2, 4}) {
      add(fmt::format("micro-batches of 1/{} the size, accumulated", parts),
          peak - counterfactual.with_micro_batch(1.0 / parts), "the same FLOPs, smaller kernels");
    }
    if (counterfactual.units().size() < 2) return;
    const Plan all = counterfactual.uniform(1);
    const Prediction predicted = counterfactual.with_checkpoints(all);
    const double flops = step.flops.total() - step.flops.recompute;
    add("checkpoint each of " + names_of(counterfactual, all), peak - predicted.peak_bytes,
        flops > 0 ? fmt::format("+{:.1f} % FLOPs", 100 * predicted.extra_flops / flops) : "");
  }

  const Failure& failure_;
  const MarkSummary& mark_;
  const Moments moments_;
  std::vector<Remedy> remedies_;
};

}  // namespace

std::vector<Remedy> oom_remedies(const Failure& failure) { return Remedies(failure).list(); }

}  // namespace tally::analysis
