// SPDX-License-Identifier: Apache-2.0
// The one exception of the project. Thrown before a session starts and while files are read;
// never out of a hook. The text says what happened, why, and what to do; one line, no final dot.
#pragma once

#include <stdexcept>
#include <utility>

#include <fmt/format.h>

namespace tally {

class Error : public std::runtime_error {
 public:
  template <typename... Args>
  explicit Error(fmt::format_string<Args...> format, Args&&... args)
      : std::runtime_error(fmt::format(format, std::forward<Args>(args)...)) {}
};

}  // namespace tally
