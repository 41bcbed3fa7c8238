// SPDX-License-Identifier: Apache-2.0
#include "profiler/api/recorder.h"

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <utility>

#include "hooks/torch/objects.h"
#include "hooks/torch/runtime.h"
#include "profiler/analysis/budget.h"
#include "profiler/analysis/build.h"
#include "profiler/api/options.h"
#include "profiler/api/torch_check.h"
#include "profiler/core/error.h"
#include "profiler/core/units.h"
#include "profiler/recording/reader.h"
#include "profiler/session/session.h"
#include "profiler/session/sources.h"
#include "reports/html.h"
#include "reports/json.h"
#include "reports/text.h"
#include "reports/write_file.h"

namespace tally {
namespace {

void complain(std::string_view what) noexcept {
  std::fprintf(stderr, "torchtally: %.*s\n", static_cast<int>(what.size()), what.data());
}

// What the environment tells LibTorch's caching allocators, under its new name and its old one.
std::string allocator_settings() {
  for (const char* name : {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}) {
    const char* value = std::getenv(name);
    if (value && *value) return value;
  }
  return "default";
}

}  // namespace

Recorder::Recorder(Options options, Steps steps) : options_(apply_environment(std::move(options))) {
  if (!options_.enabled) return;
  check_torch_version();
  hooks::prepare(Session::context());
  SourceOptions source_options{.source_lines_bytes = options_.source_lines_bytes,
                               .counters = options_.counters || options_.counters_per_kernel,
                               .counters_per_kernel = options_.counters_per_kernel};
  if (options_.budget_stops) source_options.stop_at_bytes = options_.budget_bytes;
  // What operators should save is asked for in the first steps, which nobody tells the sources of.
  if (steps == Steps::kInferred) source_options.theory_steps = 0;
  Sources sources = make_sources(source_options);
  objects_ = sources.objects;
  SessionOptions session;
  session.recording = options_.recording;
  session.ledger.detailed_steps = static_cast<uint64_t>(options_.detail_steps);
  // A budget that stops the program is the allocator's to tell.
  if (!options_.budget_stops) session.ledger.budget_bytes = options_.budget_bytes;
  session.ledger.infer_steps = steps == Steps::kInferred;
  session.versions = {{"torchtally", TORCHTALLY_VERSION},
                      {"torch", torch_version()},
                      {"compiler", __VERSION__}};
  session.shown_options = {
      {"recording", options_.recording},
      {"report", options_.report},
      {"detail_steps", std::to_string(options_.detail_steps)},
      {"budget", options_.budget_bytes ? format_bytes(options_.budget_bytes) : "none"},
      {"budget_action", options_.budget_stops ? "stop" : "record"},
      {"source_lines",
       options_.source_lines_bytes ? format_bytes(options_.source_lines_bytes) : "none"},
      {"cuda_allocator", allocator_settings()}};
  session_ = std::make_unique<Session>(std::move(session), std::move(sources.all));
  if (!options_.model.empty()) describe_model(options_.model);
}

Recorder::~Recorder() { stop("clean"); }

void Recorder::stop(const std::string& ended, const std::string& note) noexcept {
  if (!session_ || stopped_) return;
  stopped_ = true;
  session_->stop(ended, note);
  if (const std::string why = session_->problem(); !why.empty()) complain(why);
  if (options_.report.empty() || session_->is_of_parent()) return;
  try {
    reports::write_file(options_.report, reports::render_html(summary()));
  } catch (const std::exception& error) {
    complain(error.what());
  }
}

void Recorder::describe_model(const std::string& model) {
  if (session()) Session::context().directory.update([&](RunInfo& info) { info.model = model; });
}

Session* Recorder::session() { return session_ && !stopped_ ? session_.get() : nullptr; }
hooks::ObjectSource* Recorder::objects() { return session() ? objects_ : nullptr; }
std::string Recorder::problem() const { return session_ ? session_->problem() : std::string(); }

analysis::Summary Recorder::summary() const {
  return analysis::build_summary(recording::read_run(options_.recording));
}
std::string Recorder::text() const {
  return reports::render_text(summary(), {});
}
std::string Recorder::json() const {
  return reports::render_json(summary());
}
std::string Recorder::verdict(const std::string& kind) const {
  for (const analysis::Verdict& verdict :
       summary().verdicts) {
    if (verdict.kind == kind) return verdict.verdict;
  }
  return {};
}

std::string Recorder::over_budget(
    const std::vector<std::pair<std::string, std::string>>& limits) const {
  return analysis::over_budget(summary(), limits);
}

}  // namespace tally
