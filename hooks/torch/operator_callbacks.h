// SPDX-License-Identifier: Apache-2.0
// Turns a thread's RecordFunction callbacks for operators off, and on again, at the cost of a few
// instructions. Inside a kernel whose parts say nothing, LibTorch then neither boxes the inputs of
// each part nor calls us: of a step of small operators that is most of what a callback costs.
//
// at::enableRecordFunction() does the same, but builds the thread's lists for every scope anew,
// which costs as much as five parts do. So the list itself is emptied: an at::StepCallbacks that
// LibTorch keeps for the thread, in the object that at::get_record_function_tls_() is the beginning
// of. It is found by what must be in it and tried before it is used; where it is not found, nothing
// is ever off, and nothing but time is lost.
#pragma once

#include <ATen/record_function.h>

#include <cstdint>

namespace tally::hooks {

// Of one thread, and used by it alone.
class OperatorCallbacks {
 public:
  using Callback = at::StepCallbacks::StartEndPair;

  // While `ours` runs: finds the thread's list, if nothing but `ours` is in it. What the list was
  // before is forgotten.
  void find(Callback ours) noexcept;

  // Does nothing where there are other callbacks too: they see every operator.
  void turn_off() noexcept {
    if (!list_ || list_->callbacks_.size() != 1) return;
    list_->callbacks_.clear();
    list_->thread_id_ = kOff;
    are_off_ = true;
  }
  // Call it at the end of the operator at the latest.
  void turn_on() noexcept {
    are_off_ = false;
    // LibTorch builds the list anew when a callback comes or goes anywhere: then it is right as it
    // is, with or without ours.
    if (list_->thread_id_ != kOff) return;
    list_->thread_id_ = thread_id_;
    list_->callbacks_.push_back(ours_);
  }
  bool are_off() const noexcept { return are_off_; }

 private:
  static constexpr uint64_t kOff = ~uint64_t{0};  // no thread has this id

  bool works() noexcept;

  at::StepCallbacks* list_ = nullptr;
  Callback ours_ = {};
  uint64_t thread_id_ = 0;
  bool are_off_ = false;
};

}  // namespace tally::hooks
