// SPDX-License-Identifier: Apache-2.0
// What each piece of evidence says about a block, and what all of it together concludes. The rules
// in words: docs/roles.md.
#include "profiler/ledger/ledger.h"

#include <algorithm>

namespace tally {

using namespace event_flags;

// The role that the evidence proves. `step_closes`: the block outlives its step, so what was made
// and is still there is no temporary.
Role Ledger::role_of(const Block& block, bool step_closes) const {
  const uint32_t seen = block.evidence;
  if (seen & evidence::kParameter) return Role::kParameter;
  if (seen & evidence::kBuffer) return Role::kBuffer;
  if (seen & evidence::kState) return Role::kOptimizerState;
  if (seen & evidence::kGradient) return Role::kGradient;
  if (block.is_leaf && step_closes && builds_model()) return Role::kParameter;
  if (seen & evidence::kInput) return Role::kInput;
  // Read before the forward pass began, and alive when it did.
  if ((seen & evidence::kReadAsData) &&
      (block.carried || block.born < threads_[block.data_reader]->forward_began)) {
    return Role::kInput;
  }
  // A whole parameter that was gathered from its shards: autograd accumulates into it and saves it.
  if (block.is_leaf && (seen & evidence::kCommunication)) return Role::kCommunication;
  if (seen & evidence::kActivation) return Role::kActivation;
  if (seen & evidence::kRecomputed) return Role::kRecomputedActivation;
  if (seen & evidence::kCommunication) return Role::kCommunication;
  if (seen & evidence::kWorkspace) return Role::kWorkspace;
  const bool born_in_backward =
      block.born_phase == Phase::kBackward || block.born_phase == Phase::kRecompute;
  if (!block.carried && born_in_backward) return Role::kTemporaryBackward;
  if (!block.carried && (seen & evidence::kGradientFlow)) return Role::kTemporaryBackward;
  if (seen & evidence::kHeld) return Role::kHeldOutput;
  if (block.carried) {
    return (seen & evidence::kAdopted) ? Role::kExternal : Role::kUnattributed;
  }
  switch (block.born_phase) {
    case Phase::kOptimizer:
      // Survivors of the update are its state; where an optimizer is watched, its state is known
      // by name and a survivor beside it is not.
      if (!step_closes) return Role::kTemporaryOptimizer;
      return state_watched_ ? Role::kUnattributed : Role::kOptimizerState;
    case Phase::kData:
    case Phase::kForward:
      if (!step_closes) return Role::kTemporaryForward;
      // Without recording, autograd cannot hold it; so the program does. Nor can it hold what was
      // made outside a forward pass and never went into one.
      if ((seen & evidence::kBornNoGrad) || block.born_phase == Phase::kData) return Role::kHeldOutput;
      return Role::kUnattributed;
    default:
      if (seen & evidence::kAdopted) return Role::kExternal;
      return step_closes ? Role::kUnattributed : Role::kTemporaryForward;
  }
}

// The step is over and the block lives on: what does it still prove in the next one?
void Ledger::carry_over(Block& block) {
  const Role role = role_of(block, true);
  constexpr uint32_t kLasting = evidence::kParameter | evidence::kBuffer | evidence::kState |
                                evidence::kGradient | evidence::kAdopted | evidence::kInferred |
                                evidence::kWorkspace | evidence::kCommunication | evidence::kInput;
  uint32_t next = block.evidence & kLasting;
  switch (role) {
    case Role::kParameter:
      if (!(block.evidence & evidence::kParameter)) next |= evidence::kParameter | evidence::kInferred;
      break;
    case Role::kOptimizerState:
      if (!(block.evidence & evidence::kState)) next |= evidence::kState | evidence::kInferred;
      break;
    case Role::kInput:  // also where only a copy to a device has read it
      next |= evidence::kInput;
      break;
    // What autograd kept in this step it has released, or the program keeps the graph: either way
    // the program holds it now, and a new edge will say if autograd does.
    case Role::kActivation:
    case Role::kRecomputedActivation:
    case Role::kHeldOutput:
    case Role::kTemporaryBackward:
      next |= evidence::kHeld;
      break;
    default:
      break;
  }
  block.evidence = next;
  block.carried = true;
  block.first_mark = 0;
  block.born_position = 0;
}

void Ledger::note_tensor(Block& block, const Event& event) {
  if (const auto tensor = static_cast<uint32_t>(event.b); !block.tensor) block.tensor = {tensor};
}

void Ledger::note_foreign(const Event& event) {
  if (event.a) foreign_.insert(event.a, {static_cast<int64_t>(event.c), device_of_storage(event)});
}

StringId Ledger::after(StringId module) {
  if (!module) return {};
  const auto [id, is_new] = after_.insert(module.value, StringId{});
  if (is_new) *id = strings_.intern("after " + strings_.text(module));
  return *id;
}

// An operator belongs to the module whose parameter (or gradient, or state of it) it reads first.
void Ledger::resolve_module(Frame& frame, const Block& block) {
  constexpr uint32_t kOfModule =
      evidence::kParameter | evidence::kBuffer | evidence::kState | evidence::kGradient;
  if (frame.module_known || !(block.evidence & kOfModule) || !block.module) return;
  frame.module = block.module;
  frame.module_known = true;
}

void Ledger::on_read(const Event& event) {
  ThreadState& state = thread(event);
  Block* block = event.flags & kForeign ? nullptr : blocks_.find(event.a);
  if (!block) return note_foreign(event);
  note_tensor(*block, event);
  Frame* frame = state.frames.empty() ? nullptr : &state.frames.back();
  if (frame && frame->kind == EventKind::kOpEnter) {
    const bool outside = !(frame->flags & (kGradMode | kInGraphTask));
    // Work on gradients and state without recording is an update; a parameter alone is read by a
    // forward pass as well.
    constexpr uint32_t kOfUpdate = evidence::kGradient | evidence::kState;
    const bool is_parameter = block->evidence & evidence::kParameter;
    if (outside && state.backward_since_update &&
        ((block->evidence & kOfUpdate) || (is_parameter && state.phase != Phase::kForward))) {
      enter_phase(state, Phase::kOptimizer, event);
    } else if (outside && is_parameter && !state.backward_since_update &&
               (state.phase == Phase::kData || state.phase == Phase::kOther)) {
      enter_phase(state, Phase::kForward, event);
    }
    // Inside an optimizer's step an operator may work on the parameters of many modules at once.
    if (state.open_updates == 0) resolve_module(*frame, *block);
    if (frame->module_known && (state.phase == Phase::kForward || state.phase == Phase::kRecompute)) {
      state.last_module = frame->module;
    }
  }
  regions_.on_read(state, *block);
  if (state.phase == Phase::kData) {
    block->evidence |= evidence::kReadAsData;
    block->data_reader = event.thread;
  } else if (state.phase == Phase::kForward &&
             (block->carried ||
              (block->born_phase == Phase::kData && block->born < state.forward_began))) {
    block->evidence |= evidence::kInput;
  }
}

void Ledger::on_saved(const Event& event) {
  Edge& edge = thread(event).edge;
  Block* block = event.flags & kForeign ? nullptr : blocks_.find(event.a);
  if (!block) {
    note_foreign(event);
  } else {
    note_tensor(*block, event);
    block->saved_edge = edge.number;
    const bool made_again = edge.nested && (block->born_phase == Phase::kRecompute ||
                                            block->born_phase == Phase::kBackward);
    if (event.flags & kPlain) {
      if (!edge.nested) regions_.on_held_beside(*block);
    } else if (!edge.nested || made_again) {
      // What only a recomputation saved, and did not make, the program holds by itself: a table of
      // positions that is handed to each block.
      block->evidence |= evidence::kSavedInStep;
    }
    block->evidence |= made_again && !block->carried ? evidence::kRecomputed : evidence::kActivation;
  }
  const bool is_plain = (event.flags & kPlain) != 0;
  const auto [index, is_new] =
      edge.seen.insert(event.a, static_cast<uint32_t>(edge.saved.size()));
  if (is_new) {
    edge.saved.push_back({event.a, static_cast<int64_t>(event.c), device_of_storage(event),
                          (event.flags & kNumber) != 0, is_plain});
    // As saved_tensors_hooks shows it: without wrapped numbers.
    if (block && (block->evidence & evidence::kRecomputed) && !(event.flags & (kPlain | kNumber))) {
      regions_.on_saved_again(thread(event), static_cast<int64_t>(event.c));
    }
  } else if (!is_plain) {  // one node holds it as it is, another saved it
    edge.saved[*index].is_plain = false;
  }
}

// A leaf that autograd accumulates into is a parameter, unless the step itself made it (an input
// that wants a gradient, or the detached input of a recomputation).
void Ledger::on_leaf(const Event& event) {
  Block* block = event.flags & kForeign ? nullptr : blocks_.find(event.a);
  if (!block) return note_foreign(event);
  note_tensor(*block, event);
  block->is_leaf |= !thread(event).edge.nested;
  if (block->carried && !(block->evidence & (evidence::kHeld | evidence::kCommunication))) {
    if (!(block->evidence & evidence::kParameter)) block->evidence |= evidence::kInferred;
    block->evidence |= evidence::kParameter;
  }
}

void Ledger::on_edge_end(const Event& event) {
  ThreadState& state = thread(event);
  Edge& edge = state.edge;
  unreadable_nodes_ += event.c;
  if (edge.nested || !step_open_) {
    edge.saved.clear();
    edge.nested = false;
    return;
  }
  micro_step_ = micro_steps_++;
  tokens_ += micro_step_tokens_;
  micro_step_tokens_ = 0;
  std::vector<MarkBook*> marks(devices_.size());
  for (auto& of : devices_) {
    if (of) marks[of->index] = &add_mark(Mark::kForwardEdge, event, *of);
  }
  for (const Edge::Saved& saved : edge.saved) {
    if (saved.is_plain) continue;
    MarkBook& mark = *marks[saved.device];
    if (saved.is_number) {
      mark.saved_number_bytes += saved.bytes;
    } else if (is_known_parameter(saved.pointer)) {
      mark.saved_parameter_bytes += saved.bytes;
    } else {
      mark.saved_bytes += saved.bytes;
    }
  }
  if (has_expected_saves_) {
    for (MarkBook* mark : marks) {
      if (mark) mark->expected_saved_bytes = 0;
    }
    expected_saves_.for_each([&](uint64_t pointer, const Storage& storage) {
      if (is_known_parameter(pointer)) return;
      marks[storage.device]->expected_saved_bytes += storage.bytes;
    });
  }
  regions_.on_edge(edge, micro_step_);
  failed_at_ = 0;
  for (uint16_t index = 0; index < threads_.size(); ++index) {
    ThreadState& made_by = *threads_[index];
    // A thread whose blocks are not in this graph is in a forward pass of its own.
    const auto is_in_graph = [&](uint64_t pointer) {
      const Block* block = blocks_.find(pointer);
      return block && block->thread == index && block->saved_edge == edge.number;
    };
    const std::vector<uint64_t>& born = made_by.born_since_edge;
    if (&made_by == &state || std::any_of(born.begin(), born.end(), is_in_graph)) {
      judge_unsaved(made_by, index, edge.number);
    }
  }
  expected_saves_.clear();
  has_expected_saves_ = false;
  edge.saved.clear();
}

// What a forward pass on thread `of` made, is alive now and is not in the graph: a checkpoint keeps
// it for the backward pass, or somebody else holds it.
void Ledger::judge_unsaved(ThreadState& of, uint16_t index, uint32_t edge) {
  for (const uint64_t pointer : of.born_since_edge) {
    Block* block = blocks_.find(pointer);
    if (!block || block->thread != index || block->carried || block->saved_edge == edge) continue;
    block->evidence |= block->evidence & evidence::kKept ? evidence::kActivation : evidence::kHeld;
  }
  of.born_since_edge.clear();
}

// Autocast keeps the copy until its region ends, whether or not autograd saves it.
void Ledger::name_cast(Block& block, uint64_t parameter) {
  const Block* of = blocks_.find(parameter);
  block.name = strings_.intern("autocast copy of " +
                               (of && of->name ? strings_.text(of->name) : "a parameter"));
}

bool Ledger::is_known_parameter(uint64_t pointer) {
  const Block* block = blocks_.find(pointer);
  if (!block) return false;
  return (block->evidence & evidence::kParameter) ||
         (block->is_leaf && (block->evidence & evidence::kCommunication));
}

void Ledger::on_gradient(const Event& event) {
  Block* gradient = blocks_.find(event.a);
  Block* parameter = blocks_.find(event.c);
  if (!gradient || !parameter) return;
  const bool of_leaf = parameter->is_leaf && builds_model() && thread(event).regions.empty();
  if (!of_leaf && !(parameter->evidence & evidence::kParameter)) return;
  note_tensor(*gradient, event);
  gradient->evidence |= evidence::kGradient;
  gradient->module = parameter->module;
  gradient->name = parameter->name;
  // The node that accumulates has no forward operator; it works for the parameter's module.
  ThreadState& state = thread(event);
  if (!state.frames.empty() && state.frames.back().kind == EventKind::kNodeEnter) {
    state.frames.back().module = parameter->module;
    state.frames.back().module_known = true;
  }
}

void Ledger::on_parameter(const Event& event) {
  Block* block = event.flags & kForeign ? nullptr : blocks_.find(event.a);
  if (!block) return note_foreign(event);
  if (event.id >= parameters_.size()) {
    for (auto index = static_cast<uint32_t>(parameters_.size()); index <= event.id; ++index) {
      parameters_.push_back(directory_.parameter(index));
    }
  }
  parameters_watched_ = true;
  note_tensor(*block, event);
  const ParameterInfo& info = parameters_[event.id];
  const uint32_t kind = info.is_buffer ? evidence::kBuffer : evidence::kParameter;
  // Tied weights: the first name stays.
  const bool named = block->name && !(block->evidence & evidence::kInferred);
  block->evidence = (block->evidence | kind) & ~evidence::kInferred;
  if (!named) {
    block->module = info.module;
    block->name = info.name;
  }
}

void Ledger::on_state(const Event& event) {
  Block* block = blocks_.find(event.a);
  if (!block) return;
  state_watched_ = true;
  note_tensor(*block, event);
  block->evidence |= evidence::kState;
  block->name = {event.id};
  if (const Block* parameter = blocks_.find(event.c)) block->module = parameter->module;
}

}  // namespace tally
