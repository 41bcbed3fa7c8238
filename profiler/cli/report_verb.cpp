// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "profiler/analysis/build.h"
#include "profiler/cli/output.h"
#include "profiler/cli/report_verbs.h"
#include "profiler/core/error.h"
#include "profiler/recording/reader.h"
#include "reports/html.h"
#include "reports/json.h"
#include "reports/text.h"
#include "reports/write_file.h"

namespace tally::cli {
namespace {

struct ReportFlags {
  std::string recording;
  std::string format;  // "": by the output's name, text without one
  std::string output;
  std::string color = "auto";
  std::optional<uint64_t> step;
};

std::string format_by_name(const std::string& output) {
  const std::string suffix = std::filesystem::path(output).extension().string();
  if (suffix == ".html" || suffix == ".htm") return "html";
  return suffix == ".json" ? "json" : "text";
}

std::string_view environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// Where 24 bits are known to work; a terminal that does not say so gets plain text.
bool terminal_has_color() {
  const std::string_view depth = environment("COLORTERM");
  return isatty(STDOUT_FILENO) && environment("NO_COLOR").empty() &&
         environment("TERM") != "dumb" && (depth == "truecolor" || depth == "24bit");
}

reports::TextOptions text_options(const ReportFlags& flags) {
  reports::TextOptions options;
  options.color = flags.color == "always" ||
                  (flags.color == "auto" && flags.output.empty() && terminal_has_color());
  // "foreground;background" in the 16 colours; 7 and 15 are light grounds.
  const std::string_view ground = environment("COLORFGBG");
  options.dark = !ground.ends_with(";7") && !ground.ends_with(";15");
  return options;
}

std::string render(const analysis::Summary& summary, const ReportFlags& flags) {
  const std::string format = flags.format.empty() ? format_by_name(flags.output) : flags.format;
  if (format == "json") return reports::render_json(summary);
  if (format == "html") return reports::render_html(summary);
  return reports::render_text(summary, text_options(flags));
}

// What CLI11 asks of a check: "", or what is wrong. Alone it would take -1 for a huge number.
std::string step_number(const std::string& text) {
  const bool digits =
      std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  return digits && !text.empty() && text.size() < 19 ? "" : "'" + text + "' is no number of a step";
}

void report(const ReportFlags& flags) {
  std::error_code error;
  if (!flags.output.empty() && std::filesystem::equivalent(flags.recording, flags.output, error)) {
    throw Error("cannot write {}: it is the recording itself", flags.output);
  }
  const recording::Run run =
      recording::read_run(flags.recording, {.load = recording::Load::kShown, .step = flags.step});
  const std::string text = render(analysis::build_summary(run, {.step = flags.step}), flags);
  if (flags.output.empty()) {
    print(text);
  } else {
    reports::write_file(flags.output, text);
  }
}

}  // namespace

void add_report_verb(CLI::App& app) {
  auto flags = std::make_shared<ReportFlags>();
  CLI::App* verb =
      app.add_subcommand("report", "Say where the bytes and FLOPs of a recorded step went");
  verb->add_option("recording", flags->recording, "The recording, such as run.tally")
      ->required()
      ->type_name("RUN.tally");
  verb->add_option("-f,--format", flags->format,
                   "text, json or html; default: by the name of -o, else text")
      ->check(CLI::IsMember({"text", "json", "html"}))
      ->type_name("FORMAT");
  verb->add_option("-o,--output", flags->output, "Write to this file instead of the terminal")
      ->type_name("FILE");
  verb->add_option("--step", flags->step,
                   "Explain this step; default: the one with the highest peak")
      ->check(step_number)
      ->type_name("N");
  verb->add_option("--color", flags->color, "auto, always or never; auto obeys NO_COLOR")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->type_name("WHEN");
  verb->footer(
      "Examples:\n"
      "  torchtally report run.tally\n"
      "  torchtally report run.tally -o report.html\n"
      "  torchtally report run.tally --step 3 --format json | jq .theory");
  verb->callback([flags] { report(*flags); });
}

}  // namespace tally::cli
