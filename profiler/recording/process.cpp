// SPDX-License-Identifier: Apache-2.0
#include "profiler/recording/process.h"

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <system_error>

#include <fmt/format.h>

namespace tally::recording {
namespace {

std::string read_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::string pid_namespace() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/ns/pid", error).string();
}

// 0 when it cannot be read.
int64_t start_ticks(int64_t pid) {
  const std::string line = read_line(fmt::format("/proc/{}/stat", pid));
  // The second field is the program's name in brackets and may hold anything, brackets too.
  const size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(line.substr(name_end + 1));
  std::string field;
  for (int number = 3; number <= 22; ++number) {
    if (!(fields >> field)) return 0;
    // A zombie runs no more: nobody has collected it yet.
    if (number == 3 && (field == "Z" || field == "X")) return -1;
  }
  try {
    return std::stoll(field);
  } catch (const std::exception&) {
    return 0;
  }
}

}  // namespace

ProcessIdentity this_process() {
  const auto pid = static_cast<int64_t>(getpid());
  return {pid, start_ticks(pid), pid_namespace(), read_line("/proc/sys/kernel/random/boot_id")};
}

bool may_be_alive(const ProcessIdentity& process) {
  if (process.boot_id != read_line("/proc/sys/kernel/random/boot_id")) return false;
  if (process.pid_namespace != pid_namespace()) return true;
  if (process.pid <= 0 || (kill(static_cast<pid_t>(process.pid), 0) != 0 && errno == ESRCH)) {
    return false;
  }
  const int64_t now = start_ticks(process.pid);
  if (now < 0) return false;
  return now == 0 || process.start_ticks == 0 || now == process.start_ticks;
}

}  // namespace tally::recording
