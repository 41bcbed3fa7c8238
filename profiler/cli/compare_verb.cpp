// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "profiler/analysis/build.h"
#include "profiler/analysis/compare.h"
#include "profiler/cli/output.h"
#include "profiler/cli/report_inputs.h"
#include "profiler/cli/report_verbs.h"
#include "profiler/recording/reader.h"
#include "reports/compare.h"
#include "reports/write_file.h"

namespace tally::cli {
namespace {

struct CompareFlags {
  std::vector<std::string> recordings;
  std::vector<std::string> fail_on;
  std::string format;
  std::string output;
  std::string at = "peak";
  std::string device;
  std::optional<uint64_t> step;
};

std::string render(const analysis::Comparison& comparison, const CompareFlags& flags) {
  std::string format = flags.format;
  if (format.empty()) {
    const std::string suffix = std::filesystem::path(flags.output).extension().string();
    format = suffix == ".html" || suffix == ".htm" ? "html" : suffix == ".json" ? "json" : "text";
  }
  if (format == "json") return reports::render_compare_json(comparison);
  if (format == "html") return reports::render_compare_html(comparison);
  return reports::render_compare_text(comparison);
}

void compare(const CompareFlags& flags) {
  // Wrong conditions are said before anything is read.
  std::vector<analysis::Condition> conditions;
  for (const std::string& text : flags.fail_on) {
    conditions.push_back(analysis::parse_condition(text));
  }
  const analysis::SummaryOptions options{
      .step = flags.step, .device = flags.device, .at = mark_of_flag(flags.at)};
  std::vector<analysis::Summary> summaries;
  for (const std::string& path : flags.recordings) {
    refuse_to_overwrite(path, flags.output);
    summaries.push_back(analysis::build_summary(
        recording::read_run(path, {.load = recording::Load::kShown, .step = flags.step}), options));
  }
  const analysis::Comparison comparison = analysis::compare(summaries);
  const std::string text = render(comparison, flags);
  if (flags.output.empty()) {
    print(text);
  } else {
    reports::write_file(flags.output, text);
  }
  std::string failures;
  for (const analysis::Condition& condition : conditions) {
    for (const std::string& sentence : analysis::met_by(condition, comparison)) {
      failures += (failures.empty() ? "" : "\ntorchtally: ") + sentence;
    }
  }
  if (!failures.empty()) throw CheckFailed("{}", failures);
}

}  // namespace

void add_compare_verb(CLI::App& app) {
  auto flags = std::make_shared<CompareFlags>();
  CLI::App* verb = app.add_subcommand(
      "compare", "Say what grew and what shrank between recordings, by role, module and operator");
  verb->add_option("recordings", flags->recordings, "The recording to compare with, and the others")
      ->required()
      ->expected(2, -1)
      ->type_name("A.tally B.tally");
  verb->add_option("-f,--format", flags->format,
                   "text, json or html; default: by the name of -o, else text")
      ->check(CLI::IsMember({"text", "json", "html"}))
      ->type_name("FORMAT");
  verb->add_option("-o,--output", flags->output, "Write to this file instead of the terminal")
      ->type_name("FILE");
  verb->add_option("--fail-on", flags->fail_on,
                   "Exit with 1 when this holds of a recording after the first; may be repeated")
      ->type_name("CONDITION")
      ->expected(1)
      ->take_all();
  verb->add_option("--step", flags->step,
                   "Compare this step; default: of each recording the one with the highest peak")
      ->check([](const std::string& text) { return whole_number(text, "step"); })
      ->type_name("N");
  verb->add_option("--at", flags->at,
                   "Compare what was alive at this mark: peak, forward-edge, backward-end, start, "
                   "end or oom")
      ->type_name("MARK");
  verb->add_option("--device", flags->device,
                   "Compare this device; default: that with the highest peak")
      ->type_name("DEVICE");
  verb->footer(
      "A condition is KEY, one of > >= < <=, and an amount. KEY: peak, forward_edge, end, saved\n"
      "(kept by autograd), flops, seconds, or a role (parameter, activation, ...). An amount with "
      "a\n"
      "sign is a change from the first recording, in percent or units; without one it is the\n"
      "number itself.\n"
      "Examples:\n"
      "  torchtally compare main.tally mine.tally\n"
      "  torchtally compare main.tally mine.tally -o compare.html\n"
      "  torchtally compare main.tally mine.tally --fail-on 'peak>+2%'\n"
      "  torchtally compare main.tally mine.tally --fail-on 'activation>+64MiB' --fail-on "
      "'peak>8GiB'\n"
      "  torchtally compare a.tally b.tally c.tally --at forward-edge --format json\n"
      "Exit codes: 0 good, 1 a --fail-on holds, 2 wrong use or bad input.");
  verb->callback([flags] { compare(*flags); });
}

}  // namespace tally::cli
