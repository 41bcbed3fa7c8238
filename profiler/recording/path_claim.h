// SPDX-License-Identifier: Apache-2.0
// Keeps two writers of one process from the same file.
#pragma once

#include <filesystem>
#include <mutex>
#include <set>
#include <string>
#include <system_error>

#include "profiler/core/error.h"

namespace tally::recording {

// The paths that this process is recording to.
class OpenPaths {
 public:
  bool add(const std::string& path) {
    const std::lock_guard lock(mutex_);
    return paths_.insert(path).second;
  }
  void remove(const std::string& path) {
    const std::lock_guard lock(mutex_);
    paths_.erase(path);
  }
  static OpenPaths& instance() {
    static auto* paths = new OpenPaths;  // never destroyed: writers may outlive statics
    return *paths;
  }

 private:
  std::mutex mutex_;
  std::set<std::string> paths_;
};

// Takes the path, or throws; gives it back.
class PathClaim {
 public:
  explicit PathClaim(const std::string& path) : path_(normal(path)) {
    if (!OpenPaths::instance().add(path_)) {
      throw Error("cannot record to {}: this process is recording to it already", path);
    }
  }
  ~PathClaim() { OpenPaths::instance().remove(path_); }
  PathClaim(const PathClaim&) = delete;
  PathClaim& operator=(const PathClaim&) = delete;

 private:
  static std::string normal(const std::string& path) {
    std::error_code error;
    const auto whole = std::filesystem::absolute(path, error);
    const auto canonical = std::filesystem::weakly_canonical(whole, error);
    return error ? whole.string() : canonical.string();
  }
  std::string path_;
};

}  // namespace tally::recording
