// SPDX-License-Identifier: Apache-2.0
// The ledger: a pure function from the stream of events to the books of each step. It gives every
// block one role, by evidence, and keeps the books closed to the byte. One thread (the
// bookkeeper's); no Torch, no files, no clock of its own.
//
// A block is settled when it dies or when its step closes: only then is its role known (an
// activation is proved at the edge, long after it was made). What the block adds to the marks, the
// peak and the timeline it lived through is booked at that moment, so nothing is replayed and
// memory does not grow with the length of a step.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "profiler/core/event.h"
#include "profiler/core/run_info.h"
#include "profiler/core/tensor_table.h"
#include "profiler/ledger/block_table.h"
#include "profiler/ledger/books.h"
#include "profiler/ledger/device_ledger.h"
#include "profiler/ledger/kernel_table.h"
#include "profiler/ledger/operator_table.h"
#include "profiler/ledger/regions.h"
#include "profiler/ledger/thread_state.h"

namespace tally {

struct LedgerOptions {
  uint64_t detailed_steps = 3;  // the first steps are kept in detail, and each new highest peak
  size_t timeline_points = 4096;
  int64_t budget_bytes = 0;     // a mark `oom` where the live bytes cross it; 0: none
  // A step ends where, after an update, data is prepared or a forward pass begins. For programs
  // that say nothing.
  bool infer_steps = false;
};

class Ledger {
 public:
  Ledger(StringTable& strings, const TensorTable& tensors, const RunDirectory& directory,
         LedgerOptions options);

  void apply(const Event& event);

  // Books of the steps that closed since the last call.
  // Also provisional books of the open step, where an allocation failed.
  std::vector<StepBooks> take_closed_steps();

  int64_t live_bytes(DeviceIndex device = 0) const {
    return device < devices_.size() && devices_[device] ? devices_[device]->live_bytes : 0;
  }
  size_t live_blocks() const { return blocks_.size(); }
  uint64_t unmatched_frees() const { return unmatched_frees_; }
  uint64_t unreadable_nodes() const { return unreadable_nodes_; }
  int64_t peak_outside_steps() const { return devices_[0]->peak_outside_steps; }
  size_t table_bytes() const;

 private:
  void on_alloc(const Event& event);
  void on_free(const Event& event);
  void on_frame_enter(const Event& event);
  void on_frame_exit(const Event& event);
  void on_reused(const Event& event);
  void on_read(const Event& event);
  void on_saved(const Event& event);
  void on_leaf(const Event& event);
  void on_edge_end(const Event& event);
  void judge_unsaved(ThreadState& of, uint16_t index, uint32_t edge);
  void on_gradient(const Event& event);
  void on_parameter(const Event& event);
  void on_state(const Event& event);
  void on_step_begin(const Event& event);
  void on_step_end(const Event& event);
  void on_range(const Event& event);
  void add_ranges_to_operators();
  void on_counted(const Event& event);
  void on_kernel(const Event& event);
  void on_device_event(const Event& event);  // of a caching allocator
  StepBooks so_far(const Event& event, const MarkBook& oom);
  void discard_step();
  void begin_next_step(ThreadState& thread, const Event& event);

  // The device of a memory event; made at its first.
  DeviceLedger& device(const Event& event);
  DeviceIndex device_of_storage(const Event& event) const;

  ThreadState& thread(const Event& event);
  void enter_phase(ThreadState& thread, Phase phase, const Event& event);
  Phase phase_outside_backward(const ThreadState& thread, const Event& event) const;
  void note_tensor(Block& block, const Event& event);
  void note_foreign(const Event& event);
  void name_cast(Block& block, uint64_t parameter);
  void resolve_module(Frame& frame, const Block& block);
  StringId module_of(const ThreadState& thread) const;
  StringId after(StringId module);
  bool is_known_parameter(uint64_t pointer);
  // Of a program that says nothing the first step begins with the program: its leaves that live on
  // are the model.
  bool builds_model() const {
    return options_.infer_steps && step_index_ == 0 && !parameters_watched_;
  }

  Timeline::Where where(const ThreadState& thread) const;
  Timeline::Where where(const ThreadState& thread, const DeviceLedger& device) const;
  // On every device that has memory.
  void add_mark(Mark mark, const Event& event);
  MarkBook& add_mark(Mark mark, const Event& event, DeviceLedger& device);
  Role role_of(const Block& block, bool step_closes) const;
  Role role_so_far(const Block& block);  // where an allocation failed
  void carry_over(Block& block);
  void move_phase_span(Phase phase);

  StringTable& strings_;
  const TensorTable& tensors_;
  const RunDirectory& directory_;
  const LedgerOptions options_;

  BlockTable blocks_;
  std::vector<std::unique_ptr<DeviceLedger>> devices_;  // by DeviceIndex; null: never seen
  std::vector<std::unique_ptr<ThreadState>> threads_;
  ForwardIndex forward_;
  FlatMap<StringId> after_;
  std::vector<ParameterInfo> parameters_;  // cache of the directory, by index
  bool parameters_watched_ = false;
  bool state_watched_ = false;
  bool had_update_ = false;  // an update came to its end in an earlier step

  // The open step.
  bool step_open_ = false;
  uint64_t step_index_ = 0;
  int64_t step_begin_ns_ = 0;
  int64_t last_step_end_ns_ = 0;
  uint16_t step_thread_ = 0;
  uint16_t micro_steps_ = 0;       // backward passes begun, nested ones apart
  uint16_t micro_step_ = 0;        // the one that work belongs to now
  uint64_t failed_at_ = 0;  // sequence number of an allocation that failed; 0: none since the
                            // last edge
  OperatorTable operators_;
  Regions regions_{strings_, blocks_};
  struct CountedRange {
    Phase phase;
    StringId module;
    StringId op;
    uint32_t alignment = 0;  // see OperatorRow
    bool is_causal = false;
    double flops = 0;        // by formula, of what ran in it
  };
  std::vector<CountedRange> ranges_;  // of hardware counters, by their number
  bool is_counted_ = false;           // counters told something of the step
  KernelTable kernels_;
  std::vector<PhaseSpan> phases_;
  double tokens_ = 0;
  double micro_step_tokens_ = 0;
  struct Storage {
    int64_t bytes;
    DeviceIndex device;
    uint64_t seen = 0;  // sequence number
  };
  FlatMap<Storage> foreign_;       // storages outside the allocators, by address
  FlatMap<Storage> expected_saves_;
  bool has_expected_saves_ = false;
  uint32_t edges_ = 0;
  int64_t now_ns_ = 0;             // the latest time of any event: threads' clocks are read at
                                   // different moments, the books go forward
  uint64_t step_events_ = 0;

  uint64_t unmatched_frees_ = 0;
  uint64_t unreadable_nodes_ = 0;
  int64_t highest_detailed_peak_ = 0;  // over all devices
  std::vector<StepBooks> closed_;
};

}  // namespace tally
