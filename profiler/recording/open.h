// SPDX-License-Identifier: Apache-2.0
// Opens the file of a recording, or says in one sentence what it is instead.
#pragma once

#include <memory>
#include <string>

#include "profiler/recording/database.h"
#include "profiler/recording/process.h"

namespace tally::recording {

// For reading, the steps of a killed process included: they are still in the file <path>-wal. In a
// folder where SQLite may not create its helper file, a copy in the temporary folder is read.
class OpenedRecording {
 public:
  explicit OpenedRecording(const std::string& path);
  ~OpenedRecording();
  OpenedRecording(const OpenedRecording&) = delete;
  OpenedRecording& operator=(const OpenedRecording&) = delete;
  Database& database() { return *database_; }

 private:
  std::string copy_folder_;
  std::unique_ptr<Database> database_;
};

// "<path> is damaged: ...", for what SQLite or a decoder says while a recording is read.
Error damaged(const std::string& path, const std::string& why);

// Throws Error unless a recording may be written to `path`: nothing there, an empty file, or an
// older recording that nobody writes any more, which is deleted.
void make_room(const std::string& path);
// The file and what SQLite keeps beside it.
void remove_files(const std::string& path);

}  // namespace tally::recording
