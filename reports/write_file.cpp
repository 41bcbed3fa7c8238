// SPDX-License-Identifier: Apache-2.0
#include "reports/write_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "profiler/core/error.h"

namespace tally::reports {
namespace {

namespace fs = std::filesystem;

// 0, or the error.
int write_all(const std::string& path, std::string_view text) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (!file) return errno;
  errno = 0;
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  const int write_error = errno;
  if (std::fclose(file) != 0) return errno;
  return written ? 0 : (write_error != 0 ? write_error : EIO);
}

}  // namespace

void write_file(const std::string& path, std::string_view text) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status)) throw Error("cannot write {}: it is a folder", path);
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    if (const int code = write_all(path, text)) {
      throw Error("cannot write {}: {}", path, std::strerror(code));
    }
    return;
  }
  // Through a link to the file it names: the link stays.
  const fs::path target = fs::exists(status) ? fs::canonical(path, error) : fs::path(path);
  const std::string part = fmt::format("{}.{}.part", target.string(), getpid());
  int code = write_all(part, text);
  if (code == 0) {
    fs::rename(part, target, error);
    code = error.value();
  }
  if (code != 0) {
    fs::remove(part, error);
    throw Error("cannot write {}: {}", path, std::strerror(code));
  }
}

}  // namespace tally::reports
