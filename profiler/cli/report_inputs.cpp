// SPDX-License-Identifier: Apache-2.0
#include "profiler/cli/report_inputs.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "profiler/core/error.h"
#include "torchtally/estimate.h"

namespace tally::cli {
namespace {

// "forward-edge" as people type it; the key everywhere else is "forward_edge".
constexpr std::array<std::pair<const char*, Mark>, 6> kMarks{{
    {"peak", Mark::kPeak},
    {"forward-edge", Mark::kForwardEdge},
    {"backward-end", Mark::kBackwardEnd},
    {"start", Mark::kStart},
    {"end", Mark::kEnd},
    {"oom", Mark::kOom},
}};

}  // namespace

Mark mark_of_flag(std::string text) {
  std::replace(text.begin(), text.end(), '_', '-');
  for (const auto& [name, mark] : kMarks) {
    if (text == name) return mark;
  }
  throw Error("--at {} is no mark; the marks are peak, forward-edge, backward-end, start, end, oom",
              text);
}

std::string model_text(const std::string& model) {
  if (model.empty()) return "";
  if (!model.ends_with(".json")) {
    estimate::find_model(model);  // throws with the nearest names
    return model;
  }
  estimate::model_from_config_file(model);  // throws with the field at fault
  std::ifstream file(model);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string whole_number(const std::string& text, const std::string& what) {
  const bool digits =
      std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  return digits && !text.empty() && text.size() < 19 ? ""
                                                     : "'" + text + "' is no number of a " + what;
}

void refuse_to_overwrite(const std::string& recording, const std::string& output) {
  std::error_code error;
  if (!output.empty() && std::filesystem::equivalent(recording, output, error)) {
    throw Error("cannot write {}: it is the recording itself", output);
  }
}

}  // namespace tally::cli
