// SPDX-License-Identifier: Apache-2.0
// FLOP formulas of what is made of products: matrices, convolutions, attention, recurrent layers,
// dense linear algebra. 2 FLOPs a multiply-add. Internal to work_rules.cpp and in a header to be
// compiled into its switch; same promises as work_inputs.h.
#pragma once

#include <algorithm>
#include <cmath>

#include "hooks/torch/work_inputs.h"

namespace tally::hooks::work {

inline Work matmul(const WorkRule& rule, Inputs inputs) {
  const Shape a = shape_of(inputs, rule.argument);
  const Shape b = shape_of(inputs, rule.argument + 1u);
  if (!a.known || !b.known || a.rank() < 2 || b.rank() < 2) return {};
  const double batch = a.rank() > 2 && b.rank() > 2 ? a.at(0) : 1;
  const double result = batch * a.at(a.rank() - 2) * b.last();
  const double flops = 2 * result * a.last();
  Work work = products(rule, flops, flops, a.dense && b.dense);
  if (work.flops != 0 && a.floating) work.elementwise = rule.per_element * result;
  return work;
}

inline Work small_products(const WorkRule& rule, Inputs inputs) {
  const Shape a = shape_of(inputs, rule.argument);
  const Shape b =
      shape_of(inputs, rule.argument + (rule.kind == WorkKind::kLinear ? rule.variant : 1u));
  if (!a.known || !b.known) return {};
  Work work;
  double flops = 0;
  switch (rule.kind) {
    case WorkKind::kMatrixVector:
      flops = 2 * a.product();
      if (a.rank() > 0) work.elementwise = rule.per_element * a.at(0);
      break;
    case WorkKind::kDot:
      flops = 2 * a.product();
      break;
    case WorkKind::kOuter:
      flops = 2 * a.product() * b.product();
      break;
    case WorkKind::kLinear:
      flops = b.rank() < 1 ? 0 : 2 * a.product() * b.at(0);
      break;
    default:
      break;
  }
  if (!a.dense || !b.dense) return {};
  work.flops = flops;
  return work;
}

// Where a convolution's arguments stand; -1: has none.
struct ConvolutionLayout {
  int bias, stride, padding, dilation, output_padding;
  int transposed;  // an index, kNever or kAlways
};
constexpr int kNever = -1;
constexpr int kAlways = -2;
constexpr ConvolutionLayout kConvolutions[] = {
    {2, 3, 4, 5, 7, 6},         // 0 convolution
    {-1, 3, 2, 4, -1, kNever},  // 1 cudnn_convolution
    {-1, 4, 2, 5, 3, kAlways},  // 2 cudnn_convolution_transpose
    {2, 4, 3, 5, -1, kNever},   // 3 mkldnn_convolution, miopen_convolution
    {2, 5, 3, 6, 4, kAlways},   // 4 miopen_convolution_transpose
    {3, 4, 5, -1, -1, kNever},  // 5 _slow_conv2d_forward
    {3, 4, 5, 6, -1, kNever},   // 6 slow_conv_dilated2d
    {3, 4, 5, 7, 6, kAlways},   // 7 slow_conv_transpose2d
    {2, 3, 4, 5, -1, kNever},   // 8 cudnn_convolution_relu
    {2, 4, 3, -1, -1, kNever},  // 9 _nnpack_spatial_convolution
};

inline Work convolution(const WorkRule& rule, Inputs inputs) {
  const ConvolutionLayout& at = kConvolutions[rule.variant];
  const Shape x = shape_of(inputs, 0);
  const Shape w = shape_of(inputs, 1);
  if (!x.known || !w.known || w.rank() < 3 || x.rank() != w.rank()) return {};
  const bool transposed = at.transposed == kAlways || flag(inputs, at.transposed);
  double input_points = 1;
  double output_points = 1;
  for (int64_t i = 2; i < w.rank(); ++i) {
    const double stride = entry(inputs, at.stride, i - 2, 1);
    const double padding = entry(inputs, at.padding, i - 2, 0);
    const double window = entry(inputs, at.dilation, i - 2, 1) * (w.at(i) - 1) + 1;
    input_points *= x.at(i);
    if (transposed) {
      const double extra = entry(inputs, at.output_padding, i - 2, 0);
      output_points *= std::max(0.0, (x.at(i) - 1) * stride - 2 * padding + window + extra);
    } else if (stride > 0) {
      output_points *= std::max(0.0, std::floor((x.at(i) + 2 * padding - window) / stride) + 1);
    }
  }
  // Each point of the result (transposed: of the input) meets the whole kernel, which holds the
  // groups already: its second dimension is a group's channels.
  const double one = 2 * x.at(0) * w.product();
  const double flops = one * (transposed ? input_points : output_points);
  // flop_counter takes input 6 for `transposed`; cudnn_convolution has `benchmark` there.
  const bool theirs = rule.variant == 1 ? flag(inputs, 6) : transposed;
  Work work =
      products(rule, flops, one * (theirs ? input_points : output_points), x.dense && w.dense);
  if (defined(inputs, at.bias)) {
    const double channels = shape_of(inputs, static_cast<size_t>(at.bias)).product();
    work.elementwise = rule.per_element * x.at(0) * channels * output_points;
  }
  return work;
}

inline Work convolution_backward(const WorkRule& rule, Inputs inputs) {
  const int transposed_at = rule.variant == 0 ? 7 : 6;
  const size_t mask_at = rule.variant == 0 ? 10 : 9;
  const Shape g = shape_of(inputs, 0);
  const Shape x = shape_of(inputs, 1);
  const Shape w = shape_of(inputs, 2);
  if (!g.known || !x.known || !w.known || w.rank() < 3) return {};
  if (g.rank() != w.rank() || x.rank() != w.rank()) return {};
  const bool transposed = flag(inputs, transposed_at);
  const double points = transposed ? x.product(2) : g.product(2);
  const double one = 2 * x.at(0) * w.product() * points;  // as forward
  double ours = 0;
  double theirs = 0;
  if (mask(inputs, mask_at, 0)) {
    ours += one;
    theirs += one;
  }
  if (mask(inputs, mask_at, 1)) {
    ours += one;
    // flop_counter swaps batch and channels and so forgets the groups.
    theirs += 2 * w.product(2) * points * g.at(0) * g.at(1) * x.at(1);
  }
  Work work = products(rule, ours, theirs, g.dense && x.dense && w.dense);
  if (mask(inputs, mask_at, 2)) work.elementwise = rule.per_element * g.product();
  return work;
}

// The order of attention's dimensions, and where the lengths of packed sequences stand. Query, key
// and value come first, in backward after the gradient.
struct AttentionLayout {
  bool heads_last;  // [b,s,h,d] instead of [b,h,s,d]
  int offsets;      // of packed sequences; -1: cannot be packed
  int longest;      // longest query; the longest key is next
};
constexpr AttentionLayout kAttentions[] = {
    {false, -1, -1},  // 0 _scaled_dot_product_*
    {true, 3, 5},     // 1 _flash_attention_forward
    {true, 4, 6},     // 2 _efficient_attention_forward
    {true, 6, 8},     // 3 _flash_attention_backward
    {true, 6, 8},     // 4 _efficient_attention_backward
};

inline Work attention(const WorkRule& rule, Inputs inputs) {
  const AttentionLayout& at = kAttentions[rule.variant];
  const bool backward = rule.kind == WorkKind::kAttentionBackward;
  const size_t query = backward ? 1 : 0;
  const Shape q = shape_of(inputs, query);
  const Shape k = shape_of(inputs, query + 1);
  const Shape v = shape_of(inputs, query + 2);
  if (!q.known || !k.known || !v.known || q.rank() < 3 || k.rank() != q.rank()) return {};
  if (v.rank() != q.rank()) return {};
  // Products [s_q,d] x [d,s_k] and [s_q,s_k] x [s_k,d_v]; backward the first three times (scores
  // again, gradients of q and k), the second twice. Causal masks are not deducted.
  const auto count = [backward](double batch, double s_q, double s_k, double d, double d_v) {
    return 2 * batch * s_q * s_k * (backward ? 3 * d + 2 * d_v : d + d_v);
  };
  const double d = q.last();
  const double d_v = v.last();
  double batch, s_q, s_k;
  bool packed = false;
  if (at.offsets >= 0 && defined(inputs, at.offsets)) {
    // Packed sequences: their lengths are data; every one is taken as long as the longest.
    const Shape offsets = shape_of(inputs, static_cast<size_t>(at.offsets));
    const double sequences = std::max(0.0, offsets.product() - 1);
    packed = true;
    batch = sequences * q.at(q.rank() - 2);
    s_q = std::max(0.0, entry(inputs, at.longest, 0, 0));
    s_k = std::max(0.0, entry(inputs, at.longest + 1, 0, 0));
  } else {
    if (q.rank() != 4) return {};
    batch = q.at(0) * q.at(at.heads_last ? 2 : 1);
    s_q = q.at(at.heads_last ? 1 : 2);
    s_k = k.at(at.heads_last ? 1 : 2);
  }
  const double ours = count(batch, s_q, s_k, d, d_v);
  // flop_counter reads [b,h,s,d] whatever the layout.
  const double theirs = packed ? ours : count(q.at(0) * q.at(1), q.at(2), k.at(2), d, d_v);
  Work work = products(rule, ours, theirs, true);
  work.elementwise = rule.per_element * batch * s_q * s_k;
  return work;
}

// Every matrix of weights meets every position of the sequence once.
inline Work recurrent(const WorkRule& rule, Inputs inputs) {
  const Shape x = shape_of(inputs, 0);
  if (!x.known || x.rank() < 2 || x.last() == 0 || inputs.size() < 3) return {};
  const double positions = x.product() / x.last();
  double weights = 0;
  double gates = 0;
  const auto add = [&](const c10::IValue& value) {
    const Shape w = shape_of(value);
    if (!w.known || w.rank() != 2) return;
    weights += w.product();
    gates += w.at(0) / 2;  // of input and of hidden state: the same rows
  };
  if (inputs[1].isList()) {
    for (const c10::IValue& value : inputs[1].toListRef()) add(value);
  } else {
    add(inputs[1]);
    add(inputs[2]);
  }
  Work work;
  work.flops = 2 * positions * weights * (rule.variant == 1 ? 2 : 1);
  work.elementwise = rule.per_element * positions * gates;
  return work;
}

// Leading terms for a matrix of p x q, p >= q, and r right-hand sides: LAPACK working note 41, for
// singular and eigenvalues Golub and Van Loan.
enum Algorithm : uint8_t {
  kCholesky,
  kCholeskyInverse,
  kLu,
  kLuSolve,
  kInverse,
  kQr,
  kHouseholder,
  kSolveOnce,
  kSolveTwice,
  kEigh,
  kEig,
  kEigvals,
  kSvd,
};

inline Work factorization(const WorkRule& rule, Inputs inputs) {
  const Shape a = shape_of(inputs, rule.argument);
  if (!a.known || !a.dense || a.rank() < 2) return {};
  const double rows = a.at(a.rank() - 2);
  const double columns = a.last();
  const double p = std::max(rows, columns);
  const double q = std::min(rows, columns);
  if (a.product() == 0) return {};
  const double batch = a.product() / (rows * columns);
  const auto right_hand_sides = [&](size_t index) {
    const Shape b = shape_of(inputs, index);
    return b.known && b.rank() >= a.rank() ? b.product() / (batch * rows) : 1.0;
  };
  const double householder = 2 * p * q * q - 2.0 / 3 * q * q * q;
  double flops = 0;
  switch (static_cast<Algorithm>(rule.variant)) {
    case kCholesky:
      flops = q * q * q / 3;
      break;
    case kCholeskyInverse:
      flops = 2 * q * q * q / 3;
      break;
    case kLu:
      flops = p * q * q - q * q * q / 3;
      break;
    case kLuSolve:
      flops = 2 * q * q * q / 3 + 2 * q * q * right_hand_sides(1);
      break;
    case kInverse:
      flops = 2 * q * q * q;
      break;
    case kHouseholder:
      flops = householder;
      break;
    case kQr:
      flops = 2 * householder;  // the factorization, then Q
      break;
    case kSolveOnce:
      flops = q * q * right_hand_sides(1u - rule.argument);
      break;
    case kSolveTwice:
      flops = 2 * q * q * right_hand_sides(rule.argument == 1 ? 0 : 2);
      break;
    case kEigh:
      flops = (flag(inputs, 2, true) ? 9.0 : 4.0 / 3) * q * q * q;
      break;
    case kEig:
      flops = 25 * q * q * q;
      break;
    case kEigvals:
      flops = 10 * q * q * q;
      break;
    case kSvd:
      flops = flag(inputs, 2, true) ? 14 * p * q * q + 8 * q * q * q : 2 * householder;
      break;
  }
  Work work;
  work.flops = batch * flops;
  return work;
}

}  // namespace tally::hooks::work
