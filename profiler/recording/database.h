// SPDX-License-Identifier: Apache-2.0
// A thin coat over SQLite: a connection and a prepared statement that clean up after themselves.
// Only this room includes it. One thread at a time. Every failure is a SqliteError.
#pragma once

#include <sqlite3.h>

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "profiler/core/error.h"

namespace tally::recording {

// Caught in this room, where the code decides what a person is told.
class SqliteError : public Error {
 public:
  SqliteError(int code, const std::string& text) : Error("{}", text), code_(code) {}
  int code() const { return code_ & 0xff; }

 private:
  int code_;
};

class Database {
 public:
  // `flags` as sqlite3_open_v2 takes them.
  Database(const std::string& path, int flags);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  void execute(const std::string& sql);
  int64_t integer(const std::string& sql);  // the first column of the first row
  sqlite3* handle() const { return handle_; }

 private:
  sqlite3* handle_ = nullptr;
};

// Bytes that are no text.
struct Blob {
  std::string_view bytes;
};

class Statement {
 public:
  Statement(Database& database, std::string_view sql);
  ~Statement();
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  // Binds the values to ?1, ?2, ... Text and blobs must live until the next bind.
  template <typename... Values>
  Statement& bind(const Values&... values) {
    sqlite3_reset(handle_);
    int index = 0;
    (bind_one(++index, values), ...);
    return *this;
  }
  template <typename... Values>
  void run(const Values&... values) {
    bind(values...);
    step();
    sqlite3_reset(handle_);
  }
  bool step();  // true while there is a row

  bool is_null(int column) const { return sqlite3_column_type(handle_, column) == SQLITE_NULL; }
  int64_t integer(int column) const { return sqlite3_column_int64(handle_, column); }
  double real(int column) const { return sqlite3_column_double(handle_, column); }
  std::string text(int column) const;
  std::string_view blob(int column) const;  // until the next step

 private:
  void bind_one(int index, std::optional<int64_t> value);
  void bind_one(int index, double value);
  void bind_one(int index, std::string_view text);
  void bind_one(int index, Blob blob);
  template <std::integral T>
  void bind_one(int index, T value) {
    bind_integer(index, static_cast<int64_t>(value));
  }
  void bind_integer(int index, int64_t value);
  void check(int code) const;

  sqlite3* database_ = nullptr;
  sqlite3_stmt* handle_ = nullptr;
};

}  // namespace tally::recording
