// SPDX-License-Identifier: Apache-2.0
#include "torchtally/profiler.h"

#include <cstdio>
#include <exception>
#include <utility>

#include "hooks/torch/objects.h"
#include "hooks/torch/runtime.h"
#include "profiler/api/recorder.h"
#include "profiler/session/session.h"

namespace tally {

class Profiler::Impl {
 public:
  explicit Impl(Options options)
      : recorder_(std::move(options)), exceptions_(std::uncaught_exceptions()) {}

  void stop() noexcept {
    recorder_.stop(std::uncaught_exceptions() > exceptions_ ? "exception" : "clean");
    stopped_ = true;
  }
  std::string summary() const {
    return ask([](const Recorder& recorder) { return recorder.text(); });
  }
  std::string verdict(const std::string& kind) const {
    return ask([&](const Recorder& recorder) { return recorder.verdict(kind); });
  }

  std::string over_budget(const std::vector<std::pair<std::string, std::string>>& limits) const {
    if (!stopped_) return "the profiler still records: stop() comes before its budget is looked at";
    if (!options().enabled) return {};
    try {
      return recorder_.over_budget(limits);
    } catch (const std::exception& error) {
      return error.what();
    }
  }

  Session* session() { return recorder_.session(); }
  hooks::ObjectSource* objects() { return recorder_.objects(); }
  const Options& options() const { return recorder_.options(); }

 private:
  template <typename Question>
  std::string ask(Question question) const {
    if (!stopped_ || !options().enabled) return {};
    try {
      return question(recorder_);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "torchtally: %s\n", error.what());
      return {};
    }
  }

  Recorder recorder_;
  int exceptions_;
  bool stopped_ = false;
};

Profiler::Profiler(Options options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Profiler::~Profiler() { stop(); }

void Profiler::watch(const torch::nn::Module& module, const std::string& name) {
  if (auto* objects = impl_->objects()) objects->watch(module, name);
}
void Profiler::watch(torch::optim::Optimizer& optimizer) {
  if (auto* objects = impl_->objects()) objects->watch(optimizer);
}
void Profiler::forget(const torch::optim::Optimizer& optimizer) {
  if (auto* objects = impl_->objects()) objects->forget(optimizer);
}
Step Profiler::step() {
  Session* session = impl_->session();
  return Step(this, session && session->step_begin());
}
void Profiler::stop() noexcept { impl_->stop(); }
std::string Profiler::summary() const { return impl_->summary(); }
std::string Profiler::verdict(const std::string& kind) const { return impl_->verdict(kind); }
std::string Profiler::over_budget(
    const std::vector<std::pair<std::string, std::string>>& limits) const {
  return impl_->over_budget(limits);
}
const Options& Profiler::options() const { return impl_->options(); }

Step::Step(Profiler* profiler, bool owns)
    : profiler_(profiler), owns_(owns), exceptions_(std::uncaught_exceptions()) {}
Step::Step(Step&& other) noexcept
    : profiler_(other.profiler_),
      owns_(std::exchange(other.owns_, false)),
      exceptions_(other.exceptions_) {}
Step::~Step() {
  Session* session = owns_ ? profiler_->impl_->session() : nullptr;
  if (session) session->step_end(std::uncaught_exceptions() > exceptions_);
}
void Step::micro_step() {
  if (Session* session = profiler_->impl_->session()) session->micro_step();
}
void Step::input(const at::Tensor& tensor) {
  if (Context* context = hooks::recording()) {
    hooks::push_tensor(*context, EventKind::kInput, tensor);
  }
}

Scope::Scope(const char* name) noexcept : entered_(false) {
  Context* context = hooks::recording();
  if (!context) return;
  Event event;
  event.kind = EventKind::kScopeEnter;
  event.id = context->strings.intern(name).value;
  context->log.push(event);
  entered_ = true;
}
Scope::~Scope() {
  Context* context = entered_ ? hooks::recording() : nullptr;
  if (!context) return;
  Event event;
  event.kind = EventKind::kScopeExit;
  context->log.push(event);
}

}  // namespace tally
