// SPDX-License-Identifier: Apache-2.0
// What the ledger learns about recomputation: the regions that ran again inside a backward pass
// (activation checkpointing), and what each unit of the model would give if it were such a region.
// A unit is a repeated block, "h.3" of "h.3.attn.c_attn"; a module outside any list is its own.
#pragma once

#include <cstdint>
#include <vector>

#include "profiler/core/event.h"
#include "profiler/core/flat_map.h"
#include "profiler/ledger/block_table.h"
#include "profiler/ledger/books.h"

namespace tally {

struct Edge;
struct Frame;
struct ThreadState;

// A block that waits for a backward pass without being a saved variable: what a selective
// checkpoint keeps, or ctx->saved_data of a node.
struct Beside {
  uint64_t pointer = 0;
  uint64_t born = 0;  // sequence number of its allocation: the address may be of another by now
  int64_t bytes = 0;
  StringId module;
};

// A region of one thread, from the first operator that runs again until the node it runs in ends.
struct OpenRegion {
  RegionRow row;
  size_t node = 0;         // index of that node among the thread's frames
  uint64_t began = 0;      // sequence number
  int device = -1;         // of its first block: whose bytes its row tells
  bool running = true;     // its forward operators run now
  bool has_edge = false;   // a backward pass of its own told what it saved again
  std::vector<StringId> modules;
  std::vector<uint64_t> born;  // pointers of blocks that its forward operators made
  std::vector<uint64_t> left;  // of these, what was there when its forward operators ended
  std::vector<Beside> beside;  // that were held when it began
  FlatMap<int64_t> kept;
};

class Regions {
 public:
  Regions(StringTable& strings, BlockTable& blocks) : strings_(strings), blocks_(blocks) {}

  void begin_step();
  // Rows of the step; of its open regions none.
  void finish(StepBooks& books);

  // An operator of `state` begins inside a backward pass. `again`: it is the forward pass, run
  // again.
  void enter_operator(ThreadState& state, const Event& event, bool again, uint16_t micro_step);
  // The innermost frame ends; it is still on the stack.
  void exit_frame(ThreadState& state, const Event& event, StringId module, uint16_t micro_step,
                  int64_t since_step_ns);
  // An operator inside another counts by itself.
  void add_work(ThreadState& state, double flops);
  // `live_bytes`: of the block's device, the block among them.
  void on_alloc(ThreadState& state, const Block& block, int64_t live_bytes);
  void on_read(ThreadState& state, const Block& block);
  // A nested backward pass begins in the region; then each storage that it found saved again.
  void on_nested_edge(ThreadState& state);
  void on_saved_again(ThreadState& state, int64_t bytes);
  void on_held_beside(const Block& block);
  // The forward edge of a micro-step: what autograd holds of each unit.
  void on_edge(const Edge& edge, uint16_t micro_step);

  StringId unit_of(StringId module);
  size_t bytes() const { return unit_of_.bytes() + by_key_.bytes() + rows_.size() * sizeof(RegionRow); }

 private:
  UnitRow& unit(StringId name, uint16_t micro_step);
  void leave_recomputation(OpenRegion& region);
  void go_on(OpenRegion& region);
  void close(OpenRegion& region);
  StringId common_module(const std::vector<StringId>& modules);
  bool is_in(StringId module, StringId whole) const;

  StringTable& strings_;
  BlockTable& blocks_;
  std::vector<RegionRow> rows_;
  std::vector<UnitRow> units_;
  std::vector<Beside> beside_;  // of the step; some may be gone
  FlatMap<uint32_t> by_key_;    // {micro-step, unit}: index into units_
  FlatMap<StringId> unit_of_;   // by module
};

}  // namespace tally
