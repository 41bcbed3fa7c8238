// SPDX-License-Identifier: Apache-2.0
// Scaling laws (data/scaling_laws.csv). Three kinds: parametric L(N, D) = E + A/N^alpha + B/D^beta,
// power laws N = k C^a fitted to printed tables, and Kaplan's. Compute is C = 6 N D.
#include <cmath>

#include "profiler/core/error.h"
#include "profiler/estimate/table_data.h"
#include "torchtally/estimate.h"

namespace tally::embedded {
extern const std::string_view estimate_scaling_laws;
extern const std::string_view estimate_chinchilla_tables;
}  // namespace tally::embedded

namespace tally::estimate {
namespace {

struct Law {
  std::string name, title, kind, source, note;
  double E = 0, A = 0, B = 0, alpha = 0, beta = 0;
  double k = 0, a = 0;  // of a power law
};

// Least squares on logarithms of the table's rows: ln N = ln k + a ln C.
void fit_power_law(Law& law) {
  const CsvTable table("chinchilla_tables.csv", embedded::estimate_chinchilla_tables);
  double n = 0, sx = 0, sy = 0, sxx = 0, sxy = 0;
  for (size_t i = 0; i < table.size(); ++i) {
    if (table.text(i, "law") != law.name) continue;
    const double x = std::log(table.number(i, "compute")),
                 y = std::log(table.number(i, "parameters"));
    n += 1, sx += x, sy += y, sxx += x * x, sxy += x * y;
  }
  law.a = (n * sxy - sx * sy) / (n * sxx - sx * sx);
  law.k = std::exp((sy - law.a * sx) / n);
}

const std::vector<Law>& laws() {
  static const std::vector<Law> all = [] {
    const CsvTable table("scaling_laws.csv", embedded::estimate_scaling_laws);
    std::vector<Law> list;
    for (size_t i = 0; i < table.size(); ++i) {
      Law law;
      law.name = table.text(i, "name");
      law.title = table.text(i, "title");
      law.kind = table.text(i, "kind");
      law.source = table.text(i, "source");
      law.note = table.text(i, "note");
      law.E = table.number(i, "E");
      law.A = table.number(i, "A");
      law.B = table.number(i, "B");
      law.alpha = table.number(i, "alpha");
      law.beta = table.number(i, "beta");
      // The TeX source gives logarithms of E, A and B.
      if (law.kind == "parametric-log") {
        law.E = std::exp(law.E), law.A = std::exp(law.A), law.B = std::exp(law.B);
        law.kind = "parametric";
      }
      if (law.kind == "table") fit_power_law(law);
      list.push_back(std::move(law));
    }
    return list;
  }();
  return all;
}

const Law& find_law(const std::string& name) {
  for (const Law& law : laws()) {
    if (law.name == name) return law;
  }
  throw Error("no scaling law is called '{}'; there are {}", name, join(scaling_law_names(), ", "));
}

double loss_of(const Law& law, double n, double d) {
  if (law.kind == "kaplan") {
    // Eq. 1.5 with the constants of Table 2.
    return std::pow(std::pow(6.4e13 / n, 0.076 / 0.103) + 1.8e13 / d, 0.103);
  }
  return law.E + law.A / std::pow(n, law.alpha) + law.B / std::pow(d, law.beta);
}

// At the optimum alpha A / N^alpha = beta B / D^beta, and C = 6 N D.
double optimum_of_compute(const Law& law, double c) {
  if (law.kind == "kaplan") return 1.3e9 * std::pow(c / kPfDay, 0.73);
  if (law.kind == "table") return law.k * std::pow(c, law.a);
  const double sum = law.alpha + law.beta;
  const double g = std::pow(law.alpha * law.A / (law.beta * law.B), 1 / sum);
  return g * std::pow(c / 6, law.beta / sum);
}

double tokens_of_parameters(const Law& law, double n) {
  if (law.kind == "kaplan") return 2e10 * std::pow(n / 1.3e9, 0.27 / 0.73);
  if (law.kind == "table") return std::pow(n / law.k, 1 / law.a) / (6 * n);
  return std::pow(law.beta * law.B / (law.alpha * law.A), 1 / law.beta) *
         std::pow(n, law.alpha / law.beta);
}

double parameters_of_tokens(const Law& law, double d) {
  if (law.kind == "kaplan") return 1.3e9 * std::pow(d / 2e10, 0.73 / 0.27);
  // D = C^(1-a) / (6 k) along the law.
  if (law.kind == "table") return law.k * std::pow(6 * law.k * d, law.a / (1 - law.a));
  return std::pow(law.alpha * law.A / (law.beta * law.B), 1 / law.alpha) *
         std::pow(d, law.beta / law.alpha);
}

void answer_parametric(const Law& law, const ScalingQuestion& q, ScalingAnswer& a) {
  if (q.parameters && q.tokens) {
    a.parameters = q.parameters;
    a.tokens = q.tokens;
  } else if (q.compute && q.parameters) {
    a.parameters = q.parameters;
    a.tokens = *q.compute / 6 / *q.parameters;
  } else if (q.compute && q.tokens) {
    a.tokens = q.tokens;
    a.parameters = *q.compute / 6 / *q.tokens;
  } else if (q.compute) {
    a.parameters = optimum_of_compute(law, *q.compute);
    // Kaplan's D is its own fit; everywhere else tokens follow from C = 6 N D.
    a.tokens = law.kind == "kaplan" ? 2e10 * std::pow(*q.compute / kPfDay, 0.27)
                                    : *q.compute / 6 / *a.parameters;
  } else if (q.parameters) {
    a.parameters = q.parameters;
    a.tokens = tokens_of_parameters(law, *q.parameters);
  } else if (q.tokens) {
    a.tokens = q.tokens;
    a.parameters = parameters_of_tokens(law, *q.tokens);
  } else if (law.kind == "kaplan") {
    const double pf_days = 3.1e8 * std::pow(*q.loss, -1 / 0.050);
    a.parameters = 1.3e9 * std::pow(pf_days, 0.73);
    a.tokens = 2e10 * std::pow(pf_days, 0.27);
    a.compute = pf_days * kPfDay;
    a.loss = q.loss;
    return;
  } else if (law.kind == "parametric") {
    if (*q.loss <= law.E) return;  // below what infinite data and parameters reach
    // B/D^beta is alpha/beta times A/N^alpha at the optimum.
    a.parameters = std::pow(law.A * (1 + law.alpha / law.beta) / (*q.loss - law.E), 1 / law.alpha);
    a.tokens = tokens_of_parameters(law, *a.parameters);
  } else {
    return;  // a table predicts no loss
  }
  const bool kaplan_optimum = law.kind == "kaplan" && !(q.parameters && q.tokens);
  if (q.compute)
    a.compute = q.compute;
  else if (kaplan_optimum)
    a.compute = std::pow(*a.parameters / 1.3e9, 1 / 0.73) * kPfDay;
  else
    a.compute = 6 * *a.parameters * *a.tokens;
  if (law.kind == "kaplan" && q.compute && !q.parameters && !q.tokens) {
    a.loss = std::pow(3.1e8 / (*q.compute / kPfDay), 0.050);
  } else if (law.kind != "table") {
    a.loss = loss_of(law, *a.parameters, *a.tokens);
  }
}

}  // namespace

std::optional<double> ScalingAnswer::tokens_per_parameter() const {
  if (!parameters || !tokens) return std::nullopt;
  return *tokens / *parameters;
}

std::vector<std::string> scaling_law_names() {
  std::vector<std::string> names;
  for (const Law& law : laws()) names.push_back(law.name);
  return names;
}

double predicted_loss(const std::string& name, double parameters, double tokens) {
  const Law& law = find_law(name);
  if (law.kind == "table") throw Error("scaling law '{}' predicts no loss", name);
  return loss_of(law, parameters, tokens);
}
double optimal_parameters(const std::string& law, double compute) {
  return optimum_of_compute(find_law(law), compute);
}
double optimal_tokens(const std::string& law, double parameters) {
  return tokens_of_parameters(find_law(law), parameters);
}
double kaplan_loss_of_parameters(double n) { return std::pow(8.8e13 / n, 0.076); }

std::vector<ScalingAnswer> scaling_laws(const ScalingQuestion& q) {
  const int given = (q.compute ? 1 : 0) + (q.parameters ? 1 : 0) + (q.tokens ? 1 : 0);
  if (given == 0 && !q.loss) throw Error("give --compute, --parameters, --tokens or --loss");
  if (given == 3)
    throw Error("--compute, --parameters and --tokens fix each other: give two of them");
  if (given > 0 && q.loss) throw Error("--loss is asked for alone: the others predict it");
  const auto check = [](const std::optional<double>& value, const char* flag, double most) {
    if (value && (!(*value > 0) || !std::isfinite(*value) || *value > most)) {
      throw Error("{} must be a positive number up to {:g}, it is {:g}", flag, most, *value);
    }
  };
  check(q.compute, "--compute", 1e40);
  check(q.parameters, "--parameters", 1e25);
  check(q.tokens, "--tokens", 1e25);
  check(q.loss, "--loss", 100);
  std::vector<ScalingAnswer> answers;
  for (const Law& law : laws()) {
    ScalingAnswer answer;
    answer.law = law.name;
    answer.title = law.title;
    answer.source = law.source;
    answer.note = law.note;
    answer_parametric(law, q, answer);
    if (q.loss && !answer.parameters) {
      answer.note = law.kind == "table" ? "predicts no loss"
                                        : "the loss lies below the law's irreducible loss";
    }
    answers.push_back(answer);
  }
  return answers;
}

}  // namespace tally::estimate
