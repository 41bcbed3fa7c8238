// SPDX-License-Identifier: Apache-2.0
#include "profiler/estimate/table_data.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "profiler/core/error.h"

namespace tally::estimate {
namespace {

std::vector<std::string> read_line(std::string_view line) {
  std::vector<std::string> cells(1);
  bool quoted = false;
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (c == '"' && quoted && i + 1 < line.size() && line[i + 1] == '"') {
      cells.back() += c;
      ++i;
    } else if (c == '"') {
      quoted = !quoted;
    } else if (c == ',' && !quoted) {
      cells.emplace_back();
    } else if (c != '\r') {
      cells.back() += c;
    }
  }
  return cells;
}

size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({substituted, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

CsvTable::CsvTable(std::string name, std::string_view text) : name_(std::move(name)) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty()) continue;
    std::vector<std::string> cells = read_line(line);
    if (columns_.empty()) {
      columns_ = std::move(cells);
    } else if (cells.size() != columns_.size()) {
      throw Error("{}: row {} has {} cells, the table has {} columns", name_, rows_.size() + 1,
                  cells.size(), columns_.size());
    } else {
      rows_.push_back(std::move(cells));
    }
  }
}

const std::string& CsvTable::text(size_t row, std::string_view column) const {
  const auto at = std::find(columns_.begin(), columns_.end(), column);
  if (at == columns_.end()) throw Error("{} has no column '{}'", name_, column);
  return rows_[row][static_cast<size_t>(at - columns_.begin())];
}

double CsvTable::number(size_t row, std::string_view column) const {
  const std::string& cell = text(row, column);
  if (cell.empty()) return 0;
  double value = 0;
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  if (error != std::errc() || end != cell.data() + cell.size()) {
    throw Error("{}: '{}' in column '{}' is no number", name_, cell, column);
  }
  return value;
}

std::string plain_name(std::string_view name) {
  std::string plain;
  for (const char c : name) {
    const auto u = static_cast<unsigned char>(c);
    if (std::isalnum(u) || c == '.') plain += static_cast<char>(std::tolower(u));
  }
  return plain;
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (true) {
    const size_t end = text.find(separator);
    parts.emplace_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::vector<std::string> nearest(const std::string& name,
                                 const std::vector<std::string>& candidates, size_t count) {
  const std::string wanted = plain_name(name);
  std::vector<std::pair<size_t, std::string>> scored;
  for (const std::string& candidate : candidates) {
    const std::string plain = plain_name(candidate);
    size_t score = 2 * edit_distance(wanted, plain);
    // What starts alike or holds the other whole is nearer than its length says.
    if (!wanted.empty() && plain.find(wanted) != std::string::npos) score = score / 2;
    if (!wanted.empty() && !plain.empty() && wanted[0] != plain[0]) score += 3;
    scored.emplace_back(score, candidate);
  }
  std::stable_sort(scored.begin(), scored.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> result;
  for (size_t i = 0; i < scored.size() && i < count; ++i) result.push_back(scored[i].second);
  return result;
}

std::string join(const std::vector<std::string>& words, const char* separator) {
  std::string text;
  for (const std::string& word : words) {
    if (!text.empty()) text += separator;
    text += word;
  }
  return text;
}

}  // namespace tally::estimate
