// SPDX-License-Identifier: Apache-2.0
// The numbers of the lecture "Deep Learning at Scale for the GPU poor" (data/lecture.csv), each
// recomputed by the same functions that answer everybody else.
#include <functional>
#include <map>

#include "profiler/core/error.h"
#include "profiler/estimate/integer.h"
#include "profiler/estimate/table_data.h"

namespace tally::embedded {
extern const std::string_view estimate_lecture;
}

namespace tally::estimate {
namespace {

struct Recomputed {
  double value;
  std::string text;
};

constexpr double kNominal = 65e9;  // the lecture's parameters
constexpr double kGB = 1e9;

struct Llama65 {
  ModelSpec model = find_model("llama-65b");
  TrainingConfig config;
  double L = static_cast<double>(model.layers), D = static_cast<double>(model.d_model),
         N = static_cast<double>(model.context), H = static_cast<double>(model.heads);
  Estimate result = estimate(model, config);

  // The lecture's block: a GPT-2 layer of the same width, fp32, eager, no dropout.
  double gpt_activations() const {
    ModelSpec gpt = family_model("gpt");
    gpt.layers = model.layers, gpt.d_model = model.d_model, gpt.heads = model.heads;
    gpt.vocab = model.vocab, gpt.context = model.context;
    gpt.masks_scores = false;
    complete(gpt);
    double sum = 0;
    for (const ActivationTensor& row : layer_activations(gpt, config)) {
      if (row.key.find(".statistics") == std::string_view::npos) sum += to_double(row.bytes);
    }
    return sum * L;
  }
};

Recomputed billions(const std::string& model) {
  const double n = to_double(count_parameters(find_model(model)).total) / 1e9;
  return {n, fmt::format("{:.2f}e9", n)};
}
Recomputed gb(double bytes) { return {bytes / kGB, fmt::format("{:.2f} GB", bytes / kGB)}; }
Recomputed flops(double value) { return {value, fmt::format("{:.6g}", value)}; }
Recomputed plain(double value, const char* what = "") {
  return {value, fmt::format("{:g}{}", value, what)};
}

using Compute = std::function<Recomputed(const Llama65&)>;

const std::map<std::string, Compute, std::less<>>& computations() {
  static const std::map<std::string, Compute, std::less<>> all{
      {"gpt3", [](const Llama65&) { return billions("gpt3-175b"); }},
      {"gopher", [](const Llama65&) { return billions("gopher-280b"); }},
      {"palm", [](const Llama65&) { return billions("palm-540b"); }},
      {"llama-range",
       [](const Llama65&) {
         const Recomputed small = billions("llama-7b"), large = billions("llama-2-70b");
         return Recomputed{large.value, small.text + " to " + large.text};
       }},
      {"mixtral",
       [](const Llama65&) {
         const ParameterCount n = count_parameters(find_model("mixtral-8x7b"));
         return Recomputed{to_double(n.total) / 1e9,
                           fmt::format("{:.2f}e9 in all, {:.2f}e9 active", to_double(n.total) / 1e9,
                                       to_double(n.active) / 1e9)};
       }},
      {"int8-values",
       [](const Llama65&) {
         const NumberFormat& f = find_format("int8");
         return plain(f.largest - f.lowest + 1, " values");
       }},
      {"int8-range",
       [](const Llama65&) {
         const NumberFormat& f = find_format("int8");
         return Recomputed{f.lowest, fmt::format("{:.0f}..{:.0f}", f.lowest, f.largest)};
       }},
      {"int8-bits",
       [](const Llama65&) {
         const EncodedNumber n = encode(find_format("int8"), 124);
         return Recomputed{n.value, fmt::format("{} is {:.0f}", n.mantissa, n.value)};
       }},
      {"fp32-formula",
       [](const Llama65&) {
         const EncodedNumber n = encode(find_format("fp32"), 1.2345);
         return Recomputed{n.value, fmt::format("{} = {:.9f}", n.arithmetic, n.value)};
       }},
      {"parameters",
       [](const Llama65& l) {
         return Recomputed{to_double(l.result.parameters.total),
                           to_string(l.result.parameters.total)};
       }},
      {"bits", [](const Llama65&) { return flops(32 * kNominal); }},
      {"weights", [](const Llama65&) { return gb(4 * kNominal); }},
      {"gradients", [](const Llama65&) { return gb(4 * kNominal); }},
      {"optimizer", [](const Llama65&) { return gb(8 * kNominal); }},
      {"activations-250",
       [](const Llama65& l) {
         const double bytes = every_output_activations(l.L, 1, l.N, l.D, l.H);
         return Recomputed{bytes / kGB,
                           fmt::format("{:.2f} GB = {:.2f} GiB", bytes / kGB, bytes / 0x1p30)};
       }},
      {"activations-172", [](const Llama65& l) { return gb(l.gpt_activations()); }},
      {"activations-llama",
       [](const Llama65& l) { return gb(to_double(l.result.memory.group(Group::kActivations))); }},
      {"total", [](const Llama65& l) { return gb(16 * kNominal + l.gpt_activations()); }},
      {"total-llama", [](const Llama65& l) { return gb(to_double(l.result.memory.total)); }},
      {"peak", [](const Llama65& l) { return gb(to_double(l.result.memory.peak)); }},
      {"cards",
       [](const Llama65& l) {
         const Integer nominal = ceil_div(Integer{1290}, 48);
         const Integer own =
             ceil_div(l.result.memory.total, find_device("RTX 6000 Ada").memory_bytes);
         return Recomputed{to_double(nominal),
                           fmt::format("{} of 48 GB for 1290 GB; {} for Llama's own block",
                                       to_string(nominal), to_string(own))};
       }},
      {"vector-sum", [](const Llama65&) { return plain(to_double(vector_sum_flops(1000))); }},
      {"dot",
       [](const Llama65&) { return plain(to_double(dot_product_flops(1000)), " = 2n - 1"); }},
      {"matmul", [](const Llama65&) { return flops(to_double(matmul_flops(1000, 1000, 1000))); }},
      {"forward",
       [](const Llama65& l) {
         return Recomputed{lecture_forward(1, l.L, l.N, l.D, l.H),
                           fmt::format("{:.9g}", lecture_forward(1, l.L, l.N, l.D, l.H))};
       }},
      {"forward-llama", [](const Llama65& l) { return flops(to_double(l.result.flops.forward)); }},
      {"backward",
       [](const Llama65& l) {
         return plain(to_double(l.result.flops.backward) / to_double(l.result.flops.forward),
                      " x forward");
       }},
      {"step", [](const Llama65& l) { return flops(3 * lecture_forward(1, l.L, l.N, l.D, l.H)); }},
      {"six-nd", [](const Llama65& l) { return flops(6 * l.N * kNominal); }},
      {"pf-day", [](const Llama65&) { return flops(kPfDay); }},
      {"a100", [](const Llama65&) { return flops(find_device("A100").fp32); }},
      {"o1-memory",
       [](const Llama65& l) {
         const Integer forwards = quadratic_forwards(l.model.layers);
         return Recomputed{to_double(forwards), to_string(forwards) + " layer forwards"};
       }},
      {"sqrt",
       [](const Llama65& l) {
         for (const CheckpointPlan& plan : checkpoint_tradeoffs(l.model, l.config)) {
           if (plan.key == "sqrt") return gb(to_double(plan.kept + plan.recomputed));
         }
         return gb(0);
       }},
      {"accumulation", [](const Llama65&) { return plain(4 * 8, " sequences"); }},
  };
  return all;
}

}  // namespace

std::vector<LectureLine> lecture_audit() {
  static const CsvTable table("lecture.csv", embedded::estimate_lecture);
  const Llama65 llama;
  std::vector<LectureLine> lines;
  for (size_t i = 0; i < table.size(); ++i) {
    LectureLine line;
    line.id = table.text(i, "id");
    line.statement = table.text(i, "statement");
    line.printed = table.text(i, "printed");
    line.printed_value = table.number(i, "printed_value");
    line.verdict = table.text(i, "verdict");
    line.reason = table.text(i, "reason");
    if (const auto at = computations().find(line.id); at != computations().end()) {
      const Recomputed result = at->second(llama);
      line.value = result.value;
      line.recomputed = result.text;
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

}  // namespace tally::estimate
