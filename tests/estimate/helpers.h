// SPDX-License-Identifier: Apache-2.0
// Small things that several estimator tests share.
#pragma once

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "torchtally/estimate.h"

namespace tally::estimate::testing {

// The error's text; fails the test when nothing is thrown.
template <typename F>
std::string error_of(F&& run) {
  try {
    run();
  } catch (const std::runtime_error& error) {
    const std::string text = error.what();
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    return text;
  }
  ADD_FAILURE() << "no error";
  return "";
}

inline double real(Integer value) { return static_cast<double>(value); }

inline ModelSpec small_gpt() {
  ModelSpec m = family_model("gpt");
  m.name = "small";
  m.layers = 4;
  m.d_model = 64;
  m.heads = 4;
  m.vocab = 500;
  m.context = 32;
  complete(m);
  return m;
}

inline Integer row_bytes(const MemoryEstimate& memory, std::string_view key) {
  Integer sum = 0;
  for (const Row& row : memory.rows) sum += row.key == key ? row.bytes : 0;
  return sum;
}

}  // namespace tally::estimate::testing
