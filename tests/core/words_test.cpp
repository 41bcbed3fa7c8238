// SPDX-License-Identifier: Apache-2.0
// The words are part of every output and of recordings that exist: none may change or move.
#include "profiler/core/words.h"

#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>

namespace tally {
namespace {

using testing::ElementsAre;

template <size_t N>
std::vector<std::string> keys(const std::array<Word, N>& words) {
  std::vector<std::string> result;
  for (const Word& word : words) result.emplace_back(word.key);
  return result;
}

TEST(Words, RolesAreFixedInTheOrderOfTheirStack) {
  EXPECT_THAT(keys(kRoleWords),
              ElementsAre("parameter", "buffer", "optimizer_state", "gradient", "activation",
                          "recomputed_activation", "input", "held_output", "temporary_forward",
                          "temporary_backward", "temporary_optimizer", "workspace", "communication",
                          "external", "unattributed", "rounding", "cached", "outside_allocator"));
}

TEST(Words, PhasesAreFixed) {
  EXPECT_THAT(keys(kPhaseWords),
              ElementsAre("data", "forward", "backward", "recompute", "optimizer", "other"));
}

TEST(Words, MarksAreFixed) {
  EXPECT_THAT(keys(kMarkWords),
              ElementsAre("start", "forward_edge", "backward_end", "peak", "end", "oom"));
}

TEST(Words, EachKeyLeadsBackToItsWord) {
  for (size_t i = 0; i < kRoleCount; ++i) {
    const auto role = static_cast<Role>(i);
    EXPECT_EQ(role_of(key(role)), role);
  }
  for (size_t i = 0; i < kPhaseCount; ++i) {
    const auto phase = static_cast<Phase>(i);
    EXPECT_EQ(phase_of(key(phase)), phase);
  }
  for (size_t i = 0; i < kMarkCount; ++i) {
    const auto mark = static_cast<Mark>(i);
    EXPECT_EQ(mark_of(key(mark)), mark);
  }
  EXPECT_FALSE(role_of("activations"));
  EXPECT_FALSE(phase_of(""));
  EXPECT_FALSE(mark_of("Peak"));
}

TEST(Words, EachHasATitleOfItsOwnAndASentence) {
  std::set<std::string_view> titles;
  for (const Word& word : kRoleWords) {
    EXPECT_TRUE(titles.insert(word.title).second) << word.key;
    EXPECT_TRUE(word.meaning.ends_with(".")) << word.key;
  }
}

TEST(Words, SumAddsAllRoles) {
  RoleBytes roles{};
  for (size_t i = 0; i < kRoleCount; ++i) roles[i] = int64_t{1} << i;
  EXPECT_EQ(sum(roles), (int64_t{1} << kRoleCount) - 1);
}

}  // namespace
}  // namespace tally
