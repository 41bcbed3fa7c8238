// SPDX-License-Identifier: Apache-2.0
#include "profiler/api/options.h"

#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <string_view>

#include "profiler/core/error.h"
#include "profiler/core/rank.h"
#include "profiler/core/units.h"

namespace tally {
namespace {

int64_t parse_count(std::string_view text, std::string_view name) {
  int64_t value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc{} || end != text.data() + text.size() || value < 0) {
    throw Error("{} must be a whole number of steps, not '{}'", name, text);
  }
  return value;
}

bool parse_switch(std::string_view text, std::string_view name) {
  if (text == "1" || text == "true" || text == "on") return true;
  if (text == "0" || text == "false" || text == "off") return false;
  throw Error("{} must be 0 or 1, not '{}'", name, text);
}

}  // namespace

Options apply_environment(Options options) {
  constexpr std::string_view kPrefix = "TORCHTALLY_";
  for (char** entry = environ; entry && *entry; ++entry) {
    const std::string_view line = *entry;
    if (!line.starts_with(kPrefix)) continue;
    const size_t equals = line.find('=');
    const std::string_view name = line.substr(0, equals);
    const std::string value(line.substr(equals + 1));
    if (name == "TORCHTALLY_RECORDING") {
      options.recording = with_rank(value, rank_of_environment(std::getenv));
    } else if (name == "TORCHTALLY_REPORT") {
      options.report = with_rank(value, rank_of_environment(std::getenv));
    } else if (name == "TORCHTALLY_DETAIL") {
      options.detail_steps = parse_count(value, name);
    } else if (name == "TORCHTALLY_BUDGET") {
      options.budget_bytes = parse_bytes(value, std::string(name));
    } else if (name == "TORCHTALLY_BUDGET_ACTION") {
      if (value != "record" && value != "stop") {
        throw Error("{} must be record or stop, not '{}'", name, value);
      }
      options.budget_stops = value == "stop";
    } else if (name == "TORCHTALLY_SOURCE_LINES") {
      options.source_lines_bytes = value == "off" ? 0 : parse_bytes(value, std::string(name));
    } else if (name == "TORCHTALLY_COUNTERS") {
      options.counters_per_kernel = value == "kernels";
      options.counters = options.counters_per_kernel || parse_switch(value, name);
    } else if (name == "TORCHTALLY_ENABLED") {
      options.enabled = parse_switch(value, name);
    } else if (name != "TORCHTALLY_TORCH" && name != "TORCHTALLY_PYTHON") {  // of set-up and `run`
      throw Error(
          "{} is no setting of TorchTally (there are TORCHTALLY_RECORDING, _REPORT, _DETAIL, "
          "_BUDGET, _BUDGET_ACTION, _SOURCE_LINES, _COUNTERS and _ENABLED)",
          name);
    }
  }
  if (options.enabled && options.recording.empty()) {
    throw Error("the path of the recording is empty; give Options::recording or TORCHTALLY_RECORDING");
  }
  return options;
}

}  // namespace tally
