// SPDX-License-Identifier: Apache-2.0
// The three faces of a comparison.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "profiler/analysis/build.h"
#include "reports/compare.h"
#include "tests/support/synthetic_run.h"

namespace tally::reports {
namespace {

using testing::HasSubstr;
using testing::Not;

analysis::Comparison comparison(int64_t second_batch = 4) {
  std::vector<analysis::Summary> runs;
  for (const int64_t batch : {int64_t{2}, second_batch}) {
    test::SyntheticOptions options;
    options.batch = batch;
    runs.push_back(analysis::build_summary(test::make_synthetic_run(options).as_recorded()));
    runs.back().recording = "batch" + std::to_string(batch) + ".tally";
  }
  runs[1].recording += test::kHostileName;
  return analysis::compare(runs);
}

TEST(CompareReport, TextSaysTheAnswerFirst) {
  const std::string out = render_compare_text(comparison());
  EXPECT_THAT(out, testing::StartsWith("The peak grew by "));
  EXPECT_THAT(out, HasSubstr("\nfrom  batch2.tally, step 1, cpu\nto    batch4.tally<"));
  EXPECT_THAT(out, HasSubstr("By role, alive at the peak\nparameters "));
  EXPECT_THAT(out, Not(HasSubstr("\x1b")));
  EXPECT_THAT(render_compare_text(comparison(2)),
              HasSubstr("By module, alive at the peak: what changed most\nnothing\n"));
}

TEST(CompareReport, ExecutedFlopsHaveAPartOfTheirOwn) {
  std::vector<analysis::Summary> runs;
  for (const int64_t batch : {2, 4}) {
    test::SyntheticOptions options;
    options.on_card = true;
    options.batch = batch;
    runs.push_back(
        analysis::build_summary(test::make_synthetic_run(options).as_recorded(), {.step = 1}));
  }
  const analysis::Comparison c = analysis::compare(runs);
  EXPECT_THAT(render_compare_text(c),
              HasSubstr("\nFLOPs executed, by number format\ntensor bf16 "));
  EXPECT_THAT(render_compare_html(c), HasSubstr("By hardware counters, by number format."));
  const auto out = nlohmann::json::parse(render_compare_json(c));
  EXPECT_EQ(out["executed"][1]["key"], "tensor_tf32");
  EXPECT_EQ(out["executed"][1]["values"][0],
            runs[0].step().flops.executed->by_format.of(FlopFormat::kTensorTf32));
  EXPECT_THAT(render_compare_text(comparison()), Not(HasSubstr("FLOPs executed")));
}

TEST(CompareReport, JsonHasEveryRowExactly) {
  const analysis::Comparison c = comparison();
  const auto out = nlohmann::json::parse(render_compare_json(c));
  EXPECT_EQ(out["headline"], c.headline);
  EXPECT_EQ(out["at"], "peak");
  EXPECT_EQ(out["modules"].size(), c.modules.size());
  EXPECT_EQ(out["totals"][0]["key"], "peak");
  EXPECT_EQ(out["totals"][0]["values"][0], 10022020);
  EXPECT_EQ(out["totals"][0]["change"],
            out["totals"][0]["values"][1].get<int64_t>() - int64_t{10022020});
}

TEST(CompareReport, HtmlIsOneFileThatLoadsNothingAndRunsNothing) {
  const std::string out = render_compare_html(comparison());
  EXPECT_THAT(out, HasSubstr("default-src 'none'"));
  for (const char* word : {"<script", "http:", "https:", "<link", "src=", "url("}) {
    EXPECT_THAT(out, Not(HasSubstr(word))) << word;
  }
  EXPECT_THAT(out, HasSubstr("&lt;script&gt;alert(&#39;&quot;1&quot;&#39;)"));
  EXPECT_THAT(out, HasSubstr("title=\"10,022,020 bytes\">9.6 MiB<"));
  EXPECT_THAT(out, HasSubstr("--light:#18a47f"));
}

TEST(CompareReport, MoreThanTwoStandSideBySide) {
  std::vector<analysis::Summary> runs;
  for (const int64_t batch : {2, 3, 4}) {
    test::SyntheticOptions options;
    options.batch = batch;
    runs.push_back(analysis::build_summary(test::make_synthetic_run(options).as_recorded()));
    runs.back().recording = "batch" + std::to_string(batch) + ".tally";
  }
  // What only the run between has is seen as well.
  runs[1].steps[runs[1].shown].devices[0].peak_blocks[0].module = "only.here";
  const analysis::Comparison c = analysis::compare(runs);
  const auto json = nlohmann::json::parse(render_compare_json(c));
  ASSERT_EQ(json["totals"][0]["values"].size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(json["totals"][0]["values"][i], runs[i].device_step()->peak.bytes);
  }
  const std::string page = render_compare_html(c);
  for (const char* head : {">A</th>", ">B</th>", ">C</th>", ">change, A to C</th>"}) {
    EXPECT_THAT(page, HasSubstr(head));
  }
  for (const auto& run : runs) EXPECT_THAT(page, HasSubstr(run.recording));
  EXPECT_THAT(page, HasSubstr(">only.here</bdi>"));
  EXPECT_THAT(page, HasSubstr("<small>new</small>"));
  EXPECT_THAT(page, HasSubstr("<small>+"));
  const std::string text = render_compare_text(c);
  EXPECT_THAT(text, HasSubstr("\nfrom  batch2.tally, step 1, cpu\n      batch3.tally, step 1, cpu\n"
                              "to    batch4.tally, step 1, cpu\n"));
}

}  // namespace
}  // namespace tally::reports
