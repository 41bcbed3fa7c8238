// SPDX-License-Identifier: Apache-2.0
// Records a program that does not know us, from before its main() until it exits: what
// `torchtally run -- ./program` puts into LD_PRELOAD. Steps, parameters and optimizer state are
// inferred from what autograd and the update do. Without sense, or where it cannot record, the
// program runs as without it.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <string>

#include "profiler/api/recorder.h"
#include "profiler/core/rank.h"
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
                           "TORCHTALLY_BUDGET_ACTION"}) {
    unsetenv(name);
  }
}

// run.tally -> run.rank3.tally
std::string with_rank(const std::string& path, const tally::Rank& rank) {
  if (path.empty() || rank.world_size < 2) return path;
  const std::filesystem::path whole(path);
  return whole.parent_path() / (whole.stem().string() + ".rank" + std::to_string(rank.rank) +
                                whole.extension().string());
}

void stop() {
  if (recorder) recorder->stop("clean");
}

__attribute__((constructor)) void start() {
  try {
    const tally::Rank rank = tally::rank_of_environment(std::getenv);
    for (const char* name : {"TORCHTALLY_RECORDING", "TORCHTALLY_REPORT"}) {
      if (const char* path = std::getenv(name)) setenv(name, with_rank(path, rank).c_str(), 1);
    }
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
