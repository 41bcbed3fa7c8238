// SPDX-License-Identifier: Apache-2.0
// Everything that depends on the version of LibTorch, in one place. Tried with 2.11.
#pragma once

#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/dynamo/compiled_autograd.h>
#include <torch/version.h>

#include <memory>
#include <unordered_map>

#ifndef NDEBUG
#error "LibTorch must be used with -DNDEBUG: at::RecordFunction has another layout without it"
#endif

namespace tally::hooks {

#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 15
using NodePtr = c10::intrusive_ptr<torch::autograd::Node>;
#else
using NodePtr = std::shared_ptr<torch::autograd::Node>;
#endif

// What Node::compiled_args() collected of one node: its SavedVariables, without unpacking them. The
// member is private; an explicit instantiation may name it.
using SavedVariableMap =
    std::unordered_map<const torch::autograd::SavedVariable*, torch::dynamo::autograd::TensorArg*>;
SavedVariableMap torch::dynamo::autograd::TensorArgs::* saved_variables_member();

template <SavedVariableMap torch::dynamo::autograd::TensorArgs::* Member>
struct SavedVariablesAccess {
  friend SavedVariableMap torch::dynamo::autograd::TensorArgs::* saved_variables_member() {
    return Member;
  }
};

// What a C++ function of the program saved, where its other data cannot be collected. Nodes of all
// functions have the same members, whatever the function is.
struct AnyFunction : torch::autograd::Function<AnyFunction> {};
using AnyCppNode = torch::autograd::CppNode<AnyFunction>;
using SavedVariables = std::vector<torch::autograd::SavedVariable>;
SavedVariables torch::autograd::AutogradContext::*context_variables_member();

template <SavedVariables torch::autograd::AutogradContext::*Member>
struct ContextVariablesAccess {
  friend SavedVariables torch::autograd::AutogradContext::*context_variables_member() {
    return Member;
  }
};

}  // namespace tally::hooks
