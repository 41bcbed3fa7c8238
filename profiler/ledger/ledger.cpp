// SPDX-License-Identifier: Apache-2.0
#include "profiler/ledger/ledger.h"

#include <algorithm>
#include <utility>

namespace tally {

using namespace event_flags;

Ledger::Ledger(StringTable& strings, const TensorTable& tensors, const RunDirectory& directory,
               LedgerOptions options)
    : strings_(strings),
      tensors_(tensors),
      directory_(directory),
      options_(options) {
  devices_.push_back(std::make_unique<DeviceLedger>(options.timeline_points));
}

void Ledger::apply(const Event& event) {
  ++step_events_;
  now_ns_ = std::max(now_ns_, event.time_ns);
  switch (event.kind) {
    case EventKind::kAlloc: return on_alloc(event);
    case EventKind::kFree: return on_free(event);
    case EventKind::kOpEnter:
    case EventKind::kNodeEnter:
    case EventKind::kScopeEnter: return on_frame_enter(event);
    case EventKind::kOpExit:
    case EventKind::kNodeExit:
    case EventKind::kScopeExit: return on_frame_exit(event);
    case EventKind::kWork: {
      ThreadState& state = thread(event);
      if (!step_open_) return;
      double sign = 1;
      if (event.flags & kException) {
        if (state.allocations != state.allocations_at_work) return;  // it had begun
        sign = -1;
      }
      state.allocations_at_work = state.allocations;
      OperatorRow& row = operators_.row(state.phase, module_of(state), {event.id});
      if (sign > 0) ++row.calls;
      row.flops += sign * static_cast<double>(event.a);
      row.torch_flops += sign * static_cast<double>(event.b);
      row.elementwise_flops += sign * static_cast<double>(event.c);
      regions_.add_work(state, sign * static_cast<double>(event.a));
      if (Frame* outer = state.innermost(EventKind::kOpEnter)) {
        outer->part_flops += sign * static_cast<double>(event.a);
      }
      state.counted.clear();
      if (sign > 0 && state.phase == Phase::kRecompute) {
        state.counted = {row, false};
        state.counted.row.flops = static_cast<double>(event.a);
        state.counted.row.torch_flops = static_cast<double>(event.b);
        state.counted.row.elementwise_flops = static_cast<double>(event.c);
      }
      return;
    }
    case EventKind::kReused:
      return on_reused(event);
    case EventKind::kForward:
      thread(event).pending_forward.push_back(ForwardIndex::key(event.b, event.a));
      micro_step_tokens_ = std::max(micro_step_tokens_, static_cast<double>(event.id));
      return;
    case EventKind::kRead: return on_read(event);
    case EventKind::kGradientFlow:
      if (Block* block = event.flags & kForeign ? nullptr : blocks_.find(event.a)) {
        note_tensor(*block, event);
        block->evidence |= evidence::kGradientFlow;
      }
      return;
    case EventKind::kEdgeBegin: {
      Edge& edge = thread(event).edge;
      edge.number = ++edges_;
      edge.graph_task = event.a;
      edge.nested = event.flags & kNested;
      edge.saved.clear();
      edge.seen.clear();
      if (edge.nested) regions_.on_nested_edge(thread(event));
      return;
    }
    case EventKind::kSaved: return on_saved(event);
    case EventKind::kLeaf: return on_leaf(event);
    case EventKind::kEdgeEnd: return on_edge_end(event);
    case EventKind::kBackwardEnd: {
      ThreadState& state = thread(event);
      if (event.flags & kNested) return;
      if (step_open_) add_mark(Mark::kBackwardEnd, event);
      enter_phase(state, Phase::kOther, event);
      return;
    }
    case EventKind::kGradient: return on_gradient(event);
    case EventKind::kExpectedSave:
      *expected_saves_.insert(event.a).first = {static_cast<int64_t>(event.c),
                                                device_of_storage(event), event.sequence};
      has_expected_saves_ = true;
      return;
    case EventKind::kParameter: return on_parameter(event);
    case EventKind::kState: return on_state(event);
    case EventKind::kInput:
      if (Block* block = event.flags & kForeign ? nullptr : blocks_.find(event.a)) {
        note_tensor(*block, event);
        block->evidence |= evidence::kInput;
      } else {
        note_foreign(event);
      }
      return;
    case EventKind::kCommunication:
      if (Block* block = event.flags & kForeign ? nullptr : blocks_.find(event.a)) {
        note_tensor(*block, event);
        block->evidence |= evidence::kCommunication;
      } else {
        note_foreign(event);
      }
      return;
    case EventKind::kKept:
      if (Block* block = blocks_.find(event.a)) {
        block->evidence |= evidence::kKept;
        regions_.on_held_beside(*block);
      }
      return;
    case EventKind::kCast:
      thread(event).copied_parameter = event.a;
      return;
    case EventKind::kSource:
      if (!event.a) {
        thread(event).source = {event.id};
      } else if (Block* block = blocks_.find(event.a)) {
        block->source = {event.id};
      }
      return;
    case EventKind::kStepBegin: return on_step_begin(event);
    case EventKind::kMicroStep: {
      ThreadState& state = thread(event);
      if (step_open_) micro_step_ = micro_steps_;
      enter_phase(state, Phase::kData, event);
      return;
    }
    case EventKind::kStepEnd: return on_step_end(event);
    case EventKind::kFreeRequested:
    case EventKind::kSegment:
    case EventKind::kPlaced:
    case EventKind::kAllocatorRules:
    case EventKind::kAllocatorCount:
    case EventKind::kAllocatorUse:
    case EventKind::kOutOfMemory: return on_device_event(event);
    case EventKind::kRange: return on_range(event);
    case EventKind::kCounted: return on_counted(event);
    case EventKind::kKernel:
      return on_kernel(event);
    case EventKind::kWorkspace:
      if (Block* block = blocks_.find(event.a)) block->evidence |= evidence::kWorkspace;
      return;
  }
}

Timeline::Where Ledger::where(const ThreadState& state) const {
  Timeline::Where where;
  where.time_ns = now_ns_ - step_begin_ns_;
  where.phase = state.phase;
  where.micro_step = micro_step_;
  where.module = module_of(state);
  for (auto frame = state.frames.rbegin(); frame != state.frames.rend(); ++frame) {
    if (frame->kind == EventKind::kScopeEnter) continue;
    where.op = frame->op;
    break;
  }
  return where;
}

Timeline::Where Ledger::where(const ThreadState& state, const DeviceLedger& device) const {
  Timeline::Where at = where(state);
  if (!device.is_cpu()) {
    at.reserved_bytes = device.caching.reserved_bytes();
    at.active_bytes = device.caching.active_bytes();
    at.largest_free_bytes = device.caching.largest_free_bytes();
  }
  return at;
}

void Ledger::on_alloc(const Event& event) {
  ThreadState& state = thread(event);
  if (const Block* before = blocks_.find(event.a)) {  // its free was not seen
    ++unmatched_frees_;
    Event gone = event;
    gone.id = before->device;
    on_free(gone);
  }
  if (!(event.flags & kAdopted)) ++state.allocations;
  DeviceLedger& of = device(event);
  of.live_bytes += static_cast<int64_t>(event.b);
  if (!of.is_cpu()) {
    ++of.events;
    of.hook_bytes = static_cast<int64_t>(event.c);
    of.caching.alloc(event.a, static_cast<int64_t>(event.b));
  }
  Timeline::Where at = where(state, of);
  if (!(event.flags & kAdopted)) at.source = std::exchange(state.source, StringId{});
  Block& block = blocks_.add(event.a);
  block.device = of.index;
  block.bytes = static_cast<int64_t>(event.b);
  block.born = event.sequence;
  block.born_ns = event.time_ns;
  block.born_phase = state.phase;
  block.thread = event.thread;
  if (event.flags & kAdopted) {
    block.evidence |= evidence::kAdopted;
    block.born_phase = Phase::kOther;
  } else {
    block.module = at.module;
    block.op = at.op;
    block.source = at.source;
    if (state.copied_parameter) name_cast(block, std::exchange(state.copied_parameter, 0));
    const Frame* op = state.innermost(EventKind::kOpEnter);
    if (op && !(op->flags & kGradMode)) block.evidence |= evidence::kBornNoGrad;
  }
  if (!step_open_) {
    block.carried = true;
    of.peak_outside_steps = std::max(of.peak_outside_steps, of.live_bytes);
    return;
  }
  block.first_mark = of.step.next_mark();
  if (event.flags & kAdopted) block.carried = true;  // it was there, only not known
  regions_.on_alloc(state, block, of.live_bytes);
  block.born_position =
      of.step.memory_event(of.live_bytes, of.allocator_bytes(event.allocator_bytes), at,
                           event.sequence, of.caching_book());
  if (block.born_phase == Phase::kForward || block.born_phase == Phase::kData) {
    state.born_since_edge.push_back(event.a);
  }
  if (options_.budget_bytes > 0 && of.live_bytes > options_.budget_bytes && !of.over_budget) {
    of.over_budget = true;
    MarkBook& book = add_mark(Mark::kOom, event, of);
    book.wanted_bytes = block.bytes;
    book.source = block.source;
    book.limit_bytes = options_.budget_bytes;
  }
}

void Ledger::on_free(const Event& event) {
  ThreadState& state = thread(event);
  Block* block = blocks_.find(event.a);
  DeviceLedger& of = device(event);
  if (!of.is_cpu() && event.kind == EventKind::kFree) {
    ++of.events;
    of.hook_bytes = static_cast<int64_t>(event.c);
    of.caching.complete_free(event.a);
  }
  if (!block) {
    ++unmatched_frees_;
    return;
  }
  of.live_bytes -= block->bytes;
  if (step_open_) {
    const uint32_t death =
        of.step.memory_event(of.live_bytes, of.allocator_bytes(event.allocator_bytes),
                             where(state, of), event.sequence, of.caching_book());
    // What an unwinding program lets go of was no temporary: nobody knows who held it.
    of.step.settle(*block, block->born < failed_at_ ? role_so_far(*block) : role_of(*block, false),
                   death);
  }
  blocks_.remove(*block);
}

size_t Ledger::table_bytes() const {
  size_t bytes = blocks_.bytes() + forward_.bytes() + foreign_.bytes() + expected_saves_.bytes() +
                 regions_.bytes();
  for (const auto& of : devices_) {
    if (of) bytes += of->step.bytes() + of->caching.bytes();
  }
  return bytes;
}

}  // namespace tally
