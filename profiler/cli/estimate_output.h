// SPDX-License-Identifier: Apache-2.0
// How estimates look: text tables, CSV and JSON with exact integers. Everything returns a string.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "profiler/cli/estimate_flags.h"
#include "torchtally/estimate.h"

namespace tally::cli {

// Columns that line up; the first row is the header. Numbers (by `right`) stand to the right.
class TextTable {
 public:
  explicit TextTable(std::vector<bool> right) : right_(std::move(right)) {}
  void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  std::string text(int indent = 0) const;

 private:
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;
};

// JSON by hand because no common library writes integers of 128 bits.
class JsonText {
 public:
  void begin(char bracket);  // '{' or '['
  void end(char bracket);
  void key(std::string_view name);
  void value(std::string_view text);
  void value(const char* text) { value(std::string_view(text)); }
  void value(const std::string& text) { value(std::string_view(text)); }
  void value(estimate::Integer integer);
  void value(int64_t integer) { value(estimate::Integer{integer}); }
  void value(int integer) { value(estimate::Integer{integer}); }
  void value(double number);  // not finite: null
  void value(bool flag);
  void null();
  template <typename T>
  void value(const std::optional<T>& maybe) {
    if (maybe)
      value(*maybe);
    else
      null();
  }
  template <typename T>
  void member(std::string_view name, const T& content) {
    key(name);
    value(content);
  }
  std::string take() { return std::move(out_) + "\n"; }

 private:
  void separate();
  std::string out_;
  std::vector<bool> has_member_;
  bool after_key_ = false;
};

std::string grouped(estimate::Integer value);  // "65,285,660,672"

std::string estimate_text(const estimate::Estimate& estimate, bool explain);
void estimate_json(JsonText& json, const estimate::Estimate& estimate, bool explain);
// The table of a sweep; keeps the few numbers it shows, not the estimates.
class SweepTable {
 public:
  explicit SweepTable(const Sweep& sweep) : sweep_(sweep) {}
  void add(const EstimateJob& job, const estimate::Estimate& estimate);
  std::string text() const;

 private:
  struct Line {
    std::vector<std::string> swept;
    estimate::Integer parameters, flops, needed;
    std::array<estimate::Integer, 6> bytes;  // state, activations, logits, workspace, total, peak
    std::string_view peak_at;
  };
  const Sweep& sweep_;
  std::vector<Line> lines_;
  estimate::Integer largest_ = 0;
};
std::string sweep_csv_header(const Sweep& sweep);
std::string sweep_csv_line(const Sweep& sweep, const EstimateJob& job,
                           const estimate::Estimate& estimate);
std::string lecture_text();
std::string lecture_json();
std::string lecture_csv();

}  // namespace tally::cli
