// SPDX-License-Identifier: Apache-2.0
#include "hooks/cupti/alignment.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/function_schema.h>

#include <algorithm>
#include <string_view>

namespace tally::hooks::cupti {
namespace {

bool is_plain(const c10::IValue& value) {
  if (!value.isTensor() || !value.toTensor().defined()) return false;
  const at::Tensor& tensor = value.toTensor();
  return tensor.layout() == at::kStrided && !tensor.is_nested() &&
         !tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides();
}

}  // namespace

uint32_t alignment_of(const at::RecordFunction& function) noexcept {
  try {
    // What a convolution multiplies is not in the sizes of its inputs alone.
    if (std::string_view(function.name()).find("conv") != std::string_view::npos) return 0;
    int64_t fewest_dims = 0;
    for (const c10::IValue& value : function.inputs()) {
      if (!is_plain(value) || value.toTensor().dim() < 2) continue;
      const int64_t dims = value.toTensor().dim();
      fewest_dims = fewest_dims == 0 ? dims : std::min(fewest_dims, dims);
    }
    uint64_t sizes = 0;  // a bit is set where one of them has it
    for (const c10::IValue& value : function.inputs()) {
      if (!is_plain(value) || value.toTensor().dim() < 2) continue;
      const c10::IntArrayRef shape = value.toTensor().sizes();
      int64_t rows = shape[shape.size() - 2];
      // Beside a plain matrix the others are a stack of rows: linear(x, weight).
      if (fewest_dims == 2) {
        for (size_t i = 0; i + 2 < shape.size(); ++i) rows *= shape[i];
      }
      sizes |= static_cast<uint64_t>(rows) | static_cast<uint64_t>(shape.back());
    }
    constexpr uint64_t kMost = 1 << 20;  // so that nothing is too large for the result
    return sizes == 0 ? 0 : static_cast<uint32_t>((sizes | kMost) & (~(sizes | kMost) + 1));
  } catch (...) {  // a tensor that does not tell its sizes
    return 0;
  }
}

bool is_causal(const at::RecordFunction& function) noexcept {
  try {
    const auto schema = function.operator_schema();
    if (!schema) return false;
    const auto index = schema->argumentIndexWithName("is_causal");
    const auto inputs = function.inputs();
    return index && static_cast<size_t>(*index) < inputs.size() && inputs[*index].isBool() &&
           inputs[*index].toBool();
  } catch (...) {
    return false;
  }
}

}  // namespace tally::hooks::cupti
