// SPDX-License-Identifier: Apache-2.0
// How the FLOP formulas read an operator's inputs: shapes, flags and lists, answering "unknown"
// where there is nothing to read. Internal to work_rules.cpp, on whatever thread runs the operator;
// never allocates, throws or keeps a tensor.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <cstdint>

#include "hooks/torch/work_rules.h"

namespace tally::hooks::work {

using Inputs = c10::ArrayRef<const c10::IValue>;

struct Shape {
  c10::IntArrayRef sizes;
  bool known = false;  // defined, not nested, sizes are numbers
  bool dense = false;
  bool floating = false;

  int64_t rank() const { return static_cast<int64_t>(sizes.size()); }
  double at(int64_t i) const { return static_cast<double>(sizes[static_cast<size_t>(i)]); }
  double last() const { return at(rank() - 1); }
  double product(int64_t from = 0) const {
    double result = 1;
    for (int64_t i = from; i < rank(); ++i) result *= at(i);
    return result;
  }
};

inline Shape shape_of(const c10::IValue& value) {
  if (!value.isTensor()) return {};
  const at::Tensor& tensor = value.toTensor();
  if (!tensor.defined()) return {};
  const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  if (impl->has_symbolic_sizes_strides() || impl->is_nested()) return {};
  const auto type = c10::typeMetaToScalarType(impl->dtype());
  return {impl->sizes_default(), true, !impl->is_sparse() && !impl->is_sparse_compressed(),
          c10::isFloatingType(type) || c10::isComplexType(type)};
}
inline Shape shape_of(Inputs inputs, size_t index) {
  return index < inputs.size() ? shape_of(inputs[index]) : Shape{};
}

inline bool defined(Inputs inputs, int index) {
  return index >= 0 && static_cast<size_t>(index) < inputs.size() &&
         inputs[static_cast<size_t>(index)].isTensor() &&
         inputs[static_cast<size_t>(index)].toTensor().defined();
}

inline bool flag(Inputs inputs, int index, bool otherwise = false) {
  if (index < 0 || static_cast<size_t>(index) >= inputs.size()) return otherwise;
  const c10::IValue& value = inputs[static_cast<size_t>(index)];
  return value.isBool() ? value.toBool() : otherwise;
}

// The number for dimension i of a list such as stride; a list of one stands for all dimensions.
inline double entry(Inputs inputs, int index, int64_t i, double otherwise) {
  if (index < 0 || static_cast<size_t>(index) >= inputs.size()) return otherwise;
  const c10::IValue& value = inputs[static_cast<size_t>(index)];
  if (value.isInt()) return static_cast<double>(value.toInt());
  if (!value.isList()) return otherwise;
  const auto list = value.toListRef();
  if (list.empty()) return otherwise;
  const auto& element = list[list.size() == 1 ? 0 : static_cast<size_t>(i)];
  if (list.size() != 1 && static_cast<size_t>(i) >= list.size()) return otherwise;
  return element.isInt() ? static_cast<double>(element.toInt()) : otherwise;
}

inline double factor(Inputs inputs, size_t index, int64_t i) {
  if (index >= inputs.size() || !inputs[index].isList()) return 0;
  const auto list = inputs[index].toListRef();
  const auto at = static_cast<size_t>(i);
  return at < list.size() && list[at].isDouble() ? list[at].toDouble() : 0;
}

inline bool mask(Inputs inputs, size_t index, size_t i) {
  if (index >= inputs.size() || !inputs[index].isList()) return true;
  const auto list = inputs[index].toListRef();
  return i >= list.size() || !list[i].isBool() || list[i].toBool();
}

// True where a scalar is there and is not one: a factor that costs a multiplication.
inline bool scales(Inputs inputs, size_t index) {
  if (index >= inputs.size()) return false;
  const c10::IValue& value = inputs[index];
  if (value.isInt()) return value.toInt() != 1;
  if (value.isDouble()) return value.toDouble() != 1.0;
  return !value.isNone();
}

// Ours, and flop_counter's where the operator is in its registry. Ours counts no sparse operand:
// it would need the number of non-zeros.
inline Work products(const WorkRule& rule, double ours, double torchs, bool dense) {
  Work work;
  work.flops = dense ? ours : 0;
  work.torch_flops = (rule.flags & WorkRule::kRegistry) ? torchs : 0;
  return work;
}

}  // namespace tally::hooks::work
