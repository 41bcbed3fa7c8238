// SPDX-License-Identifier: Apache-2.0
// What the verbs that read recordings ask of their arguments. Each throws Error with a sentence.
#pragma once

#include <string>

#include "profiler/core/words.h"

namespace tally::cli {

// "forward-edge" -> Mark::kForwardEdge
Mark mark_of_flag(std::string text);
// "gpt2" as it is, "config.json" -> the file's text; both checked.
std::string model_text(const std::string& model);
// What CLI11 asks of a check: "", or what is wrong. Alone it would take -1 for a huge number.
std::string whole_number(const std::string& text, const std::string& what);
void refuse_to_overwrite(const std::string& recording, const std::string& output);

}  // namespace tally::cli
