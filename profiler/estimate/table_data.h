// SPDX-License-Identifier: Apache-2.0
// Reads the embedded data tables (CSV with quotes, first line names the columns) and finds rows by
// name. Internal to the estimator.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tally::estimate {

class CsvTable {
 public:
  // `name` is for errors: a wrong column or number is a fault of ours and throws.
  CsvTable(std::string name, std::string_view text);
  size_t size() const { return rows_.size(); }
  const std::string& text(size_t row, std::string_view column) const;
  double number(size_t row, std::string_view column) const;  // empty: 0

 private:
  std::string name_;
  std::vector<std::string> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// Lower case letters, digits and dots only: "Llama-3.1 8B" -> "llama3.18b".
std::string plain_name(std::string_view name);
std::vector<std::string> split(std::string_view text, char separator);
// The candidates closest to `name` by edit distance of their plain names, best first.
std::vector<std::string> nearest(const std::string& name,
                                 const std::vector<std::string>& candidates, size_t count);
std::string join(const std::vector<std::string>& words, const char* separator);

}  // namespace tally::estimate
