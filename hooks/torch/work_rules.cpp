// SPDX-License-Identifier: Apache-2.0
#include "hooks/torch/work_rules.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <algorithm>
#include <iterator>
#include <string>
#include <unordered_map>

#include "hooks/torch/work_elementwise.h"
#include "hooks/torch/work_products.h"

namespace tally::hooks {
namespace {

using namespace work;
using enum WorkKind;

struct Entry {
  std::string_view name;
  WorkKind kind;
  bool products;
  bool registry;
  uint8_t argument;
  uint8_t variant;
  float per_element;
};

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

struct OperatorTraits {
  OperatorForm form = OperatorForm::kUnknown;
  bool is_view = false;
  bool has_autograd = false;
};

OperatorTraits traits_of(const c10::OperatorHandle& handle) {
  if (handle.hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd)) {
    return {OperatorForm::kComposite};
  }
  const auto& returns = handle.schema().returns();
  const bool is_view =
      !returns.empty() && std::all_of(returns.begin(), returns.end(), [](const auto& returned) {
        return returned.alias_info() && !returned.alias_info()->isWrite();
      });
  return {OperatorForm::kLeaf, is_view, handle.hasKernelForDispatchKey(c10::DispatchKey::Autograd)};
}

// By operator name without overload: a leaf if one overload is (var has a kernel for one and
// compositions for the others); the rest holds if it does for all leaves; out= forms have generated
// kernels and say nothing. Read once and never freed.
const std::unordered_map<std::string, OperatorTraits>& operators() {
  static const auto* all = [] {
    auto* made = new std::unordered_map<std::string, OperatorTraits>;
    auto& dispatcher = c10::Dispatcher::singleton();
    for (const c10::OperatorName& name : dispatcher.getAllOpNames()) {
      if (name.overload_name.ends_with("out")) continue;
      const auto handle = dispatcher.findSchema(name);
      if (!handle) continue;
      const OperatorTraits traits = traits_of(*handle);
      const auto [place, is_new] = made->try_emplace(name.name, traits);
      if (is_new || traits.form != OperatorForm::kLeaf) continue;
      OperatorTraits& all_so_far = place->second;
      if (all_so_far.form == OperatorForm::kLeaf) {
        all_so_far.is_view &= traits.is_view;
        all_so_far.has_autograd &= traits.has_autograd;
      } else {
        all_so_far = traits;
      }
    }
    return made;
  }();
  return *all;
}

OperatorTraits operator_traits(std::string_view operator_name) noexcept {
  try {
    const std::string name(operator_name);
    const auto& all = operators();
    if (const auto found = all.find(name); found != all.end()) return found->second;
    // Registered since.
    const auto handle = c10::Dispatcher::singleton().findSchema({name, ""});
    return handle ? traits_of(*handle) : OperatorTraits{};
  } catch (...) {  // out of memory
    return {};
  }
}

}  // namespace

OperatorForm operator_form(std::string_view operator_name) noexcept {
  return operator_traits(operator_name).form;
}

WorkRule find_work_rule(std::string_view operator_name) noexcept {
  const OperatorTraits traits = operator_traits(operator_name);
  if (traits.form == OperatorForm::kUnknown) return {};
  WorkRule rule;
  if (operator_name.starts_with("aten::")) rule = counting_rule(operator_name.substr(6));
  if (traits.form == OperatorForm::kLeaf) rule.flags |= WorkRule::kLeaf;
  // detach_ takes its input out of the graph, and leaves its bytes alone.
  if (traits.is_view || operator_name == "aten::detach_") rule.flags |= WorkRule::kView;
  if (traits.has_autograd) rule.flags |= WorkRule::kAutograd;
  return rule;
}

Work count_work(const WorkRule& rule, Inputs inputs) noexcept {
  Work work;
  switch (rule.kind) {
    case kNone:
      break;
    case kMatmul:
      return matmul(rule, inputs);
    case kMatrixVector:
    case kDot:
    case kOuter:
    case kLinear:
      return small_products(rule, inputs);
    case kConvolution:
      return convolution(rule, inputs);
    case kConvolutionBackward:
      return convolution_backward(rule, inputs);
    case kAttention:
    case kAttentionBackward:
      return attention(rule, inputs);
    case kRecurrent:
      return recurrent(rule, inputs);
    case kFactorization:
      return factorization(rule, inputs);
    case kPointwise:
      work.elementwise = pointwise(rule, inputs);
      break;
    case kReduce:
      work.elementwise = reduce(rule, inputs);
      break;
    case kPool:
      work.elementwise = pool(rule, inputs);
      break;
    case kUpsample:
      work.elementwise = upsample(rule, inputs);
      break;
    case kList:
      work.elementwise = tensor_list(rule, inputs);
      break;
    case kIndices:
      return indices(rule, inputs);
  }
  return work;
}

}  // namespace tally::hooks
