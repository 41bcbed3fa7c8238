// SPDX-License-Identifier: Apache-2.0
// `torchtally report`, `compare`, `export` and `info`: what is done with a recording; `torchtally
// run`: how one is made without a change to the program. The verbs run while the command line is
// parsed and throw tally::Error; main.cpp turns it into a sentence.
#pragma once

#include <CLI/CLI.hpp>

namespace tally::cli {

void add_report_verb(CLI::App& app);
void add_compare_verb(CLI::App& app);
void add_export_verb(CLI::App& app);
void add_info_verb(CLI::App& app);
// `torchtally run`; needs the whole command line, and returns how many words of it are to be parsed:
// what stands behind a "--" are the program's own.
int add_run_verb(CLI::App& app, int argc, char** argv);

}  // namespace tally::cli
