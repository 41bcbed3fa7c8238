// SPDX-License-Identifier: Apache-2.0
// Every live block, found by the address of its storage. Owned by the ledger; one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "profiler/core/flat_map.h"
#include "profiler/core/ids.h"
#include "profiler/core/tensor_table.h"
#include "profiler/core/words.h"

namespace tally {

// What was seen of a block. Weak evidence (below the line) only speaks when nothing strong does.
namespace evidence {
inline constexpr uint32_t kParameter = 1 << 0;
inline constexpr uint32_t kBuffer = 1 << 1;
inline constexpr uint32_t kState = 1 << 2;
inline constexpr uint32_t kGradient = 1 << 3;
inline constexpr uint32_t kInput = 1 << 4;
inline constexpr uint32_t kActivation = 1 << 5;
inline constexpr uint32_t kRecomputed = 1 << 6;
// ----
inline constexpr uint32_t kGradientFlow = 1 << 7;  // went into a node of the backward graph
inline constexpr uint32_t kHeld = 1 << 8;          // alive at an edge, and autograd did not hold it
inline constexpr uint32_t kReadAsData = 1 << 9;    // read before the forward pass began
inline constexpr uint32_t kBornNoGrad = 1 << 10;   // made while autograd did not record
inline constexpr uint32_t kAdopted = 1 << 11;      // alive before the session
inline constexpr uint32_t kInferred = 1 << 12;  // the role follows from a rule, not from an object
inline constexpr uint32_t kSavedInStep = 1 << 13;  // autograd held it at an edge of this step
// Strong as well: scratch memory that a library holds; a buffer that goes over the network.
inline constexpr uint32_t kWorkspace = 1 << 14;
inline constexpr uint32_t kCommunication = 1 << 15;
// A checkpoint keeps it for the backward pass, where no graph shows it. An activation at the edge.
inline constexpr uint32_t kKept = 1 << 16;
}  // namespace evidence

struct Block {
  uint64_t pointer = 0;
  int64_t bytes = 0;
  uint64_t born = 0;          // sequence number of its allocation
  int64_t born_ns = 0;        // steady clock
  uint32_t born_position = 0; // in the timeline of the step; 0: before it
  uint32_t first_mark = 0;    // first mark of the step that it can be part of
  uint32_t saved_edge = 0;    // the last edge that found it saved
  uint32_t evidence = 0;
  Phase born_phase = Phase::kOther;
  uint8_t device = 0;
  uint16_t thread = 0;       // that made it
  uint16_t data_reader = 0;  // that read it in a data phase (kReadAsData)
  bool alive = false;
  bool carried = false;       // was alive before this step began
  bool is_leaf = false;       // autograd accumulated into it, in a pass of the program's own
  bool crosses_units = false; // read by another unit of the model than the one that made it
  StringId module;
  StringId op;
  StringId name;              // of the parameter or state
  StringId source;            // "file:line", of large blocks in programs that run Python
  TensorId tensor;
};

class BlockTable {
 public:
  Block* find(uint64_t pointer) noexcept {
    const uint32_t* index = by_pointer_.find(pointer);
    return index ? &at(*index) : nullptr;
  }
  // A new block; it stays where it is until it is removed.
  Block& add(uint64_t pointer) {
    uint32_t index;
    if (free_.empty()) {
      index = used_++;
      if (index / kChunk == chunks_.size()) chunks_.push_back(std::make_unique<Block[]>(kChunk));
    } else {
      index = free_.back();
      free_.pop_back();
    }
    *by_pointer_.insert(pointer).first = index;
    Block& block = at(index);
    block = Block{};
    block.pointer = pointer;
    block.alive = true;
    return block;
  }
  void remove(Block& block) {
    free_.push_back(*by_pointer_.find(block.pointer));
    by_pointer_.erase(block.pointer);
    block.alive = false;
  }
  template <typename Visit>
  void for_each(Visit&& visit) {
    for (uint32_t index = 0; index < used_; ++index) {
      if (at(index).alive) visit(at(index));
    }
  }
  size_t size() const noexcept { return by_pointer_.size(); }
  size_t bytes() const noexcept {
    return chunks_.size() * kChunk * sizeof(Block) + by_pointer_.bytes() +
           free_.capacity() * sizeof(uint32_t);
  }

 private:
  // In chunks: growth neither copies nor holds more than it needs.
  static constexpr uint32_t kChunk = 1024;
  Block& at(uint32_t index) { return chunks_[index / kChunk][index % kChunk]; }

  std::vector<std::unique_ptr<Block[]>> chunks_;
  uint32_t used_ = 0;
  std::vector<uint32_t> free_;
  FlatMap<uint32_t> by_pointer_;
};

}  // namespace tally
