// SPDX-License-Identifier: Apache-2.0
#include "profiler/analysis/build.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "profiler/analysis/parts.h"
#include "profiler/core/error.h"
#include "profiler/core/units.h"

namespace tally::analysis {
namespace {

constexpr double kNano = 1e-9;

class Builder {
 public:
  explicit Builder(const recording::Run& run) : run_(run) {}
  Summary build(const SummaryOptions& options);

 private:
  const std::string& text(StringId id) const { return run_.text(id); }
  MarkSummary mark(const MarkBook& book) const;
  DeviceStep device(const DeviceBooks& books, bool in_detail) const;
  StepSummary step(const recording::RecordedStep& recorded, bool in_detail) const;
  void choose_books(const SummaryOptions& options, Summary* summary) const;
  void fill_run(Summary* summary) const;
  void fill_modules(Summary* summary) const;

  const recording::Run& run_;
};

MarkSummary Builder::mark(const MarkBook& book) const {
  MarkSummary out;
  out.mark = book.mark;
  out.micro_step = book.micro_step;
  out.seconds = static_cast<double>(book.time_ns) * kNano;
  out.bytes = book.bytes;
  out.allocator_bytes = book.allocator_bytes;
  out.difference = book.bytes - book.allocator_bytes;
  out.roles = book.roles;
  out.saved_bytes = book.saved_bytes;
  out.saved_parameter_bytes = book.saved_parameter_bytes;
  out.saved_number_bytes = book.saved_number_bytes;
  if (book.expected_saved_bytes >= 0) out.expected_saved_bytes = book.expected_saved_bytes;
  out.caching = book.caching;
  out.wanted_bytes = book.wanted_bytes;
  out.limit_bytes = book.limit_bytes;
  out.rounding_bytes = book.rounding_bytes();
  out.cached_bytes = book.cached_bytes();
  out.phase = book.phase;
  out.module = text(book.module), out.op = text(book.op), out.source = text(book.source);
  // Exactly as long as they get, here and below: of many layers these lists are most of the memory.
  out.cells.reserve(book.cells.size());
  for (const tally::Cell& cell : book.cells) {
    out.cells.push_back({cell.role, text(cell.module), cell.bytes, cell.blocks});
  }
  return out;
}

DeviceStep Builder::device(const DeviceBooks& books, bool in_detail) const {
  DeviceStep out;
  if (books.device < run_.info.devices.size()) out.device = run_.info.devices[books.device].id;
  out.marks.reserve(books.marks.size());
  for (const MarkBook& book : books.marks) {
    out.marks.push_back(mark(book));
    if (book.mark == Mark::kPeak) out.peak = out.marks.back();
  }
  if (in_detail) {
    for (const tally::TimelinePoint& p : books.timeline) {
      out.timeline.push_back({static_cast<double>(p.time_ns) * kNano, p.roles, p.phase,
                              p.micro_step, text(p.module), text(p.op), p.reserved_bytes,
                              p.active_bytes, p.largest_free_bytes});
    }
  }
  out.peak_blocks.reserve(books.peak_blocks.size());
  for (const tally::BlockRow& b : books.peak_blocks) {
    out.peak_blocks.push_back({b.bytes, b.count, b.role, b.saved, b.phase, text(b.module),
                               text(b.op), text(b.name), text(b.dtype), text(b.shape),
                               text(b.source), static_cast<double>(b.age_ns) * kNano});
  }
  out.forward_temporary_peak = books.forward_temporary_peak;
  out.backward_temporary_peak = books.backward_temporary_peak;
  out.optimizer_temporary_peak = books.optimizer_temporary_peak;
  out.foreign_bytes = books.foreign_bytes;
  out.adopted_bytes = books.adopted_bytes;
  out.largest_difference = books.largest_difference;
  out.allocations = books.allocations;
  out.frees = books.frees;
  return out;
}

void add(Flops* flops, Phase phase, double counted, double torch, double elementwise) {
  flops->elementwise += elementwise;
  flops->torch += torch;
  switch (phase) {
    case Phase::kBackward:
      flops->backward += counted;
      break;
    case Phase::kRecompute:
      flops->recompute += counted;
      break;
    case Phase::kOptimizer:
      flops->optimizer += counted;
      break;
    // What runs outside a backward pass and an update is forward work, wherever the clock put it.
    case Phase::kForward:
    case Phase::kData:
    case Phase::kOther:
      flops->forward += counted;
      break;
  }
}

void add(Flops* flops, Phase phase, const Executed& part) {
  if (!flops->executed) flops->executed.emplace();
  flops->executed->add(part);
  if (!part.by_format.empty()) flops->executed_by_phase[phase].add(part.by_format);
}

StepSummary Builder::step(const recording::RecordedStep& recorded, bool in_detail) const {
  const StepBooks& books = recorded.books;
  StepSummary out;
  out.index = books.index;
  out.start_seconds = static_cast<double>(books.start_ns) * kNano;
  out.seconds = static_cast<double>(books.duration_ns) * kNano;
  out.micro_steps = books.micro_steps;
  out.detailed = books.detailed;
  out.ended = has_ended(books);
  out.tokens = books.tokens;
  for (const DeviceBooks& device_books : books.devices) {
    out.devices.push_back(device(device_books, in_detail));
  }
  for (const tally::PhaseSpan& span : books.phases) {
    out.phases.push_back({span.phase, span.micro_step, static_cast<double>(span.begin_ns) * kNano,
                          static_cast<double>(span.end_ns) * kNano});
  }
  if (in_detail) out.operators.reserve(books.operators.size());
  for (const tally::OperatorRow& row : books.operators) {
    add(&out.flops, row.phase, row.flops, row.torch_flops, row.elementwise_flops);
    std::optional<Executed> executed;
    if (row.is_counted()) {
      executed = {row.tensor_flops, row.scalar_flops, row.device_ns * kNano, row.dram_bytes,
                  row.by_format};
      add(&out.flops, row.phase, *executed);
    }
    if (!in_detail) continue;
    out.operators.push_back({row.phase, text(row.module), text(row.op), row.calls, row.flops,
                             row.torch_flops, row.elementwise_flops,
                             static_cast<double>(row.nanoseconds) * kNano, executed});
  }
  for (const tally::RegionRow& r : books.regions) {
    out.regions.push_back({r.micro_step, text(r.module), text(r.node), r.kept_bytes, r.avoided_bytes,
                           r.flops, static_cast<double>(r.nanoseconds) * kNano, r.begin_bytes,
                           r.peak_bytes});
  }
  out.units.reserve(books.units.size());
  for (const tally::UnitRow& u : books.units) {
    out.units.push_back({text(u.unit), u.micro_step, u.activation_bytes, u.output_bytes,
                         static_cast<double>(u.forward_end_ns) * kNano,
                         static_cast<double>(u.backward_begin_ns) * kNano,
                         static_cast<double>(u.backward_end_ns) * kNano});
  }
  return out;
}

void Builder::fill_run(Summary* summary) const {
  const RunInfo& info = run_.info;
  summary->recording = run_.path;
  summary->started = run_.started;
  summary->start_unix_ns = run_.start_unix_ns;
  summary->rank = info.rank;
  summary->world_size = info.world_size;
  summary->command = info.command;
  summary->ended = run_.end.ended;
  summary->versions = info.versions;
  summary->options = info.options;
  double recorded_seconds = 0;
  for (const auto& step : run_.steps) {
    recorded_seconds += static_cast<double>(step.books.duration_ns) * kNano;
  }
  Overhead& overhead = summary->overhead;
  overhead.seconds = run_.end.overhead_seconds;
  overhead.bookkeeper_seconds = run_.end.bookkeeper_seconds;
  overhead.bytes = run_.end.overhead_bytes;
  if (recorded_seconds > 0) overhead.share = overhead.seconds / recorded_seconds;
  for (const DeviceInfo& d : info.devices) {
    summary->devices.push_back({d.id, d.name, d.memory_bytes});
  }
  for (const SourceInfo& s : info.sources) {
    summary->sources.push_back({s.name, s.available, s.reason});
  }
  for (const ParameterInfo& p : info.parameters) {
    if (p.is_buffer || p.shared) continue;
    summary->parameter_count += p.elements;
    summary->parameter_bytes += p.bytes;
    if (p.trainable) summary->trainable_count += p.elements;
  }
  for (const OptimizerInfo& o : info.optimizers) summary->optimizers.push_back(text(o.type));
  summary->dropped_events = run_.end.dropped_events;
}

// The modules of the model in its order, then the other names that bytes or work were booked to.
void Builder::fill_modules(Summary* summary) const {
  std::unordered_map<std::string, size_t> position;
  const auto module = [&](const std::string& name) -> ModuleSummary& {
    const auto [found, is_new] = position.emplace(name, summary->modules.size());
    if (is_new) {
      summary->modules.emplace_back();
      summary->modules.back().name = name;
    }
    return summary->modules[found->second];
  };
  for (const ModuleInfo& info : run_.info.modules) module(text(info.name)).type = text(info.type);
  const StepSummary& shown = summary->step();
  if (const MarkSummary* mark = summary->mark()) {
    for (const Cell& cell : mark->cells) {
      module(cell.module).bytes[static_cast<size_t>(cell.role)] += cell.bytes;
    }
  }
  for (const OperatorRow& row : shown.operators) {
    ModuleSummary& out = module(row.module);
    add(&out.flops, row.phase, row.flops, row.torch_flops, row.elementwise_flops);
    if (row.executed) add(&out.flops, row.phase, *row.executed);
    out.seconds += row.seconds;
  }
}

// "backward of h.11.mlp", "forward, after h.0.mlp", "optimizer"
std::string place(const MarkSummary& peak) {
  const std::string phase(title(peak.phase));
  if (peak.module.empty()) return phase;
  return phase + (peak.module.starts_with("after ") ? ", " : " of ") + peak.module;
}

std::string headline(const Summary& summary) {
  const StepSummary& step = summary.step();
  const DeviceStep* device = summary.device_step();
  if (!device) return fmt::format("Step {} has no books of memory.", step.index);
  const MarkSummary& peak = device->peak;
  std::string sentence =
      fmt::format("Peak {} in step {}, {}", format_bytes(peak.bytes), step.index, place(peak));
  const auto largest = std::max_element(peak.roles.begin(), peak.roles.end());
  if (peak.bytes > 0) {
    const auto role = static_cast<Role>(largest - peak.roles.begin());
    sentence += fmt::format("; {:.0f} % {}",
                            100 * static_cast<double>(*largest) / static_cast<double>(peak.bytes),
                            title(role));
  }
  sentence += ".";
  for (const TheoryRow& row : summary.theory) {
    if (row.key != "peak" || !row.expected || *row.expected <= 0) continue;
    // As in the table: the measured against theory. 0 only for an exact match; a deviation that
    // rounds to it is said to be small.
    const double percent = 100 * row.deviation / *row.expected;
    const std::string deviation = row.deviation == 0 ? "exact"
                                  : std::abs(percent) < 0.05
                                      ? "measured: less than 0.1 % off"
                                      : fmt::format("measured: {:+.1f} %", percent);
    sentence +=
        fmt::format(" Theory says {} ({}).", format_bytes(std::llround(*row.expected)), deviation);
  }
  for (const Verdict& verdict : summary.verdicts) {
    if (verdict.kind != "checkpointing") continue;
    if (verdict.tone == Tone::kOpen && !verdict.remedies.empty()) {  // not used, and it would help
      const Remedy& remedy = verdict.remedies.front();
      sentence += fmt::format(" Checkpointing would save {} for {}.", format_bytes(remedy.bytes), remedy.cost);
    } else if (verdict.bytes > 0) {
      sentence += fmt::format(" Checkpointing saves {}.", format_bytes(verdict.bytes));
    }
  }
  return sentence;
}

// Sets the device and the mark that are explained; throws when the step does not have them.
void Builder::choose_books(const SummaryOptions& options, Summary* summary) const {
  const StepSummary& step = summary->step();
  const DeviceStep* highest = main_device(step);
  summary->device = !options.device.empty() ? options.device : highest ? highest->device : "";
  const DeviceStep* device = summary->device_step();
  if (!options.device.empty() && !device) {
    std::string known;
    for (const DeviceStep& d : step.devices) known += (known.empty() ? "" : ", ") + d.device;
    throw Error("step {} of {} has no device '{}'; it has {}", step.index, run_.path,
                options.device, known.empty() ? "none" : known);
  }
  summary->at = options.at;
  if (options.at == Mark::kPeak || summary->mark()) return;
  std::vector<std::string> known;
  if (device) {
    for (const MarkSummary& m : device->marks) {
      const std::string name(key(m.mark));
      if (std::find(known.begin(), known.end(), name) == known.end()) known.push_back(name);
    }
  }
  throw Error("step {} of {} has no mark '{}'; its marks are {}{}", step.index, run_.path,
              key(options.at), known.empty() ? "none" : fmt::format("{}", fmt::join(known, ", ")),
              options.at == Mark::kOom
                  ? ": no allocation failed in it, and the budget was not crossed"
                  : "");
}

Summary Builder::build(const SummaryOptions& options) {
  Summary summary;
  fill_run(&summary);
  summary.shown = choose_step(run_, options);
  summary.steps.reserve(run_.steps.size());
  for (size_t i = 0; i < run_.steps.size(); ++i) {
    const recording::RecordedStep& recorded = run_.steps[i];
    summary.steps.push_back(
        step(recorded, recorded.full && (recorded.books.detailed || i == summary.shown)));
  }
  choose_books(options, &summary);
  fill_modules(&summary);
  fill_kernels(run_, &summary);
  if (const DeviceStep* device = summary.device_step())
    summary.unattributed_bytes = device->peak.roles[static_cast<size_t>(Role::kUnattributed)];
  summary.theory = theory_rows(run_, summary);
  add_closed_forms(run_, options.model, &summary);
  summary.utilization = utilization(run_, summary);
  summary.verdicts = verdicts(run_, summary);
  summary.trade_off = trade_off(summary);
  summary.notes = notes(run_, summary);
  summary.headline = headline(summary);
  return summary;
}

}  // namespace

const DeviceStep* main_device(const StepSummary& step) {
  const auto highest = std::max_element(
      step.devices.begin(), step.devices.end(),
      [](const DeviceStep& a, const DeviceStep& b) { return a.peak.bytes < b.peak.bytes; });
  return highest == step.devices.end() ? nullptr : &*highest;
}

const DeviceStep* Summary::device_step() const {
  for (const DeviceStep& d : step().devices) {
    if (d.device == device) return &d;
  }
  return nullptr;
}

const MarkSummary* Summary::mark() const {
  const DeviceStep* d = device_step();
  if (!d) return nullptr;
  if (at == Mark::kPeak) return &d->peak;
  const MarkSummary* fullest = nullptr;
  for (const MarkSummary& m : d->marks) {
    if (m.mark == at && (!fullest || m.bytes > fullest->bytes)) fullest = &m;
  }
  return fullest;
}

std::string count_of(int64_t count, const std::string& what) {
  return fmt::format("{} {}{}", format_integer(count), what, count == 1 ? "" : "s");
}

Summary build_summary(const recording::Run& run, const SummaryOptions& options) {
  return Builder(run).build(options);
}

}  // namespace tally::analysis
