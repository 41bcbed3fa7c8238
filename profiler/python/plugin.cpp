// SPDX-License-Identifier: Apache-2.0
// What the Python package calls. No symbol of Python is used, so one file serves every Python that
// the LibTorch it was built for serves. Two ways in: plain functions for what has no tensors (through
// ctypes; a call costs a fifth of a microsecond), operators for what has.
//
// Functions that can fail return a sentence, or nullptr. Texts belong to this file and stay until
// the next call that returns one. Who calls holds Python's lock, so one thread at a time is in here;
// what the hooks write is safe from any thread.
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "hooks/torch/objects.h"
#include "hooks/torch/runtime.h"
#include "hooks/torch/source_lines.h"
#include "profiler/api/recorder.h"
#include "profiler/core/event.h"
#include "profiler/session/session.h"

#define TALLY_PLUGIN extern "C" __attribute__((visibility("default")))

namespace {

using tally::Event;
using tally::EventKind;

std::unique_ptr<tally::Recorder>& recorder() {
  static auto* const instance = new std::unique_ptr<tally::Recorder>;
  return *instance;
}
tally::Session* session() { return recorder() ? recorder()->session() : nullptr; }

const char* keep(std::string text) {
  static auto* const kept = new std::string;
  *kept = std::move(text);
  return kept->c_str();
}

template <typename Make>
const char* text_or_null(const char** error, Make&& make) noexcept {
  *error = nullptr;
  try {
    return keep(make());
  } catch (const std::exception& problem) {
    *error = keep(problem.what());
    return nullptr;
  }
}

// ---- operators

using Tensors = std::vector<at::Tensor>;
using Texts = std::vector<std::string>;

// Names of modules and their types; then tensors, with the names of each and of its module.
void watch(const Texts& module_names, const Texts& module_types, const Tensors& tensors,
           const Texts& names, const Texts& modules, const std::vector<int64_t>& is_buffer) {
  auto* objects = recorder() ? recorder()->objects() : nullptr;
  if (!objects) return;
  std::vector<tally::hooks::NamedModule> named_modules;
  for (size_t i = 0; i < module_names.size(); ++i) {
    named_modules.push_back({module_names[i], module_types.at(i)});
  }
  std::vector<tally::hooks::NamedTensor> named;
  for (size_t i = 0; i < tensors.size(); ++i) {
    named.push_back({tensors[i], names.at(i), modules.at(i), is_buffer.at(i) != 0});
  }
  objects->watch(named_modules, named);
}

void describe_optimizer(const std::string& type, const std::string& recipe,
                        const Tensors& parameters) {
  if (auto* objects = recorder() ? recorder()->objects() : nullptr) {
    objects->describe_optimizer(type, recipe, parameters);
  }
}

// `states[i]` is held for `parameters[i]` under `name`; a state of no parameter alone stands for
// itself.
void state(const std::string& name, const Tensors& states, const Tensors& parameters) {
  tally::Context* context = tally::hooks::recording();
  if (!context) return;
  const uint32_t id = context->strings.intern(name).value;
  for (size_t i = 0; i < states.size(); ++i) {
    tally::hooks::push_related(*context, EventKind::kState, states[i], parameters.at(i), id);
  }
}

void gradient(const Tensors& gradients, const Tensors& parameters) {
  tally::Context* context = tally::hooks::recording();
  if (!context) return;
  for (size_t i = 0; i < gradients.size(); ++i) {
    tally::hooks::push_related(*context, EventKind::kGradient, gradients[i], parameters.at(i));
  }
}

void input(const at::Tensor& tensor) {
  if (tally::Context* context = tally::hooks::recording()) {
    tally::hooks::push_tensor(*context, EventKind::kInput, tensor);
  }
}

std::atomic<uint64_t> session_number{0};

// Names of the modules whose calls are open on a thread.
struct OpenModules {
  uint64_t session = 0;
  std::vector<uint32_t> names;
  void of_this_session() {
    const uint64_t now = session_number.load(std::memory_order_relaxed);
    if (session != now) names.clear();
    session = now;
  }
};

void push_scope(EventKind kind, uint32_t name, uint8_t flags) noexcept {
  tally::Context* context = tally::hooks::recording();
  if (!context) return;
  Event event;
  event.kind = kind;
  event.id = name;
  event.flags = flags;
  context->log.push(event);
}

}  // namespace

TORCH_LIBRARY(torchtally, library) {
  library.def("watch(str[] module_names, str[] module_types, Tensor[] tensors, str[] names, "
              "str[] modules, int[] is_buffer) -> ()", &watch);
  library.def("describe_optimizer(str type, str recipe, Tensor[] parameters) -> ()",
              &describe_optimizer);
  library.def("state(str name, Tensor[] states, Tensor[] parameters) -> ()", &state);
  library.def("gradient(Tensor[] gradients, Tensor[] parameters) -> ()", &gradient);
  library.def("input(Tensor tensor) -> ()", &input);
}

// ---- plain functions

// Begins a recording; 0 bytes: no budget, no source lines.
TALLY_PLUGIN const char* torchtally_start(const char* recording, const char* report,
                                          int64_t detail_steps, int64_t budget_bytes,
                                          int64_t source_lines_bytes, int budget_stops,
                                          int enabled) noexcept {
  try {
    if (session()) {
      return "another profiler is recording in this process; stop it before starting a new one";
    }
    tally::Options options;
    options.recording = recording;
    options.report = report;
    options.detail_steps = detail_steps;
    options.budget_bytes = budget_bytes;
    options.source_lines_bytes = source_lines_bytes;
    options.budget_stops = budget_stops != 0;
    options.enabled = enabled != 0;
    recorder().reset();
    session_number.fetch_add(1);
    recorder() = std::make_unique<tally::Recorder>(std::move(options));
    return nullptr;
  } catch (const std::exception& problem) {
    return keep(problem.what());
  }
}
// Folders, one a line, whose code is not the program's: see hooks/torch/source_lines.h.
TALLY_PLUGIN void torchtally_pass_over(const char* folders) noexcept {
  std::vector<std::string> all;
  for (std::istringstream lines(folders); all.emplace_back(), std::getline(lines, all.back());) {
  }
  all.pop_back();
  tally::hooks::pass_over_folders(std::move(all));
}
// Whether a recording goes on: not when switched off by the environment, nor in a forked child.
TALLY_PLUGIN int torchtally_records() noexcept {
  return session() && !tally::Session::is_of_parent();
}
TALLY_PLUGIN const char* torchtally_recording_path() noexcept {
  return keep(recorder() ? recorder()->options().recording : std::string());
}
TALLY_PLUGIN const char* torchtally_report_path() noexcept {
  return keep(recorder() ? recorder()->options().report : std::string());
}
// Ends the recording and writes the report; called without Python's lock.
TALLY_PLUGIN void torchtally_stop(const char* ended, const char* note) noexcept {
  if (recorder()) recorder()->stop(ended, note);
}
TALLY_PLUGIN const char* torchtally_text(const char** error) noexcept {
  return text_or_null(error, [] { return recorder() ? recorder()->text() : std::string(); });
}
TALLY_PLUGIN const char* torchtally_json(const char** error) noexcept {
  return text_or_null(error, [] { return recorder() ? recorder()->json() : std::string(); });
}

TALLY_PLUGIN void torchtally_step_begin() noexcept {
  if (auto* open = session()) open->step_begin();
}
TALLY_PLUGIN void torchtally_micro_step() noexcept {
  if (auto* open = session()) open->micro_step();
}
TALLY_PLUGIN void torchtally_step_end(int exception) noexcept {
  if (auto* open = session()) open->step_end(exception != 0);
}
TALLY_PLUGIN void torchtally_next_step() noexcept {
  if (auto* open = session()) open->next_step();
}
TALLY_PLUGIN void torchtally_step_discard() noexcept {
  if (auto* open = session()) open->step_discard();
}

// What the model is: the text of its config.json.
TALLY_PLUGIN void torchtally_describe_model(const char* model) noexcept {
  if (recorder()) recorder()->describe_model(model);
}
TALLY_PLUGIN uint32_t torchtally_intern(const char* name) noexcept {
  return tally::Session::context().strings.intern(name).value;
}
// The call of a module, `name` its interned path. The outermost of a thread is a forward pass.
TALLY_PLUGIN void torchtally_enter(uint32_t name) noexcept {
  OpenModules* open = tally::hooks::OfThread<OpenModules>::get();
  if (!open || !tally::hooks::recording()) return;
  open->of_this_session();
  push_scope(EventKind::kScopeEnter, name,
             open->names.empty() ? tally::event_flags::kForwardPass : 0);
  open->names.push_back(name);
}
// Ends it, and what was begun inside it and never ended (an exception that no hook is told of).
TALLY_PLUGIN void torchtally_exit(uint32_t name) noexcept {
  OpenModules* open = tally::hooks::OfThread<OpenModules>::get();
  if (!open || !tally::hooks::recording()) return;
  open->of_this_session();
  if (std::find(open->names.begin(), open->names.end(), name) == open->names.end()) return;
  for (bool found = false; !found; open->names.pop_back()) {
    found = open->names.back() == name;
    push_scope(EventKind::kScopeExit, 0, 0);
  }
}
// The operator that this thread runs takes its result from a checkpoint's store.
TALLY_PLUGIN void torchtally_reused() noexcept {
  tally::Context* context = tally::hooks::recording();
  if (!context) return;
  Event event;
  event.kind = EventKind::kReused;
  context->log.push(event);
}
// A checkpoint keeps a storage (a c10::StorageImpl) for the backward pass, out of the graph's
// reach.
TALLY_PLUGIN void torchtally_keep(uint64_t storage) noexcept {
  tally::Context* context = tally::hooks::recording();
  if (!context || !storage) return;
  Event event;
  event.kind = EventKind::kKept;
  event.a = reinterpret_cast<uint64_t>(
      reinterpret_cast<c10::StorageImpl*>(storage)->_mutable_data_ptr_no_checks().get());
  context->log.push(event);
}
// Modules whose call is open on this thread.
TALLY_PLUGIN uint32_t torchtally_depth() noexcept {
  OpenModules* open = tally::hooks::OfThread<OpenModules>::get();
  if (!open) return 0;
  open->of_this_session();
  return static_cast<uint32_t>(open->names.size());
}
