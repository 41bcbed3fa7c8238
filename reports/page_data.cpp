// SPDX-License-Identifier: Apache-2.0
// Long because one file writes the whole layout that the page reads.
#include "reports/page_data.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "reports/page_columns.h"
#include "reports/palette.h"

namespace tally::reports {
namespace {

using Json = nlohmann::ordered_json;
using analysis::DeviceStep;
using analysis::MarkSummary;
using analysis::StepSummary;
using analysis::Summary;

// Steps whose timeline, blocks and operators go along. A run that leaks keeps each step in detail.
constexpr size_t kStepsInDetail = 16;
constexpr size_t kRowsInDetail = 120'000;
// More marks than this: a step that is not in detail keeps those that tell it apart.
constexpr size_t kMarks = 100'000;

int64_t microseconds(double seconds) { return std::llround(seconds * 1e6); }

template <size_t N>
Json words(const std::array<Word, N>& table) {
  Json out = Json::array();
  for (const Word& word : table) {
    out.push_back({{"key", word.key}, {"title", word.title}, {"meaning", word.meaning}});
  }
  return out;
}

Json role_words() {
  Json out = words(kRoleWords);
  for (size_t i = 0; i < kRoleCount; ++i) {
    const RoleColor c = color(static_cast<Role>(i));
    out[i]["light"] = fmt::format("#{:06x}", c.light);
    out[i]["dark"] = fmt::format("#{:06x}", c.dark);
  }
  return out;
}

// The marks that a step keeps when there are too many: all but the edges and ends of backward
// passes, and of those the fullest.
std::vector<const MarkSummary*> telling_marks(const DeviceStep& device) {
  std::vector<const MarkSummary*> out;
  const MarkSummary* fullest[kMarkCount] = {};
  for (const MarkSummary& mark : device.marks) {
    if (mark.mark != Mark::kForwardEdge && mark.mark != Mark::kBackwardEnd) {
      out.push_back(&mark);
      continue;
    }
    const MarkSummary*& best = fullest[static_cast<size_t>(mark.mark)];
    if (!best || mark.bytes > best->bytes) best = &mark;
  }
  for (const MarkSummary* mark : fullest) {
    if (mark) out.push_back(mark);
  }
  return out;
}

class Packer {
 public:
  explicit Packer(const Summary& summary) : s_(summary) {}
  PageData pack();

 private:
  uint32_t id(const std::string& text) {
    const auto [found, is_new] = ids_.emplace(text, static_cast<uint32_t>(strings_.size()));
    if (is_new) strings_.push_back(text);
    return found->second;
  }
  void choose_detail();
  void pack_steps();
  void pack_marks();
  void pack_detail();
  void pack_timeline(size_t step, size_t device, const DeviceStep& books);
  std::vector<std::pair<std::string, analysis::KernelRow>> kernels_by_name() const;
  Json meta() const;

  const Summary& s_;
  std::vector<std::string> strings_{""};
  std::unordered_map<std::string, uint32_t> ids_{{"", 0}};
  std::vector<bool> in_detail_;
  bool marks_left_out_ = false;
  Columns columns_;
  Table timelines_{"timeline", {"step", "device", "points"}};
  Table points_{"point",
                {"us", "phase", "micro_step", "module", "op", "changes", "reserved", "active",
                 "largest_free"}};
  Table changes_{"change", {"role", "bytes"}};
};

// The step shown, the last and the first, then the highest peaks, while there is room.
void Packer::choose_detail() {
  const size_t steps = s_.steps.size();
  std::vector<size_t> order;
  std::vector<size_t> rows(steps);
  std::vector<int64_t> peak(steps);
  for (size_t i = 0; i < steps; ++i) {
    for (const DeviceStep& device : s_.steps[i].devices) {
      rows[i] += device.timeline.size() + device.peak_blocks.size();
      peak[i] = std::max(peak[i], device.peak.bytes);
    }
    if (rows[i] > 0 || i == s_.shown) order.push_back(i);
  }
  if (order.size() > 2) {
    std::stable_sort(order.begin() + 1, order.end() - 1,
                     [&](size_t a, size_t b) { return peak[a] > peak[b]; });
    std::rotate(order.begin(), order.end() - 1, order.end());
  }
  std::stable_partition(order.begin(), order.end(), [&](size_t i) { return i == s_.shown; });
  in_detail_.resize(steps);
  size_t used = 0;
  for (size_t k = 0; k < std::min(order.size(), kStepsInDetail); ++k) {
    used += rows[order[k]];
    if (k > 0 && used > kRowsInDetail) break;
    in_detail_[order[k]] = true;
  }
}

void Packer::pack_steps() {
  Table steps("step", {"index", "us", "micro_steps", "tokens", "detailed", "in_detail", "forward",
                       "backward", "recompute", "optimizer", "elementwise", "torch"});
  Table devices("device",
                {"step", "device", "largest_difference", "allocations", "frees",
                 "forward_temporary", "backward_temporary", "optimizer_temporary", "foreign"});
  for (size_t i = 0; i < s_.steps.size(); ++i) {
    const StepSummary& step = s_.steps[i];
    const analysis::Flops& f = step.flops;
    steps.add(step.index, microseconds(step.seconds), step.micro_steps, step.tokens, step.detailed,
              in_detail_[i], f.forward, f.backward, f.recompute, f.optimizer, f.elementwise,
              f.torch);
    for (size_t d = 0; d < step.devices.size(); ++d) {
      const DeviceStep& device = step.devices[d];
      devices.add(i, id(device.device), device.largest_difference, device.allocations, device.frees,
                  device.forward_temporary_peak, device.backward_temporary_peak,
                  device.optimizer_temporary_peak, device.foreign_bytes);
    }
  }
  steps.move_to(&columns_);
  devices.move_to(&columns_);
}

// All steps. Marks of one kind stand together: their columns hardly change, and gzip sees it.
void Packer::pack_marks() {
  struct Entry {
    size_t step;
    const DeviceStep* device;
    const MarkSummary* mark;
  };
  std::vector<Entry> entries;
  size_t total = 0;
  for (const StepSummary& step : s_.steps) {
    for (const DeviceStep& device : step.devices) total += device.marks.size();
  }
  marks_left_out_ = total > kMarks;
  for (size_t i = 0; i < s_.steps.size(); ++i) {
    for (const DeviceStep& device : s_.steps[i].devices) {
      if (marks_left_out_ && !in_detail_[i]) {
        for (const MarkSummary* mark : telling_marks(device)) entries.push_back({i, &device, mark});
      } else {
        for (const MarkSummary& mark : device.marks) entries.push_back({i, &device, &mark});
      }
    }
  }
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.mark->mark, a.mark->micro_step, a.device->device) <
           std::tie(b.mark->mark, b.mark->micro_step, b.device->device);
  });
  Table marks("mark", {"step", "device", "kind", "micro_step", "us", "bytes", "allocator",
                       "difference", "saved", "saved_parameters", "saved_numbers", "expected_saved",
                       "phase", "module", "op", "wanted", "limit"});
  Table caching("caching", {"mark", "reserved", "active", "allocated", "largest_free",
                            "allocator_reserved", "allocator_active", "allocator_allocated",
                            "outside", "exact"});
  Table cells("cell", {"mark", "role", "module", "bytes", "blocks"});
  std::array<std::vector<double>, kRoleCount> roles;
  for (const Entry& entry : entries) {
    const MarkSummary& m = *entry.mark;
    if (in_detail_[entry.step]) {
      for (const analysis::Cell& cell : m.cells) {
        cells.add(marks.size(), cell.role, id(cell.module), cell.bytes, cell.blocks);
      }
    }
    if (m.caching) {
      const CachingBook& c = *m.caching;
      caching.add(marks.size(), c.reserved_bytes, c.active_bytes, c.allocated_bytes,
                  c.largest_free_bytes, c.allocator_reserved_bytes, c.allocator_active_bytes,
                  c.allocator_allocated_bytes, c.outside_bytes, c.is_exact);
    }
    marks.add(entry.step, id(entry.device->device), m.mark, m.micro_step, microseconds(m.seconds),
              m.bytes, m.allocator_bytes, m.difference, m.saved_bytes, m.saved_parameter_bytes,
              m.saved_number_bytes, m.expected_saved_bytes.value_or(-1), m.phase, id(m.module),
              id(m.op), m.wanted_bytes, m.limit_bytes);
    for (size_t role = 0; role < kRoleCount; ++role) {
      roles[role].push_back(static_cast<double>(m.roles[role]));
    }
  }
  marks.move_to(&columns_);
  for (size_t role = 0; role < kRoleCount; ++role) {
    const auto& values = roles[role];
    if (std::all_of(values.begin(), values.end(), [](double v) { return v == 0; })) continue;
    columns_.add(fmt::format("mark.role{}", role), values);
  }
  cells.move_to(&columns_);
  caching.move_to(&columns_);
}

// A point says what changed since the one before it.
void Packer::pack_timeline(size_t step, size_t device, const DeviceStep& books) {
  timelines_.add(step, device, books.timeline.size());
  RoleBytes before{};
  int64_t last = 0;
  for (const analysis::TimelinePoint& point : books.timeline) {
    size_t changes = 0;
    for (size_t role = 0; role < kRoleCount; ++role) {
      if (point.roles[role] == before[role]) continue;
      changes_.add(role, point.roles[role] - before[role]);
      ++changes;
    }
    before = point.roles;
    const int64_t now = microseconds(point.seconds);
    points_.add(now - last, point.phase, point.micro_step, id(point.module), id(point.op), changes,
                point.reserved_bytes, point.active_bytes, point.largest_free_bytes);
    last = now;
  }
}

void Packer::pack_detail() {
  Table spans("span", {"step", "phase", "micro_step", "begin", "end"});
  Table operators("operator", {"step", "phase", "module", "op", "calls", "flops", "torch",
                               "elementwise", "ns", "tensor", "scalar", "device_ns", "dram"});
  Table formats("format", {"operator", "format", "flops"});
  Table blocks("block", {"step", "device", "bytes", "count", "role", "saved", "phase", "module",
                         "op", "name", "dtype", "shape", "source", "age_us"});
  for (size_t i = 0; i < s_.steps.size(); ++i) {
    if (!in_detail_[i]) continue;
    const StepSummary& step = s_.steps[i];
    for (const analysis::PhaseSpan& span : step.phases) {
      spans.add(i, span.phase, span.micro_step, microseconds(span.begin), microseconds(span.end));
    }
    for (const analysis::OperatorRow& row : step.operators) {
      const analysis::Executed counted = row.executed.value_or(analysis::Executed{});
      for (const auto& part : counted.by_format) {
        formats.add(operators.size(), part.format, part.flops);
      }
      operators.add(i, row.phase, id(row.module), id(row.op), row.calls, row.flops, row.torch_flops,
                    row.elementwise_flops, std::llround(row.seconds * 1e9), counted.tensor_flops,
                    counted.scalar_flops, std::llround(counted.device_seconds * 1e9),
                    counted.dram_bytes);
    }
    for (const DeviceStep& device : step.devices) {
      const uint32_t name = id(device.device);
      if (!device.timeline.empty()) pack_timeline(i, name, device);
      for (const analysis::BlockRow& b : device.peak_blocks) {
        blocks.add(i, name, b.bytes, b.count, b.role, b.saved, b.phase, id(b.module), id(b.op),
                   id(b.name), id(b.dtype), id(b.shape), id(b.source), microseconds(b.age_seconds));
      }
    }
  }
  for (const Table* table : {&spans, &operators, &formats, &blocks, &timelines_, &points_, &changes_}) {
    table->move_to(&columns_);
  }
}

// Sums over operators, most time first; `op` names the operators.
std::vector<std::pair<std::string, analysis::KernelRow>> Packer::kernels_by_name() const {
  std::map<std::string, analysis::KernelRow> sums;
  for (const analysis::KernelRow& row : s_.kernels) {
    analysis::KernelRow& sum = sums[row.kernel];
    const std::string op = row.op.empty() ? "no operator" : row.op;
    if ((", " + sum.op + ",").find(", " + op + ",") == std::string::npos) {
      sum.op += (sum.op.empty() ? "" : ", ") + op;
    }
    sum.calls += row.calls;
    sum.executed.add(row.executed);
  }
  std::vector<std::pair<std::string, analysis::KernelRow>> rows(sums.begin(), sums.end());
  std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) {
    return a.second.executed.device_seconds > b.second.executed.device_seconds;
  });
  return rows;
}

Json Packer::meta() const {
  Json theory = Json::array();
  for (const analysis::TheoryRow& row : s_.theory) {
    theory.push_back({{"key", row.key},
                      {"title", row.title},
                      {"unit", row.unit},
                      {"measured", row.measured},
                      {"expected", row.expected ? Json(*row.expected) : Json()},
                      {"deviation", row.deviation},
                      {"formula", row.formula},
                      {"cause", row.cause},
                      {"closed_form", row.closed_form ? Json(*row.closed_form) : Json()},
                      {"closed_form_cause", row.closed_form_cause}});
  }
  Json verdicts = Json::array();
  for (const analysis::Verdict& v : s_.verdicts) {
    Json remedies = Json::array();
    for (const analysis::Remedy& r : v.remedies) {
      remedies.push_back({{"text", r.text}, {"bytes", r.bytes}, {"cost", r.cost}});
    }
    verdicts.push_back({{"kind", v.kind},
                        {"tone", analysis::key(v.tone)},
                        {"verdict", v.verdict},
                        {"evidence", v.evidence},
                        {"bytes", v.bytes},
                        {"remedies", std::move(remedies)}});
  }
  Json trade_off = Json::array();
  for (const analysis::TradeOffRow& row : s_.trade_off) {
    trade_off.push_back({{"parts", row.parts},
                         {"accumulated", row.accumulated},
                         {"checkpointing", row.checkpointing},
                         {"peak", row.peak_bytes},
                         {"extra_flops", row.extra_flops},
                         {"recorded", row.is_recorded}});
  }
  Json devices = Json::array();
  for (const analysis::Device& d : s_.devices) {
    devices.push_back({{"id", d.id}, {"name", d.name}, {"memory_bytes", d.memory_bytes}});
  }
  Json sources = Json::array();
  for (const analysis::Source& source : s_.sources) {
    sources.push_back(
        {{"name", source.name}, {"available", source.available}, {"reason", source.reason}});
  }
  Json modules = Json::array();  // the model's own, in its order
  for (const analysis::ModuleSummary& module : s_.modules) {
    if (!module.type.empty()) modules.push_back({module.name, module.type});
  }
  Json ranks = Json::array();
  for (const analysis::RankSummary& r : s_.ranks) {
    ranks.push_back({{"rank", r.rank},
                     {"recording", r.recording},
                     {"ended", r.ended},
                     {"steps", r.steps},
                     {"device", r.device},
                     {"peak", r.peak_bytes},
                     {"peak_step", r.peak_step},
                     {"roles", r.roles},
                     {"seconds", r.seconds}});
  }
  const auto maybe = [](const std::optional<double>& v) { return v ? Json(*v) : Json(); };
  const analysis::Utilization& u = s_.utilization;
  Json roofline = Json::array();
  for (const analysis::RooflinePoint& point : u.roofline) {
    roofline.push_back({{"op", point.op},
                        {"flops", point.flops},
                        {"bytes", point.dram_bytes},
                        {"seconds", point.device_seconds}});
  }
  Json difference;  // null: not known
  if (u.executed_difference) {
    Json causes = Json::array();
    for (const analysis::ExecutedCause& c : u.executed_difference->causes) {
      causes.push_back({{"title", c.title},
                        {"flops", c.flops},
                        {"proved", c.is_proved},
                        {"why", c.why},
                        {"operators", c.operators}});
    }
    difference = {{"model", u.executed_difference->model},
                  {"executed", u.executed_difference->executed},
                  {"causes", std::move(causes)}};
  }
  Json kernels = Json::array();
  for (const auto& [name, kernel] : kernels_by_name()) {
    const analysis::Executed& e = kernel.executed;
    Json formats = Json::array();  // of each word
    for (size_t i = 0; i < kFlopFormatCount; ++i) {
      formats.push_back(e.by_format.of(static_cast<FlopFormat>(i)));
    }
    kernels.push_back({{"name", name},
                       {"ops", kernel.op},
                       {"calls", kernel.calls},
                       {"executed",
                        {{"tensor", e.tensor_flops},
                         {"scalar", e.scalar_flops},
                         {"ns", std::llround(e.device_seconds * 1e9)},
                         {"dram", e.dram_bytes},
                         {"formats", std::move(formats)}}}});
  }
  const analysis::MarkSummary* explained = s_.mark();
  const analysis::Overhead& o = s_.overhead;
  return {{"version", kPageDataVersion},
          {"columns", columns_.directory()},
          {"roles", role_words()},
          {"phases", words(kPhaseWords)},
          {"marks", words(kMarkWords)},
          {"formats", words(kFlopFormatWords)},
          {"strings", strings_},
          {"headline", s_.headline},
          {"recording", s_.recording},
          {"started", s_.started},
          {"ended", s_.ended},
          {"command", s_.command},
          {"versions", s_.versions},
          {"options", s_.options},
          {"overhead",
           {{"seconds", o.seconds},
            {"bookkeeper_seconds", o.bookkeeper_seconds},
            {"bytes", o.bytes},
            {"share", o.share}}},
          {"devices", devices},
          {"sources", sources},
          {"parameters",
           {{"count", s_.parameter_count},
            {"bytes", s_.parameter_bytes},
            {"trainable", s_.trainable_count}}},
          {"optimizers", s_.optimizers},
          {"modules", modules},
          {"shown", s_.shown},
          {"device", s_.device},
          {"at", {{"kind", key(s_.at)}, {"micro_step", explained ? explained->micro_step : 0}}},
          {"rank", s_.rank},
          {"world_size", s_.world_size},
          {"ranks", ranks},
          {"utilization",
           {{"device", u.device},
            {"arithmetic", u.arithmetic},
            {"peak", maybe(u.peak)},
            {"bytes_per_second", maybe(u.bytes_per_second)},
            {"mfu", maybe(u.mfu)},
            {"hfu", maybe(u.hfu)},
            {"cause", u.cause},
            {"executed_difference", std::move(difference)},
            {"roofline", std::move(roofline)},
            {"roofline_cause", u.roofline_cause}}},
          {"kernels", {{"step", s_.kernels_step}, {"rows", std::move(kernels)}}},
          {"marks_left_out", marks_left_out_},
          {"theory", theory},
          {"closed_form_of", s_.closed_form_of},
          {"verdicts", verdicts},
          {"trade_off", trade_off},
          {"dropped_events", s_.dropped_events},
          {"unattributed_bytes", s_.unattributed_bytes},
          {"notes", s_.notes}};
}

// ASCII only, so U+2028, U+2029 and the bidirectional controls are escaped; then what could end or
// open an element. None of the three occurs outside of strings. Broken UTF-8 becomes U+FFFD.
std::string script_json(const Json& json) {
  std::string out;
  for (const char c : json.dump(-1, ' ', true, Json::error_handler_t::replace)) {
    if (c == '<' || c == '>' || c == '&') {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  return out;
}

PageData Packer::pack() {
  choose_detail();
  pack_steps();
  pack_marks();
  pack_detail();
  return {script_json(meta()), columns_.packed()};
}

}  // namespace

PageData page_data(const Summary& summary) { return Packer(summary).pack(); }

}  // namespace tally::reports
