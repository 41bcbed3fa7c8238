// SPDX-License-Identifier: Apache-2.0
// A step's begin, marks and end.
#include <algorithm>
#include <utility>

#include "profiler/ledger/ledger.h"

namespace tally {

using namespace event_flags;

MarkBook& Ledger::add_mark(Mark mark, const Event& event, DeviceLedger& device) {
  MarkBook& book =
      device.step.add_mark(mark, device.live_bytes, device.allocator_bytes(event.allocator_bytes),
                           where(thread(event), device));
  book.caching = device.caching_book();
  return book;
}

void Ledger::add_mark(Mark mark, const Event& event) {
  for (auto& device : devices_) {
    if (device) add_mark(mark, event, *device);
  }
}

void Ledger::on_step_begin(const Event& event) {
  if (step_open_) return;
  step_open_ = true;
  step_begin_ns_ = now_ns_;
  step_thread_ = event.thread;
  step_events_ = 1;
  micro_steps_ = micro_step_ = 0;
  failed_at_ = 0;
  tokens_ = micro_step_tokens_ = 0;
  phases_.clear();
  regions_.begin_step();
  ranges_.clear();
  for (auto& each : threads_) {
    for (Frame& frame : each->frames) frame.range = 0;
  }
  is_counted_ = false;
  kernels_.take();
  expected_saves_.clear();
  has_expected_saves_ = false;
  foreign_.clear();
  ThreadState& state = thread(event);
  if (phases_.empty()) move_phase_span(state.phase);
  for (auto& of : devices_) {
    if (!of) continue;
    of->over_budget = false;
    of->oom_marks = 0;
    of->step.begin(of->live_bytes, of->allocator_bytes(event.allocator_bytes), where(state, *of),
                   event.sequence, step_begin_ns_, of->caching_book());
  }
  add_mark(Mark::kStart, event);
}

void Ledger::on_step_end(const Event& event) {
  if (!step_open_) return;
  thread(event);
  const bool is_rest = options_.infer_steps && step_index_ > 0 && micro_steps_ == 0;
  if ((event.flags & kDiscarded) || is_rest) return discard_step();
  // A step that never ran backward still counts what its embedding was given.
  if (micro_steps_ == 0) tokens_ = micro_step_tokens_;
  add_mark(Mark::kEnd, event);
  std::vector<int64_t> adopted(devices_.size());
  blocks_.for_each([this, &adopted](Block& block) {
    if ((block.evidence & evidence::kAdopted) && block.born_ns >= last_step_end_ns_) {
      adopted[block.device] += block.bytes;
    }
    devices_[block.device]->step.settle(
        block, failed_at_ ? role_so_far(block) : role_of(block, true), Timeline::kForever);
  });
  last_step_end_ns_ = now_ns_;
  had_update_ |= failed_at_ == 0 && std::any_of(phases_.begin(), phases_.end(), [](const PhaseSpan& span) {
    return span.phase == Phase::kOptimizer;
  });
  StepBooks books;
  books.index = step_index_;
  books.start_ns = step_begin_ns_;
  books.duration_ns = now_ns_ - step_begin_ns_;
  books.micro_steps = micro_steps_;
  books.tokens = tokens_;
  int64_t peak = 0;
  for (const auto& of : devices_) {
    if (of) peak = std::max(peak, of->step.peak_bytes());
  }
  // A new highest peak by less than a hundredth repeats what is kept already.
  books.detailed = step_index_ < options_.detailed_steps ||
                   peak > highest_detailed_peak_ + highest_detailed_peak_ / 100;
  if (books.detailed) highest_detailed_peak_ = std::max(highest_detailed_peak_, peak);
  std::vector<int64_t> foreign(devices_.size());
  foreign_.for_each(
      [&foreign](uint64_t, const Storage& storage) { foreign[storage.device] += storage.bytes; });
  for (auto& of : devices_) {
    if (!of) continue;
    DeviceBooks device_books = of->step.finish(books.detailed, tensors_);
    device_books.device = of->index;
    device_books.foreign_bytes = foreign[of->index];
    device_books.adopted_bytes = adopted[of->index];
    books.devices.push_back(std::move(device_books));
  }
  if (!phases_.empty()) phases_.back().end_ns = books.duration_ns;
  std::erase_if(phases_, [](const PhaseSpan& span) { return span.end_ns <= span.begin_ns; });
  books.phases = std::exchange(phases_, {});
  add_ranges_to_operators();
  books.operators = operators_.take();
  books.kernels = kernels_.take();
  regions_.finish(books);
  if (!books.detailed) {
    books.regions.clear();
    books.units.clear();
  }
  books.events = step_events_;
  books.unmatched_frees = unmatched_frees_;
  books.profiler_ns = static_cast<int64_t>(event.a);
  closed_.push_back(std::move(books));
  blocks_.for_each([this](Block& block) { carry_over(block); });
  forward_.next_step();
  step_open_ = false;
  ++step_index_;
  for (auto& state : threads_) {
    if (!state->works()) state->phase = Phase::kOther;
  }
}

// No backward pass has begun for it, so nothing proves what autograd holds of it: what the rules of
// the operators that ran say it will.
Role Ledger::role_so_far(const Block& block) {
  const Role role = role_of(block, true);
  // The state is there since an earlier update; what this one has made was not meant to stay.
  constexpr uint32_t kNamed = evidence::kParameter | evidence::kBuffer | evidence::kState | evidence::kGradient;
  if (had_update_ && block.born_phase == Phase::kOptimizer && !block.carried && !(block.evidence & kNamed)) {
    return Role::kTemporaryOptimizer;
  }
  if (role != Role::kUnattributed || block.carried) return role;
  const Storage* expected = expected_saves_.find(block.pointer);
  return expected && expected->seen > block.born ? Role::kActivation
                                                 : role;  // else of one that is gone
}

// The open step as a failed allocation finds it: what lives now, in the role that is proved so far.
StepBooks Ledger::so_far(const Event& event, const MarkBook& oom) {
  StepBooks books;
  books.provisional = books.detailed = true;
  books.index = step_index_;
  books.start_ns = step_begin_ns_;
  books.duration_ns = now_ns_ - step_begin_ns_;
  books.micro_steps = micro_steps_;
  books.events = step_events_;
  for (const auto& of : devices_) {
    if (!of) continue;
    DeviceStep now(options_.timeline_points);
    now.begin(of->live_bytes, of->allocator_bytes(event.allocator_bytes), where(thread(event), *of), event.sequence,
              step_begin_ns_, of->caching_book());
    MarkBook& mark = now.add_mark(Mark::kOom, of->live_bytes, of->allocator_bytes(event.allocator_bytes),
                                  where(thread(event), *of));
    mark.caching = of->caching_book();
    if (of->index == static_cast<DeviceIndex>(event.id)) {
      mark.wanted_bytes = oom.wanted_bytes;
      mark.limit_bytes = oom.limit_bytes;
      mark.source = oom.source;
    }
    blocks_.for_each([&](const Block& block) {
      if (block.device != of->index) return;
      Block copy = block;
      copy.first_mark = copy.born_position = 0;
      now.settle(copy, role_so_far(block), Timeline::kForever);
    });
    books.devices.push_back(now.finish(true, tensors_));
    books.devices.back().device = of->index;
  }
  books.phases = phases_;
  if (!books.phases.empty()) books.phases.back().end_ns = books.duration_ns;
  return books;
}

void Ledger::begin_next_step(ThreadState& state, const Event& event) {
  state.phase = Phase::kOther;
  Event boundary = event;
  boundary.flags = 0;
  boundary.a = 0;
  on_step_end(boundary);
  on_step_begin(boundary);
}

// What was counted is dropped; the blocks go on as after any step.
void Ledger::discard_step() {
  for (auto& of : devices_) {
    if (of) of->step.finish(false, tensors_);
  }
  operators_.take();
  blocks_.for_each([this](Block& block) { carry_over(block); });
  step_open_ = false;
  for (auto& state : threads_) {
    state->step = ~uint64_t{0};
    if (!state->works()) state->phase = Phase::kOther;
  }
}

std::vector<StepBooks> Ledger::take_closed_steps() { return std::exchange(closed_, {}); }

}  // namespace tally
