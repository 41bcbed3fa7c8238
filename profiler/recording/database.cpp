// SPDX-License-Identifier: Apache-2.0
#include "profiler/recording/database.h"

namespace tally::recording {

Database::Database(const std::string& path, int flags) {
  const int code = sqlite3_open_v2(path.c_str(), &handle_, flags, nullptr);
  if (code != SQLITE_OK) {
    const std::string text = handle_ ? sqlite3_errmsg(handle_) : sqlite3_errstr(code);
    sqlite3_close_v2(handle_);
    throw SqliteError(code, text);
  }
  // A reader may hold a lock for a moment; nobody waits for long.
  sqlite3_busy_timeout(handle_, 1000);
}

Database::~Database() { sqlite3_close_v2(handle_); }

void Database::execute(const std::string& sql) {
  const int code = sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) throw SqliteError(code, sqlite3_errmsg(handle_));
}

int64_t Database::integer(const std::string& sql) {
  Statement statement(*this, sql);
  if (!statement.step()) throw SqliteError(SQLITE_CORRUPT, "no row where one must be");
  return statement.integer(0);
}

Statement::Statement(Database& database, std::string_view sql) : database_(database.handle()) {
  check(sqlite3_prepare_v2(database_, sql.data(), static_cast<int>(sql.size()), &handle_, nullptr));
}

Statement::~Statement() { sqlite3_finalize(handle_); }

bool Statement::step() {
  const int code = sqlite3_step(handle_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  const SqliteError error(code, sqlite3_errmsg(database_));
  sqlite3_reset(handle_);
  throw error;
}

std::string Statement::text(int column) const {
  const auto* bytes = sqlite3_column_text(handle_, column);
  const auto size = static_cast<size_t>(sqlite3_column_bytes(handle_, column));
  return bytes ? std::string(reinterpret_cast<const char*>(bytes), size) : std::string();
}

std::string_view Statement::blob(int column) const {
  const auto* bytes = static_cast<const char*>(sqlite3_column_blob(handle_, column));
  const auto size = static_cast<size_t>(sqlite3_column_bytes(handle_, column));
  return bytes ? std::string_view(bytes, size) : std::string_view();
}

void Statement::bind_one(int index, std::optional<int64_t> value) {
  if (value) {
    bind_integer(index, *value);
  } else {
    check(sqlite3_bind_null(handle_, index));
  }
}
void Statement::bind_one(int index, double value) {
  check(sqlite3_bind_double(handle_, index, value));
}
void Statement::bind_one(int index, std::string_view text) {
  check(sqlite3_bind_text64(handle_, index, text.data() ? text.data() : "", text.size(),
                            SQLITE_STATIC, SQLITE_UTF8));
}
void Statement::bind_one(int index, Blob blob) {
  check(sqlite3_bind_blob64(handle_, index, blob.bytes.data() ? blob.bytes.data() : "",
                            blob.bytes.size(), SQLITE_STATIC));
}
void Statement::bind_integer(int index, int64_t value) {
  check(sqlite3_bind_int64(handle_, index, value));
}
void Statement::check(int code) const {
  if (code != SQLITE_OK) throw SqliteError(code, sqlite3_errmsg(database_));
}

}  // namespace tally::recording
