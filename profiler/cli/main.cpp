// SPDX-License-Identifier: Apache-2.0
// torchtally, the program. Exit codes: 0 good, 1 the thing checked failed, 2 wrong use or bad
// input; then one sentence on stderr.
#include <cctype>
#include <cstdio>
#include <exception>
#include <string>

#include <CLI/CLI.hpp>

#include "profiler/cli/estimate_verbs.h"
#include "profiler/cli/output.h"
#include "profiler/cli/report_verbs.h"

namespace {

constexpr int kWrongUse = 2;

int complain(const std::string& sentence) {
  std::fprintf(stderr, "torchtally: %s\n", sentence.c_str());
  return kWrongUse;
}

// CLI11's sentences begin in upper case and may run over several lines.
std::string one_sentence(std::string text) {
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  while (!text.empty() && (text.back() == ' ' || text.back() == '.')) text.pop_back();
  const bool is_word = text.size() > 1 && std::islower(static_cast<unsigned char>(text[1]));
  if (is_word) text[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(text[0])));
  return text;
}

std::string help_hint(const CLI::App& app) {
  std::string command = "torchtally";
  for (const CLI::App* verb : app.get_subcommands()) command += " " + verb->get_name();
  return "'" + command + " --help'";
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Says where every byte and every FLOP of a training step goes", "torchtally"};
  app.set_version_flag("--version", std::string("torchtally ") + TORCHTALLY_VERSION);
  app.require_subcommand(0, 1);
  app.footer(
      "Examples:\n"
      "  torchtally run train.py\n"
      "  torchtally report run.tally\n"
      "  torchtally report run.tally -o report.html\n"
      "  torchtally compare before.tally after.tally --fail-on 'peak>+2%'\n"
      "  torchtally export run.tally --format chrome-trace -o trace.json\n"
      "  torchtally info run.tally\n"
      "Exit codes: 0 good, 1 the thing checked failed, 2 wrong use or bad input.");
  tally::cli::add_report_verb(app);
  tally::cli::add_compare_verb(app);
  tally::cli::add_export_verb(app);
  tally::cli::add_info_verb(app);
  tally::cli::add_estimate_verbs(app);
  const int words = tally::cli::add_run_verb(app, argc, argv);
  if (argc < 2) {
    std::fputs(app.help().c_str(), stderr);
    return kWrongUse;
  }
  try {
    app.parse(words, argv);
    return 0;
  } catch (const CLI::Success& help) {  // --help, --version
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    return complain(one_sentence(error.what()) + "; see " + help_hint(app));
  } catch (const tally::cli::CheckFailed& failure) {
    complain(failure.what());
    return 1;
  } catch (const std::exception& error) {
    return complain(error.what());
  }
}
