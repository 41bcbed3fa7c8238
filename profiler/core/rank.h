// SPDX-License-Identifier: Apache-2.0
// Which process of a distributed run this is, as launchers say it in the environment.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace tally {

struct Rank {
  int64_t rank = -1;       // -1: the process is alone
  int64_t world_size = 0;  // processes of the run
};

// torchrun's RANK and WORLD_SIZE, else those of Open MPI, PMI and Slurm. `variable` is like
// std::getenv. One process alone, and numbers that do not fit each other, are no distributed run.
Rank rank_of_environment(const std::function<const char*(const char*)>& variable);

// run.tally -> run.rank3.tally where the run has several processes, each of which writes its own.
std::string with_rank(const std::string& path, const Rank& rank);

}  // namespace tally
