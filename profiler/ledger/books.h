// SPDX-License-Identifier: Apache-2.0
// The books of a step: what the ledger hands to the recording, and what a recording gives back.
// Plain values; all names are StringId into the session's string table. Bytes are exact.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "profiler/core/flop_format.h"
#include "profiler/core/ids.h"
#include "profiler/core/run_info.h"
#include "profiler/core/words.h"

namespace tally {

// What a caching allocator has beside its blocks, at a mark. The first three follow from its events
// by replay, allocator_* is what the allocator itself says (-1: not known at this very moment).
struct CachingBook {
  int64_t reserved_bytes = 0;   // of the device, in segments
  int64_t active_bytes = 0;     // in blocks that live or whose free waits for a stream
  int64_t allocated_bytes = 0;  // in blocks that the program holds
  int64_t largest_free_bytes = 0;  // of one free block; all free bytes are reserved - active
  int64_t allocator_reserved_bytes = -1;
  int64_t allocator_active_bytes = -1;
  int64_t allocator_allocated_bytes = -1;
  int64_t outside_bytes = -1;   // in use on the device beside the segments; as of the step's begin or end
  bool is_exact = true;         // false: something did not follow the allocator's known rules
};

// Bytes of one role in one module at a mark.
struct Cell {
  Role role = Role::kUnattributed;
  StringId module;  // "" when no module is known; "after h.0.mlp" when inferred from the last one
  int64_t bytes = 0;
  uint32_t blocks = 0;
};

// The books of one device at one mark. sum(roles) == bytes by construction of the ledger;
// allocator_bytes is the allocator's own count at the same event, so bytes - allocator_bytes is a
// difference that can fail.
struct MarkBook {
  Mark mark = Mark::kStart;
  uint16_t micro_step = 0;
  int64_t time_ns = 0;  // since the step began
  int64_t bytes = 0;
  int64_t allocator_bytes = 0;
  RoleBytes roles{};
  // What autograd held (unique storages, whole); known at forward edges and after them.
  int64_t saved_bytes = 0;
  int64_t saved_parameter_bytes = 0;
  int64_t saved_number_bytes = 0;
  // What the save rules of the recorded operators say saved_bytes should be; -1: not computed.
  int64_t expected_saved_bytes = -1;
  // Of an `oom` mark: the allocation that failed or crossed the budget, and the memory that there is.
  int64_t wanted_bytes = 0;
  int64_t limit_bytes = 0;
  // Where the mark was set: the operator that ran and its module.
  Phase phase = Phase::kOther;
  StringId module;
  StringId op;
  StringId source;  // "file:line", of `peak` and `oom`: of the allocation that made it, where known
  std::optional<CachingBook> caching;  // of devices with a caching allocator
  std::vector<Cell> cells;

  // Beside the blocks: what rounding adds to them, and what is reserved and free.
  int64_t rounding_bytes() const { return caching ? caching->active_bytes - bytes : 0; }
  int64_t cached_bytes() const { return caching ? caching->reserved_bytes - caching->active_bytes : 0; }
};

// One kept moment of the live bytes; thinned, but the extremes and the marks are always kept.
struct TimelinePoint {
  int64_t time_ns = 0;  // since the step began
  RoleBytes roles{};
  Phase phase = Phase::kOther;
  uint16_t micro_step = 0;
  StringId module;
  StringId op;  // of the allocation or free that made this moment
  // Of a caching allocator, else 0.
  int64_t reserved_bytes = 0;
  int64_t active_bytes = 0;
  int64_t largest_free_bytes = 0;
};

// A span of one phase on the thread that steps.
struct PhaseSpan {
  Phase phase = Phase::kOther;
  uint16_t micro_step = 0;
  int64_t begin_ns = 0;
  int64_t end_ns = 0;
};

// Work of one operator in one module and phase, summed over its calls in the step.
struct OperatorRow {
  Phase phase = Phase::kOther;
  StringId module;
  StringId op;
  uint32_t calls = 0;
  double flops = 0;              // multiply-adds of matrix products, convolutions, attention: x2
  double torch_flops = 0;        // the part that torch.utils.flop_counter counts as well
  double elementwise_flops = 0;  // element-wise, reductions and normalisations
  int64_t nanoseconds = 0;       // wall time of the outermost operator, without operators inside
  // Executed, by hardware counters; 0 where they were not asked in this step.
  double tensor_flops = 0;  // on tensor cores
  double scalar_flops = 0;  // by scalar instructions
  double device_ns = 0;     // of its kernels
  double dram_bytes = 0;    // read and written
  // The rest since version 5 of the recording.
  FlopsByFormat by_format = {};  // of tensor_flops and scalar_flops
  // By formula, of all that ran in its counted ranges: what was executed stands beside it. Operators
  // inside this one have their FLOPs in rows of their own, but not what they execute.
  double range_flops = 0;
  double causal_flops = 0;  // the part in ranges of an attention that leaves out what its mask hides
  uint32_t alignment = 0;  // largest power of two that divides every size of its products; 0: not known

  bool is_counted() const {
    return tensor_flops != 0 || scalar_flops != 0 || device_ns != 0 || dram_bytes != 0;
  }
};

// Kernels of one name that an operator launched in the step; only of a step that asked for them.
struct KernelRow {
  Phase phase = Phase::kOther;
  StringId module;
  StringId op;  // "": launched by no operator
  StringId kernel;
  uint32_t calls = 0;
  double device_ns = 0;
  double tensor_flops = 0;  // these three: 0 unless counters were read kernel by kernel
  double scalar_flops = 0;
  double dram_bytes = 0;
  FlopsByFormat by_format = {};  // of these FLOPs
};

// A piece of the forward pass that ran again inside backward: a checkpointed region.
struct RegionRow {
  uint16_t micro_step = 0;
  StringId module;  // what its modules have in common: "h.3"
  StringId node;    // of the backward graph that it ran in
  int64_t kept_bytes = 0;     // held by autograd for it since the forward pass
  int64_t avoided_bytes = 0;  // saved again by the recomputation: not held in between
  double flops = 0;           // of the recomputation
  int64_t nanoseconds = 0;    // of its operators
  int64_t begin_bytes = 0;    // alive when it began
  int64_t peak_bytes = 0;     // highest while it ran, forward and backward
};

// A repeated block of the model in one micro-step: what checkpointing it would give and cost.
// Times are since the step began; 0: not seen.
struct UnitRow {
  StringId unit;
  uint16_t micro_step = 0;
  int64_t activation_bytes = 0;  // made in it and held by autograd at the forward edge
  int64_t output_bytes = 0;      // of these, what another unit reads: a checkpoint keeps it too
  int64_t forward_end_ns = 0;
  int64_t backward_begin_ns = 0;  // or of its recomputation
  int64_t backward_end_ns = 0;
};

// A block, or several alike, alive at the peak.
struct BlockRow {
  int64_t bytes = 0;  // of one block
  uint32_t count = 1;
  Role role = Role::kUnattributed;
  bool saved = false;
  Phase phase = Phase::kOther;  // it was made in
  StringId module;
  StringId op;
  StringId name;   // of the parameter it belongs to ("h.0.attn.weight"), or of the state ("exp_avg")
  StringId dtype;  // "float32"; "" when no tensor on it was seen
  StringId shape;  // "[8, 1024, 768]"
  StringId source; // "file:line" when recorded
  int64_t age_ns = 0;  // at the peak
};

struct DeviceBooks {
  DeviceIndex device = 0;
  std::vector<MarkBook> marks;  // in the order of time; exactly one kPeak, with micro_step set
  std::vector<TimelinePoint> timeline;
  std::vector<BlockRow> peak_blocks;  // only in detailed steps; largest first
  // Highest bytes of each kind of temporary at any kept moment of the timeline.
  int64_t forward_temporary_peak = 0;
  int64_t backward_temporary_peak = 0;
  int64_t optimizer_temporary_peak = 0;
  int64_t foreign_bytes = 0;  // storages seen that bypass the allocator; not part of any sum
  // Alive at the step's end and older than the recording, but seen since the step before ended for
  // the first time: a batch of a data set in memory. No growth.
  int64_t adopted_bytes = 0;
  int64_t largest_difference = 0;  // |ledger - allocator| over every event of the step
  uint64_t allocations = 0;
  uint64_t frees = 0;
};

struct StepBooks {
  uint64_t index = 0;  // of the step, from 0
  int64_t start_ns = 0;  // since the run began
  int64_t duration_ns = 0;
  uint16_t micro_steps = 0;
  bool detailed = false;
  bool provisional = false;  // the step goes on; its books will come again, in full
  double tokens = 0;  // indices given to the largest embedding, summed over micro-steps; 0: none seen
  std::vector<DeviceBooks> devices;
  std::vector<PhaseSpan> phases;
  std::vector<OperatorRow> operators;
  std::vector<KernelRow> kernels;
  std::vector<RegionRow> regions;  // these two only in detailed steps
  std::vector<UnitRow> units;
  // Counted while the step ran, 0 unless said.
  uint64_t events = 0;
  uint64_t unmatched_frees = 0;
  int64_t profiler_ns = 0;  // of the training thread, spent in our hooks (measured by sampling)
};

// How the run ended and what the profiler cost; written at stop, and after each step.
struct RunEnd {
  std::string ended = "running";  // "clean", "exception", "running" ("killed" is for readers to conclude)
  double overhead_seconds = 0;    // spent in hooks on the program's threads
  double bookkeeper_seconds = 0;  // spent on the profiler's own thread
  int64_t overhead_bytes = 0;     // held by the profiler's tables and logs, highest
  uint64_t dropped_events = 0;
  std::vector<std::string> notes;  // sentences for "what this report does not know"
};

}  // namespace tally
