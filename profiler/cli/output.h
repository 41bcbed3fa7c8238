// SPDX-License-Identifier: Apache-2.0
// What a verb prints: to the terminal or a pipe, whole or with an error.
#pragma once

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "profiler/core/error.h"

namespace tally::cli {

// The thing that was checked failed: exit code 1, after the output was written.
class CheckFailed : public Error {
 public:
  using Error::Error;
};

inline void print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    throw Error("cannot write to the standard output: {}", std::strerror(errno));
  }
}

}  // namespace tally::cli
