// SPDX-License-Identifier: Apache-2.0
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>

#include <CLI/CLI.hpp>

#include "profiler/analysis/build.h"
#include "profiler/cli/output.h"
#include "profiler/cli/report_inputs.h"
#include "profiler/cli/report_verbs.h"
#include "profiler/recording/reader.h"
#include "reports/memory_snapshot.h"
#include "reports/trace.h"
#include "reports/write_file.h"

namespace tally::cli {
namespace {

struct ExportFlags {
  std::string recording;
  std::string format;
  std::string output;
  std::string beside;
  std::optional<uint64_t> step;
};

std::string trace_of(analysis::Summary summary, const ExportFlags& flags) {
  if (flags.step) {  // this one alone
    const size_t shown = summary.shown;
    summary.steps = {std::move(summary.steps[shown])};
    summary.shown = 0;
  }
  if (flags.beside.empty()) return reports::render_chrome_trace(summary);
  std::ifstream file(flags.beside, std::ios::binary);
  std::ostringstream text;
  if (!(text << file.rdbuf())) throw Error("cannot read {}", flags.beside);
  try {
    return reports::render_chrome_trace(summary, text.str());
  } catch (const Error& error) {
    throw Error("cannot put the trace beside {}: {}", flags.beside, error.what());
  }
}

void export_recording(const ExportFlags& flags) {
  refuse_to_overwrite(flags.recording, flags.output);
  if (!flags.beside.empty() && flags.format == "snapshot") {
    throw Error("--beside is for --format chrome-trace");
  }
  analysis::Summary summary = analysis::build_summary(
      recording::read_run(flags.recording, {.load = recording::Load::kShown, .step = flags.step}),
      {.step = flags.step});
  const std::string text = flags.format == "snapshot" ? reports::render_memory_snapshot(summary)
                                                      : trace_of(std::move(summary), flags);
  if (flags.output.empty()) {
    print(text);
  } else {
    reports::write_file(flags.output, text);
  }
}

}  // namespace

void add_export_verb(CLI::App& app) {
  auto flags = std::make_shared<ExportFlags>();
  CLI::App* verb = app.add_subcommand(
      "export", "Write a recording in the format of another tool: Perfetto, PyTorch's memory_viz");
  verb->add_option("recording", flags->recording, "The recording, such as run.tally")
      ->required()
      ->type_name("RUN.tally");
  verb->add_option("-f,--format", flags->format,
                   "chrome-trace: bytes by role, phases, operators, for ui.perfetto.dev; snapshot: "
                   "what was alive on CUDA at the peak, for pytorch.org/memory_viz")
      ->required()
      ->check(CLI::IsMember({"chrome-trace", "snapshot"}))
      ->type_name("FORMAT");
  verb->add_option("-o,--output", flags->output, "Write to this file instead of the terminal")
      ->type_name("FILE");
  verb->add_option("--step", flags->step,
                   "This step alone; default: all (a trace), the one with the highest peak (a "
                   "snapshot)")
      ->check([](const std::string& text) { return whole_number(text, "step"); })
      ->type_name("N");
  verb->add_option("--beside", flags->beside,
                   "Put the trace into this one, on its clock: the JSON that Kineto "
                   "(torch.profiler) exports")
      ->type_name("TRACE.json");
  verb->footer(
      "Examples:\n"
      "  torchtally export run.tally --format chrome-trace -o trace.json\n"
      "  torchtally export run.tally --format chrome-trace --step 3 -o step3.json\n"
      "  torchtally export run.tally --format chrome-trace --beside kineto.json -o both.json\n"
      "  torchtally export run.tally --format snapshot -o snapshot.pickle");
  verb->callback([flags] { export_recording(*flags); });
}

}  // namespace tally::cli
