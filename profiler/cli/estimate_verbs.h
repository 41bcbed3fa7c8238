// SPDX-License-Identifier: Apache-2.0
// The verbs that need no recording: estimate, scaling and models. Their callbacks print to stdout;
// bad input is thrown as tally::Error.
#pragma once

#include <CLI/CLI.hpp>

namespace tally::cli {

void add_estimate_verbs(CLI::App& app);

}  // namespace tally::cli
