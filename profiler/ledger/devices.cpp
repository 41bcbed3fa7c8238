// SPDX-License-Identifier: Apache-2.0
// The devices that the ledger keeps books of, and the events of a caching allocator.
#include <utility>

#include "profiler/ledger/ledger.h"

namespace tally {

using namespace event_flags;

DeviceLedger& Ledger::device(const Event& event) {
  const auto index = static_cast<DeviceIndex>(event.id);
  while (devices_.size() <= index) devices_.emplace_back();
  auto& found = devices_[index];
  if (!found) {
    found = std::make_unique<DeviceLedger>(options_.timeline_points);
    found->index = index;
    if (step_open_) {
      found->step.begin(0, 0, where(thread(event)), event.sequence, step_begin_ns_);
      add_mark(Mark::kStart, event, *found);
    }
  }
  return *found;
}

// Evidence names the device of its tensor beside the tensor.
DeviceIndex Ledger::device_of_storage(const Event& event) const {
  const auto index = static_cast<DeviceIndex>(event.b >> 32);
  return index < devices_.size() && devices_[index] ? index : 0;
}

void Ledger::on_device_event(const Event& event) {
  DeviceLedger& of = device(event);
  const auto bytes = static_cast<int64_t>(event.b);
  switch (event.kind) {
    case EventKind::kFreeRequested:
      ++of.events;
      of.caching.request_free(event.a);
      break;
    case EventKind::kSegment:
      ++of.events;
      of.hook_reserved = static_cast<int64_t>(event.c);
      if (event.flags & kGone) {
        of.caching.remove_segment(event.a, bytes, event.flags & kMapped);
      } else {
        of.caching.add_segment(event.a, bytes, event.flags & kMapped);
      }
      break;
    case EventKind::kPlaced:
      ++of.events;
      of.caching.place(event.a, bytes);
      break;
    case EventKind::kAllocatorRules:
      of.caching.set_rules(event.a, event.b);
      break;
    case EventKind::kAllocatorCount:
      of.bytes_correction = static_cast<int64_t>(event.a);
      of.reserved_correction = bytes;
      of.has_statistics = true;
      if (event.c != ~uint64_t{0}) {
        of.outside_bytes = static_cast<int64_t>(event.c) - of.caching.reserved_bytes();
      }
      break;
    case EventKind::kAllocatorUse:
      of.allocated_bytes = static_cast<int64_t>(event.a);
      of.active_bytes = bytes;
      of.statistics_at = event.c;
      break;
    case EventKind::kOutOfMemory: {
      // A program that tries ever smaller batches fails often in one step: the first ones tell.
      constexpr int kMostOomMarks = 8;
      const StringId source = std::exchange(thread(event).source, StringId{});
      if (!step_open_ || of.oom_marks++ >= kMostOomMarks) break;
      MarkBook& book = add_mark(Mark::kOom, event, of);
      book.wanted_bytes = static_cast<int64_t>(event.a);
      book.limit_bytes = static_cast<int64_t>(event.c);
      book.source = source;
      failed_at_ = event.sequence;
      closed_.push_back(so_far(event, book));
      break;
    }
    default:
      break;
  }
}

}  // namespace tally
