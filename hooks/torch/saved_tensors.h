// SPDX-License-Identifier: Apache-2.0
// What autograd really keeps: reads every SavedVariable of a graph, without unpacking it, without
// running user code, without changing the graph.
#pragma once

#include <torch/csrc/autograd/functions/accumulate_grad.h>

#include <cstdint>
#include <typeinfo>

#include "hooks/torch/torch_version.h"
#include "profiler/core/source.h"

namespace tally::hooks {

// Pushes kEdgeBegin, a kSaved for each saved tensor, a kLeaf for each leaf, kEdgeEnd. Called at the
// first node of a backward pass, on its thread, before anything of the graph is released.
void push_saved_tensors(Context& context, const NodePtr& root, uint64_t graph_task,
                        bool nested) noexcept;

// `tensor` is saved by a node that no walk reaches (_NoopSaveInputs of torch.utils.checkpoint): the
// next walk that is not nested names it, if it is still alive. Keeps nothing alive. Any thread.
void keep_as_saved(const at::Tensor& tensor) noexcept;

// The node that accumulates a leaf's gradient, or nullptr where it is another or none. A
// dynamic_cast would go through all bases of each other node; nothing derives from this one.
inline torch::autograd::AccumulateGrad* as_accumulate_grad(torch::autograd::Node* node) noexcept {
  using torch::autograd::AccumulateGrad;
  return node && typeid(*node) == typeid(AccumulateGrad) ? static_cast<AccumulateGrad*>(node)
                                                         : nullptr;
}

// Nodes that could not be read in this session, by reason, and what hooks packed; sentences.
std::vector<std::string> unreadable_nodes();
void forget_unreadable_nodes();

}  // namespace tally::hooks
