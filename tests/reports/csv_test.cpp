// SPDX-License-Identifier: Apache-2.0
// Work of a step as comma-separated values, executed FLOPs by number format among it.
#include "reports/csv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

#include "profiler/analysis/build.h"
#include "tests/support/synthetic_run.h"

namespace tally::reports {
namespace {

// No name of the synthetic card has a comma but those of kernels, which stand in quotes.
std::vector<std::vector<std::string>> rows_of(const std::string& csv) {
  std::vector<std::vector<std::string>> rows;
  std::istringstream text(csv);
  for (std::string line; std::getline(text, line);) {
    auto& row = rows.emplace_back(1);
    bool quoted = false;
    for (const char c : line) {
      if (c == '"') {
        quoted = !quoted;
      } else if (c == ',' && !quoted) {
        row.emplace_back();
      } else {
        row.back() += c;
      }
    }
  }
  return rows;
}

class FlopsCsv : public testing::Test {
 protected:
  FlopsCsv() {
    test::SyntheticOptions options;
    options.on_card = true;
    run_ = test::make_synthetic_run(options).as_recorded();
  }
  double sum(const std::string& column, bool of_kernels) const {
    double total = 0;
    for (size_t i = 1; i < rows_.size(); ++i) {
      if (at(i, "kernel").empty() == of_kernels || at(i, column).empty()) continue;
      total += std::stod(at(i, column));
    }
    return total;
  }
  const std::string& at(size_t row, const std::string& column) const {
    const auto& names = rows_.at(0);
    const auto found = std::find(names.begin(), names.end(), column);
    EXPECT_NE(found, names.end()) << column;
    return rows_.at(row).at(static_cast<size_t>(found - names.begin()));
  }
  recording::Run run_;
  std::vector<std::vector<std::string>> rows_;
};

TEST_F(FlopsCsv, HasEachOperatorAndKernelByFormat) {
  const analysis::Summary s = analysis::build_summary(run_, {.step = 1});
  rows_ = rows_of(render_flops_csv(s));
  EXPECT_EQ(rows_.size(), 1 + s.step().operators.size() + s.kernels.size());
  for (const auto& row : rows_) EXPECT_EQ(row.size(), rows_[0].size());
  for (const Word& word : kFlopFormatWords) EXPECT_THAT(rows_[0], testing::Contains(word.key));
  const analysis::Executed& executed = *s.step().flops.executed;
  EXPECT_EQ(sum("flops", false), s.step().flops.total());
  for (const bool of_kernels : {false, true}) {
    EXPECT_EQ(sum("tensor", of_kernels), executed.tensor_flops);
    EXPECT_EQ(sum("tensor_bf16", of_kernels), executed.by_format.of(FlopFormat::kTensorBf16));
    EXPECT_EQ(sum("tensor_tf32", of_kernels), executed.by_format.of(FlopFormat::kTensorTf32));
    EXPECT_EQ(sum("scalar_fp32", of_kernels), 0);
    EXPECT_EQ(sum("dram_bytes", of_kernels), executed.dram_bytes);
  }
  EXPECT_GT(sum("tensor_tf32", false), 0);
}

TEST_F(FlopsCsv, WhatIsNotKnownIsEmpty) {
  for (auto& step : run_.steps) {
    for (OperatorRow& row : step.books.operators) row.by_format = {};  // before version 5
  }
  rows_ = rows_of(render_flops_csv(analysis::build_summary(run_, {.step = 1})));
  size_t unknown = 0, not_counted = 0;
  for (size_t i = 1; i < rows_.size(); ++i) {
    if (!at(i, "kernel").empty()) continue;
    if (at(i, "tensor").empty()) {
      ++not_counted;
      EXPECT_EQ(at(i, "dram_bytes"), "");
    } else if (at(i, "tensor") != "0") {
      ++unknown;
      EXPECT_EQ(at(i, "tensor_bf16"), "");
    }
  }
  EXPECT_GT(unknown, 0u);
  EXPECT_GT(not_counted, 0u);
}

}  // namespace
}  // namespace tally::reports
