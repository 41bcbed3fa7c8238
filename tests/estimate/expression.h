// SPDX-License-Identifier: Apache-2.0
// Evaluates the expressions of data/cases.csv: numbers, strings, + - * / **, calls, tuples, x[i].
#pragma once

#include <functional>
#include <map>
#include <string>
#include <variant>
#include <vector>

namespace tally::estimate::testing {

struct Value {
  std::variant<double, std::string, std::vector<Value>> content;

  Value(double number) : content(number) {}              // NOLINT(google-explicit-constructor)
  Value(std::string text) : content(std::move(text)) {}  // NOLINT(google-explicit-constructor)
  Value(std::vector<Value> list)
      : content(std::move(list)) {}  // NOLINT(google-explicit-constructor)
  double number() const { return std::get<double>(content); }
  bool flag() const { return number() != 0; }
  const std::string& text() const { return std::get<std::string>(content); }
  const std::vector<Value>& list() const { return std::get<std::vector<Value>>(content); }
};

using Arguments = std::vector<Value>;  // keyword arguments follow the positional ones, by "name="
struct Call {
  Arguments positional;
  std::map<std::string, Value> named;
  // The argument at `index` or called `name`, or `otherwise`.
  double number(size_t index, const std::string& name, double otherwise) const;
  double number(size_t index) const { return positional.at(index).number(); }
};
using Function = std::function<Value(const Call&)>;

struct Scope {
  std::map<std::string, Function> functions;
  std::map<std::string, Value> names;
  std::map<std::string, std::map<std::string, double>> tables;  // LL["l65"]
};
Value evaluate(const std::string& text, const Scope& scope);

}  // namespace tally::estimate::testing
