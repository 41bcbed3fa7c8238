// SPDX-License-Identifier: Apache-2.0
#include "tests/estimate/expression.h"

#include <cctype>
#include <cmath>
#include <cstdlib>
#include <stdexcept>

namespace tally::estimate::testing {
namespace {

class Parser {
 public:
  Parser(const std::string& text, const Scope& scope) : text_(text), scope_(scope) {}

  Value whole() {
    Value value = sum();
    skip();
    if (at_ != text_.size()) fail("what follows");
    return value;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw std::runtime_error("cannot read " + what + " at '" + text_.substr(at_) + "' in " + text_);
  }
  void skip() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
  }
  bool take(const std::string& token) {
    skip();
    if (text_.compare(at_, token.size(), token) != 0) return false;
    at_ += token.size();
    return true;
  }
  bool peek(char c) {
    skip();
    return at_ < text_.size() && text_[at_] == c;
  }

  Value sum() {
    Value value = product();
    while (true) {
      if (take("+"))
        value = value.number() + product().number();
      else if (take("-"))
        value = value.number() - product().number();
      else
        return value;
    }
  }
  Value product() {
    Value value = unary();
    while (true) {
      skip();
      if (text_.compare(at_, 2, "**") == 0) fail("a power");
      if (take("*"))
        value = value.number() * unary().number();
      else if (take("/"))
        value = value.number() / unary().number();
      else
        return value;
    }
  }
  Value unary() {
    if (take("-")) return -unary().number();
    Value base = item();
    if (take("**")) return std::pow(base.number(), unary().number());
    return base;
  }
  Value item() {
    Value value = atom();
    while (take("[")) {
      const Value index = sum();
      if (!take("]")) fail("]");
      Value chosen = value.list().at(static_cast<size_t>(index.number()));
      value = std::move(chosen);
    }
    return value;
  }
  Value atom() {
    skip();
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    if (std::isdigit(static_cast<unsigned char>(c)) || c == '.') {
      char* end = nullptr;
      const double number = std::strtod(text_.c_str() + at_, &end);
      at_ = static_cast<size_t>(end - text_.c_str());
      return number;
    }
    if (c == '"') return quoted();
    if (take("(")) {
      Value first = sum();
      if (take(")")) return first;
      std::vector<Value> list{first};
      while (take(",")) list.push_back(sum());
      if (!take(")")) fail(")");
      return list;
    }
    return named();
  }
  Value quoted() {
    const size_t end = text_.find('"', ++at_);
    if (end == std::string::npos) fail("a string");
    std::string content = text_.substr(at_, end - at_);
    at_ = end + 1;
    return content;
  }
  std::string word() {
    skip();
    const size_t begin = at_;
    while (at_ < text_.size() &&
           (std::isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '_'))
      ++at_;
    if (begin == at_) fail("a name");
    return text_.substr(begin, at_ - begin);
  }
  Value named() {
    const std::string name = word();
    if (name == "True") return 1.0;
    if (name == "False") return 0.0;
    if (const auto table = scope_.tables.find(name); table != scope_.tables.end()) {
      if (!take("[")) fail("[");
      skip();
      const std::string key = quoted().text();
      if (!take("]")) fail("]");
      return table->second.at(key);
    }
    if (!peek('(')) {
      if (const auto value = scope_.names.find(name); value != scope_.names.end())
        return value->second;
      fail("name " + name);
    }
    const auto function = scope_.functions.find(name);
    if (function == scope_.functions.end()) fail("function " + name);
    take("(");
    Call call;
    while (!take(")")) {
      argument(call);
      take(",");
    }
    return function->second(call);
  }
  void argument(Call& call) {
    skip();
    const size_t begin = at_;
    if (std::isalpha(static_cast<unsigned char>(text_[at_]))) {
      const std::string name = word();
      if (take("=")) {
        call.named.emplace(name, sum());
        return;
      }
      at_ = begin;
    }
    call.positional.push_back(sum());
  }

  const std::string& text_;
  const Scope& scope_;
  size_t at_ = 0;
};

}  // namespace

double Call::number(size_t index, const std::string& name, double otherwise) const {
  if (index < positional.size()) return positional[index].number();
  const auto at = named.find(name);
  return at == named.end() ? otherwise : at->second.number();
}

Value evaluate(const std::string& text, const Scope& scope) { return Parser(text, scope).whole(); }

}  // namespace tally::estimate::testing
