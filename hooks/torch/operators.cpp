// SPDX-License-Identifier: Apache-2.0
// Long because what a callback learns at its start it needs at its end.
#include "hooks/torch/operators.h"

#include <ATen/SavedTensorHooks.h>
#include <ATen/record_function.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <cxxabi.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/graph_task.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <unordered_set>

#include "hooks/torch/autocast.h"
#include "hooks/torch/operator_callbacks.h"
#include "hooks/torch/operator_names.h"
#include "hooks/torch/runtime.h"
#include "hooks/torch/saved_tensors.h"
#include "hooks/torch/source_lines.h"
#include "profiler/core/error.h"

namespace tally::hooks {
namespace {

namespace autograd = torch::autograd;

// One open callback of a thread, from its start to its end.
struct OpenCall {
  const OperatorName* name = nullptr;
  const SaveRow* saves = nullptr;  // in the first steps: what this call should save
  autograd::AccumulateGrad* accumulate = nullptr;
  uint32_t outer_operators = 0;  // of a node: operators open around it
  bool is_part = false;          // of another operator, and nothing of its own was written
  bool has_frame = false;        // kOpEnter, kNodeEnter or kScopeEnter was pushed
  bool has_part = false;         // kWork was pushed
  unsigned exceptions = 0;       // under way when it began
  EventKind exit = EventKind::kOpExit;
  Work work = {};
};

// What std::uncaught_exceptions() reads, without the calls that it takes to find it: the beginning
// of a thread's __cxa_eh_globals, as the Itanium C++ ABI (2.2.2) lays it out.
struct ExceptionCounts {
  void* caught;
  unsigned uncaught;
};

std::unique_ptr<at::ObserverContext> on_start(const at::RecordFunction& function);
void on_end(const at::RecordFunction& function, at::ObserverContext*);

struct ThreadHooks {
  static constexpr uint32_t kDeepest = 256;
  static constexpr uint32_t kNoDepth = ~uint32_t{0};
  OpenCall calls[kDeepest];
  uint32_t depth = 0;           // may pass kDeepest: deeper calls are not recorded
  uint32_t whole = kNoDepth;    // of the operator whose parts say nothing, if one is open
  uint32_t open_operators = 0;  // inside the innermost node
  uint32_t open_nodes = 0;
  uint64_t after_backward = 0;  // the step of its last backward pass, if no forward operator came
                                // since: gradient-free work is then an update
  int64_t last_task = -1;
  int64_t last_sequence = -1;  // forward sequence number pushed last
  uint64_t session = 0;        // the session that `work` and the counts above belong to
  WorkStack work;
  OperatorCallbacks callbacks;  // off inside an operator whose parts say nothing
  const ExceptionCounts* const exceptions =
      reinterpret_cast<const ExceptionCounts*>(abi::__cxa_get_globals());

  void begin_session(uint64_t number) noexcept {
    session = number;
    depth = open_operators = open_nodes = 0;
    whole = kNoDepth;
    last_task = last_sequence = -1;
    work = {};
    callbacks.find({&on_start, &on_end});
  }
};

std::atomic<uint64_t> session_number{0};
std::atomic<uint64_t> step_number{1};  // grows with each step of each session
std::atomic<bool> theory_wanted{false};

// Tells each backward pass once, whichever thread and device comes first.
class SeenTasks {
 public:
  bool insert(int64_t task) {
    const std::lock_guard lock(mutex_);
    if (seen_.size() >= kMost) seen_.clear();  // ids only grow; old ones do not come back
    return seen_.insert(task).second;
  }

 private:
  static constexpr size_t kMost = 1 << 16;
  std::mutex mutex_;
  std::unordered_set<int64_t> seen_;
};
SeenTasks& seen_tasks() {
  static auto* const instance = new SeenTasks;
  return *instance;
}

template <typename Visit>
void for_each_tensor(c10::ArrayRef<const c10::IValue> values, Visit&& visit) {
  for (const c10::IValue& value : values) {
    if (value.isTensor()) {
      if (value.toTensor().defined()) visit(value.toTensor());
    } else if (value.isList()) {
      for (const c10::IValue& element : value.toListRef()) {
        if (element.isTensor()) {
          if (element.toTensor().defined()) visit(element.toTensor());
        } else if (!element.isNone()) {
          break;  // a list of numbers
        }
      }
    }
  }
}

void push_expected_save(Context& context, const at::Tensor& tensor, SavedFrom from, uint32_t name) {
  if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) return;
  if (from != SavedFrom::kCopy) {
    return push_tensor(context, EventKind::kExpectedSave, tensor, name);
  }
  // Autograd keeps a clone that we never see: its own bytes, under an address that is no block's.
  static std::atomic<uint64_t> next_copy{~uint64_t{0} - 1};
  const StorageRef storage = storage_of(tensor);
  if (!storage) return;
  Event event;
  event.kind = EventKind::kExpectedSave;
  event.id = name;
  event.a = next_copy.fetch_sub(2);
  event.b = uint64_t{storage.device} << 32;
  event.c = tensor.nbytes();
  context.log.push(event);
}

void begin_backward(Context& context, ThreadHooks& hooks, int64_t task) {
  if (hooks.last_task == task) return;
  hooks.last_task = task;
  if (!seen_tasks().insert(task)) return;
  const bool nested = hooks.open_nodes > 1;  // this node is counted already
  const int64_t begin = now_ns();
  push_saved_tensors(context, autograd::get_current_node(), static_cast<uint64_t>(task), nested);
  add_hook_time(now_ns() - begin);
  autograd::Engine::get_default_engine().queue_callback([task, nested] {
    Context* still = recording();
    if (!still) return;
    if (!nested) still->devices.tell_mark(*still);
    Event event;
    event.kind = EventKind::kBackwardEnd;
    event.a = static_cast<uint64_t>(task);
    event.flags = nested ? event_flags::kNested : 0;
    still->log.push(event);
  });
}

void enter_node(Context& context, const at::RecordFunction& function, ThreadHooks& hooks,
                OpenCall& call) {
  const int64_t task = autograd::get_current_graph_task_id();
  call.outer_operators = hooks.open_operators;
  call.has_frame = true;
  call.exit = EventKind::kNodeExit;
  hooks.open_operators = 0;
  ++hooks.open_nodes;
  {
    EventLog::Batch batch(context.log);
    Event& event = batch.add(EventKind::kNodeEnter);
    event.id = call.name->id.value;
    event.flags = static_cast<uint8_t>(event_flags::kInGraphTask |
                                       (c10::GradMode::is_enabled() ? event_flags::kGradMode : 0));
    event.a = static_cast<uint64_t>(function.seqNr());
    event.b = function.forwardThreadId();
    event.c = static_cast<uint64_t>(task);
    for_each_tensor(function.inputs(), [&](const at::Tensor& gradient) {
      add_tensor(context, batch, EventKind::kGradientFlow, gradient);
    });
  }
  hooks.after_backward = step_number.load(std::memory_order_relaxed);
  begin_backward(context, hooks, task);
  if (call.name->kind == OperatorName::Kind::kAccumulate) {
    call.accumulate = as_accumulate_grad(autograd::get_current_node().get());
  }
}

// What the inputs say about an operator that autograd may record or that may be an update.
struct InputFacts {
  bool needs_grad = false;   // an input requires a gradient
  bool reads_leaf = false;   // and is a leaf: a parameter, most likely
  bool writes_leaf = false;  // which is written in place
  bool has_tangent = false;  // forward-mode differentiation computes beside the operator
};
InputFacts facts_of(const OperatorName& name, c10::ArrayRef<const c10::IValue> inputs) noexcept {
  InputFacts facts;
  if (name.makes_no_graph) return facts;
  bool first = true;
  for_each_tensor(inputs, [&](const at::Tensor& tensor) {
    if (tensor.requires_grad()) {
      facts.needs_grad = true;
      const bool is_leaf = tensor.is_leaf();
      facts.reads_leaf |= is_leaf;
      facts.writes_leaf |= first && is_leaf && name.in_place;
    }
    const c10::AutogradMetaInterface* meta = tensor.unsafeGetTensorImpl()->autograd_meta();
    facts.has_tangent |= meta && static_cast<const autograd::AutogradMeta*>(meta)->fw_grad_;
    first = false;
  });
  return facts;
}

// Whether nothing that runs inside an operator of such a rule counts: a tensor subclass of Python
// may do anything there, and a view of sparse or nested tensors has work to do.
bool is_whole(const WorkRule& rule, c10::ArrayRef<const c10::IValue> inputs) noexcept {
  bool whole = true;
  for_each_tensor(inputs.slice(0, std::min<size_t>(inputs.size(), 2)),
                  [&](const at::Tensor& tensor) {
                    const c10::DispatchKeySet keys = tensor.unsafeGetTensorImpl()->key_set();
                    whole &= !keys.has(c10::DispatchKey::Python);
                    whole &= !(rule.flags & WorkRule::kView) || keys.has(c10::DispatchKey::Dense);
                  });
  return whole;
}

// Whether the thread's operators go straight to autograd and the kernel: no dispatch mode, no
// transform of torch.func and, where nodes are made, neither autocast nor hooks on what is saved.
bool dispatches_plainly(bool makes_nodes) noexcept {
  const c10::impl::LocalDispatchKeySet keys = c10::impl::tls_local_dispatch_key_set();
  if (!(keys.included_ - c10::default_included_set).empty()) return false;
  return !makes_nodes || (keys.excluded_.has_all(c10::autocast_dispatch_keyset) &&
                          at::SavedTensorDefaultHooks::get_tls_state().stack.empty());
}

void fill_work(Event& event, const OperatorName& name, const Work& work) noexcept {
  event.id = name.id.value;
  event.a = static_cast<uint64_t>(work.flops);
  event.b = static_cast<uint64_t>(work.torch_flops);
  event.c = static_cast<uint64_t>(work.elementwise);
}

void enter_operator(Context& context, const at::RecordFunction& function, ThreadHooks& hooks,
                    OpenCall& call) {
  const OperatorName& name = *call.name;
  const bool outermost = hooks.open_operators++ == 0;
  const bool records = c10::GradMode::is_enabled();
  const int64_t sequence = function.seqNr();
  const bool may_make_node = records && sequence >= 0;
  const c10::ArrayRef<const c10::IValue> inputs = function.inputs();
  const bool in_task = autograd::get_current_graph_task_id() >= 0;
  const Work work = hooks.work.enter(name.work, inputs);
  const bool may_be_whole = name.work.is_whole() && hooks.whole == ThreadHooks::kNoDepth;
  const bool is_whole_here =
      (may_be_whole || hooks.work.hides_all()) && is_whole(name.work, inputs);
  if (may_be_whole && is_whole_here) hooks.whole = hooks.depth - 1;
  const bool asks_inputs = may_make_node || (outermost && (!in_task || records));
  const InputFacts facts = asks_inputs ? facts_of(name, inputs) : InputFacts{};
  // Its parts are not worth a call if they make no node either.
  const bool parts_make_no_node = !records || name.makes_no_graph ||
                                  (sequence >= 0 && (name.work.flags & WorkRule::kAutograd) &&
                                   !name.in_place && !facts.has_tangent);
  if (is_whole_here && parts_make_no_node && dispatches_plainly(records)) {
    hooks.callbacks.turn_off();
  }
  {
    EventLog::Batch batch(context.log);
    if (outermost) {
      call.has_frame = true;
      call.exit = EventKind::kOpExit;
      Event& event = batch.add(EventKind::kOpEnter);
      fill_work(event, name, work);
      event.flags = static_cast<uint8_t>((records ? event_flags::kGradMode : 0) |
                                         (in_task ? event_flags::kInGraphTask : 0) |
                                         (facts.needs_grad ? event_flags::kNeedsGrad : 0) |
                                         (facts.reads_leaf ? event_flags::kReadsLeaf : 0) |
                                         (facts.writes_leaf ? event_flags::kWritesLeaf : 0));
      if (records && facts.needs_grad) hooks.after_backward = 0;
      // Inside a node nothing is learnt from what an operator reads, unless it is a recomputation.
      // Of an update, what it works on tells all: the parameter, its gradient or its state.
      const bool updates =
          !records && hooks.after_backward == step_number.load(std::memory_order_relaxed);
      if (name.communicates) {
        for_each_tensor(inputs, [&](const at::Tensor& tensor) {
          add_tensor(context, batch, EventKind::kCommunication, tensor);
        });
      } else if (!in_task || records) {
        bool first = true;
        for_each_tensor(inputs, [&](const at::Tensor& tensor) {
          if (first || !updates) add_tensor(context, batch, EventKind::kRead, tensor);
          first = false;
        });
      }
    } else if (work.flops != 0 || work.torch_flops != 0 || work.elementwise != 0) {
      call.has_part = true;
      call.work = work;
      fill_work(batch.add(EventKind::kWork), name, work);
    }
    if (call.has_frame || call.has_part) call.exceptions = hooks.exceptions->uncaught;
    // The operator that is started last with a number makes the node of that number.
    if (may_make_node && facts.needs_grad &&
        (outermost || sequence != hooks.last_sequence || work.indices != 0)) {
      hooks.last_sequence = sequence;
      Event& event = batch.add(EventKind::kForward);
      event.a = static_cast<uint64_t>(sequence);
      event.b = at::RecordFunction::currentThreadId();
      event.id = static_cast<uint32_t>(work.indices);
    }
  }
  // Within an operator, `to` and the cast that it calls.
  if (name.casts && hooks.open_operators > 2 && facts.reads_leaf && may_make_node &&
      fills_autocast_cache(inputs[0].toTensor())) {
    push_tensor(context, EventKind::kCast, inputs[0].toTensor());
  }
  if (name.kind == OperatorName::Kind::kKeepInputs && may_make_node && !in_task) {
    for_each_tensor(inputs, [](const at::Tensor& tensor) { keep_as_saved(tensor); });
  }
  if (may_make_node && facts.needs_grad && !in_task &&
      theory_wanted.load(std::memory_order_relaxed)) {
    call.saves = saving_overload(name.save, inputs);
    visit_saved_inputs(call.saves, inputs, [&](const at::Tensor& tensor, SavedFrom from) {
      push_expected_save(context, tensor, from, name.id.value);
    });
  }
}

// A call that is no part of another operator, or may count for itself.
[[gnu::noinline]] void start_call(Context& context, const at::RecordFunction& function,
                                  ThreadHooks& hooks, bool may_be_part) {
  const HookTimer timer;
  OpenCall& call = hooks.calls[hooks.depth - 1];
  const at::RecordScope scope = function.scope();
  const OperatorName& name = scope == at::RecordScope::FUNCTION
                                 ? operator_name(context.strings, function)
                                 : operator_name(context.strings, function.name());
  if (may_be_part && hooks.work.hides(name.work) && name.kind != OperatorName::Kind::kIgnored) {
    call.is_part = true;
    return;
  }
  call = {.name = &name};
  switch (scope) {
    case at::RecordScope::BACKWARD_FUNCTION:
      enter_node(context, function, hooks, call);
      break;
    case at::RecordScope::USER_SCOPE: {
      call.has_frame = true;
      call.exit = EventKind::kScopeExit;
      Event event;
      event.kind = EventKind::kScopeEnter;
      event.id = name.id.value;
      event.flags = name.kind == OperatorName::Kind::kUpdate ? event_flags::kUpdate : 0;
      context.log.push(event);
      break;
    }
    default:
      if (name.kind != OperatorName::Kind::kIgnored) {
        enter_operator(context, function, hooks, call);
      }
  }
}

std::unique_ptr<at::ObserverContext> on_start(const at::RecordFunction& function) {
  Context* context = recording();
  ThreadHooks* of_thread = context ? OfThread<ThreadHooks>::get() : nullptr;
  if (!of_thread) return nullptr;
  ThreadHooks& hooks = *of_thread;
  const uint64_t session = session_number.load(std::memory_order_relaxed);
  if (hooks.session != session) [[unlikely]]
    hooks.begin_session(session);
  if (hooks.depth++ >= ThreadHooks::kDeepest) return nullptr;
  // Two of three calls are parts of another operator that neither count nor make a node.
  const bool may_be_part = hooks.open_operators != 0 && function.seqNr() < 0 &&
                           function.scope() == at::RecordScope::FUNCTION;
  if (may_be_part && (hooks.whole != ThreadHooks::kNoDepth || hooks.work.hides_all())) {
    hooks.calls[hooks.depth - 1].is_part = true;
    return nullptr;
  }
  start_call(*context, function, hooks, may_be_part);
  return nullptr;
}

[[gnu::noinline]] void end_call(const at::RecordFunction& function, ThreadHooks& hooks,
                                const OpenCall& call) {
  const HookTimer timer;
  Context* context = recording();
  if (function.scope() == at::RecordScope::BACKWARD_FUNCTION) {
    hooks.open_operators = call.outer_operators;
    --hooks.open_nodes;
    if (context && call.accumulate) {
      const at::Tensor& variable = call.accumulate->variable;
      push_related(*context, EventKind::kGradient, variable.grad(), variable);
    }
  } else if (function.scope() != at::RecordScope::USER_SCOPE &&
             call.name->kind != OperatorName::Kind::kIgnored) {
    if (hooks.whole == hooks.depth) hooks.whole = ThreadHooks::kNoDepth;
    --hooks.open_operators;
    hooks.work.exit(call.name->work);
    if (context && call.saves && function.num_outputs() > 0) {
      const std::vector<c10::IValue>& outputs = function.outputs();
      visit_saved_outputs(call.saves,
                          c10::ArrayRef<const c10::IValue>(outputs.data(), outputs.size()),
                          [&](const at::Tensor& tensor, SavedFrom from) {
                            push_expected_save(*context, tensor, from, call.name->id.value);
                          });
    }
  }
  if (!context || !(call.has_frame || call.has_part)) return;
  const bool failed =
      call.exit == EventKind::kOpExit && hooks.exceptions->uncaught > call.exceptions;
  if (call.has_part && failed) {
    Event event;
    event.kind = EventKind::kWork;
    event.flags = event_flags::kException;
    fill_work(event, *call.name, call.work);
    context->log.push(event);
  }
  if (call.has_frame) {
    tell_remembered_blocks(*context);
    Event event;
    event.kind = call.exit;
    event.flags = failed ? event_flags::kException : 0;
    context->log.push(event);
  }
}

void on_end(const at::RecordFunction& function, at::ObserverContext*) {
  ThreadHooks* of_thread = OfThread<ThreadHooks>::get();
  if (!of_thread) return;
  ThreadHooks& hooks = *of_thread;
  if (hooks.callbacks.are_off()) hooks.callbacks.turn_on();
  // Its start was not recorded: it was open when the session began.
  if (hooks.depth == 0 || hooks.session != session_number.load(std::memory_order_relaxed)) return;
  if (--hooks.depth >= ThreadHooks::kDeepest) return;
  const OpenCall& call = hooks.calls[hooks.depth];
  if (call.is_part) return;
  end_call(function, hooks, call);
}

class OperatorSource final : public Source {
 public:
  explicit OperatorSource(OperatorOptions options) : options_(options) {}
  ~OperatorSource() override { stop(); }

  std::string_view name() const override { return "torch.operators"; }
  Availability availability() const override { return {true, {}}; }
  void start(Context& context) override {
    session_number.fetch_add(1);
    forget_unreadable_nodes();
    steps_ = 0;
    watch_theory(options_.theory_steps > 0);
    context.devices.block_made.store(&tell_source_line_later);
    context.devices.allocation_failed.store(&tell_source_line_of_failure);
  }
  void step_begin() noexcept override { step_number.fetch_add(1); }
  void step_end() noexcept override {
    // Outputs cost every operator something: they are asked for only while the theory is recorded.
    if (++steps_ == options_.theory_steps) watch_theory(false);
  }
  void stop() noexcept override {
    if (handle_) at::removeCallback(*handle_);
    handle_.reset();
    theory_wanted.store(false);
    session_number.fetch_add(1);
  }
  SourceStatistics statistics() const override {
    SourceStatistics statistics;
    statistics.notes = unreadable_nodes();
    return statistics;
  }

 private:
  void watch_theory(bool wanted) {
    if (handle_) at::removeCallback(*handle_);
    using Scope = at::RecordScope;
    const std::unordered_set<Scope, std::hash<Scope>> scopes{
        Scope::FUNCTION, Scope::BACKWARD_FUNCTION, Scope::USER_SCOPE};
    handle_ = at::addGlobalCallback(at::RecordFunctionCallback(&on_start, &on_end)
                                        .needsInputs(true)
                                        .needsOutputs(wanted)
                                        .scopes(scopes));
    theory_wanted.store(wanted);
  }

  const OperatorOptions options_;
  uint64_t steps_ = 0;
  std::optional<at::CallbackHandle> handle_;
};

}  // namespace

std::unique_ptr<Source> make_operator_source(OperatorOptions options) {
  return std::make_unique<OperatorSource>(options);
}

}  // namespace tally::hooks
