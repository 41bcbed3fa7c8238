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
      OperatorRow& row = operators_.row(state.phase, module_of(state), {event.id});
      ++row.calls;
      row.flops += static_cast<double>(event.a);
      row.torch_flops += static_cast<double>(event.b);
      row.elementwise_flops += static_cast<double>(event.c);
      regions_.add_work(state, static_cast<double>(event.a));
      return;
    }
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
      expected_saves_.insert(event.a, {static_cast<int64_t>(event.c), device_of_storage(event)});
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
    case EventKind::kWorkspace:
      if (Block* block = blocks_.find(event.a)) block->evidence |= evidence::kWorkspace;
      return;
  }
}

// ---- threads, phases, frames

ThreadState& Ledger::thread(const Event& event) {
  while (threads_.size() <= event.thread) threads_.push_back(std::make_unique<ThreadState>());
  ThreadState& state = *threads_[event.thread];
  if (step_open_ && state.step != step_index_) {
    state.step = step_index_;
    state.backward_since_update = false;
    state.last_module = {};
    if (!state.works()) enter_phase(state, Phase::kData, event);
  }
  return state;
}

void Ledger::move_phase_span(Phase phase) {
  const int64_t now = now_ns_ - step_begin_ns_;
  if (!phases_.empty()) {
    PhaseSpan& last = phases_.back();
    if (last.phase == phase && last.micro_step == micro_step_) return;
    last.end_ns = now;
    if (last.end_ns == last.begin_ns) phases_.pop_back();
  }
  phases_.push_back({phase, micro_step_, now, now});
}

void Ledger::enter_phase(ThreadState& state, Phase phase, const Event& event) {
  if (!step_open_) phase = Phase::kOther;  // phases are of steps
  if (state.phase == phase) return;
  const bool prepares = phase == Phase::kForward || phase == Phase::kData;
  if (options_.infer_steps && step_open_ && prepares && state.phase == Phase::kOptimizer &&
      event.thread == step_thread_ && micro_steps_ > 0) {
    begin_next_step(state, event);
  }
  if (phase == Phase::kForward) {
    forward_began_ = event.sequence;
    // The backward pass before belongs to the micro-step before.
    if (step_open_) micro_step_ = micro_steps_;
  }
  if (state.phase == Phase::kOptimizer) state.backward_since_update = phase == Phase::kBackward;
  state.phase = phase;
  if (step_open_ && event.thread == step_thread_) move_phase_span(phase);
}

// What a top-level operator outside any backward pass says about the phase.
Phase Ledger::phase_outside_backward(const ThreadState& state, const Event& event) const {
  const bool wants_graph = (event.flags & kGradMode) && (event.flags & kNeedsGrad);
  if (state.open_updates > 0 && state.phase != Phase::kForward && !wants_graph) {
    return Phase::kOptimizer;
  }
  if (!(event.flags & kGradMode)) {
    // After a backward pass, a leaf that is written is being updated, and so is one that is read
    // unless a forward pass goes on (a custom function, a checkpoint of the next micro-step). Before
    // one, work on anything that wants a gradient is a forward pass. Else its reads decide (on_read).
    const bool reads_leaf = (event.flags & kReadsLeaf) && state.phase != Phase::kForward;
    if (state.backward_since_update && ((event.flags & kWritesLeaf) || reads_leaf)) {
      return Phase::kOptimizer;
    }
    if ((event.flags & kNeedsGrad) && state.phase != Phase::kOptimizer) return Phase::kForward;
    const bool in_backward = state.phase == Phase::kBackward || state.phase == Phase::kRecompute;
    return in_backward ? Phase::kOther : state.phase;
  }
  if (event.flags & kNeedsGrad) return Phase::kForward;
  switch (state.phase) {
    case Phase::kForward:  // between two layers: a mask, a position table
    case Phase::kData:
      return state.phase;
    default:
      return step_open_ ? Phase::kData : Phase::kOther;
  }
}

void Ledger::on_frame_enter(const Event& event) {
  ThreadState& state = thread(event);
  Frame frame;
  frame.kind = event.kind;
  frame.flags = event.flags;
  frame.phase_before = state.phase;
  frame.op = {event.id};
  frame.begin_ns = event.time_ns;
  const Frame* node = state.innermost(EventKind::kNodeEnter);
  if (event.kind == EventKind::kScopeEnter) {
    frame.module = {event.id};
    if (event.flags & kUpdate) {
      ++state.open_updates;
      if (!state.in_node()) enter_phase(state, Phase::kOptimizer, event);
    } else if ((event.flags & kForwardPass) && !state.in_node() && state.open_updates == 0) {
      enter_phase(state, Phase::kForward, event);
    }
  } else if (event.kind == EventKind::kNodeEnter) {
    state.backward_since_update = true;
    enter_phase(state, Phase::kBackward, event);
    if (const StringId* module = forward_.find(ForwardIndex::key(event.b, event.a))) {
      frame.module = *module;
      frame.module_known = static_cast<bool>(*module);
    }
    state.last_node_module = frame.module;
  } else {
    frame.flops = static_cast<double>(event.a);
    frame.torch_flops = static_cast<double>(event.b);
    frame.elementwise = static_cast<double>(event.c);
    if (event.flags & kInGraphTask) {
      // The engine runs nodes with gradients off unless a graph of the backward pass is wanted; an
      // operator that records inside a node that does not is the forward pass, run again.
      const bool again = (event.flags & kGradMode) && node && !(node->flags & kGradMode);
      enter_phase(state, again ? Phase::kRecompute : Phase::kBackward, event);
      regions_.enter_operator(state, event, again, micro_step_);
    } else {
      enter_phase(state, phase_outside_backward(state, event), event);
    }
  }
  state.frames.push_back(frame);
}

void Ledger::on_frame_exit(const Event& event) {
  ThreadState& state = thread(event);
  if (state.frames.empty()) return;  // it was open when the session began
  Frame frame = state.frames.back();
  const StringId module = module_of(state);
  regions_.exit_frame(state, event, module, micro_step_, now_ns_ - step_begin_ns_);
  state.frames.pop_back();
  const int64_t elapsed = event.time_ns - frame.begin_ns;
  if (frame.kind != EventKind::kScopeEnter) {
    if (!state.frames.empty()) state.frames.back().inner_ns += elapsed;
    if (step_open_) {
      OperatorRow& row = operators_.row(state.phase, module, frame.op);
      ++row.calls;
      row.flops += frame.flops;
      row.torch_flops += frame.torch_flops;
      row.elementwise_flops += frame.elementwise;
      row.nanoseconds += elapsed - frame.inner_ns;
    }
    for (const uint64_t key : state.pending_forward) forward_.set(key, module);
    state.pending_forward.clear();
  }
  if (frame.kind == EventKind::kScopeEnter && (frame.flags & kUpdate)) {
    --state.open_updates;
    if (state.phase == Phase::kOptimizer) enter_phase(state, Phase::kOther, event);
  }
  // A node inside a recomputation hands its phase back; outside, the backward pass goes on.
  if (frame.kind == EventKind::kNodeEnter && state.in_node()) {
    enter_phase(state, Phase::kBackward, event);
  }
}

// The module of what runs now: of a parameter it reads, else the innermost scope, else inferred.
StringId Ledger::module_of(const ThreadState& state) const {
  const Frame* scope = nullptr;
  for (auto frame = state.frames.rbegin(); frame != state.frames.rend(); ++frame) {
    if (frame->module_known) return frame->module;
    if (frame->kind == EventKind::kScopeEnter) {
      scope = &*frame;
      break;
    }
    if (frame->kind == EventKind::kNodeEnter && state.phase == Phase::kBackward) break;
  }
  if (scope) return scope->module;
  auto* self = const_cast<Ledger*>(this);  // interns a name, changes nothing else
  switch (state.phase) {
    case Phase::kForward:
    case Phase::kRecompute: return self->after(state.last_module);
    case Phase::kBackward: return state.last_node_module;
    default: return {};
  }
}

// ---- blocks

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
  DeviceLedger& of = device(event);
  of.live_bytes += static_cast<int64_t>(event.b);
  if (!of.is_cpu()) {
    ++of.events;
    of.hook_bytes = static_cast<int64_t>(event.c);
    of.caching.alloc(event.a, static_cast<int64_t>(event.b));
  }
  const Timeline::Where at = where(state, of);
  Block& block = blocks_.add(event.a);
  block.device = of.index;
  block.bytes = static_cast<int64_t>(event.b);
  block.born = event.sequence;
  block.born_ns = event.time_ns;
  block.born_phase = state.phase;
  if (event.flags & kAdopted) {
    block.evidence |= evidence::kAdopted;
    block.born_phase = Phase::kOther;
  } else {
    block.module = at.module;
    block.op = at.op;
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
    born_since_edge_.push_back(event.a);
  }
  if (options_.budget_bytes > 0 && of.live_bytes > options_.budget_bytes && !of.over_budget) {
    of.over_budget = true;
    MarkBook& book = add_mark(Mark::kOom, event, of);
    book.wanted_bytes = block.bytes;
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
    of.step.settle(*block, role_of(*block, block->born < failed_at_), death);
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
