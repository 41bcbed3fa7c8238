// SPDX-License-Identifier: Apache-2.0
#include "profiler/core/rank.h"

#include <map>
#include <string>

#include <gtest/gtest.h>

namespace tally {
namespace {

std::pair<int64_t, int64_t> rank(const std::map<std::string, std::string>& environment) {
  const Rank found = rank_of_environment([&](const char* name) -> const char* {
    const auto at = environment.find(name);
    return at == environment.end() ? nullptr : at->second.c_str();
  });
  return {found.rank, found.world_size};
}
const std::pair<int64_t, int64_t> kAlone{-1, 0};

TEST(Rank, IsWhatTheLauncherSays) {
  EXPECT_EQ(rank({{"RANK", "3"}, {"WORLD_SIZE", "8"}}), std::pair(int64_t{3}, int64_t{8}));
  EXPECT_EQ(rank({{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "2"}}),
            std::pair(int64_t{0}, int64_t{2}));
  EXPECT_EQ(rank({{"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "4"}}),
            std::pair(int64_t{1}, int64_t{4}));
  EXPECT_EQ(rank({{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"PMI_RANK", "7"}, {"PMI_SIZE", "9"}}),
            std::pair(int64_t{1}, int64_t{2}))
      << "torchrun's word counts first";
}

TEST(Rank, IsNoneWhereNothingSaysIt) {
  EXPECT_EQ(rank({}), kAlone);
  EXPECT_EQ(rank({{"RANK", "0"}, {"WORLD_SIZE", "1"}}), kAlone) << "one process alone";
  EXPECT_EQ(rank({{"RANK", "2"}, {"WORLD_SIZE", "2"}}), kAlone);
  EXPECT_EQ(rank({{"RANK", "-1"}, {"WORLD_SIZE", "2"}}), kAlone);
  EXPECT_EQ(rank({{"RANK", "1st"}, {"WORLD_SIZE", "2"}}), kAlone);
  EXPECT_EQ(rank({{"RANK", "1"}}), kAlone);
}

TEST(Rank, IsPartOfTheNameOfAFile) {
  EXPECT_EQ(with_rank("a/run.tally", Rank{3, 8}), "a/run.rank3.tally");
  EXPECT_EQ(with_rank("run", Rank{0, 2}), "run.rank0");
  EXPECT_EQ(with_rank("a/run.tally", Rank{}), "a/run.tally");
  EXPECT_EQ(with_rank("", Rank{3, 8}), "");
}

}  // namespace
}  // namespace tally
