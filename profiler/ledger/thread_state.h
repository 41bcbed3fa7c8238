// SPDX-License-Identifier: Apache-2.0
// What the ledger knows of one thread: its open operators, nodes and scopes, and its phase.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "profiler/core/event.h"
#include "profiler/core/flat_map.h"
#include "profiler/core/ids.h"
#include "profiler/core/words.h"
#include "profiler/ledger/books.h"
#include "profiler/ledger/regions.h"

namespace tally {

struct Frame {
  EventKind kind = EventKind::kOpEnter;  // kOpEnter, kNodeEnter or kScopeEnter
  uint8_t flags = 0;                     // mode bits
  bool module_known = false;             // by a parameter that it read, or by its forward operator
  Phase phase_before = Phase::kOther;
  StringId op;
  StringId module;
  int64_t begin_ns = 0;
  int64_t inner_ns = 0;                  // spent in frames inside this one
  double flops = 0;
  double torch_flops = 0;
  double elementwise = 0;
  double part_flops = 0;     // of operators inside it
  uint32_t range = 0;        // of hardware counters, its number and one
  uint64_t allocations = 0;  // of its thread, when it began
};

// A backward pass that this thread is entering: what the walk over its graph found.
struct Edge {
  struct Saved {
    uint64_t pointer;
    int64_t bytes;
    DeviceIndex device;
    bool is_number;
    bool is_plain;
  };
  uint64_t graph_task = 0;
  uint32_t number = 0;  // of all edges of the run, from 1
  bool nested = false;
  std::vector<Saved> saved;
  FlatMap<uint32_t> seen;  // from a pointer to its index in `saved`
};

struct ThreadState {
  Phase phase = Phase::kOther;
  uint64_t step = ~uint64_t{0};      // the step whose events it saw last
  uint64_t forward_began = 0;  // sequence number where its forward phase began; 0: not in this step
  // Pointers of blocks that it made in forward and data phases since the last edge that judged
  // them.
  std::vector<uint64_t> born_since_edge;
  bool backward_since_update = false;  // a backward pass ended after the last optimizer phase
  std::vector<Frame> frames;
  // What was counted last of a recomputation's operator that is open; a row without a name:
  // nothing.
  struct Counted {
    OperatorRow row;
    bool of_frame = false;  // of the innermost frame, which adds it to its row when it ends
    void clear() {
      row.op = {};
      of_frame = false;
    }
  };
  Counted counted;
  uint64_t copied_parameter = 0;     // whose copy its next block is, in autocast's cache
  StringId source;                   // line of the next block, or of an allocation that fails
  StringId last_module;              // of the last operator that read a parameter in a forward phase
  StringId last_node_module;         // of the last node of a backward pass
  uint32_t open_updates = 0;         // scopes of optimizers' steps
  uint64_t allocations = 0;          // that it made so far
  uint64_t allocations_at_work = 0;  // when the last operator inside another began
  Edge edge;
  std::vector<OpenRegion> regions;   // of checkpoints, innermost last
  std::vector<uint64_t> reads;       // pointers that the open operator of a forward pass reads
  std::vector<uint64_t> pending_forward;  // keys whose module the open operator decides

  // Whether an operator or a node runs. A scope alone does no work.
  bool works() const {
    for (const Frame& frame : frames) {
      if (frame.kind != EventKind::kScopeEnter) return true;
    }
    return false;
  }
  // A module was called by the innermost node, and the call is open.
  bool calls_module_in_node() const {
    for (auto frame = frames.rbegin(); frame != frames.rend(); ++frame) {
      if (frame->kind == EventKind::kNodeEnter) return false;
      if (frame->kind == EventKind::kScopeEnter && (frame->flags & event_flags::kForwardPass))
        return true;
    }
    return false;
  }
  bool in_node() const { return innermost(EventKind::kNodeEnter) != nullptr; }
  Frame* innermost(EventKind kind) {
    return const_cast<Frame*>(std::as_const(*this).innermost(kind));
  }
  const Frame* innermost(EventKind kind) const {
    for (auto frame = frames.rbegin(); frame != frames.rend(); ++frame) {
      if (frame->kind == kind) return &*frame;
    }
    return nullptr;
  }
};

// From an operator's sequence number to the module that it ran for: the way from a node of the
// backward graph to its forward operator. Holds this step and the one before.
class ForwardIndex {
 public:
  static uint64_t key(uint64_t forward_thread, uint64_t sequence_number) {
    return (forward_thread << 44) ^ sequence_number;
  }
  void set(uint64_t key, StringId module) { *now_.insert(key).first = module; }
  const StringId* find(uint64_t key) {
    if (const StringId* module = now_.find(key)) return module;
    return before_.find(key);
  }
  void next_step() {
    std::swap(now_, before_);
    now_.clear();
  }
  size_t bytes() const { return now_.bytes() + before_.bytes(); }

 private:
  FlatMap<StringId> now_;
  FlatMap<StringId> before_;
};

}  // namespace tally
