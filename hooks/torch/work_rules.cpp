// SPDX-License-Identifier: Apache-2.0
// The formulas. Each reads shapes only, through Shape and the helpers below it, which answer
// "unknown" instead of throwing.
#include "hooks/torch/work_rules.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <unordered_map>

namespace tally::hooks {
namespace {

using Inputs = c10::ArrayRef<const c10::IValue>;

// --- Reading inputs ---------------------------------------------------------------------------

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

Shape shape_of(const c10::IValue& value) {
  if (!value.isTensor()) return {};
  const at::Tensor& tensor = value.toTensor();
  if (!tensor.defined()) return {};
  const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  if (impl->has_symbolic_sizes_strides() || impl->is_nested()) return {};
  const auto type = c10::typeMetaToScalarType(impl->dtype());
  return {impl->sizes_default(), true, !impl->is_sparse() && !impl->is_sparse_compressed(),
          c10::isFloatingType(type) || c10::isComplexType(type)};
}
Shape shape_of(Inputs inputs, size_t index) {
  return index < inputs.size() ? shape_of(inputs[index]) : Shape{};
}

bool defined(Inputs inputs, int index) {
  return index >= 0 && static_cast<size_t>(index) < inputs.size() &&
         inputs[static_cast<size_t>(index)].isTensor() &&
         inputs[static_cast<size_t>(index)].toTensor().defined();
}

bool flag(Inputs inputs, int index, bool otherwise = false) {
  if (index < 0 || static_cast<size_t>(index) >= inputs.size()) return otherwise;
  const c10::IValue& value = inputs[static_cast<size_t>(index)];
  return value.isBool() ? value.toBool() : otherwise;
}

// The number for dimension i of a list such as stride; a list of one stands for all dimensions.
double entry(Inputs inputs, int index, int64_t i, double otherwise) {
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

bool mask(Inputs inputs, size_t index, size_t i) {
  if (index >= inputs.size() || !inputs[index].isList()) return true;
  const auto list = inputs[index].toListRef();
  return i >= list.size() || !list[i].isBool() || list[i].toBool();
}

// True where a scalar is there and is not one: a factor that costs a multiplication.
bool scales(Inputs inputs, size_t index) {
  if (index >= inputs.size()) return false;
  const c10::IValue& value = inputs[index];
  if (value.isInt()) return value.toInt() != 1;
  if (value.isDouble()) return value.toDouble() != 1.0;
  return !value.isNone();
}

// Ours, and flop_counter's where the operator is in its registry. Ours counts no sparse operand:
// it would need the number of non-zeros.
Work products(const WorkRule& rule, double ours, double torchs, bool dense) {
  Work work;
  work.flops = dense ? ours : 0;
  work.torch_flops = (rule.flags & WorkRule::kRegistry) ? torchs : 0;
  return work;
}

// --- Products ---------------------------------------------------------------------------------

Work matmul(const WorkRule& rule, Inputs inputs) {
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

Work small_products(const WorkRule& rule, Inputs inputs) {
  const Shape a = shape_of(inputs, rule.argument);
  const Shape b = shape_of(inputs, rule.argument + (rule.kind == WorkKind::kLinear ? rule.variant : 1u));
  if (!a.known || !b.known) return {};
  Work work;
  double flops = 0;
  switch (rule.kind) {
    case WorkKind::kMatrixVector:
      flops = 2 * a.product();
      if (a.rank() > 0) work.elementwise = rule.per_element * a.at(0);
      break;
    case WorkKind::kDot: flops = 2 * a.product(); break;
    case WorkKind::kOuter: flops = 2 * a.product() * b.product(); break;
    case WorkKind::kLinear: flops = b.rank() < 1 ? 0 : 2 * a.product() * b.at(0); break;
    default: break;
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
    {2, 3, 4, 5, 7, 6},             // 0 convolution
    {-1, 3, 2, 4, -1, kNever},      // 1 cudnn_convolution
    {-1, 4, 2, 5, 3, kAlways},      // 2 cudnn_convolution_transpose
    {2, 4, 3, 5, -1, kNever},       // 3 mkldnn_convolution, miopen_convolution
    {2, 5, 3, 6, 4, kAlways},       // 4 miopen_convolution_transpose
    {3, 4, 5, -1, -1, kNever},      // 5 _slow_conv2d_forward
    {3, 4, 5, 6, -1, kNever},       // 6 slow_conv_dilated2d
    {3, 4, 5, 7, 6, kAlways},       // 7 slow_conv_transpose2d
    {2, 3, 4, 5, -1, kNever},       // 8 cudnn_convolution_relu
    {2, 4, 3, -1, -1, kNever},      // 9 _nnpack_spatial_convolution
};

Work convolution(const WorkRule& rule, Inputs inputs) {
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
      output_points *= (x.at(i) - 1) * stride - 2 * padding + window + extra;
    } else if (stride > 0) {
      output_points *= std::floor((x.at(i) + 2 * padding - window) / stride) + 1;
    }
  }
  // Each point of the result (transposed: of the input) meets the whole kernel, which holds the
  // groups already: its second dimension is a group's channels.
  const double one = 2 * x.at(0) * w.product();
  const double flops = one * (transposed ? input_points : output_points);
  // flop_counter takes input 6 for `transposed`; cudnn_convolution has `benchmark` there.
  const bool theirs = rule.variant == 1 ? flag(inputs, 6) : transposed;
  Work work = products(rule, flops, one * (theirs ? input_points : output_points),
                       x.dense && w.dense);
  if (defined(inputs, at.bias)) {
    const double channels = shape_of(inputs, static_cast<size_t>(at.bias)).product();
    work.elementwise = rule.per_element * x.at(0) * channels * output_points;
  }
  return work;
}

Work convolution_backward(const WorkRule& rule, Inputs inputs) {
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

// --- Attention --------------------------------------------------------------------------------

// Where attention's arguments stand, and its dimensions.
struct AttentionLayout {
  int query;
  bool heads_last;     // [b,s,h,d] instead of [b,h,s,d]
  int offsets;         // of packed sequences; -1: cannot be packed
  int longest;         // longest query; the longest key is next
};
constexpr AttentionLayout kAttentions[] = {
    {0, false, -1, -1},  // 0 _scaled_dot_product_*; backward: the gradient comes first
    {0, true, 3, 5},     // 1 _flash_attention_forward
    {0, true, 4, 6},     // 2 _efficient_attention_forward
    {1, true, 6, 8},     // 3 _flash_attention_backward
    {1, true, 6, 8},     // 4 _efficient_attention_backward
};

Work attention(const WorkRule& rule, Inputs inputs) {
  const AttentionLayout& at = kAttentions[rule.variant];
  const bool backward = rule.kind == WorkKind::kAttentionBackward;
  const auto query = static_cast<size_t>(backward ? 1 : at.query);
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
    const double sequences = shape_of(inputs, static_cast<size_t>(at.offsets)).product() - 1;
    packed = true;
    batch = sequences * q.at(q.rank() - 2);
    s_q = entry(inputs, at.longest, 0, 0);
    s_k = entry(inputs, at.longest + 1, 0, 0);
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

// --- Recurrent layers and linear algebra --------------------------------------------------------

// Every matrix of weights meets every position of the sequence once.
Work recurrent(const WorkRule& rule, Inputs inputs) {
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
  kCholesky, kCholeskyInverse, kLu, kLuSolve, kInverse, kQr, kHouseholder, kSolveOnce, kSolveTwice,
  kEigh, kEig, kEigvals, kSvd,
};

Work factorization(const WorkRule& rule, Inputs inputs) {
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
    case kCholesky: flops = q * q * q / 3; break;
    case kCholeskyInverse: flops = 2 * q * q * q / 3; break;
    case kLu: flops = p * q * q - q * q * q / 3; break;
    case kLuSolve: flops = 2 * q * q * q / 3 + 2 * q * q * right_hand_sides(1); break;
    case kInverse: flops = 2 * q * q * q; break;
    case kHouseholder: flops = householder; break;
    case kQr: flops = 2 * householder; break;  // the factorization, then Q
    case kSolveOnce: flops = q * q * right_hand_sides(1u - rule.argument); break;
    case kSolveTwice: flops = 2 * q * q * right_hand_sides(rule.argument == 1 ? 0 : 2); break;
    case kEigh: flops = (flag(inputs, 2, true) ? 9.0 : 4.0 / 3) * q * q * q; break;
    case kEig: flops = 25 * q * q * q; break;
    case kEigvals: flops = 10 * q * q * q; break;
    case kSvd:
      flops = flag(inputs, 2, true) ? 14 * p * q * q + 8 * q * q * q : 2 * householder;
      break;
  }
  Work work;
  work.flops = batch * flops;
  return work;
}

// --- Element by element -------------------------------------------------------------------------

bool tanh_form(Inputs inputs, size_t index) {
  return index < inputs.size() && inputs[index].isString() &&
         inputs[index].toStringView() == "tanh";
}

// Elements of the broadcast of the first three inputs that are tensors.
double broadcast(Inputs inputs, bool& floating) {
  std::array<Shape, 3> shapes;
  size_t count = 0;
  int64_t rank = 0;
  for (size_t i = 0; i < inputs.size() && i < 3; ++i) {
    if (!inputs[i].isTensor()) continue;
    const Shape shape = shape_of(inputs[i]);
    if (!shape.known || !shape.dense) continue;
    floating |= shape.floating;
    rank = std::max(rank, shape.rank());
    shapes[count++] = shape;
  }
  if (count == 0) return 0;
  if (std::all_of(shapes.begin() + 1, shapes.begin() + static_cast<std::ptrdiff_t>(count),
                  [&](const Shape& shape) { return shape.sizes == shapes[0].sizes; })) {
    return shapes[0].product();  // the common case
  }
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

double pointwise(const WorkRule& rule, Inputs inputs) {
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

double reduce(const WorkRule& rule, Inputs inputs) {
  const Shape counted = shape_of(inputs, rule.argument);
  const Shape first = shape_of(inputs, 0);
  if (!counted.known || !counted.dense || !(counted.floating || first.floating)) return 0;
  const bool evaluation = (rule.variant == 1 && !flag(inputs, 5, true)) ||
                          (rule.variant == 2 && !flag(inputs, 5, flag(inputs, 3, true)));
  return (evaluation ? 2 : rule.per_element) * counted.product();
}

double pool(const WorkRule& rule, Inputs inputs) {
  const bool backward = rule.variant == 2;  // gradient, self, kernel, ...
  const int kernel_at = backward ? 2 : 1;
  const Shape x = shape_of(inputs, 0);
  if (!x.known || !x.dense || !x.floating || static_cast<size_t>(kernel_at) >= inputs.size()) return 0;
  if (!inputs[static_cast<size_t>(kernel_at)].isList()) return 0;
  const int dilation_at = rule.variant == 0 ? 4 : -1;
  const bool ceil = flag(inputs, rule.variant == 0 ? 5 : 4);
  // Kernel lists of one number stand for all spatial dimensions: a batch and channels lead.
  const auto listed = static_cast<int64_t>(inputs[static_cast<size_t>(kernel_at)].toListRef().size());
  const int64_t spatial = std::min(x.rank(), std::max(listed, x.rank() - 2));
  double window = 1;
  double elements = 1;
  for (int64_t i = 0; i < x.rank(); ++i) {
    const int64_t j = i - (x.rank() - spatial);
    if (j < 0) {
      elements *= x.at(i);
      continue;
    }
    const double kernel = entry(inputs, kernel_at, j, 1);
    window *= kernel;
    if (backward) {
      elements *= x.at(i);
      continue;
    }
    const double stride = std::max(1.0, entry(inputs, 2, j, kernel));
    const double reach = entry(inputs, dilation_at, j, 1) * (kernel - 1) + 1;
    const double steps = (x.at(i) + 2 * entry(inputs, 3, j, 0) - reach) / stride;
    elements *= (ceil ? std::ceil(steps) : std::floor(steps)) + 1;
  }
  return elements * (window + rule.per_element);
}

double upsample(const WorkRule& rule, Inputs inputs) {
  const Shape x = shape_of(inputs, 0);
  if (!x.known || !x.floating || x.rank() < 3) return 0;
  double elements = x.at(0) * x.at(1);
  for (int64_t i = 2; i < x.rank(); ++i) elements *= entry(inputs, 1, i - 2, 0);
  return rule.per_element * elements;
}

double tensor_list(const WorkRule& rule, Inputs inputs) {
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

Work indices(const WorkRule& rule, Inputs inputs) {
  const Shape table = shape_of(inputs, 0);
  const Shape rows = shape_of(inputs, rule.argument);
  if (!table.known || !rows.known || table.rank() < 2) return {};
  Work work;
  work.indices = rows.product();
  work.elementwise = rule.per_element * work.indices * table.last();
  return work;
}

// --- The table ----------------------------------------------------------------------------------

struct Entry {
  std::string_view name;
  WorkKind kind;
  bool products;
  bool registry;
  uint8_t argument;
  uint8_t variant;
  float per_element;
};

using enum WorkKind;
constexpr Entry kEntries[] = {
#include "hooks/torch/work_rules_table.inc"
};

const Entry* find_entry(std::string_view name) {
  const auto* found = std::find_if(std::begin(kEntries), std::end(kEntries),
                                   [name](const Entry& each) { return each.name == name; });
  return found == std::end(kEntries) ? nullptr : found;
}

WorkRule rule_of(const Entry& entry) {
  WorkRule rule{entry.kind, 0, entry.argument, entry.variant, entry.per_element};
  if (entry.products) rule.flags |= WorkRule::kProducts;
  if (entry.registry) rule.flags |= WorkRule::kRegistry;
  if (entry.kind == kIndices) rule.flags |= WorkRule::kIndexing;
  if (entry.per_element != 0 || entry.kind == kPool) rule.flags |= WorkRule::kElementwise;
  return rule;
}

WorkRule counting_rule(std::string_view name) {
  if (const Entry* entry = find_entry(name)) return rule_of(*entry);
  if (name.ends_with('_')) name.remove_suffix(1);
  constexpr std::string_view kForeach = "_foreach_";
  const bool foreach = name.starts_with(kForeach);
  if (foreach) name.remove_prefix(kForeach.size());
  const Entry* entry = find_entry(name);
  if (!entry) return {};
  WorkRule rule = rule_of(*entry);
  rule.flags &= static_cast<uint8_t>(~WorkRule::kRegistry);  // holds the plain names only
  if (foreach) {
    if (rule.kind != kPointwise && rule.kind != kReduce) return {};
    rule.kind = kList;
  }
  return rule;
}

OperatorForm form_of(const c10::OperatorHandle& handle) {
  return handle.hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd)
             ? OperatorForm::kComposite
             : OperatorForm::kLeaf;
}

// Operator name without overload -> form: a leaf if one overload is (var has a kernel for one and
// compositions for the others); out= forms have generated kernels and say nothing. Read once and
// never freed.
const std::unordered_map<std::string, OperatorForm>& operator_forms() {
  static const auto* forms = [] {
    auto* made = new std::unordered_map<std::string, OperatorForm>;
    auto& dispatcher = c10::Dispatcher::singleton();
    for (const c10::OperatorName& name : dispatcher.getAllOpNames()) {
      if (name.overload_name.ends_with("out")) continue;
      const auto handle = dispatcher.findSchema(name);
      if (!handle) continue;
      const OperatorForm form = form_of(*handle);
      const auto [place, is_new] = made->try_emplace(name.name, form);
      if (!is_new && form == OperatorForm::kLeaf) place->second = form;
    }
    return made;
  }();
  return *forms;
}

}  // namespace

OperatorForm operator_form(std::string_view operator_name) noexcept {
  try {
    const std::string name(operator_name);
    const auto& forms = operator_forms();
    if (const auto found = forms.find(name); found != forms.end()) return found->second;
    // Registered since.
    const auto handle = c10::Dispatcher::singleton().findSchema({name, ""});
    return handle ? form_of(*handle) : OperatorForm::kUnknown;
  } catch (...) {  // out of memory
    return OperatorForm::kUnknown;
  }
}

WorkRule find_work_rule(std::string_view operator_name) noexcept {
  const OperatorForm form = operator_form(operator_name);
  if (form == OperatorForm::kUnknown) return {};
  WorkRule rule;
  if (operator_name.starts_with("aten::")) rule = counting_rule(operator_name.substr(6));
  if (form == OperatorForm::kLeaf) rule.flags |= WorkRule::kLeaf;
  return rule;
}

Work count_work(const WorkRule& rule, Inputs inputs) noexcept {
  Work work;
  switch (rule.kind) {
    case kNone: break;
    case kMatmul: return matmul(rule, inputs);
    case kMatrixVector:
    case kDot:
    case kOuter:
    case kLinear: return small_products(rule, inputs);
    case kConvolution: return convolution(rule, inputs);
    case kConvolutionBackward: return convolution_backward(rule, inputs);
    case kAttention:
    case kAttentionBackward: return attention(rule, inputs);
    case kRecurrent: return recurrent(rule, inputs);
    case kFactorization: return factorization(rule, inputs);
    case kPointwise: work.elementwise = pointwise(rule, inputs); break;
    case kReduce: work.elementwise = reduce(rule, inputs); break;
    case kPool: work.elementwise = pool(rule, inputs); break;
    case kUpsample: work.elementwise = upsample(rule, inputs); break;
    case kList: work.elementwise = tensor_list(rule, inputs); break;
    case kIndices: return indices(rule, inputs);
  }
  return work;
}

}  // namespace tally::hooks
