// SPDX-License-Identifier: Apache-2.0
// What hardware counters say of the operator that was open while they ran.
#include <bit>

#include "profiler/ledger/ledger.h"

namespace tally {

void Ledger::on_range(const Event& event) {
  ThreadState& state = thread(event);
  if (!step_open_ || event.a != ranges_.size()) return;
  const Frame* op = state.innermost(EventKind::kOpEnter);
  ranges_.push_back({state.phase, module_of(state), op ? op->op : StringId{}});
}

void Ledger::on_counted(const Event& event) {
  if (!step_open_ || event.a >= ranges_.size()) return;
  const CountedRange& range = ranges_[event.a];
  OperatorRow& row = operators_.row(range.phase, range.module, range.op);
  const double value = std::bit_cast<double>(event.b);
  switch (static_cast<CountedQuantity>(event.id)) {
    case CountedQuantity::kTensorFlops: row.tensor_flops += value; break;
    case CountedQuantity::kScalarFlops: row.scalar_flops += value; break;
    case CountedQuantity::kNanoseconds: row.device_ns += value; break;
    case CountedQuantity::kDramBytes: row.dram_bytes += value; break;
  }
}

void Ledger::on_kernel(const Event& event) {
  constexpr uint64_t kNoOperator = ~uint64_t{0};
  if (!step_open_ || (event.a != kNoOperator && event.a >= ranges_.size())) return;
  const CountedRange none{Phase::kOther, {}, {}};
  const CountedRange& range = event.a == kNoOperator ? none : ranges_[event.a];
  KernelRow& row = kernels_.row(range.phase, range.module, range.op, {event.id});
  row.calls += static_cast<uint32_t>(event.c);
  const double value = std::bit_cast<double>(event.b);
  switch (static_cast<CountedQuantity>(event.flags)) {
    case CountedQuantity::kTensorFlops:
      row.tensor_flops += value;
      break;
    case CountedQuantity::kScalarFlops:
      row.scalar_flops += value;
      break;
    case CountedQuantity::kNanoseconds:
      row.device_ns += value;
      break;
    case CountedQuantity::kDramBytes:
      row.dram_bytes += value;
      break;
  }
}

}  // namespace tally
