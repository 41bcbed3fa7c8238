// SPDX-License-Identifier: Apache-2.0
// Long because each part of the Summary is a function of its own.
#include "reports/json.h"

#include <cmath>
#include <cstdlib>

#include <nlohmann/json.hpp>

#include "profiler/core/tensor_table.h"
#include "profiler/analysis/metrics.h"

namespace tally::reports {
namespace {

using Json = nlohmann::ordered_json;
using analysis::Summary;

// A whole number below 2^53 as an integer.
Json number(double value) {
  if (value == std::floor(value) && std::abs(value) < 0x1p53) return static_cast<int64_t>(value);
  return value;
}

// Every role of blocks, also at 0, so that readers need no defaults; the three that only a caching
// allocator has where they are not 0.
Json roles(const RoleBytes& bytes) {
  Json out = Json::object();
  for (size_t i = 0; i < kRoleCount; ++i) {
    const auto role = static_cast<Role>(i);
    if (bytes[i] != 0 || role < Role::kRounding) out[std::string(key(role))] = bytes[i];
  }
  return out;
}

Json pairs(const std::vector<std::pair<std::string, std::string>>& values) {
  Json out = Json::object();
  for (const auto& [name, value] : values) out[name] = value;
  return out;
}

Json place(const analysis::MarkSummary& mark) {
  return {{"phase", key(mark.phase)},
          {"module", mark.module},
          {"operator", mark.op},
          {"source", mark.source}};
}

// What a caching allocator has beside the blocks; null where it was not asked.
Json caching(const analysis::MarkSummary& m) {
  const CachingBook& book = *m.caching;
  const auto known = [](int64_t bytes) { return bytes < 0 ? Json() : Json(bytes); };
  Json out{{"reserved_bytes", book.reserved_bytes},
           {"active_bytes", book.active_bytes},
           {"allocated_bytes", book.allocated_bytes},
           {"largest_free_bytes", book.largest_free_bytes},
           {key(Role::kRounding), m.rounding_bytes},
           {key(Role::kCached), m.cached_bytes},
           {key(Role::kOutsideAllocator), known(book.outside_bytes)},
           {"allocator_reserved_bytes", known(book.allocator_reserved_bytes)},
           {"allocator_active_bytes", known(book.allocator_active_bytes)},
           {"allocator_allocated_bytes", known(book.allocator_allocated_bytes)},
           {"exact", book.is_exact}};
  return out;
}

Json mark(const analysis::MarkSummary& m) {
  Json out{{"name", key(m.mark)},
           {"micro_step", m.micro_step},
           {"seconds", m.seconds},
           {"bytes", m.bytes},
           {"roles", roles(m.roles)}};
  out["saved_bytes"] = m.saved_bytes;
  out["saved_parameter_bytes"] = m.saved_parameter_bytes;
  out["saved_number_bytes"] = m.saved_number_bytes;
  out["expected_saved_bytes"] = m.expected_saved_bytes ? Json(*m.expected_saved_bytes) : Json();
  out["allocator_bytes"] = m.allocator_bytes;
  out["difference"] = m.difference;
  if (m.mark == Mark::kOom) {
    out["wanted_bytes"] = m.wanted_bytes;
    out["limit_bytes"] = m.limit_bytes;
    out["source"] = m.source;
  }
  if (m.caching) out["caching"] = caching(m);
  return out;
}

Json device_step(const analysis::DeviceStep& device) {
  Json peak{{"bytes", device.peak.bytes}};
  peak.update(place(device.peak));
  peak["micro_step"] = device.peak.micro_step;
  peak["roles"] = roles(device.peak.roles);
  if (device.peak.caching) peak["caching"] = caching(device.peak);
  Json marks = Json::array();
  for (const auto& m : device.marks) marks.push_back(mark(m));
  return {{"peak", peak},
          {"marks", marks},
          {"temporaries",
           {{"forward_peak", device.forward_temporary_peak},
            {"backward_peak", device.backward_temporary_peak},
            {"optimizer_peak", device.optimizer_temporary_peak}}},
          {"foreign_bytes", device.foreign_bytes},
          {"adopted_bytes", device.adopted_bytes},
          {"largest_difference", device.largest_difference},
          {"allocations", device.allocations},
          {"frees", device.frees}};
}

// Only the formats that occurred; none where an old recording does not know them.
Json by_format(const FlopsByFormat& formats) {
  Json out = Json::object();
  for (const auto& part : formats) out[std::string(key(part.format))] = number(part.flops);
  return out;
}

Json executed(const analysis::Executed& e) {
  return {{"tensor", number(e.tensor_flops)},
          {"scalar", number(e.scalar_flops)},
          {"device_seconds", e.device_seconds},
          {"dram_bytes", number(e.dram_bytes)},
          {"by_format", by_format(e.by_format)}};
}

Json flops(const analysis::Flops& f) {
  Json out{{"forward", number(f.forward)},
           {"backward", number(f.backward)},
           {"recompute", number(f.recompute)},
           {"optimizer", number(f.optimizer)},
           {"elementwise", number(f.elementwise)},
           {"torch", number(f.torch)},
           {"source", f.source}};
  if (!f.executed) return out;
  out["executed"] = executed(*f.executed);
  Json phases = Json::object();
  for (const auto& [phase, formats] : f.executed_by_phase) {
    phases[std::string(key(phase))] = by_format(formats);
  }
  out["executed"]["by_phase"] = std::move(phases);
  return out;
}

// Checkpointed regions in the order in which they ran again.
Json regions(const analysis::StepSummary& step) {
  Json out = Json::array();
  for (const analysis::RegionRow& r : step.regions) {
    out.push_back({{"micro_step", r.micro_step},
                   {"module", r.module},
                   {"node", r.node},
                   {"kept_bytes", r.kept_bytes},
                   {"avoided_bytes", r.avoided_bytes},
                   {"flops", number(r.flops)},
                   {"seconds", r.seconds},
                   {"begin_bytes", r.begin_bytes},
                   {"peak_bytes", r.peak_bytes}});
  }
  return out;
}

// What each repeated block holds for its backward pass; seconds since the step began, 0: not seen.
Json units(const analysis::StepSummary& step) {
  Json out = Json::array();
  for (const analysis::UnitRow& u : step.units) {
    out.push_back({{"micro_step", u.micro_step},
                   {"unit", u.unit},
                   {"activation_bytes", u.activation_bytes},
                   {"output_bytes", u.output_bytes},
                   {"forward_end", u.forward_end},
                   {"backward_begin", u.backward_begin},
                   {"backward_end", u.backward_end}});
  }
  return out;
}

Json step_json(const analysis::StepSummary& step) {
  Json devices = Json::object();
  for (const auto& device : step.devices) devices[device.device] = device_step(device);
  Json out{{"index", step.index},
           {"devices", std::move(devices)},
           {"flops", flops(step.flops)},
           {"seconds", step.seconds},
           {"micro_steps", step.micro_steps},
           {"tokens", number(step.tokens)},
           {"detailed", step.detailed},
           {"ended", step.ended}};
  if (step.detailed) {
    out["regions"] = regions(step);
    out["units"] = units(step);
  }
  return out;
}

// Only the roles that a module holds: most hold two or three.
Json module(const analysis::ModuleSummary& m) {
  Json bytes = Json::object();
  for (size_t i = 0; i < kRoleCount; ++i) {
    if (m.bytes[i] != 0) bytes[std::string(kRoleWords[i].key)] = m.bytes[i];
  }
  return {{"name", m.name},
          {"type", m.type},
          {"bytes", std::move(bytes)},
          {"flops", flops(m.flops)},
          {"seconds", m.seconds}};
}

// Of the step shown: work by phase, module and operator.
Json operator_row(const analysis::OperatorRow& row) {
  Json out{{"phase", key(row.phase)},
           {"module", row.module},
           {"operator", row.op},
           {"calls", row.calls},
           {"flops", number(row.flops)},
           {"torch", number(row.torch_flops)},
           {"elementwise", number(row.elementwise_flops)},
           {"seconds", row.seconds}};
  if (row.executed) out["executed"] = executed(*row.executed);
  return out;
}

// Of the step that named them, which need not be the one shown.
Json kernels(const Summary& summary) {
  Json out = Json::array();
  for (const analysis::KernelRow& row : summary.kernels) {
    out.push_back({{"step", summary.kernels_step},
                   {"phase", key(row.phase)},
                   {"module", row.module},
                   {"operator", row.op},
                   {"kernel", row.kernel},
                   {"calls", row.calls},
                   {"executed", executed(row.executed)}});
  }
  return out;
}

Json peak_block(const analysis::DeviceStep& device, const analysis::BlockRow& b) {
  return {{"bytes", b.bytes},
          {"count", b.count},
          {"role", key(b.role)},
          {"saved", b.saved},
          {"module", b.module},
          {"operator", b.op},
          {"name", b.name},
          {"dtype", b.dtype},
          {"shape", parse_shape(b.shape)},
          {"phase", key(b.phase)},
          {"source", b.source},
          {"age_seconds", b.age_seconds},
          {"device", device.device}};
}

Json theory(const Summary& summary) {
  Json out = Json::array();
  for (const analysis::TheoryRow& row : summary.theory) {
    out.push_back({{"key", row.key},
                   {"measured", number(row.measured)},
                   {"expected", row.expected ? number(*row.expected) : Json()},
                   {"deviation", row.expected ? number(row.deviation) : Json()},
                   {"unit", row.unit},
                   {"formula", row.formula},
                   {"cause", row.cause},
                   {"closed_form", row.closed_form ? number(*row.closed_form) : Json()},
                   {"closed_form_cause", row.closed_form_cause}});
  }
  return out;
}

// Predicted from the step shown; `micro_batch` is a share of the recorded one's size.
Json trade_off(const Summary& summary) {
  Json out = Json::array();
  for (const analysis::TradeOffRow& row : summary.trade_off) {
    out.push_back({{"micro_batch", 1.0 / row.parts},
                   {"accumulated", row.accumulated},
                   {"checkpointing", row.checkpointing},
                   {"tokens", number(row.tokens)},
                   {"peak_bytes", row.peak_bytes},
                   {"extra_flops", row.extra_flops},
                   {"recorded", row.is_recorded}});
  }
  return out;
}

Json verdicts(const Summary& summary) {
  Json out = Json::array();
  for (const analysis::Verdict& v : summary.verdicts) {
    Json remedies = Json::array();
    for (const analysis::Remedy& r : v.remedies) {
      remedies.push_back({{"text", r.text}, {"bytes", r.bytes}, {"cost", r.cost}});
    }
    out.push_back({{"kind", v.kind},
                   {"tone", analysis::key(v.tone)},
                   {"verdict", v.verdict},
                   {"evidence", v.evidence},
                   {"bytes", v.bytes},
                   {"remedies", std::move(remedies)}});
  }
  return out;
}

Json maybe(const std::optional<double>& value) { return value ? number(*value) : Json(); }

// Why tensor cores executed more or less than the model's FLOPs: the causes add up.
Json executed_difference(const analysis::ExecutedDifference& d) {
  Json causes = Json::array();
  for (const analysis::ExecutedCause& c : d.causes) {
    Json operators = Json::array();
    for (const auto& [op, flops] : c.operators) {
      operators.push_back({{"operator", op}, {"flops", number(flops)}});
    }
    causes.push_back({{"cause", c.cause},
                      {"title", c.title},
                      {"flops", number(c.flops)},
                      {"proved", c.is_proved},
                      {"why", c.why},
                      {"operators", std::move(operators)}});
  }
  return {{"model", number(d.model)},
          {"executed", number(d.executed)},
          {"difference", number(d.executed - d.model)},
          {"causes", std::move(causes)}};
}

Json utilization(const analysis::Utilization& u) {
  Json roofline = Json::array();
  for (const analysis::RooflinePoint& point : u.roofline) {
    roofline.push_back({{"operator", point.op},
                        {"flops", number(point.flops)},
                        {"dram_bytes", number(point.dram_bytes)},
                        {"device_seconds", point.device_seconds}});
  }
  return {{"device", u.device},
          {"arithmetic", u.arithmetic},
          {"flops_per_second", u.flops_per_second},
          {"peak_flops_per_second", maybe(u.peak)},
          {"memory_bytes_per_second", maybe(u.bytes_per_second)},
          {"mfu", maybe(u.mfu)},
          {"hfu", maybe(u.hfu)},
          {"cause", u.cause},
          {"executed_hfu", maybe(u.executed_hfu)},
          {"executed_ratio", maybe(u.executed_ratio)},
          {"executed_cause", u.executed_cause},
          {"executed_difference",
           u.executed_difference ? executed_difference(*u.executed_difference) : Json()},
          {"roofline", std::move(roofline)},
          {"roofline_cause", u.roofline_cause}};
}

Json ranks(const Summary& summary) {
  Json out = Json::array();
  for (const analysis::RankSummary& r : summary.ranks) {
    out.push_back(
        {{"rank", r.rank},
         {"recording", r.recording},
         {"ended", r.ended},
         {"steps", r.steps},
         {"device", r.device},
         {"peak", {{"bytes", r.peak_bytes}, {"step", r.peak_step}, {"roles", roles(r.roles)}}},
         {"seconds", r.seconds},
         {"flops", number(r.flops)}});
  }
  return out;
}

Json run(const Summary& summary) {
  Json sources = Json::array();
  for (const analysis::Source& s : summary.sources) {
    sources.push_back({{"name", s.name}, {"available", s.available}, {"reason", s.reason}});
  }
  return {{"recording", summary.recording},
          {"started", summary.started},
          {"rank", summary.rank < 0 ? Json() : Json(summary.rank)},
          {"world_size", summary.rank < 0 ? Json() : Json(summary.world_size)},
          {"command", summary.command},
          {"torch",
           [&] {
             for (const auto& [name, value] : summary.versions) {
               if (name == "torch") return value;
             }
             return std::string();
           }()},
          {"ended", summary.ended},
          {"versions", pairs(summary.versions)},
          {"options", pairs(summary.options)},
          {"sources", std::move(sources)},
          {"optimizers", summary.optimizers},
          {"overhead",
           {{"seconds", summary.overhead.seconds},
            {"bytes", summary.overhead.bytes},
            {"bookkeeper_seconds", summary.overhead.bookkeeper_seconds},
            {"share", summary.overhead.share}}}};
}

// The object's members a line each, and the elements of its lists: lines that a person can read
// and grep can find, at a third of the size of one number a line. Each element becomes text at
// once, so that 10,000 steps do not stand in memory as trees.
class Lines {
 public:
  explicit Lines(size_t bytes) { out_.reserve(bytes); }
  void member(const char* key, const Json& value) {
    begin(key);
    out_ += text(value);
  }
  // `element(i)` is the i-th of `count`.
  template <typename Element>
  void list(const char* key, size_t count, Element element) {
    begin(key);
    out_ += '[';
    for (size_t i = 0; i < count; ++i) out_ += (i ? ",\n    " : "\n    ") + text(element(i));
    out_ += count ? "\n  ]" : "]";
  }
  void list(const char* key, const Json& values) {
    list(key, values.size(), [&](size_t i) -> const Json& { return values[i]; });
  }
  std::string finish() && { return std::move(out_) + "\n}\n"; }

 private:
  void begin(const char* key) {
    out_ += out_.empty() ? "{\n  " : ",\n  ";
    out_ += text(key) + ": ";
  }
  // Names may be broken UTF-8, which JSON cannot hold.
  static std::string text(const Json& value) {
    return value.dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  std::string out_;
};

// About as long as the text will be: one that grows is copied, and a large one then stands in memory
// twice.
size_t expected_bytes(const Summary& summary) {
  constexpr size_t kRow = 240;
  size_t rows = 100 + summary.modules.size() + summary.step().operators.size();
  for (const analysis::StepSummary& step : summary.steps) rows += 10 + step.units.size();
  for (const analysis::DeviceStep& device : summary.step().devices) rows += device.peak_blocks.size();
  return rows * kRow;
}

}  // namespace

std::string render_json(const Summary& summary) {
  Json devices = Json::array();
  for (const analysis::Device& d : summary.devices) {
    devices.push_back({{"id", d.id}, {"name", d.name}, {"memory_bytes", d.memory_bytes}});
  }
  Json metrics = Json::array();
  for (const analysis::Metric& m : analysis::kMetrics) {
    metrics.push_back(
        {{"key", m.key}, {"title", m.title}, {"unit", m.unit}, {"meaning", m.meaning}});
  }
  const analysis::MarkSummary* explained = summary.mark();
  Lines out(expected_bytes(summary));
  out.member("schema", summary.schema);
  out.member("headline", summary.headline);
  out.member("run", run(summary));
  out.list("devices", devices);
  out.member("parameters", {{"count", summary.parameter_count},
                            {"bytes", summary.parameter_bytes},
                            {"trainable", summary.trainable_count}});
  out.member("shown", summary.step().index);
  out.member("device", summary.device);
  out.member("at",
             {{"name", key(summary.at)}, {"micro_step", explained ? explained->micro_step : 0}});
  out.list("ranks", ranks(summary));
  out.list("steps", summary.steps.size(), [&](size_t i) { return step_json(summary.steps[i]); });
  out.list("modules", summary.modules.size(), [&](size_t i) { return module(summary.modules[i]); });
  const std::vector<analysis::OperatorRow>& operators = summary.step().operators;
  out.list("operators", operators.size(), [&](size_t i) { return operator_row(operators[i]); });
  out.list("kernels", kernels(summary));
  std::vector<std::pair<const analysis::DeviceStep*, const analysis::BlockRow*>> blocks;
  for (const analysis::DeviceStep& device : summary.step().devices) {
    for (const analysis::BlockRow& block : device.peak_blocks) blocks.emplace_back(&device, &block);
  }
  out.list("peak_blocks", blocks.size(),
           [&](size_t i) { return peak_block(*blocks[i].first, *blocks[i].second); });
  out.list("theory", theory(summary));
  out.member("closed_form_of", summary.closed_form_of);
  out.member("utilization", utilization(summary.utilization));
  out.list("verdicts", verdicts(summary));
  out.list("trade_off", trade_off(summary));
  out.member("unknown", {{"unattributed_bytes", summary.unattributed_bytes},
                         {"dropped_events", summary.dropped_events},
                         {"notes", summary.notes}});
  out.list("metrics", metrics);
  return std::move(out).finish();
}

}  // namespace tally::reports
