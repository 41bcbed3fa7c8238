// SPDX-License-Identifier: Apache-2.0
// Records a program that does not know us, from before its main() until it exits: what
// `torchtally run -- ./program` puts into LD_PRELOAD. Steps, parameters and optimizer state are
// inferred from what autograd and the update do. Without sense, or where it cannot record, the
// program runs as without it.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "profiler/api/recorder.h"
#include "profiler/session/session.h"

namespace {

tally::Recorder* recorder = nullptr;  // never destroyed: hooks outlive main()

// The children of the program are not recorded; they see the environment as it was.
void restore_environment() {
  if (const char* all = std::getenv("LD_PRELOAD")) {
    std::string others;
    for (std::string rest = all; !rest.empty();) {
      const size_t end = std::min(rest.find_first_of(": "), rest.size());
      const std::string library = rest.substr(0, end);
      rest.erase(0, std::min(end + 1, rest.size()));
      if (library.find("libtorchtally_preload") != std::string::npos) continue;
      others += (others.empty() ? "" : ":") + library;
    }
    if (others.empty()) {
      unsetenv("LD_PRELOAD");
    } else {
      setenv("LD_PRELOAD", others.c_str(), 1);
    }
  }
  for (const char* name : {"TORCHTALLY_RECORDING", "TORCHTALLY_REPORT", "TORCHTALLY_BUDGET",
                           "TORCHTALLY_BUDGET_ACTION", "TORCHTALLY_SOURCE_LINES"}) {
    unsetenv(name);
  }
}

void stop() {
  if (recorder) recorder->stop("clean");
}

__attribute__((constructor)) void start() {
  try {
    recorder = new tally::Recorder({}, tally::Recorder::Steps::kInferred);
    if (tally::Session* session = recorder->session()) {
      session->step_begin();
      std::atexit(&stop);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "torchtally: %s; the program runs without being recorded\n", error.what());
  }
  restore_environment();
}

}  // namespace
