// SPDX-License-Identifier: Apache-2.0
// The three verbs: their flags, and which text or JSON they print. Long because each table of
// `models` is written out column by column, in both forms, in one place.
#include "profiler/cli/estimate_verbs.h"

#include <cmath>
#include <cstdio>
#include <memory>

#include "profiler/cli/estimate_flags.h"
#include "profiler/cli/estimate_output.h"
#include "profiler/core/error.h"

namespace tally::cli {
namespace {

using estimate::Estimate;
using estimate::Integer;

void print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

// ---- estimate ----------------------------------------------------------------------------------

struct EstimateArguments {
  std::vector<std::string> models;
  std::map<std::string, std::string> values;  // by flag
  bool explain = false, json = false, csv = false, lecture = false;
};

Estimate answer(const EstimateJob& job) { return estimate::estimate(job.model, job.config); }

void print_json(const Sweep& sweep, bool explain) {
  JsonText json;
  const bool list = !sweep.names.empty();
  if (list) json.begin('[');
  for (const EstimateJob& job : sweep.jobs) estimate_json(json, answer(job), explain);
  if (list) json.end(']');
  print(json.take());
}

void run_estimate(const EstimateArguments& a, const CLI::App& verb) {
  if (a.json && a.csv) throw Error("--json and --csv exclude each other");
  std::map<std::string, std::string> given;
  for (const auto& [name, value] : a.values) {
    if (verb.count(name) == 0) continue;
    const std::vector<std::string> written = verb.get_option(name)->results();
    const bool alone = written.empty() || written.back() == "{}" ||
                       written.back().empty();  // a switch without its value
    given[name] = alone ? "yes" : value;
  }
  if (a.lecture) {
    if (!given.empty() || a.models.size() > 1 ||
        (a.models.size() == 1 && estimate::find_model(a.models[0]).name != "llama-65b")) {
      throw Error("--lecture is about llama-65b as the lecture has it and takes no other flags");
    }
    print(a.json ? lecture_json() : a.csv ? lecture_csv() : lecture_text());
    return;
  }
  const Sweep sweep = make_sweep(a.models, given);
  // Everything is checked before anything is printed.
  for (const EstimateJob& job : sweep.jobs) estimate::validate(job.model, job.config);
  const bool single = sweep.names.empty();
  if (a.json) return print_json(sweep, a.explain);
  if (a.csv) {
    print(sweep_csv_header(sweep));
    for (const EstimateJob& job : sweep.jobs) print(sweep_csv_line(sweep, job, answer(job)));
    return;
  }
  if (single || a.explain) {
    for (const EstimateJob& job : sweep.jobs) {
      if (&job != sweep.jobs.data()) print("\n\n");
      print(estimate_text(answer(job), a.explain));
    }
    return;
  }
  SweepTable table(sweep);
  for (const EstimateJob& job : sweep.jobs) table.add(job, answer(job));
  print(table.text());
}

void add_estimate(CLI::App& app) {
  CLI::App* verb = app.add_subcommand(
      "estimate", "What theory says of a training step: memory, FLOPs, devices, time");
  auto a = std::make_shared<EstimateArguments>();
  verb->add_option(
      "model", a->models,
      "a name of torchtally models, a Hugging Face config.json, or - to read one from the input; "
      "several make a table");
  for (const EstimateFlag& flag : estimate_flags()) {
    CLI::Option* option =
        verb->add_option(std::string(flag.name), a->values[std::string(flag.name)],
                         std::string(flag.help))
            ->type_name(std::string(flag.argument))
            ->group(std::string(flag.group))
            ->take_last();
    if (flag.is_switch()) option->expected(0, 1);
  }
  verb->add_flag("--explain", a->explain,
                 "every term with its formula and source, and the checkpointing trade-offs")
      ->group("Output");
  verb->add_flag("--json", a->json, "exact integers under fixed keys")->group("Output");
  verb->add_flag("--csv", a->csv, "one line a configuration, in bytes and FLOPs")->group("Output");
  verb->add_flag("--lecture", a->lecture, "the numbers of the lecture beside the recomputed ones")
      ->group("Output");
  verb->footer(
      "A flag may hold a list: each combination is one row.\n"
      "Examples:\n"
      "  torchtally estimate llama-65b --device \"RTX 6000 Ada\"\n"
      "  torchtally estimate gpt2 --batch 1,2,4,8 --sequence 512,1024 --csv\n"
      "  torchtally estimate llama-3-70b --dtype bf16 --recipe mixed-18 --attention flash --norm "
      "fused --dp 8 --zero 1 --tp 8 --sp yes --explain\n"
      "  torchtally estimate ./config.json --dtype amp-bf16 --checkpoint full --json\n"
      "  torchtally estimate --family llama --layers 16 --d-model 2048 --heads 32 --kv-heads 8 "
      "--ffn 8192 --vocab 128256 --context 8192\n"
      "  torchtally estimate gpt-4 --parameters 1700B --recipe inference --weights nf4\n"
      "  torchtally estimate llama-65b --lecture");
  verb->callback([a, verb] { run_estimate(*a, *verb); });
}

// ---- scaling -----------------------------------------------------------------------------------

struct ScalingArguments {
  std::string compute, parameters, tokens, loss;
  bool json = false, csv = false;
};

std::optional<double> scaling_number(const std::string& text, const char* flag) {
  if (text.empty()) return std::nullopt;
  // Counts like 70B are welcome; 1.7 is a loss and no count.
  try {
    size_t used = 0;
    const double value = std::stod(text, &used);
    if (used == text.size()) {
      if (!std::isfinite(value) || value <= 0)
        throw Error("{} must be a positive number, it is '{}'", flag, text);
      return value;
    }
  } catch (const std::logic_error&) {
  }
  const Integer value = estimate::parse_count(text, flag);
  if (value <= 0) throw Error("{} must be a positive number, it is '{}'", flag, text);
  return static_cast<double>(value);
}

std::string big(const std::optional<double>& value) {
  if (!value) return "-";
  if (*value >= 1e15) return fmt::format("{:.4g}", *value);
  for (const auto& [size, unit] : {std::pair{1e12, "T"}, {1e9, "B"}, {1e6, "M"}, {1e3, "k"}}) {
    if (*value >= size) return fmt::format("{:.4g} {}", *value / size, unit);
  }
  return fmt::format("{:.4g}", *value);
}

void run_scaling(const ScalingArguments& a) {
  if (a.json && a.csv) throw Error("--json and --csv exclude each other");
  estimate::ScalingQuestion question;
  question.compute = scaling_number(a.compute, "--compute");
  question.parameters = scaling_number(a.parameters, "--parameters");
  question.tokens = scaling_number(a.tokens, "--tokens");
  question.loss = scaling_number(a.loss, "--loss");
  const auto answers = estimate::scaling_laws(question);
  const auto pf_days = [](const std::optional<double>& c) {
    return c ? std::optional<double>(*c / estimate::kPfDay) : std::nullopt;
  };
  if (a.json) {
    JsonText json;
    json.begin('[');
    for (const auto& answer : answers) {
      json.begin('{');
      json.member("law", answer.law);
      json.member("title", answer.title);
      json.member("compute", answer.compute);
      json.member("pf_days", pf_days(answer.compute));
      json.member("parameters", answer.parameters);
      json.member("tokens", answer.tokens);
      json.member("tokens_per_parameter", answer.tokens_per_parameter());
      json.member("loss", answer.loss);
      json.member("source", answer.source);
      json.member("note", answer.note);
      json.end('}');
    }
    json.end(']');
    return print(json.take());
  }
  if (a.csv) {
    std::string out = "law,compute,pf_days,parameters,tokens,tokens_per_parameter,loss\n";
    for (const auto& answer : answers) {
      out += answer.law;
      for (const auto& v : {answer.compute, pf_days(answer.compute), answer.parameters,
                            answer.tokens, answer.tokens_per_parameter(), answer.loss}) {
        out += v ? fmt::format(",{}", *v) : ",";
      }
      out += "\n";
    }
    return print(out);
  }
  TextTable table({false, true, true, true, true, true, true, false});
  table.row({"Law", "C (FLOPs)", "PF-days", "N", "D (tokens)", "D/N", "loss", "source and note"});
  for (const auto& answer : answers) {
    const auto ratio = answer.tokens_per_parameter();
    table.row({std::string(answer.title),
               answer.compute ? fmt::format("{:.4g}", *answer.compute) : "-",
               big(pf_days(answer.compute)), big(answer.parameters), big(answer.tokens),
               ratio ? fmt::format("{:.3g}", *ratio) : "-",
               answer.loss ? fmt::format("{:.4f}", *answer.loss) : "-",
               fmt::format("{}{}{}", answer.source, answer.note.empty() ? "" : "; ", answer.note)});
  }
  print(table.text());
  print(
      "\nN parameters, D tokens, C = 6 N D FLOPs (Kaplan: C from its own fit). What was not given "
      "is the compute optimum.\n");
}

void add_scaling(CLI::App& app) {
  CLI::App* verb = app.add_subcommand(
      "scaling", "Scaling laws: the best size and data for a budget, and the loss they predict");
  auto a = std::make_shared<ScalingArguments>();
  verb->add_option("--compute", a->compute, "training FLOPs")->type_name("C");
  verb->add_option("--parameters", a->parameters, "parameters")->type_name("N");
  verb->add_option("--tokens", a->tokens, "training tokens")->type_name("D");
  verb->add_option("--loss", a->loss, "loss to reach, in nats")->type_name("L");
  verb->add_flag("--json", a->json, "as JSON");
  verb->add_flag("--csv", a->csv, "as CSV");
  verb->footer(
      "Examples:\n"
      "  torchtally scaling --compute 5.76e23\n"
      "  torchtally scaling --parameters 70B --tokens 1.4T\n"
      "  torchtally scaling --loss 2.0 --json");
  verb->callback([a] { run_scaling(*a); });
}

// ---- models ------------------------------------------------------------------------------------

struct ModelsArguments {
  std::string name, value;
  bool formats = false, devices = false, optimizers = false, recipes = false, json = false;
};

std::string number(double value) { return fmt::format("{:.6g}", value); }

void print_formats(const ModelsArguments& a) {
  std::optional<double> sample;
  if (!a.value.empty()) {
    try {
      size_t used = 0;
      sample = std::stod(a.value, &used);
      if (used != a.value.size()) throw Error("--value: '{}' is no number", a.value);
    } catch (const std::logic_error&) {
      throw Error("--value: '{}' is no number", a.value);
    }
  }
  if (a.json) {
    JsonText json;
    json.begin('[');
    for (const auto& f : estimate::number_formats()) {
      json.begin('{');
      json.member("name", f.name);
      json.member("title", f.title);
      for (const auto& [key, bits] : {std::pair{"bits", f.bits},
                                      {"sign", f.sign},
                                      {"exponent", f.exponent},
                                      {"mantissa", f.mantissa},
                                      {"bias", f.bias}}) {
        json.member(key, bits);
      }
      for (const auto& [key, value] : {std::pair{"lowest", f.lowest},
                                       {"largest", f.largest},
                                       {"smallest_normal", f.smallest_normal},
                                       {"smallest_subnormal", f.smallest_subnormal},
                                       {"epsilon", f.epsilon},
                                       {"exact_integers", f.exact_integers},
                                       {"bytes_per_parameter", f.bytes_per_parameter}}) {
        json.member(key, value);
      }
      json.member("storage", f.storage);
      if (sample) {
        const auto n = estimate::encode(f, *sample);
        json.member("encoded", n.sign + n.exponent + n.mantissa);
        json.member("decoded", n.value);
        json.member("arithmetic", n.arithmetic);
      }
      json.end('}');
    }
    json.end(']');
    return print(json.take());
  }
  TextTable table({false, true, true, true, true, true, true, true, true, true, true, false});
  table.row({"Format", "bits", "sign", "exponent", "mantissa", "lowest", "largest",
             "smallest normal", "smallest", "epsilon", "exact integers", "bytes a parameter"});
  for (const auto& f : estimate::number_formats()) {
    const bool real = f.kind.rfind("float", 0) == 0;
    table.row({f.name, std::to_string(f.bits), std::to_string(f.sign), std::to_string(f.exponent),
               std::to_string(f.mantissa), number(f.lowest), number(f.largest),
               number(f.smallest_normal), real ? number(f.smallest_subnormal) : "-",
               f.epsilon > 0 ? number(f.epsilon) : "-",
               f.exact_integers > 0 ? fmt::format("{:.0f}", f.exact_integers) : "-",
               fmt::format("{:g}: {}", f.bytes_per_parameter, f.storage)});
  }
  print(table.text());
  print("\n");
  for (const auto& f : estimate::number_formats())
    print(fmt::format("  {:<9} {}\n", f.name, f.title));
  const double value = sample.value_or(1.2345);
  print(fmt::format("\n{} in each format (sign | exponent | mantissa; --value X for another)\n",
                    number(value)));
  TextTable bits({false, false, false, true, true});
  bits.row({"Format", "bits", "value", "decoded", "error"});
  for (const auto& f : estimate::number_formats()) {
    const auto n = estimate::encode(f, value);
    const std::string pattern =
        n.sign.empty() ? n.mantissa : n.sign + "|" + n.exponent + "|" + n.mantissa;
    bits.row({f.name, pattern, n.arithmetic, fmt::format("{:.9g}", n.value),
              fmt::format("{:.2e}", n.value - value)});
  }
  print(bits.text());
}

void print_devices(bool as_json) {
  if (as_json) {
    JsonText json;
    json.begin('[');
    for (const auto& d : estimate::devices()) {
      json.begin('{');
      json.member("name", d.name);
      json.member("architecture", d.architecture);
      json.member("memory_bytes", d.memory_bytes);
      json.member("memory_reported", d.memory_reported);
      for (const auto& [key, value] : {std::pair{"bandwidth", d.bandwidth},
                                       {"fp32", d.fp32},
                                       {"tf32", d.tf32},
                                       {"bf16", d.bf16},
                                       {"fp16", d.fp16},
                                       {"fp8", d.fp8},
                                       {"watts", d.watts}}) {
        json.key(key);
        value > 0 ? json.value(value) : json.null();
      }
      json.member("source", d.source);
      json.end('}');
    }
    json.end(']');
    return print(json.take());
  }
  TextTable table({false, false, true, true, true, true, true, true, true, false});
  table.row(
      {"Device", "architecture", "GB", "GB/s", "fp32", "tf32", "bf16", "fp16", "fp8", "source"});
  for (const auto& d : estimate::devices()) {
    const auto tera = [](double v) {
      return v > 0 ? fmt::format("{:g}", v / 1e12) : std::string("-");
    };
    table.row({d.name, d.architecture,
               fmt::format("{:.2f}{}", static_cast<double>(d.memory_bytes) / 1e9,
                           d.memory_reported ? "*" : ""),
               fmt::format("{:g}", d.bandwidth / 1e9), tera(d.fp32), tera(d.tf32), tera(d.bf16),
               tera(d.fp16), tera(d.fp8), d.source});
  }
  print(table.text());
  print("\nDense peaks in TFLOP/s (1e12). GB is 1e9 B, nominal; * as the driver reports it.\n");
}

void print_optimizers(bool as_json) {
  if (as_json) {
    JsonText json;
    json.begin('[');
    for (const auto& o : estimate::optimizers()) {
      json.begin('{');
      json.member("name", o.name);
      json.member("states", o.states);
      json.member("temporaries", o.temporaries);
      json.member("flops", o.flops);
      json.member("kind", o.kind);
      json.member("source", o.source);
      json.end('}');
    }
    json.end(']');
    return print(json.take());
  }
  TextTable table({false, true, true, true, false});
  table.row({"Optimizer", "states a parameter", "temporaries", "FLOPs a parameter", "source"});
  for (const auto& o : estimate::optimizers())
    table.row({o.name, number(o.states), number(o.temporaries), number(o.flops), o.source});
  print(table.text());
}

void print_recipes(bool as_json) {
  if (as_json) {
    JsonText json;
    json.begin('[');
    for (const auto& r : estimate::recipes()) {
      json.begin('{');
      json.member("name", r.name);
      json.member("title", r.title);
      json.member("weight", r.weight);
      json.member("gradient", r.gradient);
      json.member("master", r.master);
      json.member("state", r.state);
      json.member("source", r.source);
      json.end('}');
    }
    json.end(']');
    return print(json.take());
  }
  TextTable table({false, true, true, true, true, false});
  table.row({"Recipe", "weight", "gradient", "master", "a state", "what (bytes a parameter)"});
  for (const auto& r : estimate::recipes())
    table.row({r.name, number(r.weight), number(r.gradient), number(r.master), number(r.state),
               r.title + "; " + r.source});
  print(table.text());
}

void model_json(JsonText& json, const estimate::ModelSpec& m, bool tensors) {
  const auto count = estimate::count_parameters(m);
  json.begin('{');
  json.member("name", m.name);
  json.member("family", m.family);
  json.key("parameters");
  count.total > 0 ? json.value(count.total) : json.null();
  json.key("active_parameters");
  count.total > 0 ? json.value(count.active) : json.null();
  json.key("published_parameters");
  m.published_parameters > 0 ? json.value(m.published_parameters) : json.null();
  for (const auto& [key, value] : {std::pair{"layers", m.layers},
                                   {"d_model", m.d_model},
                                   {"heads", m.heads},
                                   {"kv_heads", m.kv_heads},
                                   {"head_dim", m.head_dim},
                                   {"ffn", m.ffn},
                                   {"vocab", m.vocab},
                                   {"context", m.context},
                                   {"experts", m.experts},
                                   {"top_k", m.top_k}}) {
    json.member(key, value);
  }
  json.member("tied", m.tied);
  json.member("source", m.source);
  json.member("note", m.note);
  if (tensors) {
    json.key("tensors");
    json.begin('[');
    for (const auto& t : estimate::parameter_tensors(m)) {
      json.begin('{');
      json.member("name", t.name);
      json.member("rows", t.rows);
      json.member("columns", t.columns);
      json.member("copies", Integer{t.copies} * (t.part == estimate::Part::kBlock ? m.layers : 1));
      json.member("elements", t.elements() * (t.part == estimate::Part::kBlock ? m.layers : 1));
      json.end('}');
    }
    json.end(']');
  }
  json.end('}');
}

void print_one_model(const std::string& name, bool as_json) {
  const estimate::ModelSpec m = make_sweep({name}, {}).jobs[0].model;
  if (as_json) {
    JsonText json;
    model_json(json, m, true);
    return print(json.take());
  }
  const auto count = estimate::count_parameters(m);
  print(fmt::format("{}  ({})  {}\n", m.name, m.family, m.source));
  if (!m.note.empty()) print(m.note + "\n");
  if (!m.has_shape()) return;
  TextTable table({false, false, true, true, true});
  table.row({"Tensor", "shape", "count", "elements", "share"});
  for (const auto& t : estimate::parameter_tensors(m)) {
    const Integer layers = t.part == estimate::Part::kBlock ? m.layers : 1;
    table.row(
        {std::string(t.name),
         t.columns > 0 ? fmt::format("{} x {}", t.rows, t.columns) : fmt::format("{}", t.rows),
         grouped(t.copies * layers), grouped(t.elements() * layers),
         fmt::format("{:.2f} %", 100 * static_cast<double>(t.elements() * layers) /
                                     static_cast<double>(count.total))});
  }
  table.row({"all", "", "", grouped(count.total), ""});
  if (count.active != count.total) table.row({"active", "", "", grouped(count.active), ""});
  if (m.published_parameters > 0)
    table.row({"published", "", "", grouped(m.published_parameters), ""});
  print(table.text());
}

void print_models(bool as_json) {
  if (as_json) {
    JsonText json;
    json.begin('[');
    for (const auto& m : estimate::model_presets()) model_json(json, m, false);
    json.end(']');
    return print(json.take());
  }
  TextTable table({false, false, true, true, true, true, true, true, true, true, false});
  table.row({"Model", "family", "parameters", "active", "layers", "width", "heads", "MLP",
             "vocabulary", "context", "source"});
  for (const auto& m : estimate::model_presets()) {
    const auto count = estimate::count_parameters(m);
    if (!m.has_shape()) {
      table.row({m.name, m.family, "unpublished", "", "", "", "", "", "", "", m.source});
      continue;
    }
    table.row({m.name, m.family, grouped(count.total),
               count.active == count.total ? "" : grouped(count.active), std::to_string(m.layers),
               std::to_string(m.d_model),
               m.kv_heads == m.heads ? fmt::format("{} x {}", m.heads, m.head_dim)
                                     : fmt::format("{}/{} x {}", m.heads, m.kv_heads, m.head_dim),
               m.experts > 0 ? fmt::format("{} x {}", m.experts, m.ffn) : std::to_string(m.ffn),
               std::to_string(m.vocab), std::to_string(m.context), m.source});
  }
  print(table.text());
}

void run_models(const ModelsArguments& a) {
  if (!a.value.empty() && !a.formats) throw Error("--value belongs to --formats");
  const int tables =
      int{a.formats} + int{a.devices} + int{a.optimizers} + int{a.recipes} + int{!a.name.empty()};
  if (tables > 1)
    throw Error(
        "ask for one table: a model's name, --formats, --devices, --optimizers or --recipes");
  if (a.formats) return print_formats(a);
  if (a.devices) return print_devices(a.json);
  if (a.optimizers) return print_optimizers(a.json);
  if (a.recipes) return print_recipes(a.json);
  a.name.empty() ? print_models(a.json) : print_one_model(a.name, a.json);
}

void add_models(CLI::App& app) {
  CLI::App* verb = app.add_subcommand(
      "models",
      "The tables behind the estimates: models, number formats, devices, optimizers, recipes");
  auto a = std::make_shared<ModelsArguments>();
  verb->add_option("model", a->name, "one model (or config.json) tensor by tensor");
  verb->add_flag("--formats", a->formats, "number formats: bits, limits, a value taken apart");
  verb->add_option("--value", a->value, "the value that --formats encodes")->type_name("X");
  verb->add_flag("--devices", a->devices, "devices with their memory and dense peaks");
  verb->add_flag("--optimizers", a->optimizers, "state, temporaries and FLOPs of optimizers");
  verb->add_flag("--recipes", a->recipes, "bytes of weights, gradients and state by recipe");
  verb->add_flag("--json", a->json, "as JSON");
  verb->footer(
      "Examples:\n"
      "  torchtally models\n"
      "  torchtally models mixtral-8x7b\n"
      "  torchtally models --formats --value 0.1\n"
      "  torchtally models --devices --json");
  verb->callback([a] { run_models(*a); });
}

}  // namespace

void add_estimate_verbs(CLI::App& app) {
  add_estimate(app);
  add_scaling(app);
  add_models(app);
}

}  // namespace tally::cli
