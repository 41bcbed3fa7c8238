// SPDX-License-Identifier: Apache-2.0
#include "profiler/analysis/moments.h"

#include "profiler/analysis/counterfactual.h"
#include "profiler/analysis/parts.h"

namespace tally::analysis {

Moments::Moments(const Failure& failure) : failed_step_(failure.step) {
  const MarkSummary& mark = *failure.mark;
  if (failure.reference_device) {
    for (const TimelinePoint& point : failure.reference_device->timeline) {
      moments_.push_back({failure.reference, point.seconds, point.roles, point.phase,
                          point.micro_step, unit_of(point.module), point.phase != Phase::kForward});
    }
    for (const UnitRow& row : failure.reference->units) {
      unit_activations_[{row.unit, row.micro_step}] = row.activation_bytes;
    }
  }
  moments_.push_back({failure.step, mark.seconds, mark.roles, mark.phase, mark.micro_step,
                      unit_of(mark.module), failure.begun > mark.micro_step});
  for (const Moment& moment : moments_) highest_ = std::max(highest_, sum(moment.roles));
  for (const DeviceStep* device : {failure.device, failure.reference_device}) {
    if (!device) continue;
    for (const BlockRow& block : device->peak_blocks) {
      if (block.role != Role::kActivation) continue;
      int64_t& largest = largest_activations_[unit_of(block.module)];
      largest = std::max(largest, block.bytes);
    }
  }
  note_parameters(mark);
  note_units(*failure.step);
  if (failure.reference && failure.reference != failure.step) note_units(*failure.reference);
  all_.sum_up();
  outside_.sum_up();
}

void Moments::note_parameters(const MarkSummary& mark) {
  for (const Cell& cell : mark.cells) {
    if (cell.role == Role::kActivation) activations_[unit_of(cell.module)] += cell.bytes;
    if (cell.role != Role::kParameter) continue;
    const std::string unit = unit_of(cell.module);
    parameters_[unit] += cell.bytes;
    all_.total += cell.bytes;
    if (!is_repeated(unit)) outside_.total += cell.bytes;
  }
  for (const auto& [unit, bytes] : parameters_) {
    if (!is_repeated(unit)) continue;
    ++blocks_;
    largest_block_bytes_ = std::max(largest_block_bytes_, bytes);
  }
}

void Moments::note_units(const StepSummary& step) {
  for (const UnitRow& row : step.units) {
    const auto found = parameters_.find(row.unit);
    if (found == parameters_.end()) continue;
    // A block that is in the middle of its backward pass may have made all but the last.
    all_.note(step, row, is_repeated(row.unit) ? row.backward_begin : row.backward_end,
              found->second);
    if (!is_repeated(row.unit)) outside_.note(step, row, row.backward_end, found->second);
  }
}

void Moments::Part::note(const StepSummary& step, const UnitRow& row, double seconds,
                         int64_t bytes) {
  Schedule& schedule = of[{&step, row.micro_step}];
  schedule.told += bytes;
  if (row.backward_begin > 0) schedule.made.emplace_back(seconds, bytes);
}

void Moments::Part::sum_up() {
  for (auto& [micro_step, schedule] : of) {
    std::sort(schedule.made.begin(), schedule.made.end());
    int64_t bytes = 0;
    for (auto& made : schedule.made) made.second = bytes += made.second;
  }
}

int64_t Moments::Part::made(const Moment& m) const {
  if (!m.has_begun) return 0;
  const auto found = of.find({m.step, m.micro_step});
  if (found == of.end()) return total;
  const auto& made = found->second.made;
  const auto behind =
      std::upper_bound(made.begin(), made.end(), m.seconds,
                       [](double seconds, const auto& one) { return seconds < one.first; });
  // Of parameters whose time is not known it may have made all.
  return total - found->second.told + (behind == made.begin() ? 0 : std::prev(behind)->second);
}

int64_t Moments::made(const Moment& m) const { return all_.made(m); }
int64_t Moments::made_outside(const Moment& m) const { return outside_.made(m); }

int64_t Moments::in_use(const Moment& m) const {
  if (!is_of_micro_step(m.phase)) return 0;
  const auto of = [&](const std::map<std::string, int64_t>& bytes) {
    const auto found = bytes.find(m.unit);
    return found == bytes.end() ? 0 : found->second;
  };
  if (m.phase == Phase::kBackward) return of(largest_activations_);
  if (m.step == failed_step_) return of(activations_);
  const auto found = unit_activations_.find({m.unit, m.micro_step});
  return found == unit_activations_.end() ? 0 : found->second;
}

}  // namespace tally::analysis
