// SPDX-License-Identifier: Apache-2.0
// Who a process is, so that a later one can tell whether it still runs: a pid alone is reused.
#pragma once

#include <cstdint>
#include <string>

namespace tally::recording {

struct ProcessIdentity {
  int64_t pid = 0;
  int64_t start_ticks = 0;    // /proc/<pid>/stat, field 22; 0: not known
  std::string pid_namespace;  // "pid:[4026531836]"
  std::string boot_id;
};

ProcessIdentity this_process();
// False only when it is sure: another boot, no such pid, or a pid that another process has now. A
// process of another pid namespace (a container) cannot be seen from here and counts as alive.
bool may_be_alive(const ProcessIdentity& process);

}  // namespace tally::recording
