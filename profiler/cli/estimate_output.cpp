// SPDX-License-Identifier: Apache-2.0
// Text, CSV and JSON of one estimate side by side, so that a new number is added to all three here.
// GiB (2^30 B) and GB (1e9 B) stand side by side in columns that say so; nothing is printed in a
// unit that it does not name.
// Long because it is three outputs of the same numbers, kept in step by standing together.
#include "profiler/cli/estimate_output.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "profiler/core/csv.h"
#include "profiler/core/units.h"

namespace tally::cli {

using estimate::Estimate;
using estimate::Integer;

std::string TextTable::text(int indent) const {
  std::vector<size_t> widths;
  for (const auto& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const auto& row : rows_) {
    std::string line(static_cast<size_t>(indent), ' ');
    for (size_t i = 0; i < row.size(); ++i) {
      if (i > 0) line += "  ";
      const std::string padding(widths[i] - row[i].size(), ' ');
      line += i < right_.size() && right_[i] ? padding + row[i] : row[i] + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

void JsonText::separate() {
  if (after_key_) {
    after_key_ = false;
    return;
  }
  if (!has_member_.empty()) {
    if (has_member_.back()) out_ += ",";
    has_member_.back() = true;
    out_ += "\n" + std::string(2 * has_member_.size(), ' ');
  }
}
void JsonText::begin(char bracket) {
  separate();
  out_ += bracket;
  has_member_.push_back(false);
}
void JsonText::end(char bracket) {
  const bool any = has_member_.back();
  has_member_.pop_back();
  if (any) out_ += "\n" + std::string(2 * has_member_.size(), ' ');
  out_ += bracket;
}
void JsonText::key(std::string_view name) {
  value(name);
  out_ += ": ";
  after_key_ = true;
}
void JsonText::value(std::string_view text) {
  separate();
  out_ += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out_ += '\\';
      out_ += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out_ += fmt::format("\\u{:04x}", static_cast<int>(c));
    } else {
      out_ += c;
    }
  }
  out_ += '"';
}
void JsonText::value(Integer integer) {
  separate();
  out_ += estimate::to_string(integer);
}
void JsonText::value(double number) {
  if (!std::isfinite(number)) return null();
  separate();
  out_ += fmt::format("{}", number);
}
void JsonText::value(bool flag) {
  separate();
  out_ += flag ? "true" : "false";
}
void JsonText::null() {
  separate();
  out_ += "null";
}

std::string grouped(Integer value) {
  std::string digits = estimate::to_string(value);
  const size_t first = digits[0] == '-' ? 1 : 0;
  for (size_t at = digits.size(); at > first + 3; at -= 3) digits.insert(at - 3, ",");
  return digits;
}

namespace {

// One pair of units for a whole table: MiB/MB up to 8 GiB, then GiB/GB, and TiB/TB from 10 TiB on.
struct Units {
  const char* binary;
  const char* decimal;
  double binary_size, decimal_size;

  std::string in_binary(Integer bytes) const {
    return number(static_cast<double>(bytes) / binary_size);
  }
  std::string in_decimal(Integer bytes) const {
    return number(static_cast<double>(bytes) / decimal_size);
  }
  static std::string number(double value) {
    return value != 0 && std::abs(value) < 0.005 ? fmt::format("{:.1e}", value)
                                                 : fmt::format("{:.2f}", value);
  }
};

Units units_for(Integer largest) {
  const double bytes = static_cast<double>(largest);
  if (bytes >= 10 * 0x1p40) return {"TiB", "TB", 0x1p40, 1e12};
  if (bytes >= 8 * 0x1p30) return {"GiB", "GB", 0x1p30, 1e9};
  return {"MiB", "MB", 0x1p20, 1e6};
}

std::string flops_text(Integer flops) { return fmt::format("{:.4g}", static_cast<double>(flops)); }

std::string header(const Estimate& e) {
  const auto& m = e.model;
  const auto& c = e.config;
  std::string text = fmt::format("{}  ({})\n", m.name, m.family);
  text += fmt::format("{} parameters", grouped(e.parameters.total));
  if (e.parameters.active != e.parameters.total)
    text += fmt::format(", {} active", grouped(e.parameters.active));
  if (m.given_parameters > 0) text += " (as given)";
  if (m.has_shape()) {
    text += fmt::format("\n{} layers x width {}, {} heads of {}", m.layers, m.d_model, m.heads,
                        m.head_dim);
    if (m.kv_heads != m.heads) text += fmt::format(" ({} for k and v)", m.kv_heads);
    text += fmt::format(", MLP {}", m.ffn);
    if (m.experts > 0) text += fmt::format(" x {} experts, {} a token", m.experts, m.top_k);
    text += fmt::format(", vocabulary {}, {} head", m.vocab, m.tied ? "tied" : "untied");
  }
  text += fmt::format("\nbatch {} x {} tokens", c.batch, c.sequence);
  if (c.accumulate > 1) text += fmt::format(" x {} micro-batches", c.accumulate);
  text += fmt::format(", {}, recipe {}", dtype_name(c.dtype), c.recipe);
  if (c.recipe != "inference") {
    text += fmt::format(", {}, {} attention, checkpoint {}", c.optimizer,
                        attention_name(c.attention), checkpoint_name(c));
  }
  if (c.dropout > 0) text += fmt::format(", dropout {}", c.dropout);
  if (c.world() > 1) {
    text += fmt::format("\n{} ranks: dp {} (ZeRO {}) x tp {}{} x cp {} x pp {}{}, ep {}", c.world(),
                        c.dp, c.zero, c.tp, c.sequence_parallel ? " +sp" : "", c.cp, c.pp,
                        c.interleave > 1 ? fmt::format(" x {} chunks", c.interleave) : "", c.ep);
  }
  return text + "\n";
}

std::string memory_text(const Estimate& e, bool explain) {
  const auto& memory = e.memory;
  const Units u = units_for(std::max(memory.total, memory.peak));
  // With --explain every row also has its exact bytes.
  TextTable table(explain ? std::vector<bool>{false, true, true, true, false, false}
                          : std::vector<bool>{false, true, true});
  const auto line = [&](const std::string& title, Integer bytes, std::string_view formula = "",
                        std::string_view source = "") {
    std::vector<std::string> cells{title, u.in_binary(bytes), u.in_decimal(bytes)};
    if (explain) {
      cells.insert(cells.begin() + 1, grouped(bytes));
      cells.emplace_back(formula);
      cells.emplace_back(source);
    }
    table.row(std::move(cells));
  };
  std::vector<std::string> head{e.config.world() > 1 ? "Memory of the worst rank" : "Memory"};
  if (explain) head.emplace_back("bytes");
  head.emplace_back(u.binary);
  head.emplace_back(u.decimal);
  if (explain) head.insert(head.end(), {"formula", "source"});
  table.row(head);
  const bool shapes = !e.model.tensors.empty();
  for (size_t g = 0; g < estimate::kGroupCount; ++g) {
    const auto group = static_cast<estimate::Group>(g);
    if (shapes && (group == estimate::Group::kActivations || group == estimate::Group::kLogits)) {
      continue;  // said below, in words
    }
    const bool of_layers = group == estimate::Group::kActivations &&
                           e.config.recipe != "inference" && e.model.has_shape();
    line("  " + std::string(estimate::group_key(group)), memory.group(group),
         of_layers ? "of one layer; bytes are of all layers alive" : "");
    if (!explain) continue;
    for (const auto& row : memory.rows) {
      if (row.group == group)
        line("    " + std::string(row.title), row.bytes, row.formula, row.source);
    }
  }
  line("  total (every row at once)", memory.total);
  if (!memory.moments.empty()) {
    line(fmt::format("  {}: {}", shapes ? "peak of the model state" : "peak", memory.moments[memory.peak_moment].title), memory.peak);
  }
  if (!explain) return table.text();
  table.row({"  moments of the step"});
  for (const auto& moment : memory.moments) {
    line("    " + std::string(moment.title), moment.bytes, moment.formula);
  }
  constexpr std::string_view kAllocator = "c10/cuda/CUDACachingAllocator.cpp";
  table.row({"  CUDA caching allocator, were every row alive"});
  line("    allocated", memory.rounded, "blocks rounded to 512 B", kAllocator);
  line("    reserved", memory.reserved, "segments of 2 MiB, 20 MiB or their own", kAllocator);
  if (memory.context > 0) {
    line("    context, outside the allocator", memory.context, "lazy module loading",
         "PyTorch pull request 86509");
  }
  if (memory.stage_totals.size() > 1) {
    table.row({"  total by pipeline stage"});
    for (size_t i = 0; i < memory.stage_totals.size(); ++i) {
      line(fmt::format("    stage {}{}", i, i == memory.worst_stage ? " (worst)" : ""),
           memory.stage_totals[i]);
    }
  }
  return table.text();
}

std::string flops_section(const Estimate& e, bool explain) {
  const auto& f = e.flops;
  TextTable table({false, true, true, false, false});
  table.row({fmt::format("FLOPs of one step ({} tokens)", grouped(f.tokens)), "FLOPs", "",
             explain ? "formula" : ""});
  table.row({"  forward", flops_text(f.forward)});
  table.row({"  backward", flops_text(f.backward)});
  table.row({"  recompute", flops_text(f.recompute)});
  table.row({"  optimizer", flops_text(f.optimizer)});
  table.row({"  step", flops_text(f.step)});
  table.row({"  6 N D", flops_text(f.six_nd)});
  std::string text = table.text();
  if (!explain) return text;
  if (!f.operators.empty()) {
    TextTable operators({false, true, true, true, true, false});
    operators.row({"Operators", "forward", "backward", "counter fwd", "counter bwd",
                   "formula of forward (T tokens)"});
    for (const auto& row : f.operators) {
      operators.row({"  " + std::string(row.title), flops_text(row.forward),
                     flops_text(row.backward), flops_text(row.counter_forward),
                     flops_text(row.counter_backward), std::string(row.formula)});
    }
    operators.row({"  sum (counter: torch.utils.flop_counter)", flops_text(f.forward),
                   flops_text(f.backward), flops_text(f.counter_forward),
                   flops_text(f.counter_backward)});
    text += "\n" + operators.text();
  }
  TextTable methods({false, true, true, false, false});
  methods.row({"Ways to count forward and backward", "FLOPs", "of exact", "formula", "leaves out"});
  for (const auto& method : f.methods) {
    methods.row({"  " + std::string(method.title), flops_text(method.step),
                 fmt::format("{:.2f} %", 100 * static_cast<double>(method.step) /
                                             static_cast<double>(f.methods[0].step)),
                 std::string(method.formula), std::string(method.leaves_out)});
  }
  text += "\n" + methods.text();
  if (!f.lecture_terms.empty()) {
    Integer sum = 0;
    for (const auto& term : f.lecture_terms) sum += term.second;
    TextTable terms({false, true, true});
    terms.row({"The lecture's forward by its terms", "FLOPs", "share"});
    for (const auto& [title, flops] : f.lecture_terms) {
      terms.row(
          {"  " + std::string(title), flops_text(flops),
           fmt::format("{:.3f} %", 100 * static_cast<double>(flops) / static_cast<double>(sum))});
    }
    text += "\n" + terms.text();
  }
  return text;
}

std::string device_section(const Estimate& e) {
  TextTable table({false, false});
  const auto& t = e.time;
  if (e.device.memory_bytes > 0) {
    table.row({"Device", fmt::format("{}, {:.2f} GiB = {:.2f} GB", e.device.name,
                                     static_cast<double>(e.device.memory_bytes) / 0x1p30,
                                     static_cast<double>(e.device.memory_bytes) / 1e9)});
    table.row({"  needed for the total", fmt::format("{}", grouped(e.device.needed))});
    table.row({"  needed for the peak", fmt::format("{}", grouped(e.device.needed_at_peak))});
  }
  if (t.seconds_per_step) table.row({"Time of a step", format_seconds(*t.seconds_per_step)});
  if (t.tokens_per_second)
    table.row({"Tokens per second", fmt::format("{:.1f}", *t.tokens_per_second)});
  if (t.mfu) table.row({"MFU, HFU", fmt::format("{:.1f} %, {:.1f} %", 100 * *t.mfu, 100 * *t.hfu)});
  if (t.days)
    table.row({"Days", fmt::format("{:.2f} for {} tokens", *t.days, grouped(e.config.tokens))});
  if (t.pf_days) table.row({"PF-days", fmt::format("{:.4g} (forward and backward)", *t.pf_days)});
  return table.text();
}

std::string tradeoff_text(const Estimate& e) {
  if (!e.model.has_shape() || e.config.recipe == "inference") return "";
  const auto plans = estimate::checkpoint_tradeoffs(e.model, e.config);
  if (plans.empty()) return "";
  const Units u = units_for(plans[0].kept);
  TextTable table({false, true, true, true, true, true, true, false});
  table.row({"Checkpointing of the layers", "segments", std::string("kept ") + u.binary,
             std::string("+ again ") + u.binary, std::string("sum ") + u.binary,
             std::string("sum ") + u.decimal, "extra FLOPs", "note"});
  for (const auto& plan : plans) {
    table.row({"  " + std::string(plan.title),
               plan.segments > 0 ? std::to_string(plan.segments) : "-", u.in_binary(plan.kept),
               u.in_binary(plan.recomputed), u.in_binary(plan.kept + plan.recomputed),
               u.in_decimal(plan.kept + plan.recomputed), flops_text(plan.extra_flops),
               std::string(plan.note)});
  }
  return "\n" + table.text();
}

}  // namespace

std::string estimate_text(const Estimate& e, bool explain) {
  std::string text = header(e) + "\n" + memory_text(e, explain);
  if (e.model.tensors.empty()) text += "\n" + flops_section(e, explain);
  const std::string device = device_section(e);
  if (!device.empty()) text += "\n" + device;
  if (explain) {
    text += tradeoff_text(e);
    text +=
        "\nSymbols: s tokens of a sequence, b batch, h d_model, a heads, kv key/value heads, d "
        "head size, f MLP width,\n"
        "V vocabulary, L layers, P parameters, T tokens of the step, k experts a token, E bytes of "
        "a computed value,\n"
        "R bytes of the residual stream, w g bytes a weight and a gradient, W O G A weights, "
        "optimizer state, gradients,\n"
        "activations. KiB MiB GiB are 2^10 2^20 2^30 B, kB MB GB 1e3 1e6 1e9 B.\n";
  }
  for (const auto& [key, why] : e.not_applicable) text += fmt::format("\n{}: {}", key, why);
  if (!e.not_applicable.empty()) text += "\n";
  text += "\nAssumptions\n";
  for (const std::string& line : e.assumptions) text += "  - " + line + "\n";
  return text;
}

void estimate_json(JsonText& json, const Estimate& e, bool explain) {
  const auto& c = e.config;
  json.begin('{');
  json.key("model");
  json.begin('{');
  json.member("name", e.model.name);
  json.member("family", e.model.family);
  json.member("parameters", e.parameters.total);
  json.member("active_parameters", e.parameters.active);
  json.end('}');
  json.key("config");
  json.begin('{');
  json.member("batch", c.batch);
  json.member("sequence", c.sequence);
  json.member("accumulate", c.accumulate);
  json.member("dtype", dtype_name(c.dtype));
  json.member("optimizer", c.optimizer);
  json.member("recipe", c.recipe);
  json.member("attention", attention_name(c.attention));
  json.member("dropout", c.dropout);
  json.member("norm", c.fused_norm ? "fused" : "unfused");
  json.member("checkpoint", checkpoint_name(c));
  for (const auto& [name, value] : {std::pair{"dp", c.dp},
                                    {"zero", c.zero},
                                    {"tp", c.tp},
                                    {"cp", c.cp},
                                    {"pp", c.pp},
                                    {"interleave", c.interleave},
                                    {"ep", c.ep}}) {
    json.member(name, value);
  }
  json.member("sp", c.sequence_parallel);
  json.end('}');
  json.key("memory");
  json.begin('{');
  for (size_t g = 0; g < estimate::kGroupCount; ++g) {
    json.member(estimate::group_key(static_cast<estimate::Group>(g)), e.memory.groups[g]);
  }
  json.member("total", e.memory.total);
  json.member("peak", e.memory.peak);
  if (!e.memory.moments.empty())
    json.member("peak_moment", e.memory.moments[e.memory.peak_moment].key);
  json.member("allocator_rounded", e.memory.rounded);
  json.member("allocator_reserved", e.memory.reserved);
  json.member("outside_allocator", e.memory.context);
  json.key("rows");
  json.begin('[');
  for (const auto& row : e.memory.rows) {
    json.begin('{');
    json.member("key", row.key);
    json.member("title", row.title);
    json.member("group", estimate::group_key(row.group));
    json.member("bytes", row.bytes);
    json.member("formula", row.formula);
    json.member("source", row.source);
    json.end('}');
  }
  json.end(']');
  json.key("moments");
  json.begin('[');
  for (const auto& moment : e.memory.moments) {
    json.begin('{');
    json.member("key", moment.key);
    json.member("bytes", moment.bytes);
    json.member("formula", moment.formula);
    json.end('}');
  }
  json.end(']');
  json.key("stages");
  json.begin('[');
  for (const Integer total : e.memory.stage_totals) json.value(total);
  json.end(']');
  json.end('}');
  json.key("flops");
  json.begin('{');
  json.member("forward", e.flops.forward);
  json.member("backward", e.flops.backward);
  json.member("recompute", e.flops.recompute);
  json.member("optimizer", e.flops.optimizer);
  json.member("step", e.flops.step);
  json.member("six_nd", e.flops.six_nd);
  json.member("tokens", e.flops.tokens);
  json.member("counter_forward", e.flops.counter_forward);
  json.member("counter_backward", e.flops.counter_backward);
  json.key("operators");
  json.begin('[');
  for (const auto& row : e.flops.operators) {
    json.begin('{');
    json.member("key", row.key);
    json.member("forward", row.forward);
    json.member("backward", row.backward);
    json.member("counter_forward", row.counter_forward);
    json.member("counter_backward", row.counter_backward);
    json.member("formula", row.formula);
    json.end('}');
  }
  json.end(']');
  json.key("methods");
  json.begin('[');
  for (const auto& method : e.flops.methods) {
    json.begin('{');
    json.member("key", method.key);
    json.member("flops", method.step);
    json.member("formula", method.formula);
    json.member("leaves_out", method.leaves_out);
    json.member("source", method.source);
    json.end('}');
  }
  json.end(']');
  json.end('}');
  json.key("device");
  json.begin('{');
  const bool has_device = e.device.memory_bytes > 0;
  json.key("name");
  has_device ? json.value(e.device.name) : json.null();
  json.key("memory_bytes");
  has_device ? json.value(e.device.memory_bytes) : json.null();
  json.key("needed");
  has_device ? json.value(e.device.needed) : json.null();
  json.key("needed_at_peak");
  has_device ? json.value(e.device.needed_at_peak) : json.null();
  json.end('}');
  json.key("time");
  json.begin('{');
  json.member("seconds_per_step", e.time.seconds_per_step);
  json.member("days", e.time.days);
  json.member("pf_days", e.time.pf_days);
  json.member("tokens_per_second", e.time.tokens_per_second);
  json.member("mfu", e.time.mfu);
  json.member("hfu", e.time.hfu);
  json.end('}');
  if (explain && e.model.has_shape() && e.config.recipe != "inference") {
    json.key("checkpointing");
    json.begin('[');
    for (const auto& plan : estimate::checkpoint_tradeoffs(e.model, e.config)) {
      json.begin('{');
      json.member("key", plan.key);
      json.member("segments", plan.segments);
      json.member("kept", plan.kept);
      json.member("recomputed", plan.recomputed);
      json.member("extra_layer_forwards", plan.extra_layer_forwards);
      json.member("extra_flops", plan.extra_flops);
      json.end('}');
    }
    json.end(']');
  }
  json.key("assumptions");
  json.begin('[');
  for (const std::string& line : e.assumptions) json.value(line);
  json.end(']');
  json.key("not_applicable");
  json.begin('{');
  for (const auto& [key, why] : e.not_applicable) json.member(key, why);
  json.end('}');
  json.end('}');
}

void SweepTable::add(const EstimateJob& job, const Estimate& e) {
  using estimate::Group;
  const auto& m = e.memory;
  const Integer state =
      m.group(Group::kParameters) + m.group(Group::kGradients) + m.group(Group::kOptimizerState);
  lines_.push_back({job.swept,
                    e.parameters.total,
                    e.flops.step,
                    e.device.needed,
                    {state, m.group(Group::kActivations), m.group(Group::kLogits),
                     m.group(Group::kWorkspace), m.total, m.peak},
                    m.moments.empty() ? "" : m.moments[m.peak_moment].key});
  largest_ = std::max({largest_, m.total, m.peak});
}

std::string SweepTable::text() const {
  const Units u = units_for(largest_);
  bool device = false;
  for (const Line& line : lines_) device = device || line.needed > 0;
  std::vector<bool> right(sweep_.names.size() + 11, true);
  right[0] = false;
  TextTable table(right);
  std::vector<std::string> head = sweep_.names;
  head.emplace_back("parameters");
  for (const char* name : {"state", "activations", "logits", "workspace", "total", "peak"}) {
    head.push_back(fmt::format("{} {}", name, u.binary));
  }
  head.push_back(fmt::format("peak {}", u.decimal));
  head.insert(head.end(), {"peak at", "step FLOPs"});
  if (device) head.emplace_back("devices");
  table.row(head);
  for (const Line& line : lines_) {
    std::vector<std::string> cells = line.swept;
    cells.push_back(grouped(line.parameters));
    for (const Integer bytes : line.bytes) cells.push_back(u.in_binary(bytes));
    cells.push_back(u.in_decimal(line.bytes.back()));
    cells.emplace_back(line.peak_at);
    cells.push_back(flops_text(line.flops));
    if (device) cells.push_back(grouped(line.needed));
    table.row(std::move(cells));
  }
  return table.text();
}

std::string sweep_csv_header(const Sweep& sweep) {
  std::string out;
  for (const std::string& name : sweep.names) {
    if (name != "model") out += name + ",";
  }
  out += "model,parameters,active_parameters";
  for (size_t g = 0; g < estimate::kGroupCount; ++g) {
    out += fmt::format(",{}_bytes", estimate::group_key(static_cast<estimate::Group>(g)));
  }
  return out +
         ",total_bytes,peak_bytes,peak_moment,forward_flops,backward_flops,recompute_flops,"
         "optimizer_flops,step_flops,six_nd_flops,device,device_memory_bytes,devices_needed,"
         "seconds_per_step,days,pf_days\n";
}

std::string sweep_csv_line(const Sweep& sweep, const EstimateJob& job, const Estimate& e) {
  std::string out;
  for (size_t i = 0; i < sweep.names.size(); ++i) {
    if (sweep.names[i] != "model") out += csv_cell(job.swept[i]) + ",";
  }
  out += csv_cell(e.model.name);
  const auto integer = [&](Integer value) { out += "," + estimate::to_string(value); };
  integer(e.parameters.total);
  integer(e.parameters.active);
  for (const Integer bytes : e.memory.groups) integer(bytes);
  integer(e.memory.total);
  integer(e.memory.peak);
  out += ",";
  if (!e.memory.moments.empty()) out += e.memory.moments[e.memory.peak_moment].key;
  for (const Integer flops : {e.flops.forward, e.flops.backward, e.flops.recompute,
                              e.flops.optimizer, e.flops.step, e.flops.six_nd}) {
    integer(flops);
  }
  if (e.device.memory_bytes > 0) {
    out += "," + csv_cell(e.device.name);
    integer(e.device.memory_bytes);
    integer(e.device.needed);
  } else {
    out += ",,,";
  }
  for (const auto& value : {e.time.seconds_per_step, e.time.days, e.time.pf_days}) {
    out += value ? fmt::format(",{}", *value) : ",";
  }
  return out + "\n";
}

std::string lecture_text() {
  TextTable table({false, true, false, false, false});
  table.row({"The lecture \"Deep Learning at Scale for the GPU poor\" says", "printed",
             "recomputed", "verdict", "why"});
  for (const auto& line : estimate::lecture_audit()) {
    table.row({std::string(line.statement), std::string(line.printed), line.recomputed,
               std::string(line.verdict), std::string(line.reason)});
  }
  return table.text();
}

std::string lecture_json() {
  JsonText json;
  json.begin('[');
  for (const auto& line : estimate::lecture_audit()) {
    json.begin('{');
    json.member("id", line.id);
    json.member("statement", line.statement);
    json.member("printed", line.printed);
    json.member("recomputed", line.recomputed);
    json.member("value", line.value);
    json.member("verdict", line.verdict);
    json.member("reason", line.reason);
    json.end('}');
  }
  json.end(']');
  return json.take();
}

std::string lecture_csv() {
  std::string out = "id,statement,printed,recomputed,verdict,reason\n";
  for (const auto& line : estimate::lecture_audit()) {
    for (const std::string_view cell :
         {line.id, line.statement, line.printed, std::string_view(line.recomputed), line.verdict}) {
      out += csv_cell(std::string(cell)) + ",";
    }
    out += csv_cell(std::string(line.reason)) + "\n";
  }
  return out;
}

}  // namespace tally::cli
