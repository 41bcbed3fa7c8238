// SPDX-License-Identifier: Apache-2.0
// The ranks of one run side by side.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "profiler/analysis/build.h"
#include "profiler/core/error.h"
#include "tests/support/synthetic_run.h"

namespace tally::analysis {
namespace {

recording::Run rank(int64_t rank, int64_t world_size, int64_t batch = 2) {
  test::SyntheticOptions options;
  options.batch = batch;
  test::SyntheticRun run = test::make_synthetic_run(options);
  run.info.rank = rank;
  run.info.world_size = world_size;
  recording::Run recorded = std::move(run).as_recorded();
  recorded.path = "rank" + std::to_string(rank) + ".tally";
  return recorded;
}
std::vector<recording::Run> two(int64_t first = 0, int64_t second = 1) {
  std::vector<recording::Run> runs;
  runs.push_back(rank(first, 2));
  runs.push_back(rank(second, 2));
  return runs;
}
std::string sentence(const std::vector<recording::Run>& runs, std::optional<int64_t> asked = {}) {
  try {
    build_ranks(runs, asked);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Ranks, StandInTheirOrderAndTheHighestIsExplained) {
  std::vector<recording::Run> runs;
  runs.push_back(rank(2, 3));
  runs.push_back(rank(0, 3));
  runs.push_back(rank(1, 3, 4));  // twice the batch
  const RankedSummaries out = build_ranks(runs, {});
  ASSERT_EQ(out.summaries.size(), 3u);
  EXPECT_EQ(out.explained, 1u);
  for (size_t i = 0; i < 3; ++i) {
    const Summary& summary = out.summaries[i];
    EXPECT_EQ(summary.rank, static_cast<int64_t>(i));
    ASSERT_EQ(summary.ranks.size(), 3u);
    const RankSummary& row = summary.ranks[i];
    EXPECT_EQ(row.recording, summary.recording);
    EXPECT_EQ(row.peak_bytes, summary.device_step()->peak.bytes);
    EXPECT_EQ(sum(row.roles), row.peak_bytes);
    EXPECT_EQ(row.steps, 4u);
  }
  EXPECT_EQ(build_ranks(runs, 2).explained, 2u);
}

TEST(Ranks, AnUnevenOneIsNamedWithItsRoles) {
  std::vector<recording::Run> runs = two();
  EXPECT_THAT(
      build_ranks(runs, {}).summaries[0].verdicts.back().verdict,
      testing::StartsWith("even: rank 0 peaks at 9.6 MiB, 0.0 % above the mean of 2 ranks"));
  runs[1] = rank(1, 2, 4);
  const Summary summary = build_ranks(runs, {}).summaries[0];
  const Verdict& verdict = summary.verdicts.back();
  EXPECT_EQ(verdict.kind, "rank_imbalance");
  EXPECT_THAT(verdict.verdict, testing::StartsWith("uneven: rank 1 peaks at "));
  const int64_t low = summary.ranks[0].peak_bytes;
  const int64_t high = summary.ranks[1].peak_bytes;
  EXPECT_EQ(verdict.bytes, high - (low + high) / 2);
  EXPECT_THAT(verdict.evidence, testing::Contains(testing::StartsWith("activations: ")));
}

TEST(Ranks, RecordingsOfDifferentRunsAreRefused) {
  EXPECT_EQ(sentence(two(0, 0)), "rank0.tally was given twice");
  std::vector<recording::Run> runs = two(0, 0);
  runs[1].path = "other.tally";
  EXPECT_EQ(sentence(runs),
            "rank0.tally and other.tally are both rank 0: give one recording a rank");
  runs = two();
  runs[1].info.world_size = 4;
  EXPECT_EQ(
      sentence(runs),
      "rank0.tally is of a run of 2 ranks and rank1.tally of one of 4: they are not of one run");
  runs[1].info.rank = -1;
  EXPECT_THAT(sentence(runs), testing::StartsWith("rank0.tally is rank 0 of a distributed run and "
                                                  "rank1.tally says no rank"));
  EXPECT_EQ(sentence(two(), 7), "no recording of rank 7 was given; there are the ranks 0, 1");
}

TEST(Ranks, WithoutANumberTheyAreNumberedAndWithoutAllOfThemItIsSaid) {
  std::vector<recording::Run> runs = two(-1, -1);
  runs[1].path = "other.tally";
  for (recording::Run& run : runs) run.info.world_size = 0;
  const RankedSummaries out = build_ranks(runs, 1);
  EXPECT_EQ(out.summaries[1].rank, 1);
  EXPECT_THAT(out.summaries[0].notes, testing::Contains(testing::HasSubstr("say no rank")));
  runs = two();
  for (recording::Run& run : runs) run.info.world_size = 8;
  EXPECT_THAT(build_ranks(runs, {}).summaries[0].notes,
              testing::Contains("2 of 8 ranks were given; the others are not known."));
}

TEST(Ranks, AStepThatOneRankLacksIsShownForTheOthers) {
  std::vector<recording::Run> runs = two();
  runs[1].steps.resize(2);
  const RankedSummaries out = build_ranks(runs, 0, {.step = 3});
  EXPECT_EQ(out.summaries[0].step().index, 3u);
  EXPECT_EQ(out.summaries[1].step().index, 1u);
  EXPECT_THAT(sentence(runs, 1), "");
}

}  // namespace
}  // namespace tally::analysis
