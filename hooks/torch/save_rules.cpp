// SPDX-License-Identifier: Apache-2.0
#include "hooks/torch/save_rules.h"

#include <algorithm>
#include <iterator>

#include "hooks/torch/work_rules.h"

namespace tally::hooks {
namespace {

template <typename... Inputs>
constexpr uint32_t needs(Inputs... inputs) {
  return ((uint32_t{1} << inputs) | ...);
}
constexpr Save in(uint8_t index, uint32_t needed = 0) { return {SavedFrom::kInput, index, needed}; }
constexpr Save copy(uint8_t index, uint32_t needed = 0) {
  return {SavedFrom::kCopy, index, needed};
}
constexpr Save out(uint8_t index) { return {SavedFrom::kOutput, index, 0}; }

constexpr SaveRow kRows[] = {
#include "hooks/torch/save_rules_table.inc"
};

constexpr bool by_name(const SaveRow& left, const SaveRow& right) {
  return std::string_view(left.name) < std::string_view(right.name);
}
static_assert(std::is_sorted(std::begin(kRows), std::end(kRows), by_name));

bool requires_grad(const c10::IValue& value) noexcept {
  if (value.isTensor()) return value.toTensor().defined() && value.toTensor().requires_grad();
  if (!value.isList()) return false;
  for (const c10::IValue& element : value.toListRef()) {
    if (requires_grad(element)) return true;
  }
  return false;
}

bool any_requires_grad(uint32_t mask, c10::ArrayRef<const c10::IValue> inputs) noexcept {
  for (size_t i = 0; i < inputs.size() && (mask >> i) != 0; ++i) {
    if ((mask >> i & 1) && requires_grad(inputs[i])) return true;
  }
  return false;
}

bool fits(const SaveRow& row, c10::ArrayRef<const c10::IValue> inputs) noexcept {
  for (size_t i = 0; i < inputs.size(); ++i) {
    switch (row.kinds[i]) {
      case 'T':
        if (!inputs[i].isTensor()) return false;
        break;
      case '?':
        if (!inputs[i].isTensor() && !inputs[i].isNone()) return false;
        break;
      case 'L':
        if (!inputs[i].isList()) return false;
        break;
      case '.':
        if (inputs[i].isTensor()) return false;
        break;
      default:
        return false;  // the row's overload has fewer inputs
    }
  }
  return row.kinds[inputs.size()] == '\0';
}

}  // namespace

SaveRule find_save_rule(std::string_view operator_name) noexcept {
  SaveRule rule;
  if (operator_name.starts_with("aten::")) {
    const std::string_view name = operator_name.substr(6);
    const auto* first = std::lower_bound(
        std::begin(kRows), std::end(kRows), name,
        [](const SaveRow& row, std::string_view wanted) { return row.name < wanted; });
    const auto* last = first;
    while (last != std::end(kRows) && last->name == name) ++last;
    rule.rows = first;
    rule.count = static_cast<uint32_t>(last - first);
  }
  rule.composite = operator_form(operator_name) == OperatorForm::kComposite;
  return rule;
}

const SaveRow* saving_overload(const SaveRule& rule,
                               c10::ArrayRef<const c10::IValue> inputs) noexcept {
  if (rule.composite) {  // rows of compositions are for CUDA, where some have a kernel
    if (inputs.empty() || !inputs[0].isTensor() || !inputs[0].toTensor().defined()) return nullptr;
    if (!inputs[0].toTensor().is_cuda()) return nullptr;
  }
  for (uint32_t i = 0; i < rule.count; ++i) {
    const SaveRow& row = rule.rows[i];
    if (fits(row, inputs)) return any_requires_grad(row.differentiable, inputs) ? &row : nullptr;
  }
  return nullptr;
}

bool detail::is_needed(const Save& save, c10::ArrayRef<const c10::IValue> inputs) noexcept {
  return save.needed == 0 || any_requires_grad(save.needed, inputs);
}

}  // namespace tally::hooks
