// SPDX-License-Identifier: Apache-2.0
#include "hooks/torch/operator_callbacks.h"

#include <cstddef>
#include <cstring>

namespace tally::hooks {
namespace {

// Where a SmallVector has its elements while they fit into it.
struct InlineElements {
  void* begin;
  uint32_t size;
  uint32_t capacity;
  OperatorCallbacks::Callback elements[at::kSoftLimitCallbacks];
};
static_assert(sizeof(InlineElements) == sizeof(at::StepCallbacks::StartEndPairs));

template <typename T>
T read(const char* address) noexcept {
  T value;
  std::memcpy(&value, address, sizeof(value));
  return value;
}

const char* bytes_of(const auto& object) noexcept { return reinterpret_cast<const char*>(&object); }

// Whether the bytes at `address` are a list for operators of this thread that holds `ours` alone.
bool is_list(const char* address, OperatorCallbacks::Callback ours) noexcept {
  const at::StepCallbacks example;
  const auto place = [&](const auto& member) {
    return address + (bytes_of(member) - bytes_of(example));
  };
  const char* const vector = place(example.callbacks_);
  const auto callbacks = read<InlineElements>(vector);
  return callbacks.begin == vector + offsetof(InlineElements, elements) && callbacks.size == 1 &&
         callbacks.capacity == at::kSoftLimitCallbacks &&
         callbacks.elements[0].start_ == ours.start_ && callbacks.elements[0].end_ == ours.end_ &&
         read<uint64_t>(place(example.thread_id_)) == at::RecordFunction::currentThreadId() &&
         read<at::RecordScope>(place(example.scope_)) == at::RecordScope::FUNCTION;
}

}  // namespace

void OperatorCallbacks::find(Callback ours) noexcept {
  // Operators are the first scope, and what comes before its list takes less than 400 bytes. The
  // object goes on for thousands: the lists of the other scopes and a std::mt19937.
  constexpr size_t kLookAt = 512;
  list_ = nullptr;
  are_off_ = false;
  ours_ = ours;
  thread_id_ = at::RecordFunction::currentThreadId();
  auto* const object =
      reinterpret_cast<char*>(const_cast<at::RecordFunctionTLS*>(&at::get_record_function_tls_()));
  for (size_t at = 0; at < kLookAt; at += alignof(at::StepCallbacks)) {
    if (!is_list(object + at, ours)) continue;
    list_ = reinterpret_cast<at::StepCallbacks*>(object + at);
    if (works()) return;
    list_ = nullptr;
  }
}

// LibTorch goes by this list.
bool OperatorCallbacks::works() noexcept {
  turn_off();
  const bool were_off = !at::getStepCallbacksUnlessEmpty(at::RecordScope::FUNCTION);
  turn_on();
  const auto now = at::getStepCallbacksUnlessEmpty(at::RecordScope::FUNCTION);
  return were_off && now && now->callbacks_.size() == 1 &&
         now->callbacks_[0].start_ == ours_.start_;
}

}  // namespace tally::hooks
