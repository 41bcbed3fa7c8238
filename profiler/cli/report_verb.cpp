// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "profiler/analysis/build.h"
#include "profiler/cli/output.h"
#include "profiler/cli/report_inputs.h"
#include "profiler/cli/report_verbs.h"
#include "profiler/recording/reader.h"
#include "reports/csv.h"
#include "reports/html.h"
#include "reports/json.h"
#include "reports/text.h"
#include "reports/write_file.h"

namespace tally::cli {
namespace {

struct ReportFlags {
  std::vector<std::string> recordings;
  std::string format;  // "": by the output's name, text without one
  std::string output;
  std::string color = "auto";
  bool full = false;
  std::string at = "peak";
  std::string device;
  std::string model;
  std::optional<uint64_t> step;
  std::optional<uint64_t> rank;
};

std::string format_by_name(const std::string& output) {
  const std::string suffix = std::filesystem::path(output).extension().string();
  if (suffix == ".html" || suffix == ".htm") return "html";
  if (suffix == ".csv") return "csv";
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
  options.full = flags.full;
  options.dark = !ground.ends_with(";7") && !ground.ends_with(";15");
  return options;
}

std::string render(const analysis::RankedSummaries& ranks, const ReportFlags& flags) {
  const std::string format = flags.format.empty() ? format_by_name(flags.output) : flags.format;
  const analysis::Summary& summary = ranks.summaries[ranks.explained];
  if (format == "json") return reports::render_json(summary);
  if (format == "csv") return reports::render_csv(summary);
  if (format == "flops-csv") return reports::render_flops_csv(summary);
  if (format == "html") return reports::render_html(ranks.summaries, ranks.explained);
  return reports::render_text(summary, text_options(flags));
}

void report(const ReportFlags& flags) {
  analysis::SummaryOptions options{.step = flags.step,
                                   .device = flags.device,
                                   .at = mark_of_flag(flags.at),
                                   .model = model_text(flags.model)};
  std::optional<int64_t> rank;
  if (flags.rank) rank = static_cast<int64_t>(*flags.rank);
  std::vector<recording::Run> runs;
  for (const std::string& path : flags.recordings) {
    refuse_to_overwrite(path, flags.output);
    runs.push_back(
        recording::read_run(path, {.load = recording::Load::kShown, .step = flags.step}));
  }
  const std::string text = render(analysis::build_ranks(runs, rank, options), flags);
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
  verb->add_option("recordings", flags->recordings,
                   "A recording, such as run.tally; several are the ranks of one run")
      ->required()
      ->type_name("RUN.tally");
  verb->add_option(
          "-f,--format", flags->format,
          "text, json, csv (what was alive), flops-csv (work by operator and kernel) or html; "
          "default: by the name of -o, else text")
      ->check(CLI::IsMember({"text", "json", "csv", "flops-csv", "html"}))
      ->type_name("FORMAT");
  verb->add_option("-o,--output", flags->output, "Write to this file instead of the terminal")
      ->type_name("FILE");
  verb->add_option("--step", flags->step,
                   "Explain this step; default: the one with the highest peak")
      ->check([](const std::string& text) { return whole_number(text, "step"); })
      ->type_name("N");
  verb->add_option("--at", flags->at,
                   "Explain what was alive at this mark: peak, forward-edge, backward-end, start, "
                   "end or oom; of several the fullest")
      ->type_name("MARK");
  verb->add_option(
          "--device", flags->device,
          "Explain this device, such as cpu or cuda:1; default: that with the highest peak")
      ->type_name("DEVICE");
  verb->add_option("--rank", flags->rank,
                   "Explain this rank; default: the one with the highest peak")
      ->check([](const std::string& text) { return whole_number(text, "rank"); })
      ->type_name("R");
  verb->add_option("--model", flags->model,
                   "What closed forms are computed from, where the recording does not say it: a "
                   "preset (torchtally models) or a config.json")
      ->type_name("MODEL");
  verb->add_option("--color", flags->color, "auto, always or never; auto obeys NO_COLOR")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->type_name("WHEN");
  verb->add_flag("--full", flags->full,
                 "As text: as many lines as it takes, nothing cut; default: at most 60 lines");
  verb->footer(
      "Examples:\n"
      "  torchtally report run.tally\n"
      "  torchtally report run.tally --full | less\n"
      "  torchtally report run.tally -o report.html\n"
      "  torchtally report run.tally --step 3 --format json | jq .theory\n"
      "  torchtally report run.tally --at forward-edge --format csv > alive.csv\n"
      "  torchtally report run.tally --format flops-csv > flops.csv\n"
      "  torchtally report run.tally --device cuda:1 --model gpt2\n"
      "  torchtally report rank*.tally -o report.html     the ranks of one run\n"
      "  torchtally report rank*.tally --rank 3");
  verb->callback([flags] { report(*flags); });
}

}  // namespace tally::cli
