// SPDX-License-Identifier: Apache-2.0
// Why counters cannot be had, in CUPTI's code, our sentence and what to do about it.
#pragma once

#include <cupti_result.h>

#include <stdexcept>
#include <string>
#include <string_view>

namespace tally::hooks::cupti {

// One sentence or two: what happened and what to do. `words` are CUPTI's own for `code`, `call` is
// the function that answered so, `what` is refused.
std::string explain(CUptiResult code, std::string_view call, std::string_view words,
                    std::string_view what = "hardware counters");

class Refused : public std::runtime_error {
 public:
  Refused(CUptiResult code, const std::string& sentence)
      : std::runtime_error(sentence), code_(code) {}
  CUptiResult code() const { return code_; }

 private:
  CUptiResult code_;
};

}  // namespace tally::hooks::cupti
