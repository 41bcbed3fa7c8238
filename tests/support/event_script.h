// SPDX-License-Identifier: Apache-2.0
// Events made by hand, and a ledger that reads them: EventScript plays hooks, log and allocator at
// once. It keeps its own count of bytes, so the books that a step gives back are checked against
// a truth that shares no code with the ledger; every step is, whatever its test is about.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "profiler/core/event.h"
#include "profiler/ledger/ledger.h"

namespace tally::test {

using Pointer = uint64_t;
using Body = std::function<void()>;
inline const Body kNothing = [] {};

// The modes that operators run in, as hooks see them.
inline constexpr uint8_t kData = event_flags::kGradMode;
inline constexpr uint8_t kForward = event_flags::kGradMode | event_flags::kNeedsGrad;
inline constexpr uint8_t kNoGrad = 0;
inline constexpr uint8_t kBackward = event_flags::kInGraphTask;
inline constexpr uint8_t kRecompute = event_flags::kGradMode | event_flags::kInGraphTask;

struct Op {
  uint8_t mode = kForward;
  std::vector<Pointer> reads{};
  uint64_t flops = 0;
  uint64_t torch_flops = 0;
  uint64_t elementwise = 0;
  int64_t sequence_number = -1;  // of the graph's node that it makes
  uint32_t indices = 0;          // given to an embedding
  bool failed = false;           // ended by an exception
};

struct Graph {
  std::vector<Pointer> saved{};
  std::vector<Pointer> leaves{};
  bool nested = false;
};

class EventScript {
 public:
  explicit EventScript(LedgerOptions options = {})
      : ledger_(strings_, tensors_, directory_, options) {}

  // ---- one event each

  void push(EventKind kind, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0, uint32_t id = 0,
            uint8_t flags = 0) {
    Event event;
    event.kind = kind;
    event.sequence = sequence_++;
    event.time_ns = time_ns_ += step_ns_;
    event.thread = thread_;
    event.a = a;
    event.b = b;
    event.c = c;
    event.id = id;
    event.flags = flags;
    event.allocator_bytes = allocator_bytes_;
    truth_[event.time_ns] = allocator_bytes_;
    ledger_.apply(event);
  }
  // A new block; each call another address.
  Pointer alloc(int64_t bytes, uint8_t flags = 0) {
    const Pointer pointer = next_pointer_ += 64;
    alloc_at(pointer, bytes, flags);
    return pointer;
  }
  void alloc_at(Pointer pointer, int64_t bytes, uint8_t flags = 0) {
    sizes_[pointer] = bytes;
    allocator_bytes_ += bytes;
    push(EventKind::kAlloc, pointer, static_cast<uint64_t>(bytes), 0, 0, flags);
  }
  // Alive before the session, seen now for the first time.
  Pointer adopt(int64_t bytes) { return alloc(bytes, event_flags::kAdopted); }
  void free(Pointer pointer) {
    const int64_t bytes = sizes_.at(pointer);
    sizes_.erase(pointer);
    allocator_bytes_ -= bytes;
    push(EventKind::kFree, pointer, static_cast<uint64_t>(bytes));
  }
  // Evidence about the storage at `pointer`.
  void see(EventKind kind, Pointer pointer, uint8_t flags = 0, TensorId tensor = {}) {
    push(kind, pointer, tensor.value, static_cast<uint64_t>(size(pointer)), 0, flags);
  }
  // A storage that no watched allocator made.
  void see_foreign(EventKind kind, Pointer pointer, int64_t bytes, uint8_t flags = 0) {
    push(kind, pointer, 0, static_cast<uint64_t>(bytes), 0,
         static_cast<uint8_t>(event_flags::kForeign | flags));
  }
  // A watched parameter or buffer, seen under its name as a walk over the module does.
  uint32_t name_parameter(std::string_view module, std::string_view own, bool is_buffer = false) {
    return directory_.update([&](RunInfo& info) {
      ParameterInfo parameter;
      parameter.module = strings_.intern(module);
      parameter.name = strings_.intern(std::string(module) + "." + std::string(own));
      parameter.is_buffer = is_buffer;
      info.parameters.push_back(parameter);
      return static_cast<uint32_t>(info.parameters.size() - 1);
    });
  }
  void watch(Pointer pointer, uint32_t index) {
    push(EventKind::kParameter, pointer, 0, static_cast<uint64_t>(size(pointer)), index);
  }
  // A block that is a watched parameter from the beginning.
  Pointer parameter(int64_t bytes, std::string_view module, std::string_view own = "weight") {
    const Pointer pointer = adopt(bytes);
    watch(pointer, name_parameter(module, own));
    return pointer;
  }
  void gradient(Pointer pointer, Pointer of) { push(EventKind::kGradient, pointer, 0, of); }
  void state(Pointer pointer, Pointer of, std::string_view name) {
    push(EventKind::kState, pointer, 0, of, strings_.intern(name).value);
  }

  // ---- spans

  void op(std::string_view name, const Op& op, const Body& body = kNothing) {
    push(EventKind::kOpEnter, op.flops, op.torch_flops, op.elementwise, id(name), op.mode);
    for (const Pointer pointer : op.reads) see(EventKind::kRead, pointer);
    if (op.sequence_number >= 0) {
      push(EventKind::kForward, static_cast<uint64_t>(op.sequence_number), kForwardThread, 0,
           op.indices);
    }
    body();
    push(EventKind::kOpExit, 0, 0, 0, 0, op.failed ? event_flags::kException : 0);
  }
  void work_inside(std::string_view name, uint64_t flops, bool failed = false) {
    push(EventKind::kWork, flops, flops, 0, id(name), failed ? event_flags::kException : 0);
  }
  void node(std::string_view name, const Body& body = kNothing, int64_t sequence_number = -1,
            uint8_t mode = kBackward) {
    push(EventKind::kNodeEnter, static_cast<uint64_t>(sequence_number), kForwardThread, task_,
         id(name), mode);
    body();
    push(EventKind::kNodeExit);
  }
  void scope(std::string_view name, const Body& body) {
    push(EventKind::kScopeEnter, 0, 0, 0, id(name));
    body();
    push(EventKind::kScopeExit);
  }
  // What the walk over a graph finds, at the start of a backward pass.
  void edge(const Graph& graph) {
    walk(
        [&] {
          for (const Pointer pointer : graph.saved) see(EventKind::kSaved, pointer);
          for (const Pointer pointer : graph.leaves) see(EventKind::kLeaf, pointer);
        },
        graph.nested);
  }
  void walk(const Body& found, bool nested = false) {
    const uint8_t flags = nested ? event_flags::kNested : 0;
    push(EventKind::kEdgeBegin, ++task_, 0, 0, 0, flags);
    found();
    push(EventKind::kEdgeEnd, task_, 1, 0, 0, flags);
  }
  // A whole pass: its first node finds the graph, `body` runs inside that node.
  void backward(const Graph& graph, const Body& body = kNothing) {
    node("FirstBackward", [&] {
      edge(graph);
      body();
    });
    end_backward();
  }
  void end_backward(bool nested = false) {
    push(EventKind::kBackwardEnd, task_, 0, 0, 0, nested ? event_flags::kNested : 0);
  }
  void micro_step() { push(EventKind::kMicroStep); }
  void step_begin() {
    step_begin_ns_ = time_ns_ + step_ns_;
    push(EventKind::kStepBegin);
  }
  StepBooks step_end(uint8_t flags = 0) {
    push(EventKind::kStepEnd, 0, 0, 0, 0, flags);
    std::vector<StepBooks> closed = ledger_.take_closed_steps();
    if (closed.size() != 1) {
      ADD_FAILURE() << closed.size() << " steps closed instead of one";
      return {};
    }
    expect_closed(closed[0]);
    return std::move(closed[0]);
  }
  StepBooks step(const Body& body) {
    step_begin();
    body();
    return step_end();
  }

  // ---- what the script knows

  EventScript& on_thread(uint16_t thread) {
    thread_ = thread;
    return *this;
  }
  // Each event from here on comes so much after the one before.
  void set_pace(int64_t ns) { step_ns_ = ns; }
  int64_t size(Pointer pointer) const { return sizes_.at(pointer); }
  int64_t bytes() const { return allocator_bytes_; }
  int64_t time_ns() const { return time_ns_; }
  uint32_t id(std::string_view name) { return strings_.intern(name).value; }
  const std::string& text(StringId name) const { return strings_.text(name); }
  TensorTable& tensors() { return tensors_; }
  Ledger& ledger() { return ledger_; }
  // The allocator's bytes at each event of the run, by time.
  const std::map<int64_t, int64_t>& truth() const { return truth_; }

  // The bytes of a role in a module at a mark.
  int64_t cell(const MarkBook& mark, Role role, std::string_view module) const {
    for (const Cell& cell : mark.cells) {
      if (cell.role == role && text(cell.module) == module) return cell.bytes;
    }
    return 0;
  }
  // The row of an operator; fails the test when there is none.
  OperatorRow row(const StepBooks& books, Phase phase, std::string_view module,
                  std::string_view op) const {
    for (const OperatorRow& row : books.operators) {
      if (row.phase == phase && text(row.module) == module && text(row.op) == op) return row;
    }
    ADD_FAILURE() << "no row of " << op << " in '" << module << "', " << key(phase);
    return {};
  }

 private:
  static constexpr uint64_t kForwardThread = 7;

  void expect_closed(const StepBooks& books) const {
    ASSERT_EQ(books.devices.size(), 1u);
    const DeviceBooks& device = books.devices[0];
    int64_t highest = 0;
    const auto first = truth_.find(step_begin_ns_);
    for (auto at = first; at != truth_.end(); ++at) highest = std::max(highest, at->second);
    int peaks = 0;
    for (const MarkBook& mark : device.marks) {
      const std::string name(key(mark.mark));
      const auto now = truth_.find(step_begin_ns_ + mark.time_ns);
      ASSERT_NE(now, truth_.end()) << name;
      EXPECT_EQ(mark.bytes, now->second) << name;
      EXPECT_EQ(mark.allocator_bytes, now->second) << name;
      EXPECT_EQ(sum(mark.roles), now->second) << name;
      RoleBytes cells{};
      for (const Cell& cell : mark.cells) cells[static_cast<size_t>(cell.role)] += cell.bytes;
      EXPECT_EQ(cells, mark.roles) << name;
      if (mark.mark == Mark::kPeak) {
        ++peaks;
        EXPECT_EQ(mark.bytes, highest);
      }
    }
    EXPECT_EQ(peaks, 1);
    EXPECT_EQ(device.largest_difference, 0);
    int64_t before = -1;
    for (const TimelinePoint& point : device.timeline) {
      const auto now = truth_.find(step_begin_ns_ + point.time_ns);
      ASSERT_NE(now, truth_.end());
      EXPECT_EQ(sum(point.roles), now->second) << "at " << point.time_ns;
      for (const int64_t bytes : point.roles) EXPECT_GE(bytes, 0) << "at " << point.time_ns;
      EXPECT_GE(point.time_ns, before);
      before = point.time_ns;
    }
    if (!books.detailed) return;
    int64_t blocks = 0;
    for (const BlockRow& row : device.peak_blocks) blocks += row.bytes * row.count;
    EXPECT_EQ(blocks, highest);
  }

  StringTable strings_;
  TensorTable tensors_{strings_};
  RunDirectory directory_;
  Ledger ledger_;
  std::map<Pointer, int64_t> sizes_;
  std::map<int64_t, int64_t> truth_;
  int64_t allocator_bytes_ = 0;
  uint64_t sequence_ = 0;
  int64_t time_ns_ = 1'000'000;
  int64_t step_ns_ = 10;
  int64_t step_begin_ns_ = 0;
  uint64_t task_ = 0;
  Pointer next_pointer_ = 0x10000;
  uint16_t thread_ = 0;
};

// The n-th mark of this kind in a step; fails the test when there is none.
inline MarkBook mark_of(const StepBooks& books, Mark mark, size_t n = 0) {
  if (!books.devices.empty()) {
    for (const MarkBook& book : books.devices[0].marks) {
      if (book.mark == mark && n-- == 0) return book;
    }
  }
  ADD_FAILURE() << "no mark " << key(mark);
  return {};
}
inline size_t count_marks(const StepBooks& books, Mark mark) {
  size_t count = 0;
  for (const MarkBook& book : books.devices[0].marks) count += book.mark == mark;
  return count;
}
inline int64_t bytes_of(const MarkBook& mark, Role role) {
  return mark.roles[static_cast<size_t>(role)];
}
// The block row of so many bytes at the peak; fails the test when there is none.
inline BlockRow block_of(const StepBooks& books, int64_t bytes) {
  for (const BlockRow& row : books.devices[0].peak_blocks) {
    if (row.bytes == bytes) return row;
  }
  ADD_FAILURE() << "no block of " << bytes << " bytes at the peak";
  return {};
}

}  // namespace tally::test
