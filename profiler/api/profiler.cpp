// SPDX-License-Identifier: Apache-2.0
#include "torchtally/profiler.h"

#include <cstdio>
#include <exception>
#include <optional>
#include <utility>

#include "hooks/torch/objects.h"
#include "hooks/torch/runtime.h"
#include "profiler/analysis/build.h"
#include "profiler/api/options.h"
#include "profiler/api/torch_check.h"
#include "profiler/core/error.h"
#include "profiler/core/units.h"
#include "profiler/recording/reader.h"
#include "profiler/session/session.h"
#include "profiler/session/sources.h"
#include "reports/html.h"
#include "reports/text.h"
#include "reports/write_file.h"

namespace tally {

class Profiler::Impl {
 public:
  explicit Impl(Options options) : options_(apply_environment(std::move(options))) {
    if (!options_.enabled) return;
    check_torch_version();
    hooks::prepare(Session::context());
    Sources sources = make_sources({.counters = options_.counters});
    objects_ = sources.objects;
    SessionOptions session;
    session.recording = options_.recording;
    session.ledger.detailed_steps = static_cast<uint64_t>(options_.detail_steps);
    session.ledger.budget_bytes = options_.budget_bytes;
    session.versions = {{"torchtally", TORCHTALLY_VERSION},
                        {"torch", torch_version()},
                        {"compiler", __VERSION__}};
    session.shown_options = {{"recording", options_.recording},
                             {"report", options_.report},
                             {"detail_steps", std::to_string(options_.detail_steps)},
                             {"budget", options_.budget_bytes ? format_bytes(options_.budget_bytes) : "none"}};
    session_.emplace(std::move(session), std::move(sources.all));
    exceptions_ = std::uncaught_exceptions();
  }

  void stop() noexcept {
    if (!session_ || stopped_) return;
    stopped_ = true;
    const bool unwinding = std::uncaught_exceptions() > exceptions_;
    session_->stop(unwinding ? "exception" : "clean");
    if (const std::string problem = session_->problem(); !problem.empty()) complain(problem);
    if (!options_.report.empty()) write_report();
  }

  std::string summary() const {
    if (!stopped_) return {};
    try {
      const auto summary = analysis::build_summary(recording::read_run(options_.recording));
      return reports::render_text(summary, {});
    } catch (const std::exception& error) {
      complain(error.what());
      return {};
    }
  }

  Session* session() { return session_ && !stopped_ ? &*session_ : nullptr; }
  hooks::ObjectSource* objects() { return session() ? objects_ : nullptr; }
  const Options& options() const { return options_; }

 private:
  static void complain(std::string_view what) noexcept {
    std::fprintf(stderr, "torchtally: %.*s\n", static_cast<int>(what.size()), what.data());
  }
  void write_report() noexcept {
    try {
      const auto summary = analysis::build_summary(recording::read_run(options_.recording));
      reports::write_file(options_.report, reports::render_html(summary));
    } catch (const std::exception& error) {
      complain(error.what());
    }
  }

  Options options_;
  std::optional<Session> session_;
  hooks::ObjectSource* objects_ = nullptr;  // owned by the session
  int exceptions_ = 0;
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
