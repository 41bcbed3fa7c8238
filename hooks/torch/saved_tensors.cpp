// SPDX-License-Identifier: Apache-2.0
#include "hooks/torch/saved_tensors.h"

#include <fmt/format.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <cstring>
#include <map>
#include <mutex>
#include <typeinfo>
#include <vector>

#include "hooks/torch/operator_names.h"
#include "hooks/torch/python_api.h"
#include "hooks/torch/runtime.h"
#include "profiler/core/flat_map.h"

namespace tally::hooks {

template struct SavedVariablesAccess<&torch::dynamo::autograd::TensorArgs::_saved_variables>;
template struct ContextVariablesAccess<&torch::autograd::AutogradContext::saved_variables_>;

namespace {

namespace autograd = torch::autograd;
namespace dyn = torch::dynamo::autograd;

struct Unreadable {
  std::mutex mutex;
  std::map<std::string, uint64_t> reasons;  // "PackedNode: why" -> nodes
  uint64_t packed = 0;                      // saved tensors that a hook of the program turned into
                                            // something else
};
Unreadable& unreadable() {
  static auto* const instance = new Unreadable;
  return *instance;
}

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
    if (node && seen_.insert(reinterpret_cast<uint64_t>(node.get())).second) open_.push_back(node);
  }

  // A class of nodes. Asked once a walk: a dynamic_cast that fails goes through all bases, and to
  // take a mangled name apart takes longer than all the rest.
  struct NodeClass {
    static constexpr uint32_t kNoName = ~uint32_t{0};
    enum class Kind : uint8_t { kAccumulate, kPython, kCppFunction, kGenerated, kOther };
    Kind kind = Kind::kOther;
    bool unhashable = false;  // of kCppFunction
    uint32_t name = kNoName;  // of kGenerated, which are named by their class alone
  };
  static NodeClass::Kind kind_of(autograd::Node& node) {
    using Kind = NodeClass::Kind;
    const char* const type = typeid(node).name();
    if (as_accumulate_grad(&node)) return Kind::kAccumulate;
    if (std::strstr(type, "PyNode")) return Kind::kPython;
    if (std::strstr(type, "8autograd7CppNodeI")) return Kind::kCppFunction;
    if (std::strstr(type, "torch8autograd9generated")) return Kind::kGenerated;
    return Kind::kOther;
  }
  NodeClass& class_of(autograd::Node& node) {
    const auto [known, is_new] = classes_.insert(reinterpret_cast<uint64_t>(typeid(node).name()));
    if (is_new) known->kind = kind_of(node);
    return *known;
  }

  void read(const NodePtr& node) {
    NodeClass& of = class_of(*node);
    if (of.kind == NodeClass::Kind::kAccumulate) {
      return add_tensor(context_, batch_, EventKind::kLeaf,
                        static_cast<const autograd::AccumulateGrad&>(*node).variable);
    }
    if (of.kind == NodeClass::Kind::kPython && !python_) {
      return give_up(*node, "needs Python's lock, which was not found");
    }
    if (failed_ >= kMostFailures) return give_up(*node, "not tried after other nodes failed");
    if (of.unhashable) return push_context(node, of);
    dyn::AutogradCompilerCall call(dyn::SizeInput::STATIC);
    dyn::NodeCall node_call(0, node);
    dyn::CompiledNodeArgs args(call, node_call);
    try {
      node->compiled_args(args);
    } catch (const std::exception& error) {
      const std::string_view what = error.what();
      // Of a C++ function whose saved_data holds something that has no hash, such as a capsule.
      if (of.kind == NodeClass::Kind::kCppFunction &&
          what.find("unhashable ") != std::string_view::npos) {
        of.unhashable = true;
        return push_context(node, of);
      }
      give_up(*node, what.substr(0, what.find_first_of(".\n")));
    }
    push_collected(call, *node, of);
  }

  // Also of a node that threw: what was read before is kept.
  void push_collected(dyn::AutogradCompilerCall& call, const autograd::Node& node, NodeClass& of) {
    if (!call.packed_inputs.empty()) note_packed(call.packed_inputs);
    auto& saved = call.tensor_args.*saved_variables_member();
    if (saved.empty() && call.tensor_args.inputs.empty()) return;
    const uint32_t name = name_of(node, of);
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

  // The place holders of a checkpoint that is not reentrant hold nothing.
  void note_packed(const std::vector<c10::SafePyObject>& packed) {
    if (!python_ || !python().is_there()) return;
    uint64_t count = 0;
    for (const c10::SafePyObject& object : packed) {
      count += python().type_name(object.ptr(&object.pyinterpreter())) != "_Holder";
    }
    Unreadable& all = unreadable();
    const std::lock_guard lock(all.mutex);
    all.packed += count;
  }

  void push_context(const NodePtr& node, NodeClass& of_class) {
    const autograd::AutogradContext& of = static_cast<const AnyCppNode&>(*node).ctx_;
    const uint32_t name = name_of(*node, of_class);
    for (const autograd::SavedVariable& variable : of.*context_variables_member()) {
      const auto raw = variable.get_raw_data();
      if (!raw.has_value() || !raw->defined()) continue;
      const bool is_number = raw->unsafeGetTensorImpl()->is_wrapped_number();
      add_tensor(context_, batch_, EventKind::kSaved, *raw, name,
                 is_number ? event_flags::kNumber : 0);
    }
    for (const auto& [key, value] : of.saved_data) push_plain(value, name);
  }
  void push_plain(const c10::IValue& value, uint32_t name) {
    if (value.isTensor()) {
      add_tensor(context_, batch_, EventKind::kSaved, value.toTensor(), name, event_flags::kPlain);
    } else if (value.isList()) {
      for (const c10::IValue& element : value.toListRef()) push_plain(element, name);
    } else if (value.isTuple()) {
      for (const c10::IValue& element : value.toTupleRef().elements()) push_plain(element, name);
    } else if (value.isGenericDict()) {
      for (const auto& entry : value.toGenericDict()) push_plain(entry.value(), name);
    }
  }

  uint32_t name_of(const autograd::Node& node, NodeClass& of) {
    if (of.name != NodeClass::kNoName) return of.name;
    const uint32_t name = operator_name(context_.strings, node.name().c_str()).id.value;
    if (of.kind == NodeClass::Kind::kGenerated) of.name = name;
    return name;
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
  FlatMap<bool> seen_;          // nodes, by their addresses
  FlatMap<NodeClass> classes_;  // by the addresses of their mangled names
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

void forget_unreadable_nodes() {
  Unreadable& all = unreadable();
  const std::lock_guard lock(all.mutex);
  all.reasons.clear();
  all.packed = 0;
}

std::vector<std::string> unreadable_nodes() {
  Unreadable& all = unreadable();
  const std::lock_guard lock(all.mutex);
  std::vector<std::string> sentences;
  if (all.packed > 0) {
    sentences.push_back(
        fmt::format("Saved-tensor hooks (such as save_on_cpu) packed {} tensors that autograd "
                    "saved: what they made of them is a "
                    "held output, on the device where it lies, and no activation.",
                    all.packed));
  }
  for (const auto& [reason, nodes] : all.reasons) {
    sentences.push_back(fmt::format("{} node(s) of the backward graph could not be read: {}.", nodes, reason));
  }
  return sentences;
}

}  // namespace tally::hooks
