// SPDX-License-Identifier: Apache-2.0
#include "profiler/ledger/device_step.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <tuple>
#include <utility>

namespace tally {

void DeviceStep::CellIndex::add(Role role, StringId module, int64_t bytes) {
  const uint64_t key = (static_cast<uint64_t>(role) << 32) | module.value;
  const auto [at, is_new] = index.insert(key, static_cast<uint32_t>(cells.size()));
  if (is_new) cells.push_back({role, module, 0, 0});
  cells[*at].bytes += bytes;
  ++cells[*at].blocks;
}

void DeviceStep::begin(int64_t bytes, int64_t allocator_bytes, const Timeline::Where& where,
                       uint64_t sequence, int64_t step_begin_ns,
                       const std::optional<CachingBook>& caching) {
  step_begin_ns_ = step_begin_ns;
  marks_.clear();
  cells_.clear();
  at_peak_.clear();
  books_ = {};
  peak_ = {};
  peak_.bytes = -1;
  memory_event(bytes, allocator_bytes, where, sequence, caching);
  timeline_.protect_last();
  books_.allocations = books_.frees = 0;
}

uint32_t DeviceStep::memory_event(int64_t bytes, int64_t allocator_bytes,
                                  const Timeline::Where& where, uint64_t sequence,
                                  const std::optional<CachingBook>& caching) {
  const uint32_t position = timeline_.add(bytes, where);
  books_.largest_difference =
      std::max(books_.largest_difference, std::abs(bytes - allocator_bytes));
  if (bytes > peak_.bytes) {
    peak_.mark = Mark::kPeak;
    peak_.bytes = bytes;
    peak_.allocator_bytes = allocator_bytes;
    peak_.time_ns = where.time_ns;
    peak_.micro_step = where.micro_step;
    peak_.phase = where.phase;
    peak_.module = where.module;
    peak_.op = where.op;
    peak_.source = where.source;
    peak_.caching = caching;
    peak_sequence_ = sequence;
    peak_after_mark_ = marks_.size();
    at_peak_.clear();
  }
  return position;
}

MarkBook& DeviceStep::add_mark(Mark mark, int64_t bytes, int64_t allocator_bytes,
                               const Timeline::Where& where) {
  timeline_.add(bytes, where);
  timeline_.protect_last();
  books_.largest_difference =
      std::max(books_.largest_difference, std::abs(bytes - allocator_bytes));
  cells_.emplace_back();
  MarkBook& book = marks_.emplace_back();
  book.mark = mark;
  book.micro_step = where.micro_step;
  book.time_ns = where.time_ns;
  book.bytes = bytes;
  book.allocator_bytes = allocator_bytes;
  book.phase = where.phase;
  book.module = where.module;
  book.op = where.op;
  return book;
}

void DeviceStep::settle(const Block& block, Role role, uint32_t death) {
  for (size_t mark = block.first_mark; mark < marks_.size(); ++mark) {
    marks_[mark].roles[static_cast<size_t>(role)] += block.bytes;
    cells_[mark].add(role, block.module, block.bytes);
  }
  if (block.born <= peak_sequence_) at_peak_.push_back({block, role});
  timeline_.settle(role, block.bytes, block.born_position, death);
  if (death != Timeline::kForever) ++books_.frees;
  if (!block.carried) ++books_.allocations;
}

DeviceBooks DeviceStep::finish(bool detailed, const TensorTable& tensors) {
  CellIndex peak_cells;
  for (const AtPeak& at : at_peak_) {
    peak_.roles[static_cast<size_t>(at.role)] += at.block.bytes;
    peak_cells.add(at.role, at.block.module, at.block.bytes);
  }
  peak_.cells = std::move(peak_cells.cells);
  for (size_t mark = 0; mark < marks_.size(); ++mark) marks_[mark].cells = std::move(cells_[mark].cells);
  // What autograd held is known from the edge on; the peak of a backward pass has its edge's.
  for (size_t mark = peak_after_mark_; mark-- > 0;) {
    const MarkBook& before = marks_[mark];
    if (before.mark == Mark::kOom) continue;
    if (before.mark == Mark::kForwardEdge) {
      peak_.saved_bytes = before.saved_bytes;
      peak_.saved_parameter_bytes = before.saved_parameter_bytes;
      peak_.saved_number_bytes = before.saved_number_bytes;
    }
    break;
  }
  DeviceBooks books = std::move(books_);
  books.marks = std::move(marks_);
  books.marks.insert(books.marks.begin() + static_cast<ptrdiff_t>(peak_after_mark_), peak_);
  books.timeline = timeline_.finish();
  const auto highest = [&books](Role role) {
    int64_t bytes = 0;
    for (const TimelinePoint& point : books.timeline) {
      bytes = std::max(bytes, point.roles[static_cast<size_t>(role)]);
    }
    return bytes;
  };
  books.forward_temporary_peak = highest(Role::kTemporaryForward);
  books.backward_temporary_peak = highest(Role::kTemporaryBackward);
  books.optimizer_temporary_peak = highest(Role::kTemporaryOptimizer);
  if (detailed) {
    using Key =
        std::tuple<int64_t, Role, bool, Phase, StringId, StringId, StringId, StringId, TensorId>;
    std::map<Key, BlockRow> rows;
    for (const AtPeak& at : at_peak_) {
      const Block& block = at.block;
      const bool saved = (block.evidence & evidence::kSavedInStep) != 0;
      BlockRow& row = rows[{-block.bytes, at.role, saved, block.born_phase, block.module, block.op,
                            block.name, block.source, block.tensor}];
      if (row.bytes == 0) {
        row.count = 0;
        row.bytes = block.bytes;
        row.role = at.role;
        row.saved = saved;
        row.phase = block.born_phase;
        row.module = block.module;
        row.op = block.op;
        row.name = block.name;
        row.source = block.source;
        const TensorTable::Entry tensor = tensors.entry(block.tensor);
        row.dtype = tensor.dtype;
        row.shape = tensor.shape;
      }
      ++row.count;
      row.age_ns = std::max(row.age_ns, step_begin_ns_ + peak_.time_ns - block.born_ns);
    }
    for (auto& [key, row] : rows) books.peak_blocks.push_back(row);
  }
  at_peak_.clear();
  return books;
}

}  // namespace tally
