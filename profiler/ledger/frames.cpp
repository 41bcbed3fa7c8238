// SPDX-License-Identifier: Apache-2.0
// What runs on each thread: its operators, nodes and scopes, the phase they mean, and whose they
// are.
#include <algorithm>
#include <utility>

#include "profiler/ledger/ledger.h"

namespace tally {

using namespace event_flags;

ThreadState& Ledger::thread(const Event& event) {
  while (threads_.size() <= event.thread) threads_.push_back(std::make_unique<ThreadState>());
  ThreadState& state = *threads_[event.thread];
  if (step_open_ && state.step != step_index_) {
    state.step = step_index_;
    state.backward_since_update = false;
    state.forward_began = 0;
    state.born_since_edge.clear();
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
    state.forward_began = event.sequence;
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
    // unless a forward pass goes on (a custom function, a checkpoint of the next micro-step).
    // Before one, work on anything that wants a gradient is a forward pass. Else its reads decide
    // (on_read).
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
    frame.allocations = state.allocations;
    if (event.flags & kInGraphTask) {
      // The engine runs nodes with gradients off unless a graph of the backward pass is wanted; an
      // operator that records inside a node that does not is the forward pass, run again. So is one
      // that does not record, in a module that was called in there.
      const bool again = node && !(node->flags & kGradMode) &&
                         ((event.flags & kGradMode) || state.calls_module_in_node());
      enter_phase(state, again ? Phase::kRecompute : Phase::kBackward, event);
      regions_.enter_operator(state, event, again, micro_step_);
    } else {
      enter_phase(state, phase_outside_backward(state, event), event);
    }
  }
  state.frames.push_back(frame);
  state.counted.clear();
  state.counted.of_frame = event.kind == EventKind::kOpEnter;
}

// The operator found its result in a checkpoint's store: what was counted of it did not happen.
void Ledger::on_reused(const Event& event) {
  ThreadState& state = thread(event);
  if (state.counted.of_frame && !state.frames.empty()) {
    Frame& frame = state.frames.back();
    frame.flops = frame.torch_flops = frame.elementwise = 0;
  } else if (step_open_ && state.counted.row.op) {
    const OperatorRow& counted = state.counted.row;
    OperatorRow& row = operators_.row(counted.phase, counted.module, counted.op);
    row.flops -= counted.flops;
    row.torch_flops -= counted.torch_flops;
    row.elementwise_flops -= counted.elementwise_flops;
    regions_.add_work(state, -counted.flops);
    if (Frame* outer = state.innermost(EventKind::kOpEnter)) outer->part_flops -= counted.flops;
  }
  state.counted.clear();
}

void Ledger::on_frame_exit(const Event& event) {
  ThreadState& state = thread(event);
  if (state.frames.empty()) return;  // it was open when the session began
  // A checkpoint stops its recomputation by an exception, in the middle of the last operator: where
  // that is before the operator made anything, it did no work.
  if ((event.flags & kException) && state.allocations == state.frames.back().allocations) {
    Frame& stopped = state.frames.back();
    stopped.flops = stopped.torch_flops = stopped.elementwise = 0;
  }
  const Frame frame = state.frames.back();
  const StringId module = module_of(state);
  regions_.exit_frame(state, event, module, micro_step_, now_ns_ - step_begin_ns_);
  state.frames.pop_back();
  state.counted.clear();
  state.copied_parameter = 0;
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
      if (frame.range != 0 && frame.range <= ranges_.size()) {
        ranges_[frame.range - 1].flops += frame.flops + frame.part_flops;
      }
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
    case Phase::kRecompute:
      return self->after(state.last_module);
    case Phase::kBackward:
      return state.last_node_module;
    default:
      return {};
  }
}

}  // namespace tally
