// SPDX-License-Identifier: Apache-2.0
#include "hooks/torch/objects.h"

#include <cxxabi.h>
#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <string>
#include <typeinfo>
#include <unordered_set>
#include <utility>
#include <vector>

#include "hooks/torch/optimizer_state.h"
#include "hooks/torch/runtime.h"

namespace tally::hooks {
namespace {

using WeakTensor = c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>;

// A parameter or buffer of a watched module; does not keep its tensor alive.
struct Watched {
  WeakTensor tensor;
  uint32_t index;  // into RunInfo::parameters
  bool is_buffer;
};
struct WatchedOptimizer {
  torch::optim::Optimizer* optimizer;
  std::vector<WeakTensor> parameters;
};

WeakTensor weak(const at::Tensor& tensor) { return WeakTensor(tensor.getIntrusivePtr()); }
at::Tensor lock(const WeakTensor& tensor) {
  auto locked = tensor.lock();
  return locked ? at::Tensor(std::move(locked)) : at::Tensor();
}

// "torch::nn::LinearImpl" -> "Linear", "(anonymous namespace)::BlockImpl" -> "Block".
std::string type_name(const torch::nn::Module& module) {
  int status = 0;
  char* demangled = abi::__cxa_demangle(typeid(module).name(), nullptr, nullptr, &status);
  std::string name = status == 0 && demangled ? demangled : typeid(module).name();
  std::free(demangled);
  const size_t colon = name.rfind("::");
  if (colon != std::string::npos) name.erase(0, colon + 2);
  if (name.ends_with("Impl") && name.size() > 4) name.resize(name.size() - 4);
  return name;
}

std::string join(const std::string& prefix, const std::string& name) {
  return prefix.empty() || name.empty() ? prefix + name : prefix + "." + name;
}

class Objects final : public ObjectSource {
 public:
  std::string_view name() const override { return "torch.objects"; }
  Availability availability() const override { return {true, {}}; }
  void start(Context& context) override { context_ = &context; }

  void watch(const torch::nn::Module& module, const std::string& prefix) override {
    const std::lock_guard guard(mutex_);
    add_module(module, prefix);
    // Without itself: only a module that a shared pointer owns can be listed with the others.
    for (const auto& item : module.named_modules(/*name_prefix=*/"", /*include_self=*/false)) {
      add_module(*item.value(), join(prefix, item.key()));
    }
    push_parameters();
  }

  void watch(const std::vector<NamedModule>& modules,
             const std::vector<NamedTensor>& tensors) override {
    const std::lock_guard guard(mutex_);
    context_->directory.update([&](RunInfo& info) {
      for (const NamedModule& module : modules) {
        info.modules.push_back(
            {context_->strings.intern(module.name), context_->strings.intern(module.type)});
      }
    });
    std::unordered_set<const c10::TensorImpl*> known;
    for (const Watched& watched : parameters_) {
      if (!watched.tensor.expired()) known.insert(watched.tensor._unsafe_get_target());
    }
    for (const NamedTensor& named : tensors) {
      if (!named.tensor.defined() || known.count(named.tensor.unsafeGetTensorImpl())) continue;
      add_named(named.tensor, named.module, named.name, named.is_buffer);
    }
    push_parameters();
  }

  void describe_optimizer(const std::string& type, const std::string& recipe,
                          const std::vector<at::Tensor>& parameters) override {
    const std::lock_guard guard(mutex_);
    std::unordered_set<const c10::TensorImpl*> held;
    for (const at::Tensor& parameter : parameters) held.insert(parameter.unsafeGetTensorImpl());
    add_optimizer(type, recipe, held);
  }

  void watch(torch::optim::Optimizer& optimizer) override {
    const std::lock_guard guard(mutex_);
    WatchedOptimizer watched{&optimizer, {}};
    std::unordered_set<const c10::TensorImpl*> held;
    for (const auto& group : optimizer.param_groups()) {
      for (const at::Tensor& parameter : group.params()) {
        watched.parameters.push_back(weak(parameter));
        held.insert(parameter.unsafeGetTensorImpl());
      }
    }
    add_optimizer(optimizer_type(optimizer), optimizer_recipe(optimizer), held);
    optimizers_.push_back(std::move(watched));
    push_states();
  }

  void forget(const torch::optim::Optimizer& optimizer) override {
    const std::lock_guard guard(mutex_);
    std::erase_if(optimizers_, [&](const WatchedOptimizer& w) { return w.optimizer == &optimizer; });
  }

  void step_begin() noexcept override { walk(false); }
  void step_end() noexcept override { walk(true); }
  void next_step() noexcept override {}  // step_end() has looked at everything
  void stop() noexcept override {
    const std::lock_guard guard(mutex_);
    parameters_.clear();
    optimizers_.clear();
    storages_.clear();
  }
  SourceStatistics statistics() const override {
    SourceStatistics statistics;
    statistics.bytes = static_cast<int64_t>(parameters_.capacity() * sizeof(Watched));
    return statistics;
  }

 private:
  void add_module(const torch::nn::Module& module, const std::string& path) {
    context_->directory.update([&](RunInfo& info) {
      info.modules.push_back(
          {context_->strings.intern(path), context_->strings.intern(type_name(module))});
    });
    for (const auto& own : module.named_parameters(/*recurse=*/false)) {
      add(own.value(), path, own.key(), false);
    }
    for (const auto& own : module.named_buffers(/*recurse=*/false)) {
      add(own.value(), path, own.key(), true);
    }
  }

  void add_optimizer(const std::string& type, const std::string& recipe,
                     const std::unordered_set<const c10::TensorImpl*>& held) {
    context_->directory.update([&](RunInfo& info) {
      const auto index = static_cast<int64_t>(info.optimizers.size());
      info.optimizers.push_back({context_->strings.intern(type), context_->strings.intern(recipe),
                                 static_cast<int64_t>(held.size())});
      for (const Watched& parameter : parameters_) {
        if (held.count(parameter.tensor._unsafe_get_target())) {
          info.parameters[parameter.index].optimizer_index = index;
        }
      }
    });
  }

  void add(const at::Tensor& tensor, const std::string& path, const std::string& own, bool is_buffer) {
    if (tensor.defined()) add_named(tensor, path, join(path, own), is_buffer);
  }

  void add_named(const at::Tensor& tensor, const std::string& path, const std::string& name,
                 bool is_buffer) {
    ParameterInfo info;
    info.name = context_->strings.intern(name);
    info.module = context_->strings.intern(path);
    const TensorTable::Entry entry = context_->tensors.entry(describe(*context_, tensor));
    info.dtype = entry.dtype;
    info.shape = entry.shape;
    info.elements = tensor.numel();
    info.bytes = static_cast<int64_t>(tensor.nbytes());
    info.trainable = !is_buffer && tensor.requires_grad();
    info.is_buffer = is_buffer;
    const StorageRef storage = storage_of(tensor);
    info.shared = storage && !storages_.insert(storage.pointer).second;
    const auto index = context_->directory.update([&](RunInfo& run) {
      run.parameters.push_back(info);
      return static_cast<uint32_t>(run.parameters.size() - 1);
    });
    parameters_.push_back({weak(tensor), index, is_buffer});
  }

  void walk(bool with_states) noexcept {
    try {
      const int64_t begin = now_ns();
      const std::lock_guard guard(mutex_);
      push_parameters();
      if (with_states) push_states();
      add_hook_time(now_ns() - begin);
    } catch (...) {  // our own lists ran out of memory: this step has no names
    }
  }

  // Parameters lie anywhere, and long ago used: some at a time, so that memory is asked for what
  // the next ones need while it still looks for what the first one does.
  void push_parameters() {
    constexpr size_t kAtATime = 16;
    const at::Tensor none;
    std::array<at::Tensor, kAtATime> tensors;
    EventLog::Batch batch(context_->log);
    for (size_t begin = 0; begin < parameters_.size(); begin += kAtATime) {
      const size_t count = std::min(kAtATime, parameters_.size() - begin);
      for (size_t i = 0; i < count; ++i) {
        prefetch_tensor(parameters_[begin + i].tensor._unsafe_get_target());
      }
      for (size_t i = 0; i < count; ++i) {
        tensors[i] = lock(parameters_[begin + i].tensor);
        prefetch_contents(tensors[i]);
      }
      const auto gradient = [&](size_t i) -> const at::Tensor& {
        const bool may_have = tensors[i].defined() && !parameters_[begin + i].is_buffer;
        return may_have ? tensors[i].grad() : none;
      };
      for (size_t i = 0; i < count; ++i) prefetch_tensor(gradient(i).unsafeGetTensorImpl());
      for (size_t i = 0; i < count; ++i) prefetch_contents(gradient(i));
      for (size_t i = 0; i < count; ++i) {
        if (!tensors[i].defined()) continue;
        add_tensor(*context_, batch, EventKind::kParameter, tensors[i],
                   parameters_[begin + i].index);
        if (gradient(i).defined()) {
          add_related(*context_, batch, EventKind::kGradient, gradient(i), tensors[i]);
        }
      }
    }
  }

  void push_states() {
    EventLog::Batch batch(context_->log);
    for (const WatchedOptimizer& watched : optimizers_) {
      const bool alive =
          std::any_of(watched.parameters.begin(), watched.parameters.end(),
                      [](const WeakTensor& parameter) { return !parameter.expired(); });
      if (!alive) continue;  // most likely the optimizer is gone as well
      for_each_state(*watched.optimizer,
                     [&](const char* state_name, const at::Tensor& state, const at::Tensor& parameter) {
                       add_related(*context_, batch, EventKind::kState, state, parameter,
                                   state_name_id(state_name));
                     });
    }
  }

  // A handful of names for thousands of states.
  uint32_t state_name_id(const char* name) {
    for (const auto& [known, id] : state_names_) {
      if (known == name) return id;
    }
    return state_names_.emplace_back(name, context_->strings.intern(name).value).second;
  }

  Context* context_ = nullptr;
  std::mutex mutex_;
  std::vector<std::pair<std::string, uint32_t>> state_names_;
  std::vector<Watched> parameters_;
  std::vector<WatchedOptimizer> optimizers_;
  std::unordered_set<const void*> storages_;
};

}  // namespace

std::unique_ptr<ObjectSource> ObjectSource::make() { return std::make_unique<Objects>(); }

}  // namespace tally::hooks
