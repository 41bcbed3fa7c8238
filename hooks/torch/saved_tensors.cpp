// SPDX-License-Identifier: Apache-2.0
#include "hooks/torch/saved_tensors.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <cstring>
#include <map>
#include <mutex>
#include <typeinfo>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "hooks/torch/operator_names.h"
#include "hooks/torch/runtime.h"

namespace tally::hooks {

template struct SavedVariablesAccess<&torch::dynamo::autograd::TensorArgs::_saved_variables>;

namespace {

namespace autograd = torch::autograd;
namespace dyn = torch::dynamo::autograd;

struct Unreadable {
  std::mutex mutex;
  std::map<std::string, uint64_t> reasons;  // "PackedNode: why" -> nodes
};
Unreadable& unreadable() {
  static auto* const instance = new Unreadable;
  return *instance;
}

// Python's lock, where this process has an interpreter: reading a Python node counts references.
// Nothing of Python is linked. Never taken while a lock of ours is held.
class PythonLock {
 public:
  PythonLock() noexcept {
    using IsInitialized = int (*)();
    using Ensure = int (*)();
    const auto is_initialized =
        reinterpret_cast<IsInitialized>(dlsym(RTLD_DEFAULT, "Py_IsInitialized"));
    if (!is_initialized || !is_initialized()) return;
    const auto ensure = reinterpret_cast<Ensure>(dlsym(RTLD_DEFAULT, "PyGILState_Ensure"));
    release_ = reinterpret_cast<Release>(dlsym(RTLD_DEFAULT, "PyGILState_Release"));
    if (!ensure || !release_) return;
    state_ = ensure();
    held_ = true;
  }
  ~PythonLock() {
    if (held_) release_(state_);
  }
  PythonLock(const PythonLock&) = delete;
  PythonLock& operator=(const PythonLock&) = delete;
  bool held() const { return held_; }

 private:
  using Release = void (*)(int);
  Release release_ = nullptr;
  int state_ = 0;
  bool held_ = false;
};

using WeakTensor = c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>;
struct KeptInputs {
  std::mutex mutex;
  std::vector<WeakTensor> tensors;
};
KeptInputs& kept_inputs() {
  static auto* const instance = new KeptInputs;
  return *instance;
}

// A pass that frees its graph frees what was kept for it.
void push_kept_inputs(Context& context) {
  std::vector<at::Tensor> alive;
  {
    KeptInputs& all = kept_inputs();
    const std::lock_guard lock(all.mutex);
    for (const WeakTensor& weak : all.tensors) {
      if (auto locked = weak.lock()) alive.emplace_back(std::move(locked));
    }
    if (!autograd::get_current_graph_task_keep_graph()) all.tensors.clear();
  }
  const uint32_t name = operator_name(context.strings, "_NoopSaveInputs").id.value;
  EventLog::Batch batch(context.log);
  for (const at::Tensor& tensor : alive) {
    add_tensor(context, batch, EventKind::kSaved, tensor, name);
  }
}

class Walk {
 public:
  Walk(Context& context, bool python)
      : context_(context), batch_(context.log), python_(python) {}

  void run(const NodePtr& root) {
    visit(root);
    while (!open_.empty()) {
      const NodePtr node = std::move(open_.back());
      open_.pop_back();
      ++nodes_;
      read(node);
      for (const autograd::Edge& edge : node->next_edges()) visit(edge.function);
    }
  }
  uint64_t nodes() const { return nodes_; }
  uint64_t failed() const { return failed_; }

 private:
  // A throw costs most of a millisecond (c10::Error takes a stack trace): after this many in one
  // walk the rest is not tried.
  static constexpr uint64_t kMostFailures = 8;

  void visit(const NodePtr& node) {
    if (node && seen_.insert(node.get()).second) open_.push_back(node);
  }

  void read(const NodePtr& node) {
    if (const auto* leaf = dynamic_cast<autograd::AccumulateGrad*>(node.get())) {
      add_tensor(context_, batch_, EventKind::kLeaf, leaf->variable);
      return;
    }
    const bool is_python = std::strstr(typeid(*node).name(), "PyNode") != nullptr;
    if (is_python && !python_) return give_up(*node, "needs Python's lock, which was not found");
    if (failed_ >= kMostFailures) return give_up(*node, "not tried after other nodes failed");
    dyn::AutogradCompilerCall call(dyn::SizeInput::STATIC);
    dyn::NodeCall node_call(0, node);
    dyn::CompiledNodeArgs args(call, node_call);
    try {
      node->compiled_args(args);
    } catch (const std::exception& error) {
      const std::string_view what = error.what();
      give_up(*node, what.substr(0, what.find_first_of(".\n")));
    }
    push_collected(call, *node);
  }

  // Also of a node that threw: what was read before is kept.
  void push_collected(dyn::AutogradCompilerCall& call, const autograd::Node& node) {
    auto& saved = call.tensor_args.*saved_variables_member();
    if (saved.empty() && call.tensor_args.inputs.empty()) return;
    const uint32_t name = name_of(node);
    const std::vector<at::Tensor>& inputs = call.tensor_args.inputs;
    std::vector<bool> is_saved_variable(inputs.size());
    for (const auto& [variable, argument] : saved) {
      if (argument->defined()) is_saved_variable[argument->index()] = true;
      const auto raw = variable->get_raw_data();
      if (!raw.has_value() || !raw->defined()) continue;
      const bool is_number = raw->unsafeGetTensorImpl()->is_wrapped_number();
      add_tensor(context_, batch_, EventKind::kSaved, *raw, name,
                 is_number ? event_flags::kNumber : 0);
    }
    // Tensors that the node holds in another way, such as ctx->saved_data of a C++ function.
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (is_saved_variable[i]) continue;
      add_tensor(context_, batch_, EventKind::kSaved, inputs[i], name, event_flags::kPlain);
    }
  }

  // name() takes a mangled name apart each time. LibTorch's own nodes are named by their class
  // alone.
  uint32_t name_of(const autograd::Node& node) {
    const char* const type = typeid(node).name();
    if (!std::strstr(type, "torch8autograd9generated")) return find_name(node);
    const auto [known, is_new] = names_.try_emplace(type, 0);
    if (is_new) known->second = find_name(node);
    return known->second;
  }
  uint32_t find_name(const autograd::Node& node) {
    return operator_name(context_.strings, node.name().c_str()).id.value;
  }

  void give_up(const autograd::Node& node, std::string_view reason) {
    ++failed_;
    Unreadable& all = unreadable();
    const std::lock_guard lock(all.mutex);
    ++all.reasons[fmt::format("{}: {}", node.name(), reason)];
  }

  Context& context_;
  EventLog::Batch batch_;
  const bool python_;
  uint64_t nodes_ = 0;
  uint64_t failed_ = 0;
  std::unordered_set<const autograd::Node*> seen_;
  std::unordered_map<const char*, uint32_t> names_;  // of classes, by their mangled names
  std::vector<NodePtr> open_;
};

void push_edge(Context& context, EventKind kind, uint64_t graph_task, bool nested, uint64_t nodes,
               uint64_t failed) {
  Event event;
  event.kind = kind;
  event.flags = nested ? event_flags::kNested : 0;
  event.a = graph_task;
  event.b = nodes;
  event.c = failed;
  context.log.push(event);
}

}  // namespace

void push_saved_tensors(Context& context, const NodePtr& root, uint64_t graph_task,
                        bool nested) noexcept {
  try {
    const PythonLock python;
    push_edge(context, EventKind::kEdgeBegin, graph_task, nested, 0, 0);
    Walk walk(context, python.held());
    walk.run(root);
    if (!nested) {
      context.devices.tell_mark(context);
      push_kept_inputs(context);
    }
    push_edge(context, EventKind::kEdgeEnd, graph_task, nested, walk.nodes(), walk.failed());
  } catch (...) {  // out of memory for our own lists: the edge stays without an end
  }
}

void keep_as_saved(const at::Tensor& tensor) noexcept {
  try {
    KeptInputs& all = kept_inputs();
    const std::lock_guard lock(all.mutex);
    all.tensors.emplace_back(tensor.getIntrusivePtr());
  } catch (...) {  // out of memory for our own list: it is then held by the program
  }
}

std::vector<std::string> unreadable_nodes() {
  Unreadable& all = unreadable();
  const std::lock_guard lock(all.mutex);
  std::vector<std::string> sentences;
  for (const auto& [reason, nodes] : all.reasons) {
    sentences.push_back(fmt::format("{} node(s) of the backward graph could not be read: {}.", nodes, reason));
  }
  return sentences;
}

}  // namespace tally::hooks
