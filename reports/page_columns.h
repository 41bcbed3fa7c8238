// SPDX-License-Identifier: Apache-2.0
// Numbers on their way into the page: columns side by side, each in the smallest type that holds
// its values exactly, then gzip and base64. reports/web/src/data/columns.ts reads them.
#pragma once

#include <array>
#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace tally::reports {

class Columns {
 public:
  // Whole numbers become u8, u16, u32 or i32 where all of the column fit, everything else f64.
  void add(const std::string& name, const std::vector<double>& values);
  // [[name, type, offset, length], ...]
  const nlohmann::ordered_json& directory() const { return directory_; }
  std::string packed() const;

 private:
  nlohmann::ordered_json directory_ = nlohmann::ordered_json::array();
  std::string bytes_;
};

// Rows that are added one by one and leave as columns "<name>.<column>".
class Table {
 public:
  Table(std::string name, std::initializer_list<const char*> columns)
      : name_(std::move(name)), names_(columns.begin(), columns.end()), columns_(columns.size()) {}
  template <typename... Values>
  void add(Values... values) {
    size_t i = 0;
    (columns_.at(i++).push_back(static_cast<double>(values)), ...);
  }
  size_t size() const { return columns_.front().size(); }
  void move_to(Columns* out) const;

 private:
  std::string name_;
  std::vector<std::string> names_;
  std::vector<std::vector<double>> columns_;
};

std::string gzip(std::string_view bytes);
std::string base64(std::string_view bytes);

}  // namespace tally::reports
