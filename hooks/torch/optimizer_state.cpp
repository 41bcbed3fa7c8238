// SPDX-License-Identifier: Apache-2.0
#include "hooks/torch/optimizer_state.h"

#include <cxxabi.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/optim.h>
#include <torch/serialize/output-archive.h>

#include <cstdlib>
#include <typeinfo>
#include <utility>
#include <vector>

#include "hooks/torch/runtime.h"
#include "profiler/core/flat_map.h"

namespace tally::hooks {

// The archive that a state writes itself into keeps its module private; an explicit instantiation
// may name it.
torch::jit::Module torch::serialize::OutputArchive::* archive_module_member();
template <torch::jit::Module torch::serialize::OutputArchive::* Member>
struct ArchiveModuleAccess {
  friend torch::jit::Module torch::serialize::OutputArchive::* archive_module_member() {
    return Member;
  }
};
template struct ArchiveModuleAccess<&torch::serialize::OutputArchive::module_>;

namespace {

namespace optim = torch::optim;

template <typename Tensors>
void visit_all(const char* name, const Tensors& tensors, const at::Tensor& parameter,
               const StateVisitor& visit) {
  for (const at::Tensor& tensor : tensors) visit(name, tensor, parameter);
}

// The classes of torch::optim, by their accessors: 20 times faster than what follows.
bool visit_known(optim::OptimizerParamState& state, const at::Tensor& parameter,
                 const StateVisitor& visit) {
  const auto visit_adam = [&](const auto& adam) {
    prefetch_tensor(adam.exp_avg().unsafeGetTensorImpl());
    prefetch_tensor(adam.exp_avg_sq().unsafeGetTensorImpl());
    prefetch_contents(adam.exp_avg());
    prefetch_contents(adam.exp_avg_sq());
    visit("exp_avg", adam.exp_avg(), parameter);
    visit("exp_avg_sq", adam.exp_avg_sq(), parameter);
    visit("max_exp_avg_sq", adam.max_exp_avg_sq(), parameter);
    return true;
  };
  // A dynamic_cast that fails walks the class's bases, thousands of times a step.
  if (typeid(state) == typeid(optim::AdamWParamState)) {
    return visit_adam(static_cast<optim::AdamWParamState&>(state));
  }
  if (auto* adam = dynamic_cast<optim::AdamParamState*>(&state)) return visit_adam(*adam);
  if (auto* adamw = dynamic_cast<optim::AdamWParamState*>(&state)) return visit_adam(*adamw);
  if (auto* sgd = dynamic_cast<optim::SGDParamState*>(&state)) {
    visit("momentum_buffer", sgd->momentum_buffer(), parameter);
    return true;
  }
  if (auto* rmsprop = dynamic_cast<optim::RMSpropParamState*>(&state)) {
    visit("square_avg", rmsprop->square_avg(), parameter);
    visit("momentum_buffer", rmsprop->momentum_buffer(), parameter);
    visit("grad_avg", rmsprop->grad_avg(), parameter);
    return true;
  }
  if (auto* adagrad = dynamic_cast<optim::AdagradParamState*>(&state)) {
    visit("sum", adagrad->sum(), parameter);
    return true;
  }
  // LBFGS keeps one state for all of its parameters.
  if (auto* lbfgs = dynamic_cast<optim::LBFGSParamState*>(&state)) {
    const at::Tensor of_all;
    visit("d", lbfgs->d(), of_all);
    visit("H_diag", lbfgs->H_diag(), of_all);
    visit("prev_flat_grad", lbfgs->prev_flat_grad(), of_all);
    visit_all("old_dirs", lbfgs->old_dirs(), of_all, visit);
    visit_all("old_stps", lbfgs->old_stps(), of_all, visit);
    visit_all("ro", lbfgs->ro(), of_all, visit);
    if (lbfgs->al().has_value()) visit_all("al", *lbfgs->al(), of_all, visit);
    return true;
  }
  return false;
}

void visit_value(const char* name, const c10::IValue& value, const at::Tensor& parameter,
                 const StateVisitor& visit) {
  if (value.isTensor()) {
    visit(name, value.toTensor(), parameter);
  } else if (value.isList()) {
    for (const c10::IValue& element : value.toListRef()) visit_value(name, element, parameter, visit);
  }
}

// Any other class: what it would save to a file, which keeps the original storages.
void visit_serialized(const optim::OptimizerParamState& state, const at::Tensor& parameter,
                      const StateVisitor& visit) {
  torch::serialize::OutputArchive archive(std::make_shared<torch::jit::CompilationUnit>());
  try {
    state.serialize(archive);
  } catch (const std::exception&) {
    return;  // it does not say what it holds
  }
  for (const auto& attribute : (archive.*archive_module_member()).named_attributes(false)) {
    visit_value(attribute.name.c_str(), attribute.value, parameter, visit);
  }
}

}  // namespace

std::string optimizer_type(const optim::Optimizer& optimizer) {
  int status = 0;
  char* demangled = abi::__cxa_demangle(typeid(optimizer).name(), nullptr, nullptr, &status);
  std::string name = status == 0 && demangled ? demangled : typeid(optimizer).name();
  std::free(demangled);
  const size_t colon = name.rfind("::");
  return colon == std::string::npos ? name : name.substr(colon + 2);
}

std::string optimizer_recipe(optim::Optimizer& optimizer) {
  if (optimizer.param_groups().empty()) return {};
  optim::OptimizerOptions& options = optimizer.param_groups()[0].options();
  if (auto* adam = dynamic_cast<optim::AdamOptions*>(&options)) {
    return adam->amsgrad() ? "adam-amsgrad" : "adam";
  }
  if (auto* adamw = dynamic_cast<optim::AdamWOptions*>(&options)) {
    return adamw->amsgrad() ? "adamw-amsgrad" : "adamw";
  }
  if (auto* sgd = dynamic_cast<optim::SGDOptions*>(&options)) {
    return sgd->momentum() != 0 ? "sgd-momentum" : "sgd";
  }
  if (auto* rmsprop = dynamic_cast<optim::RMSpropOptions*>(&options)) {
    return std::string("rmsprop") + (rmsprop->momentum() > 0 ? "-momentum" : "") +
           (rmsprop->centered() ? "-centered" : "");
  }
  if (dynamic_cast<optim::AdagradOptions*>(&options)) return "adagrad";
  if (dynamic_cast<optim::LBFGSOptions*>(&options)) return "lbfgs";
  return {};
}

void for_each_state(optim::Optimizer& optimizer, const StateVisitor& visit) {
  const auto visit_one = [&](optim::OptimizerParamState* state, const at::Tensor& parameter) {
    if (!state || visit_known(*state, parameter, visit)) return;
    visit_serialized(*state, parameter, visit);
  };
  // The state map's keys are the addresses of tensors, not the tensors.
  const auto& states = optimizer.state();
  FlatMap<bool> seen;
  std::vector<std::pair<optim::OptimizerParamState*, const at::Tensor*>> of_groups;
  of_groups.reserve(states.size());
  for (const auto& group : optimizer.param_groups()) {
    for (const at::Tensor& parameter : group.params()) {
      const auto found = states.find(parameter.unsafeGetTensorImpl());
      if (found == states.end()) continue;
      optim::OptimizerParamState* state = found->second.get();
      if (!seen.insert(reinterpret_cast<uintptr_t>(found->first), true).second) continue;
      __builtin_prefetch(state);
      of_groups.emplace_back(state, &parameter);
    }
  }
  for (const auto& [state, parameter] : of_groups) visit_one(state, *parameter);
  if (seen.size() == states.size()) return;
  const at::Tensor none;  // of parameters that are no longer in a group
  for (const auto& [key, state] : states) {
    if (!seen.find(reinterpret_cast<uintptr_t>(key))) visit_one(state.get(), none);
  }
}

}  // namespace tally::hooks
