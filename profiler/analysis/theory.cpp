// SPDX-License-Identifier: Apache-2.0
// Theory beside measurement. Every row has a formula, and a cause: of the deviation, or why there
// is no expectation. Expectations come from rules over shapes and recipes, never from measured
// bytes of the same role; where a rule needs something measured, the formula says so.
// Long because each row stands with the causes that its deviation can have.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include <fmt/format.h>

#include "profiler/analysis/parts.h"
#include "profiler/core/units.h"

namespace tally::analysis {
namespace {

size_t at(Role role) { return static_cast<size_t>(role); }

// "+4.0 KiB activations"; what is less, such as what a backward pass has given back, is said as
// such.
std::string beyond(int64_t bytes, std::string_view what) {
  return bytes < 0 ? fmt::format("{} less of {}", format_bytes(-bytes), what)
                   : fmt::format("+{} {}", format_bytes(bytes), what);
}
std::string signed_flops(double flops) {
  return (flops < 0 ? "-" : "+") + format_flops(std::abs(flops));
}

// "h.0, h.1, h.2 and 9 more"
std::string some_of(const std::vector<std::string>& names) {
  std::string text;
  const size_t shown = std::min<size_t>(names.size(), 3);
  for (size_t i = 0; i < shown; ++i) text += (i ? ", " : "") + names[i];
  if (names.size() > shown) text += fmt::format(" and {} more", names.size() - shown);
  return text;
}

TheoryRow named(const std::string& key, const std::string& title) {
  TheoryRow row;
  row.key = key;
  row.title = title;
  return row;
}

class Theory {
 public:
  Theory(const recording::Run& run, const Summary& summary)
      : run_(run), summary_(summary), step_(summary.step()), device_(summary.device_step()) {}

  std::vector<TheoryRow> rows();

 private:
  TheoryRow parameter_row();
  TheoryRow buffer_row();
  TheoryRow gradient_row();
  TheoryRow optimizer_row();
  TheoryRow activation_row();
  TheoryRow peak_row();
  void add_flop_rows(std::vector<TheoryRow>* rows);

  bool has(const ParameterInfo& p, bool buffer) const { return p.is_buffer == buffer && !p.shared; }
  // Bytes of a role over all devices at the last mark of a kind.
  int64_t at_last(Mark mark, Role role) const {
    int64_t bytes = 0;
    for (const DeviceStep& device : step_.devices) {
      for (auto m = device.marks.rbegin(); m != device.marks.rend(); ++m) {
        if (m->mark != mark) continue;
        bytes += m->roles[at(role)];
        break;
      }
    }
    return bytes;
  }
  const MarkSummary* last_backward_end() const {
    const MarkSummary* found = nullptr;
    for (const DeviceStep& device : step_.devices) {
      for (const MarkSummary& m : device.marks) {
        if (m.mark != Mark::kBackwardEnd) continue;
        if (!found || m.roles[at(Role::kGradient)] >= found->roles[at(Role::kGradient)]) found = &m;
      }
    }
    return found;
  }
  // The edge where autograd kept the most.
  const MarkSummary* fullest_edge() const {
    const MarkSummary* found = nullptr;
    for (const DeviceStep& device : step_.devices) {
      for (const MarkSummary& m : device.marks) {
        if (m.mark == Mark::kForwardEdge && (!found || m.saved_bytes > found->saved_bytes))
          found = &m;
      }
    }
    return found;
  }
  std::string gradient_cause(int64_t deviation, const MarkSummary* mark) const;
  void finish(TheoryRow* row, int64_t measured, int64_t expected) const {
    row->measured = static_cast<double>(measured);
    row->expected = static_cast<double>(expected);
    row->deviation = static_cast<double>(measured - expected);
    if (measured == expected) row->cause = "exact";
  }

  const recording::Run& run_;
  const Summary& summary_;
  const StepSummary& step_;
  const DeviceStep* device_;
  std::map<Role, int64_t> expected_;  // of the rows so far; what the peak is built from
};

TheoryRow Theory::parameter_row() {
  TheoryRow row = named("parameter", "parameters");
  row.formula =
      "sum of elements x element size over the parameters of watched modules, tied ones once";
  int64_t expected = 0;
  for (const ParameterInfo& p : run_.info.parameters) {
    if (has(p, false)) expected += p.bytes;
  }
  const int64_t measured = at_last(Mark::kEnd, Role::kParameter);
  row.measured = static_cast<double>(measured);
  if (expected == 0) {
    row.cause = "not applicable because no module with parameters was watched";
    return row;
  }
  finish(&row, measured, expected);
  expected_[Role::kParameter] = expected;
  if (measured < expected) {
    row.cause = format_bytes(expected - measured) +
                " of the parameters are not in memory of the watched allocators";
  } else if (measured > expected) {
    row.cause = format_bytes(measured - expected) +
                " more: leaves that autograd accumulates into but no watched module owns, or "
                "storages larger than their tensors";
  }
  return row;
}

TheoryRow Theory::buffer_row() {
  TheoryRow row = named("buffer", "buffers");
  row.formula = "sum of elements x element size over the buffers of watched modules";
  int64_t expected = 0;
  for (const ParameterInfo& p : run_.info.parameters) {
    if (has(p, true)) expected += p.bytes;
  }
  const int64_t measured = at_last(Mark::kEnd, Role::kBuffer);
  row.measured = static_cast<double>(measured);
  if (run_.info.parameters.empty() && run_.info.modules.empty()) {
    row.cause = "not applicable because no module was watched";
    return row;
  }
  finish(&row, measured, expected);
  expected_[Role::kBuffer] = expected;
  if (measured < expected) {
    row.cause = format_bytes(expected - measured) +
                " of the buffers are not in memory of the watched allocators, or share a storage";
  } else if (measured > expected) {
    row.cause = format_bytes(measured - expected) + " more: storages larger than their tensors";
  }
  return row;
}

std::string Theory::gradient_cause(int64_t deviation, const MarkSummary* mark) const {
  if (deviation > 0) {
    return format_bytes(deviation) +
           " more: gradients of parameters that no watched module owns, or of another element size";
  }
  if (mark->roles[at(Role::kGradient)] == 0) {
    return "no parameter held a gradient when backward ended: torch::autograd::grad was used, or "
           "the gradients were freed inside backward";
  }
  std::map<std::string, std::pair<int64_t, int64_t>> wanted;  // by module: bytes, parameters
  for (const ParameterInfo& p : run_.info.parameters) {
    if (!has(p, false) || !p.trainable) continue;
    auto& [bytes, count] = wanted[run_.text(p.module)];
    bytes += p.bytes;
    ++count;
  }
  std::map<std::string, int64_t> held;
  for (const Cell& cell : mark->cells) {
    if (cell.role == Role::kGradient) held[cell.module] += cell.bytes;
  }
  int64_t without = 0;
  std::vector<std::string> empty, partly;
  for (const auto& [module, want] : wanted) {
    if (held[module] == 0) {
      without += want.second;
      empty.push_back(module);
    } else if (held[module] < want.first) {
      partly.push_back(module);
    }
  }
  if (mark->cells.empty() || (empty.empty() && partly.empty())) {
    return format_bytes(-deviation) + " less: some parameters got no gradient";
  }
  std::string cause;
  if (without > 0)
    cause = count_of(without, "parameter") + " got no gradient (" + some_of(empty) + ")";
  if (!partly.empty()) {
    cause += (cause.empty() ? "" : "; ") + std::string("some parameters of ") + some_of(partly) +
             " got none";
  }
  return cause;
}

TheoryRow Theory::gradient_row() {
  TheoryRow row = named("gradient", "gradients");
  row.formula = "bytes of the trainable parameters, tied ones once; measured when backward ended";
  int64_t expected = 0;
  for (const ParameterInfo& p : run_.info.parameters) {
    if (has(p, false) && p.trainable) expected += p.bytes;
  }
  const MarkSummary* mark = last_backward_end();
  const int64_t measured = mark ? mark->roles[at(Role::kGradient)] : 0;
  row.measured = static_cast<double>(measured);
  if (!mark) {
    row.cause = "not applicable because no backward pass ran in this step";
    return row;
  }
  if (run_.info.parameters.empty()) {
    row.cause = "not applicable because no module with parameters was watched";
    return row;
  }
  finish(&row, measured, expected);
  expected_[Role::kGradient] = expected;
  if (measured != expected) row.cause = gradient_cause(measured - expected, mark);
  return row;
}

// How many times the parameters a recipe keeps. C++ and Python agree: torch.optim as measured.
// Nothing: no fixed number.
std::optional<int> state_factor(const std::string& recipe) {
  static const std::map<std::string, int> kBase{
      {"sgd", 0},   {"adam", 2},   {"adamw", 2},    {"rmsprop", 1}, {"adagrad", 1}, {"nadam", 2},
      {"radam", 2}, {"adamax", 2}, {"adadelta", 2}, {"rprop", 2},   {"asgd", 1},    {"lion", 1}};
  const size_t end = recipe.find('-');
  const auto base = kBase.find(recipe.substr(0, end));
  if (base == kBase.end()) return std::nullopt;
  int factor = base->second;
  for (const char* option : {"-momentum", "-amsgrad", "-centered"}) {  // each keeps one more
    factor += recipe.find(option) != std::string::npos;
  }
  return factor;
}

TheoryRow Theory::optimizer_row() {
  TheoryRow row = named("optimizer_state", "optimizer state");
  const auto& optimizers = run_.info.optimizers;
  const int64_t measured = at_last(Mark::kEnd, Role::kOptimizerState);
  row.measured = static_cast<double>(measured);
  row.formula = "bytes kept a parameter, by the optimizer's recipe";
  if (optimizers.empty()) {
    row.cause = "not applicable because no optimizer was watched";
    return row;
  }
  std::string formula;
  std::vector<int64_t> parameter_bytes(optimizers.size());
  std::vector<int64_t> parameter_count(optimizers.size());
  for (const ParameterInfo& p : run_.info.parameters) {
    if (!has(p, false) || !p.trainable || p.optimizer_index < 0) continue;
    parameter_bytes[static_cast<size_t>(p.optimizer_index)] += p.bytes;
    ++parameter_count[static_cast<size_t>(p.optimizer_index)];
  }
  int64_t expected = 0;
  int64_t counted = 0;
  for (size_t i = 0; i < optimizers.size(); ++i) {
    const std::string recipe = run_.text(optimizers[i].recipe);
    const std::string& type = run_.text(optimizers[i].type);
    if (recipe.starts_with("lbfgs")) {
      row.cause =
          "not applicable because the history of LBFGS grows with the data: up to "
          "2 x history_size + 2 vectors of all parameters";
      return row;
    }
    const auto factor = state_factor(recipe);
    if (!factor) {
      row.cause = "not applicable because no recipe is known for the optimizer " +
                  (recipe.empty() ? type : type + " (" + recipe + ")");
      return row;
    }
    if (parameter_count[i] == 0 && optimizers[i].parameters > 0) {
      row.cause = "not applicable because no watched module owns the parameters of " + type;
      return row;
    }
    expected += *factor * parameter_bytes[i];
    counted += *factor > 0 ? parameter_count[i] : 0;
    formula += fmt::format("{}{} x {} of its parameters ({})", formula.empty() ? "" : " + ",
                           *factor, format_bytes(parameter_bytes[i]), recipe);
  }
  row.formula = formula;
  finish(&row, measured, expected);
  expected_[Role::kOptimizerState] = expected;
  const int64_t more = measured - expected;
  if (more > 0 && more <= 8 * counted) {
    row.cause =
        fmt::format("step counters: {} for {}", format_bytes(more), count_of(counted, "parameter"));
  } else if (more > 0) {
    row.cause = format_bytes(more) + " more: state beyond the recipe, or of another element size";
  } else if (measured == 0 && expected > 0) {
    row.cause = "the optimizer had made no state by the end of this step";
  } else if (more < 0) {
    row.cause = format_bytes(-more) + " less: parameters without a gradient get no state";
  }
  return row;
}

TheoryRow Theory::activation_row() {
  TheoryRow row = named("activation", "kept by autograd");
  row.formula =
      "what each recorded operator saves for backward, by its rule, each storage once; "
      "measured at the forward edge";
  const MarkSummary* edge = fullest_edge();
  if (!edge) {
    row.cause = "not applicable because no backward pass ran in this step";
    return row;
  }
  row.measured = static_cast<double>(edge->saved_bytes);
  if (!edge->expected_saved_bytes) {
    row.cause = "not applicable because the shapes of this step's operators were not recorded";
    return row;
  }
  finish(&row, edge->saved_bytes, *edge->expected_saved_bytes);
  if (row.deviation > 0) {
    row.cause =
        format_bytes(std::llround(row.deviation)) +
        " more: operators without a rule, custom functions, or views that keep a larger storage";
  } else if (row.deviation < 0) {
    row.cause =
        format_bytes(std::llround(-row.deviation)) +
        " less: recomputed in backward, packed by hooks, or an operator that saved less than "
        "its rule";
  }
  return row;
}

// Two moments have a rule: the forward edge (all activations) and the optimizer's update (all
// gradients, and for the Adam family two temporaries of the largest parameter). The larger one is
// the expectation; what the peak holds beyond it is told role by role, and adds up.
TheoryRow Theory::peak_row() {
  TheoryRow row = named("peak", "peak");
  row.formula = "the larger of the forward edge and the optimizer's update";
  if (!device_) {
    row.cause = "not applicable because no memory was recorded";
    return row;
  }
  const MarkSummary& peak = device_->peak;
  row.measured = static_cast<double>(peak.bytes);
  for (const DeviceStep& other : step_.devices) {
    if (&other == device_) continue;
    for (const Role role : {Role::kParameter, Role::kGradient, Role::kActivation}) {
      if (other.peak.roles[at(role)] == 0) continue;
      row.cause = peak.roles[at(Role::kParameter)] != 0
                      ? "not applicable because the model is spread over several devices"
                      : "not applicable because the model is on " + other.device;
      return row;
    }
  }
  const MarkSummary* edge = nullptr;
  for (const MarkSummary& m : device_->marks) {
    if (m.mark == Mark::kForwardEdge && (!edge || m.bytes > edge->bytes)) edge = &m;
  }
  if (!edge || !edge->expected_saved_bytes || !expected_.contains(Role::kParameter)) {
    row.cause = !edge ? "not applicable because no backward pass ran in this step"
                      : "not applicable because modules or operators of this step are not known";
    return row;
  }
  // A role with a rule is taken from the rule wherever it is alive; inputs and outputs as measured.
  const auto expect = [&](const MarkSummary& mark, Role role) {
    const auto found = expected_.find(role);
    return mark.roles[at(role)] != 0 && found != expected_.end() ? found->second
                                                                 : mark.roles[at(role)];
  };
  RoleBytes at_edge{};
  for (const Role role : {Role::kParameter, Role::kBuffer, Role::kOptimizerState, Role::kGradient,
                          Role::kInput, Role::kHeldOutput, Role::kExternal}) {
    at_edge[at(role)] = expect(*edge, role);
  }
  // saved_bytes also holds saved inputs and buffers, which have rows of their own.
  at_edge[at(Role::kActivation)] = edge->roles[at(Role::kActivation)] +
                                   edge->roles[at(Role::kRecomputedActivation)] +
                                   *edge->expected_saved_bytes - edge->saved_bytes;
  RoleBytes at_update{};
  std::string update_formula = "parameters + buffers + gradients + optimizer state";
  for (const Role role :
       {Role::kParameter, Role::kBuffer, Role::kGradient, Role::kOptimizerState}) {
    if (const auto found = expected_.find(role); found != expected_.end())
      at_update[at(role)] = found->second;
  }
  for (const MarkSummary& m : device_->marks) {  // the last one stays: what the update finds
    if (m.mark != Mark::kBackwardEnd) continue;
    for (const Role role : {Role::kInput, Role::kHeldOutput, Role::kExternal}) {
      at_update[at(role)] = m.roles[at(role)];
    }
  }
  int64_t largest = 0;
  for (const ParameterInfo& p : run_.info.parameters) {
    if (has(p, false) && p.trainable && p.optimizer_index >= 0)
      largest = std::max(largest, p.bytes);
  }
  if (!run_.info.optimizers.empty() &&
      run_.text(run_.info.optimizers[0].recipe).starts_with("adam")) {
    at_update[at(Role::kTemporaryOptimizer)] = 2 * largest;
    update_formula += " + 2 x the largest parameter";
  }
  const bool edge_is_larger = sum(at_edge) >= sum(at_update);
  const RoleBytes& rule = edge_is_larger ? at_edge : at_update;
  row.formula = edge_is_larger
                    ? fmt::format(
                          "at the forward edge of micro-step {}: parameters + buffers + optimizer "
                          "state + gradients held from before + kept by autograd, all by rule, + "
                          "inputs and held outputs as measured",
                          edge->micro_step)
                    : "in the optimizer's update: " + update_formula +
                          ", all by rule, + inputs and held outputs as measured";
  finish(&row, peak.bytes, sum(rule));
  if (row.deviation == 0) return row;
  std::vector<std::pair<int64_t, size_t>> differences;
  for (size_t role = 0; role < kRoleCount; ++role) {
    if (const int64_t d = peak.roles[role] - rule[role]; d != 0) differences.emplace_back(d, role);
  }
  std::stable_sort(differences.begin(), differences.end(), [](const auto& a, const auto& b) {
    return std::abs(a.first) > std::abs(b.first);
  });
  row.cause = fmt::format("the peak is in the phase {}; beyond the rules: ", title(peak.phase));
  int64_t rest = 0;
  for (size_t i = 0; i < differences.size(); ++i) {
    if (i >= 3) {
      rest += differences[i].first;
      continue;
    }
    row.cause +=
        (i ? ", " : "") + beyond(differences[i].first, kRoleWords[differences[i].second].title);
  }
  if (rest != 0) row.cause += ", " + beyond(rest, "others");
  return row;
}

void Theory::add_flop_rows(std::vector<TheoryRow>* rows) {
  const Flops& flops = step_.flops;
  double parameters = 0;
  std::map<std::string, double> by_module;
  double attention_forward = 0;
  double attention = 0;
  for (const OperatorRow& op : step_.operators) {
    by_module[op.module] += op.flops;
    // Products of two activations: no parameter of N takes part.
    if (op.op.find("bmm") == std::string::npos && op.op.find("attention") == std::string::npos)
      continue;
    attention += op.flops;
    if (op.phase != Phase::kBackward && op.phase != Phase::kRecompute)
      attention_forward += op.flops;
  }
  double idle = 0;  // elements that no counted product multiplies: embeddings, norms, biases
  for (const ParameterInfo& p : run_.info.parameters) {
    if (p.is_buffer || !p.trainable) continue;
    const auto elements = static_cast<double>(p.elements);
    const bool is_vector = run_.text(p.shape).find(',') == std::string::npos;
    const bool works = !is_vector && by_module[run_.text(p.module)] > 0;
    if (!p.shared) parameters += elements;
    if (!p.shared && !works) idle += elements;
    if (p.shared && works) idle -= elements;  // tied: it works under its other name
  }
  const double tokens = step_.tokens;
  const std::string n_and_d =
      fmt::format("N = {} trainable parameters with embeddings, tied ones once; D = {} tokens",
                  format_integer(std::llround(parameters)), format_integer(std::llround(tokens)));
  const auto compare = [&](const std::string& key, const std::string& title, double measured,
                           double factor, double of_attention, double recomputed) {
    TheoryRow row = named(key, title);
    row.unit = "FLOP";
    row.measured = measured;
    row.formula = fmt::format("{} N D; {}", factor, n_and_d);
    if (tokens <= 0) {
      row.formula = fmt::format("{} N D", factor);
      row.cause = "not applicable because the model has no embedding, so D is not known";
    } else if (parameters <= 0) {
      row.cause = "not applicable because no module with parameters was watched";
    } else {
      row.expected = factor * parameters * tokens;
      row.deviation = measured - *row.expected;
      const double unused = -factor * std::max(0.0, idle) * tokens;
      const double rest = row.deviation - of_attention - recomputed - unused;
      row.cause = row.deviation == 0 ? "exact" : "";
      const auto part = [&row](double value, const std::string& what) {
        if (row.deviation == 0 || std::abs(value) < 0.5) return;
        row.cause += (row.cause.empty() ? "" : ", ") + signed_flops(value) + " " + what;
      };
      part(of_attention, "attention");
      part(recomputed, "recomputed");
      part(unused, "embeddings, norms and biases: no products");
      part(rest, "the rest (frozen or repeated layers, inputs without a gradient)");
      if (row.cause.empty()) row.cause = "rounding";
    }
    rows->push_back(row);
  };
  compare("flops_forward", "FLOPs, forward", flops.forward, 2, attention_forward, 0);

  TheoryRow backward = named("flops_backward", "FLOPs, backward");
  backward.unit = "FLOP";
  backward.measured = flops.backward;
  backward.formula = "2 x forward: a product for the input's gradient and one for the weight's";
  if (flops.backward == 0) {
    backward.cause = "not applicable because backward did no counted work in this step";
  } else {
    backward.expected = 2 * flops.forward;
    backward.deviation = flops.backward - *backward.expected;
    backward.cause =
        backward.deviation == 0 ? "exact"
        : backward.deviation < 0
            ? format_flops(-backward.deviation) +
                  " less: the first layers' inputs need no gradient, or parameters are frozen"
            : format_flops(backward.deviation) +
                  " more: fused attention computes its scores again, or several backward passes "
                  "ran";
  }
  rows->push_back(backward);
  compare("flops_total", "FLOPs, step", flops.total(), flops.backward == 0 ? 2 : 6, attention,
          flops.recompute);
}

std::vector<TheoryRow> Theory::rows() {
  std::vector<TheoryRow> rows{parameter_row(), buffer_row(),     gradient_row(),
                              optimizer_row(), activation_row(), peak_row()};
  add_flop_rows(&rows);
  return rows;
}

}  // namespace

std::vector<TheoryRow> theory_rows(const recording::Run& run, const Summary& summary) {
  return Theory(run, summary).rows();
}

}  // namespace tally::analysis
