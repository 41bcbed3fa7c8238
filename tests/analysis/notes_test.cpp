// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "profiler/analysis/build.h"
#include "tests/support/synthetic_run.h"

namespace tally::analysis {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

class Notes : public testing::Test {
 protected:
  std::vector<std::string> notes() const { return build_summary(run_).notes; }
  DeviceBooks& device(size_t step) { return run_.steps[step].books.devices[0]; }
  recording::Run run_ = test::make_synthetic_run().as_recorded();
};

TEST_F(Notes, OfACleanRun) {
  EXPECT_THAT(notes(),
              ElementsAre("The module of 1.0 MiB at the peak is inferred: \"after X\" means that X "
                          "was the last known module when they were made.",
                          "cuda was not available: built without CUDA."));
}

TEST_F(Notes, SourcesThatMissTheSameThingShareALine) {
  run_.info.sources = {{"a", false, "no driver"}, {"b", true, ""}, {"c", false, "no driver"},
                       {"d", false, "no library"}, {"e", true, "limited"}};
  EXPECT_THAT(notes(), Contains("a, c were not available: no driver."));
  EXPECT_THAT(notes(), Contains("d was not available: no library."));
  EXPECT_THAT(notes(), Contains("e: limited."));
}

TEST_F(Notes, HowItEnded) {
  run_.end.ended = "killed";
  EXPECT_EQ(notes()[0],
            "The process was killed: the report ends with step 3, the last that was finished.");
  run_.end.ended = "exception";
  EXPECT_EQ(notes()[0], "The program ended with an exception after step 3.");
  run_.end.ended = "running";
  EXPECT_EQ(notes()[0], "The program still runs: the report ends with step 3.");
}

TEST_F(Notes, WhatWasLostInAnyStep) {
  device(3).marks[1].roles[static_cast<size_t>(Role::kUnattributed)] = 2048;
  device(2).foreign_bytes = 1 << 20;
  device(2).largest_difference = 512;
  run_.steps[0].books.unmatched_frees = 2;
  run_.steps[1].books.unmatched_frees = 1;
  run_.end.dropped_events = 1;
  run_.end.notes = {"A sentence of the profiler itself."};
  run_.info.sources.push_back({"torch.modules", true, "names of C++ modules only"});
  EXPECT_THAT(notes(),
              Contains("Up to 2.0 KiB at a mark (step 3) are unattributed: no evidence names what "
                       "they are for."));
  EXPECT_THAT(notes(), Contains("The books and the allocator's own count differ by up to 512 B."));
  EXPECT_THAT(notes(), Contains(StartsWith("Tensors of up to 1.0 MiB bypass the allocators")));
  EXPECT_THAT(notes(),
              Contains("3 frees of blocks that were alive before recording began could not be "
                       "matched."));
  EXPECT_THAT(notes(), Contains("Events were lost: 1; the sums may be wrong."));
  EXPECT_THAT(notes(), Contains("torch.modules: names of C++ modules only."));
  EXPECT_EQ(notes().back(), "A sentence of the profiler itself.");
}

TEST_F(Notes, ADifferenceAtAMarkIsNeverHidden) {
  device(2).marks[0].allocator_bytes += 3;
  EXPECT_THAT(notes(), Contains(HasSubstr("differ by up to 3 B")));
}

TEST_F(Notes, AStepWithoutDetailSaysSo) {
  EXPECT_THAT(build_summary(run_, {.step = 3}).notes,
              Contains(StartsWith("Step 3 was not kept in detail")));
}

}  // namespace
}  // namespace tally::analysis
