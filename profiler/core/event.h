// SPDX-License-Identifier: Apache-2.0
// The records that hooks write and the ledger reads: plain, trivially copyable, no strings. This
// list is the map of the product: what is not here, the books cannot know.
//
// Field use by kind (unused fields are 0); `name` and `line` are StringIds, `tensor` is a TensorId (dtype and
// shape) with the DeviceIndex of its storage in the upper 32 bits, `pointer` the start of a storage,
// `device` a DeviceIndex. Counts (*) are of devices beside the CPU: the hook's own, this event
// included.
//
//   kind            a                b                c                 id      flags
//   kAlloc          pointer          bytes            live bytes *      device  kAdopted
//   kFree           pointer          bytes            live bytes *      device  -
//   kOpEnter        FLOPs            torch FLOPs      elementwise       name    mode bits
//   kOpExit         -                -                -                 -       kException
//   kWork           FLOPs            torch FLOPs      elementwise       name    kException (operator inside another)
//   kForward        sequence number  forward thread   -                 indices -
//   kNodeEnter      sequence number  forward thread   graph task        name    mode bits
//   kNodeExit       -                -                -                 -       -
//   kRead           pointer          tensor           storage bytes     -       kForeign
//   kGradientFlow   pointer          tensor           storage bytes     -       kForeign
//   kEdgeBegin      graph task       -                -                 -       kNested
//   kSaved          pointer          tensor           storage bytes     name    kNumber, kPlain, kForeign
//   kLeaf           pointer          tensor           storage bytes     -       kForeign
//   kEdgeEnd        graph task       nodes            unreadable nodes  -       kNested
//   kBackwardEnd    graph task       -                -                 -       -
//   kGradient       pointer          tensor           parameter pointer -       -
//   kExpectedSave   pointer          tensor           storage bytes     name    -
//   kParameter      pointer          tensor           storage bytes     index   kForeign
//   kState          pointer          tensor           parameter pointer name    -
//   kInput          pointer          tensor           storage bytes     -       kForeign
//   kCommunication  pointer          tensor           storage bytes     -       kForeign
//   kKept           pointer          -                -                 -       -   (by a checkpoint)
//   kReused         -                -                 -                 -       -   (what the open operator would
//                                                                               compute was kept: it does not run)
//   kCast           pointer          -                -                 -       -   (of a parameter: the thread's
//                                                                               next block is autocast's copy)
//   kSource         pointer or 0     -                -                 line    -   (0: of the thread's next
//                                                                               kAlloc or kOutOfMemory)
//   kScopeEnter     -                -                -                 name    kUpdate, kForwardPass
//   kScopeExit      -                -                -                 -       -
//   kStepBegin      -                -                -                 -       -
//   kMicroStep      -                -                -                 -       -
//   kStepEnd        hook ns          -                -                 -       kException, kDiscarded
//
// Of a caching allocator, which cuts its blocks out of segments. Together with kAlloc and kFree they
// are the device's events, which kAllocatorUse counts.
//   kFreeRequested  pointer          -                -                 device  -   (its stream may still use it)
//   kSegment        address          bytes            reserved bytes *  device  kGone, kMapped
//   kPlaced         pointer          size of block    -                 device  -   (before its adopted kAlloc)
// What the allocator itself says, just before a mark.
//   kAllocatorRules max split size   roundings        -                 device  -   (CachingAllocator::set_rules)
//   kAllocatorCount requested bytes  reserved bytes   used of device    device  -   (a, b: less the hook's counts;
//                                                                               c: ~0 when not asked)
//   kAllocatorUse   allocated bytes  active bytes     device's events   device  -
//   kOutOfMemory    wanted           free on device   limit             device  -   (the CPU too)
//   kWorkspace      pointer          -                -                 device  -   (scratch memory of a library)
//
// Of hardware counters. A range is numbered in its step and belongs to the operator that is open.
//   kRange          range            alignment        -                 -       kCausal (the largest power of two that
//                                                                               divides the sizes of its matrices)
//   kCounted        range            value (a double) -                 what    -   (CountedQuantity)
//   kKernel         range            value (a double) calls             name    what   (CountedQuantity;
//                                                                               range ~0: no operator)
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "profiler/core/flop_format.h"

namespace tally {

enum class EventKind : uint8_t {
  kAlloc,
  kFree,
  kOpEnter,
  kOpExit,
  kWork,
  kForward,
  kNodeEnter,
  kNodeExit,
  kRead,
  kGradientFlow,
  kEdgeBegin,
  kSaved,
  kLeaf,
  kEdgeEnd,
  kBackwardEnd,
  kGradient,
  kExpectedSave,
  kParameter,
  kState,
  kInput,
  kScopeEnter,
  kScopeExit,
  kStepBegin,
  kMicroStep,
  kStepEnd,
  kFreeRequested,
  kSegment,
  kPlaced,
  kAllocatorRules,
  kAllocatorCount,
  kAllocatorUse,
  kOutOfMemory,
  kWorkspace,
  kRange,
  kCounted,
  kKernel,
  kCommunication,
  kSource,
  kKept,
  kReused,
  kCast,
};

// What is told of a range or a kernel; of kCounted and kKernel. Below these two: FLOPs of the
// FlopFormat of that number.
enum class CountedQuantity : uint32_t { kNanoseconds = kFlopFormatCount, kDramBytes };
inline constexpr size_t kCountedQuantities = kFlopFormatCount + 2;
constexpr CountedQuantity quantity_of(FlopFormat format) { return static_cast<CountedQuantity>(format); }

namespace event_flags {
// Mode bits of kOpEnter and kNodeEnter.
inline constexpr uint8_t kGradMode = 1;      // autograd records
inline constexpr uint8_t kInGraphTask = 2;   // inside a backward pass
inline constexpr uint8_t kNeedsGrad = 4;     // an input requires a gradient
inline constexpr uint8_t kReadsLeaf = 8;     // such an input is a leaf: a parameter, most likely
inline constexpr uint8_t kWritesLeaf = 16;   // it is written in place: an update
// Bits of evidence.
inline constexpr uint8_t kAdopted = 1;   // alive before the session; seen now for the first time
inline constexpr uint8_t kForeign = 1;   // the storage bypasses the watched allocators
inline constexpr uint8_t kNumber = 2;    // a wrapped number (y * 2): 0 dimensions, not in saved_tensors_hooks
inline constexpr uint8_t kPlain = 4;     // held by a node as a plain tensor, not as a SavedVariable
inline constexpr uint8_t kNested = 8;    // a backward pass inside another (recomputation)
inline constexpr uint8_t kException = 16;  // it ended by one: the step; the operator (kWork then comes again)
inline constexpr uint8_t kDiscarded = 32;  // it was none: no books
// Bits of kScopeEnter.
inline constexpr uint8_t kUpdate = 1;       // an optimizer's step runs until the scope's end
inline constexpr uint8_t kForwardPass = 2;  // the call of a module that no other module made
// Bits of kRange.
inline constexpr uint8_t kCausal = 1;  // an attention that leaves out what the mask hides
// Bits of kSegment.
inline constexpr uint8_t kGone = 1;    // the segment was given back to the device
inline constexpr uint8_t kMapped = 2;  // a piece of an expandable segment
}  // namespace event_flags

struct Event {
  uint64_t sequence = 0;    // position in the order of all events; no gaps
  int64_t time_ns = 0;      // steady clock
  uint64_t a = 0;
  uint64_t b = 0;
  uint64_t c = 0;
  int64_t allocator_bytes = 0;  // the CPU allocator's own count, this event included
  uint32_t id = 0;
  uint16_t thread = 0;
  EventKind kind = EventKind::kAlloc;
  uint8_t flags = 0;
};
static_assert(std::is_trivially_copyable_v<Event> && sizeof(Event) == 56);

}  // namespace tally
