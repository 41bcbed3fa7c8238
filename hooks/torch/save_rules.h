// SPDX-License-Identifier: Apache-2.0
// The theory of activations: which tensors an operator's derivative formula keeps for backward,
// from the operator's name, inputs and outputs. Called by the RecordFunction callback on the
// operator's thread, in the first steps of a run. Never looks at the autograd graph, so that
// measurement and theory are independent; never allocates, throws or keeps a tensor (the first
// find_save_rule() reads the dispatcher's list of operators).
//
// RecordFunction destroys the inputs before the kernel runs, so the work is in two halves:
//   start:  const SaveRow* row = saving_overload(rule, fn.inputs());
//           visit_saved_inputs(row, fn.inputs(), visit);        // if row and fn.seqNr() >= 0
//   end:    visit_saved_outputs(row, fn.outputs(), visit);      // the same row
// The start is also the only moment at which an in-place operator's `self` still tells whether it
// required grad before.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <cstdint>
#include <string_view>

namespace tally::hooks {

enum class SavedFrom : uint8_t {
  kInput,   // the tensor handed to the visitor is what autograd keeps
  kOutput,  // the same, made by this operator
  kCopy,    // autograd keeps a clone of it, made before an in-place operator overwrites it
};

// One tensor (or list of tensors) that a formula keeps.
struct Save {
  SavedFrom from = SavedFrom::kInput;
  uint8_t index = 0;  // of the input or output
  uint32_t needed =
      0;  // kept only if one of these inputs requires grad; 0: whenever there is a node
};

// One overload. Rows of save_rules_table.inc.
struct SaveRow {
  static constexpr int kMost = 16;
  const char* name = nullptr;   // without "aten::"
  const char* node = nullptr;   // the autograd node it makes, as Node::name() prints it
  const char* kinds = nullptr;  // one letter an input: T tensor, ? optional tensor, L list of
                                // tensors, . anything else
  uint32_t differentiable = 0;  // inputs that the formula gives gradients for
  Save saves[kMost + 1] = {};
  uint8_t count = 0;
};

// A small value, found once for each operator name and kept by the caller.
struct SaveRule {
  const SaveRow* rows = nullptr;  // the overloads of the name
  uint32_t count = 0;
  bool composite = false;  // saves nothing itself (on a CPU): the operators it is made of do

  // False: we have no theory of this operator; if it makes a node, count it by name.
  constexpr bool known() const noexcept { return count != 0 || composite; }
};

// By RecordFunction's name ("aten::addmm").
SaveRule find_save_rule(std::string_view operator_name) noexcept;

// The overload that these inputs are of, if calling it in grad mode makes a node (an input that the
// formula gives a gradient for requires grad); else nullptr. Ask only where the operator is
// dispatched to autograd (RecordFunction::seqNr() >= 0): inside kernels nothing is saved.
const SaveRow* saving_overload(const SaveRule& rule,
                               c10::ArrayRef<const c10::IValue> inputs) noexcept;

namespace detail {
// True if the condition of a save holds for these inputs.
bool is_needed(const Save& save, c10::ArrayRef<const c10::IValue> inputs) noexcept;

template <typename Visitor>
void visit_tensors(const c10::IValue& value, SavedFrom from, Visitor& visit) {
  if (value.isTensor()) {
    if (value.toTensor().defined()) visit(value.toTensor(), from);
  } else if (value.isList()) {
    for (const c10::IValue& element : value.toListRef()) {
      if (element.isTensor() && element.toTensor().defined()) visit(element.toTensor(), from);
    }
  }
}
}  // namespace detail

// Calls visit(const at::Tensor&, SavedFrom) for each defined tensor of the inputs that the node
// keeps: parameters and wrapped numbers included, the same tensor perhaps twice. At the start.
template <typename Visitor>
void visit_saved_inputs(const SaveRow* row, c10::ArrayRef<const c10::IValue> inputs,
                        Visitor&& visit) {
  if (!row) return;
  for (int i = 0; i < row->count; ++i) {
    const Save& save = row->saves[i];
    if (save.from == SavedFrom::kOutput || save.index >= inputs.size()) continue;
    if (detail::is_needed(save, inputs))
      detail::visit_tensors(inputs[save.index], save.from, visit);
  }
}

// The same of the outputs. At the end.
template <typename Visitor>
void visit_saved_outputs(const SaveRow* row, c10::ArrayRef<const c10::IValue> outputs,
                         Visitor&& visit) {
  if (!row) return;
  for (int i = 0; i < row->count; ++i) {
    const Save& save = row->saves[i];
    if (save.from != SavedFrom::kOutput || save.index >= outputs.size()) continue;
    detail::visit_tensors(outputs[save.index], save.from, visit);
  }
}

// Both at once, for a caller that holds the inputs. Returns whether the call makes a node.
template <typename Visitor>
bool expected_saves(const SaveRule& rule, c10::ArrayRef<const c10::IValue> inputs,
                    c10::ArrayRef<const c10::IValue> outputs, Visitor&& visit) {
  const SaveRow* row = saving_overload(rule, inputs);
  visit_saved_inputs(row, inputs, visit);
  visit_saved_outputs(row, outputs, visit);
  return row != nullptr;
}

}  // namespace tally::hooks
