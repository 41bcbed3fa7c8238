// SPDX-License-Identifier: Apache-2.0
#include "profiler/recording/open.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "profiler/recording/format.h"

namespace tally::recording {
namespace {

namespace fs = std::filesystem;

// SQLite gives ":memory:" and "" a meaning of their own; an absolute path never has one.
std::string absolute(const std::string& path) { return fs::absolute(path).string(); }

// Throws unless the header says: a recording that this program can read.
void check_kind(Database& database, const std::string& path) {
  int64_t application = 0;
  int64_t version = 0;
  try {
    application = database.integer("PRAGMA application_id");
    version = database.integer("PRAGMA user_version");
  } catch (const SqliteError& error) {
    if (error.code() == SQLITE_NOTADB) throw Error("{} is not a recording: no SQLite file", path);
    throw;
  }
  if (application != kApplicationId) {
    throw Error("{} is not a recording: a SQLite file of another program", path);
  }
  if (version > kSchemaVersion) {
    throw Error(
        "{} was written by a newer torchtally: schema version {}, this one reads up to {}; "
        "update torchtally",
        path, version, kSchemaVersion);
  }
  if (version < 1) throw Error("{} is damaged: schema version {}", path, version);
}

std::unique_ptr<Database> open_for_reading(const std::string& file, const std::string& path) {
  auto database = std::make_unique<Database>(file, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX);
  check_kind(*database, path);
  return database;
}

std::string make_temporary_folder() {
  std::string name = (fs::temp_directory_path() / "torchtally-XXXXXX").string();
  if (!mkdtemp(name.data())) {
    throw Error("cannot create a folder in {}: {}", fs::temp_directory_path().string(),
                std::strerror(errno));
  }
  return name;
}

}  // namespace

Error damaged(const std::string& path, const std::string& why) {
  // SQLite may quote a damaged table over several lines.
  return Error("{} is damaged: {}", path, why.substr(0, why.find('\n')));
}

OpenedRecording::OpenedRecording(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) throw Error("{} does not exist", path);
  if (status.type() == fs::file_type::none)
    throw Error("cannot read {}: {}", path, error.message());
  if (status.type() == fs::file_type::directory)
    throw Error("{} is a folder, not a recording", path);
  if (status.type() != fs::file_type::regular)
    throw Error("{} is not a recording: no plain file", path);
  if (access(path.c_str(), R_OK) != 0)
    throw Error("cannot read {}: {}", path, std::strerror(errno));
  if (fs::file_size(path, error) == 0) throw Error("{} is empty: nothing was recorded in it", path);

  try {
    try {
      database_ = open_for_reading(absolute(path), path);
    } catch (const SqliteError& failure) {
      // A WAL needs its index file beside it, which cannot be made in a read-only folder.
      const bool no_index = failure.code() == SQLITE_CANTOPEN || failure.code() == SQLITE_READONLY;
      if (!no_index) throw;
      copy_folder_ = make_temporary_folder();
      const std::string copy = (fs::path(copy_folder_) / "run.tally").string();
      fs::copy_file(path, copy);
      if (fs::exists(path + "-wal")) fs::copy_file(path + "-wal", copy + "-wal");
      fs::permissions(copy, fs::perms::owner_read | fs::perms::owner_write);
      database_ = open_for_reading(copy, path);
    }
  } catch (const SqliteError& failure) {
    database_.reset();
    if (!copy_folder_.empty()) fs::remove_all(copy_folder_, error);
    throw damaged(path, failure.what());
  } catch (const fs::filesystem_error& failure) {
    fs::remove_all(copy_folder_, error);
    throw Error("cannot read {}: {}", path, failure.code().message());
  } catch (...) {
    if (!copy_folder_.empty()) fs::remove_all(copy_folder_, error);
    throw;
  }
}

OpenedRecording::~OpenedRecording() {
  database_.reset();
  std::error_code error;
  if (!copy_folder_.empty()) fs::remove_all(copy_folder_, error);
}

void make_room(const std::string& path) {
  if (path.empty()) throw Error("cannot record: the path of the recording is empty");
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::directory)
    throw Error("cannot record to {}: it is a folder", path);
  if (status.type() == fs::file_type::not_found) return;
  if (status.type() == fs::file_type::none) {
    throw Error("cannot record to {}: {}", path, error.message());
  }
  if (status.type() != fs::file_type::regular)
    throw Error("cannot record to {}: it is no plain file", path);
  if (fs::file_size(path, error) == 0) return;
  try {
    OpenedRecording old(path);
    Statement run(old.database(), "SELECT ended, pid, pid_start, pid_namespace, boot_id FROM run");
    if (run.step() && run.text(0) == "running") {
      const ProcessIdentity owner{run.integer(1), run.integer(2), run.text(3), run.text(4)};
      // Our own pid: the older session of this process has ended, or Writer's list has it.
      if (owner.pid != getpid() && may_be_alive(owner)) {
        throw Error("process {} is recording to it", owner.pid);
      }
    }
  } catch (const Error& failure) {
    throw Error("cannot record to {}: {}; choose another path or delete the file", path,
                failure.what());
  }
  remove_files(path);
  if (fs::exists(path, error)) throw Error("cannot replace {}: it cannot be deleted", path);
}

void remove_files(const std::string& path) {
  std::error_code error;
  for (const char* suffix : {"", "-wal", "-shm", "-journal"}) fs::remove(path + suffix, error);
}

}  // namespace tally::recording
