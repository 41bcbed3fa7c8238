// SPDX-License-Identifier: Apache-2.0
// FLOP formulas of what is done element by element. Internal to work_rules.cpp and in a header to
// be compiled into its switch; same promises as work_inputs.h.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>

#include "hooks/torch/work_inputs.h"

namespace tally::hooks::work {

inline bool tanh_form(Inputs inputs, size_t index) {
  return index < inputs.size() && inputs[index].isString() &&
         inputs[index].toStringView() == "tanh";
}

// Elements of the broadcast of the first three inputs that are tensors.
inline double broadcast(Inputs inputs, bool& floating) {
  std::array<Shape, 3> shapes;
  size_t count = 0;
  int64_t rank = 0;
  bool alike = true;
  for (size_t i = 0; i < inputs.size() && i < 3; ++i) {
    if (!inputs[i].isTensor()) continue;
    const Shape shape = shape_of(inputs[i]);
    if (!shape.known || !shape.dense) continue;
    floating |= shape.floating;
    alike &= count == 0 || shape.sizes == shapes[0].sizes;
    rank = std::max(rank, shape.rank());
    shapes[count++] = shape;
  }
  if (count == 0) return 0;
  if (alike) return shapes[0].product();  // the common case
  double elements = 1;
  for (int64_t i = 1; i <= rank; ++i) {
    double size = 1;
    for (size_t s = 0; s < count; ++s) {
      if (i > shapes[s].rank()) continue;
      const double here = shapes[s].at(shapes[s].rank() - i);
      if (here != 1) size = here;
    }
    elements *= size;
  }
  return elements;
}

inline double pointwise(const WorkRule& rule, Inputs inputs) {
  bool floating = false;
  const double elements = broadcast(inputs, floating);
  if (!floating) return 0;
  double each = rule.per_element;
  if (rule.variant == 1 && scales(inputs, 2)) each += 1;
  if (rule.variant == 2 && scales(inputs, 3)) each += 1;
  if (rule.variant == 3 && tanh_form(inputs, 1)) each = 9;
  if (rule.variant == 4 && tanh_form(inputs, 2)) each = 17;
  return each * elements;
}

inline double reduce(const WorkRule& rule, Inputs inputs) {
  const Shape counted = shape_of(inputs, rule.argument);
  const Shape first = shape_of(inputs, 0);
  if (!counted.known || !counted.dense || !(counted.floating || first.floating)) return 0;
  const bool evaluation = (rule.variant == 1 && !flag(inputs, 5, true)) ||
                          (rule.variant == 2 && !flag(inputs, 5, flag(inputs, 3, true)));
  return (evaluation ? 2 : rule.per_element) * counted.product();
}

inline double pool(const WorkRule& rule, Inputs inputs) {
  const bool backward = rule.variant == 2;  // gradient, self, kernel, ...
  const int kernel_at = backward ? 2 : 1;
  const Shape x = shape_of(inputs, 0);
  if (!x.known || !x.dense || !x.floating || static_cast<size_t>(kernel_at) >= inputs.size())
    return 0;
  if (!inputs[static_cast<size_t>(kernel_at)].isList()) return 0;
  const int dilation_at = rule.variant == 0 ? 4 : -1;
  const bool ceil = flag(inputs, rule.variant == 0 ? 5 : 4);
  // Kernel lists of one number stand for all spatial dimensions: a batch and channels lead.
  const auto listed =
      static_cast<int64_t>(inputs[static_cast<size_t>(kernel_at)].toListRef().size());
  const int64_t spatial = std::min(x.rank(), std::max(listed, x.rank() - 2));
  double window = 1;
  double elements = 1;
  for (int64_t i = 0; i < x.rank(); ++i) {
    const int64_t j = i - (x.rank() - spatial);
    if (j < 0) {
      elements *= x.at(i);
      continue;
    }
    const double kernel = std::max(0.0, entry(inputs, kernel_at, j, 1));
    window *= kernel;
    if (backward) {
      elements *= x.at(i);
      continue;
    }
    const double stride = std::max(1.0, entry(inputs, 2, j, kernel));
    const double reach = entry(inputs, dilation_at, j, 1) * (kernel - 1) + 1;
    const double steps = (x.at(i) + 2 * entry(inputs, 3, j, 0) - reach) / stride;
    elements *= std::max(0.0, (ceil ? std::ceil(steps) : std::floor(steps)) + 1);
  }
  return elements * (window + rule.per_element);
}

inline double upsample(const WorkRule& rule, Inputs inputs) {
  const Shape x = shape_of(inputs, 0);
  if (!x.known || !x.floating || x.rank() < 3) return 0;
  double elements = x.at(0) * x.at(1);
  for (int64_t i = 2; i < x.rank(); ++i) {
    // The size, or none and a factor: the overload that calls the one with the size.
    elements *=
        std::max(0.0, entry(inputs, 1, i - 2, std::floor(x.at(i) * factor(inputs, 3, i - 2))));
  }
  return rule.per_element * elements;
}

inline double tensor_list(const WorkRule& rule, Inputs inputs) {
  if (inputs.empty() || !inputs[0].isList()) return 0;
  double elements = 0;
  for (const c10::IValue& value : inputs[0].toListRef()) {
    const Shape shape = shape_of(value);
    if (shape.known && shape.floating) elements += shape.product();
  }
  double each = rule.per_element;
  if (rule.variant == 1 && scales(inputs, 2)) each += 1;
  if (rule.variant == 2 && scales(inputs, 3)) each += 1;
  return each * elements;
}

inline Work indices(const WorkRule& rule, Inputs inputs) {
  const Shape table = shape_of(inputs, 0);
  const Shape rows = shape_of(inputs, rule.argument);
  if (!table.known || !rows.known || table.rank() < 2) return {};
  Work work;
  work.indices = rows.product();
  work.elementwise = rule.per_element * work.indices * table.last();
  return work;
}

}  // namespace tally::hooks::work
