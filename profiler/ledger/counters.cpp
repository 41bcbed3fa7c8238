// SPDX-License-Identifier: Apache-2.0
// What hardware counters say of the operator that was open while they ran.
#include <bit>

#include "profiler/ledger/ledger.h"

namespace tally {
namespace {

// To a row of an operator or of kernels.
template <typename Row>
void add(Row* row, CountedQuantity quantity, double value) {
  switch (quantity) {
    case CountedQuantity::kNanoseconds:
      row->device_ns += value;
      return;
    case CountedQuantity::kDramBytes:
      row->dram_bytes += value;
      return;
  }
  const auto format = static_cast<FlopFormat>(quantity);
  (is_tensor(format) ? row->tensor_flops : row->scalar_flops) += value;
  row->by_format.add(format, value);
}

}  // namespace

void Ledger::on_range(const Event& event) {
  ThreadState& state = thread(event);
  if (!step_open_ || event.a != ranges_.size()) return;
  Frame* op = state.innermost(EventKind::kOpEnter);
  ranges_.push_back({state.phase, module_of(state), op ? op->op : StringId{},
                     static_cast<uint32_t>(event.b),
                     (event.flags & event_flags::kCausal) != 0, 0});
  if (op) op->range = static_cast<uint32_t>(ranges_.size());
}

void Ledger::add_ranges_to_operators() {
  if (!is_counted_) return;
  for (const CountedRange& range : ranges_) {
    if (range.flops == 0) continue;
    OperatorRow& row = operators_.row(range.phase, range.module, range.op);
    row.range_flops += range.flops;
    if (range.is_causal) row.causal_flops += range.flops;
    if (range.alignment != 0 && (row.alignment == 0 || range.alignment < row.alignment)) {
      row.alignment = range.alignment;
    }
  }
}

void Ledger::on_counted(const Event& event) {
  if (!step_open_ || event.a >= ranges_.size() || event.id >= kCountedQuantities) return;
  const CountedRange& range = ranges_[event.a];
  is_counted_ = true;
  add(&operators_.row(range.phase, range.module, range.op),
      static_cast<CountedQuantity>(event.id), std::bit_cast<double>(event.b));
}

void Ledger::on_kernel(const Event& event) {
  constexpr uint64_t kNoOperator = ~uint64_t{0};
  if (!step_open_ || (event.a != kNoOperator && event.a >= ranges_.size()) ||
      event.flags >= kCountedQuantities) {
    return;
  }
  const CountedRange none{Phase::kOther, {}, {}};
  const CountedRange& range = event.a == kNoOperator ? none : ranges_[event.a];
  KernelRow& row = kernels_.row(range.phase, range.module, range.op, {event.id});
  row.calls += static_cast<uint32_t>(event.c);
  add(&row, static_cast<CountedQuantity>(event.flags), std::bit_cast<double>(event.b));
}

}  // namespace tally
