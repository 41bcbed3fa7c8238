// SPDX-License-Identifier: Apache-2.0
// What autograd really keeps below a tensor, for tests only: every SavedVariable is read raw
// through Node::compiled_args. Written for the tests alone; shares no code with the product's own
// walk.
#pragma once

#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/dynamo/compiled_autograd.h>
#include <torch/torch.h>

#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace tally::testing {

struct GraphTruth {
  std::vector<std::pair<std::string, at::Tensor>> saved;  // node name, tensor as it was saved
  std::vector<at::Tensor> leaves;                         // what gets a .grad
};

namespace detail {
namespace dynamo = torch::dynamo::autograd;
using SavedMap = std::unordered_map<const torch::autograd::SavedVariable*, dynamo::TensorArg*>;

// An explicit instantiation may name a private member: the standard's own way to reach it.
SavedMap dynamo::TensorArgs::*saved_map();
template <SavedMap dynamo::TensorArgs::*Member>
struct Reach {
  friend SavedMap dynamo::TensorArgs::*saved_map() { return Member; }
};
template struct Reach<&dynamo::TensorArgs::_saved_variables>;
}  // namespace detail

inline GraphTruth read_graph(const at::Tensor& root) {
  using torch::autograd::Node;
  GraphTruth truth;
  std::unordered_set<Node*> seen;
  std::vector<std::shared_ptr<Node>> open;
  const auto push = [&](const std::shared_ptr<Node>& node) {
    if (node && seen.insert(node.get()).second) open.push_back(node);
  };
  push(root.grad_fn());
  while (!open.empty()) {
    const auto node = std::move(open.back());
    open.pop_back();
    for (const auto& edge : node->next_edges()) push(edge.function);
    if (const auto* leaf = dynamic_cast<torch::autograd::AccumulateGrad*>(node.get())) {
      truth.leaves.push_back(leaf->variable);
      continue;
    }
    detail::dynamo::AutogradCompilerCall call(detail::dynamo::SizeInput::STATIC);
    detail::dynamo::NodeCall node_call(0, node);
    detail::dynamo::CompiledNodeArgs arguments(call, node_call);
    node->compiled_args(arguments);
    for (const auto& [saved, argument] : call.tensor_args.*detail::saved_map()) {
      const auto tensor = saved->get_raw_data();
      if (tensor && tensor->defined()) truth.saved.emplace_back(node->name(), *tensor);
    }
  }
  return truth;
}

}  // namespace tally::testing
