// SPDX-License-Identifier: Apache-2.0
// A stream of events as a training step of a transformer writes it; what benchmarks feed to the
// ledger.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "profiler/core/event.h"
#include "profiler/core/run_info.h"

namespace tally::benchmarks {

namespace flags = event_flags;

// The events of one step of `layers` blocks of 12 operators, in the proportions of a real one. What
// it allocates it frees, so the same events are a step as often as they are applied.
class StepOfATransformer {
 public:
  StepOfATransformer(StringTable& strings, RunDirectory& directory, int layers) : layers_(layers) {
    for (int layer = 0; layer < layers; ++layer) {
      const StringId module = strings.intern("h." + std::to_string(layer));
      directory.update([&](RunInfo& info) { info.parameters.emplace_back().module = module; });
      ops_.push_back(strings.intern("aten::op" + std::to_string(layer % 10)).value);
    }
    weights_ = next_;
    for (int layer = 0; layer < layers; ++layer) alloc();
    before_ = std::move(events_);
    events_.clear();
    push(EventKind::kStepBegin);
    for (int layer = 0; layer < layers; ++layer) {
      push(EventKind::kParameter, weight(layer), 1, 4096, static_cast<uint32_t>(layer));
    }
    forward();
    backward();
    update();
    push(EventKind::kStepEnd);
  }
  const std::vector<Event>& before() const { return before_; }
  const std::vector<Event>& events() const { return events_; }

 private:
  static constexpr int kOps = 12;
  static constexpr uint64_t kBytes = 4096;

  Event& push(EventKind kind, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0, uint32_t id = 0,
              uint8_t mode = 0) {
    Event& event = events_.emplace_back();
    event.kind = kind;
    event.a = a;
    event.b = b;
    event.c = c;
    event.id = id;
    event.flags = mode;
    event.allocator_bytes = bytes_;
    return event;
  }
  uint64_t weight(int layer) const { return weights_ + static_cast<uint64_t>(layer) * 64; }
  uint64_t alloc() {
    bytes_ += kBytes;
    push(EventKind::kAlloc, next_, kBytes);
    return std::exchange(next_, next_ + 64);
  }
  void free(uint64_t pointer) {
    bytes_ -= kBytes;
    push(EventKind::kFree, pointer, kBytes);
  }
  void enter(int layer, uint8_t mode) {
    push(EventKind::kOpEnter, 1000, 1000, 0, ops_[static_cast<size_t>(layer)], mode);
  }
  void forward() {
    uint64_t input = weight(0);
    for (int layer = 0; layer < layers_; ++layer) {
      for (int op = 0; op < kOps; ++op) {
        enter(layer, flags::kGradMode | flags::kNeedsGrad);
        push(EventKind::kRead, input, 2, kBytes);
        if (op % 3 == 0) push(EventKind::kRead, weight(layer), 3, kBytes);
        push(EventKind::kForward, static_cast<uint64_t>(layer * kOps + op), 1);
        input = alloc();
        if (op % 4 == 3) free(alloc());
        push(EventKind::kOpExit);
        outputs_.push_back(input);
      }
    }
  }
  void backward() {
    for (int node = layers_ * kOps - 1; node >= 0; --node) {
      const int layer = node / kOps;
      push(EventKind::kNodeEnter, static_cast<uint64_t>(node), 1, 7, ops_[0], flags::kInGraphTask);
      if (node == layers_ * kOps - 1) edge();
      push(EventKind::kGradientFlow, outputs_[static_cast<size_t>(node)], 2, kBytes);
      enter(layer, flags::kInGraphTask);
      const uint64_t gradient = alloc();
      push(EventKind::kOpExit);
      free(outputs_[static_cast<size_t>(node)]);
      if (node % kOps == 0) {
        push(EventKind::kGradient, gradient, 2, weight(layer));
        gradients_.push_back(gradient);
      } else {
        free(gradient);
      }
      push(EventKind::kNodeExit);
    }
    push(EventKind::kBackwardEnd, 7);
  }
  void edge() {
    push(EventKind::kEdgeBegin, 7);
    for (const uint64_t output : outputs_) push(EventKind::kSaved, output, 2, kBytes, ops_[0]);
    for (int layer = 0; layer < layers_; ++layer) push(EventKind::kLeaf, weight(layer), 3, kBytes);
    push(EventKind::kEdgeEnd, 7, outputs_.size());
  }
  void update() {
    for (int layer = 0; layer < layers_; ++layer) {
      for (int op = 0; op < 8; ++op) {
        enter(layer, 0);
        push(EventKind::kRead, weight(layer), 3, kBytes);
        if (op % 2) free(alloc());
        push(EventKind::kOpExit);
      }
      free(gradients_[static_cast<size_t>(layer)]);
    }
  }

  const int layers_;
  std::vector<uint32_t> ops_;
  std::vector<Event> before_;
  std::vector<Event> events_;
  std::vector<uint64_t> outputs_;
  std::vector<uint64_t> gradients_;
  uint64_t weights_ = 0;
  uint64_t next_ = 0x7f0000000000;
  int64_t bytes_ = 0;
};

}  // namespace tally::benchmarks
