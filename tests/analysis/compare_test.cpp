// SPDX-License-Identifier: Apache-2.0
// Runs side by side, and the conditions that make a comparison fail.
#include "profiler/analysis/compare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "profiler/analysis/build.h"
#include "profiler/core/error.h"
#include "tests/support/synthetic_run.h"

namespace tally::analysis {
namespace {

Summary of_batch(int64_t batch, const std::string& name, Mark at = Mark::kPeak) {
  test::SyntheticOptions options;
  options.batch = batch;
  Summary summary = build_summary(test::make_synthetic_run(options).as_recorded(), {.at = at});
  summary.recording = name;
  return summary;
}
double total(const std::vector<Change>& rows, size_t run) {
  double sum = 0;
  for (const Change& row : rows) sum += row.values[run];
  return sum;
}
const Change& row(const std::vector<Change>& rows, const std::string& key) {
  for (const Change& r : rows) {
    if (r.key == key) return r;
  }
  throw Error("no row {}", key);
}

TEST(Compare, EachBreakdownAddsUpToEachRunsMark) {
  for (const Mark at : {Mark::kPeak, Mark::kForwardEdge}) {
    const std::vector<Summary> runs{of_batch(2, "a", at), of_batch(4, "b", at),
                                    of_batch(1, "c", at)};
    const Comparison c = compare(runs);
    for (size_t i = 0; i < runs.size(); ++i) {
      const auto bytes = static_cast<double>(runs[i].mark()->bytes);
      EXPECT_EQ(total(c.roles, i), bytes);
      EXPECT_EQ(total(c.modules, i), bytes);
      EXPECT_EQ(total(c.operators, i), bytes);
      EXPECT_EQ(total(c.work, i), runs[i].step().flops.total());
      EXPECT_EQ(row(c.totals, "peak").values[i],
                static_cast<double>(runs[i].device_step()->peak.bytes));
    }
    for (const auto* rows : {&c.modules, &c.operators, &c.work}) {
      for (size_t i = 1; i < rows->size(); ++i) {
        EXPECT_GE(std::abs((*rows)[i - 1].change()), std::abs((*rows)[i].change()));
      }
    }
  }
}

TEST(Compare, ExecutedFlopsStandByFormat) {
  const auto of_card = [](int64_t batch) {
    test::SyntheticOptions options;
    options.on_card = true;
    options.batch = batch;
    return build_summary(test::make_synthetic_run(options).as_recorded(), {.step = 1});
  };
  const std::vector<Summary> runs{of_card(2), of_card(4)};
  const Comparison c = compare(runs);
  ASSERT_EQ(c.executed.size(), 2u);  // in the order of the words
  EXPECT_EQ(c.executed[0].key, "tensor_bf16");
  EXPECT_EQ(c.executed[0].title, "tensor bf16");
  EXPECT_EQ(c.executed[1].key, "tensor_tf32");
  for (size_t i = 0; i < runs.size(); ++i) {
    EXPECT_EQ(total(c.executed, i), runs[i].step().flops.executed->tensor_flops);
  }
  EXPECT_GT(c.executed[0].change(), 0);
  EXPECT_TRUE(compare({of_batch(2, "a"), of_batch(4, "b")}).executed.empty());
}

TEST(Compare, SaysWhatGrewAndWhatShrank) {
  const Comparison grew = compare({of_batch(2, "a"), of_batch(4, "b")});
  EXPECT_THAT(grew.headline, testing::StartsWith("The peak grew by "));
  EXPECT_THAT(grew.headline, testing::HasSubstr("9.6 MiB in a, "));
  EXPECT_THAT(grew.headline, testing::HasSubstr("Most of it: activations (+"));
  EXPECT_THAT(compare({of_batch(4, "a"), of_batch(2, "b")}).headline,
              testing::StartsWith("The peak shrank by "));
  EXPECT_EQ(compare({of_batch(2, "a"), of_batch(2, "b")}).headline,
            "The peak is the same in a and b: 9.6 MiB.");
  EXPECT_THROW(compare({of_batch(2, "a")}), Error);
}

TEST(Compare, WhatOneRunLacksCountsAsNothing) {
  Summary without = of_batch(2, "b");
  without.steps[without.shown].devices.clear();
  const Comparison c = compare({of_batch(2, "a"), without});
  EXPECT_EQ(total(c.roles, 1), 0);
  EXPECT_EQ(row(c.totals, "peak").values[1], 0);
}

Comparison simple(double first, double second) {
  Comparison c;
  c.runs = {{"a", 0, "cpu", ""}, {"b", 0, "cpu", ""}};
  c.totals = {{"peak", "peak", "bytes", {first, second}},
              {"flops", "FLOPs of the step", "FLOP", {1e9, 2e9}},
              {"seconds", "time of the step", "seconds", {0.5, 0.25}}};
  c.roles = {{"activation", "activations", "bytes", {first, second}}};
  return c;
}
bool fails(const std::string& condition, double first, double second) {
  return !met_by(parse_condition(condition), simple(first, second)).empty();
}

TEST(Condition, PercentUnitsAndTheNumberItself) {
  EXPECT_FALSE(fails("peak>+2%", 100, 102));
  EXPECT_TRUE(fails("peak>+2%", 1000, 1021));
  EXPECT_TRUE(fails("peak >= +2 %", 100, 102));
  EXPECT_FALSE(fails("peak>+2%", 100, 50));
  EXPECT_TRUE(fails("peak<-10%", 100, 89));
  EXPECT_TRUE(fails("activation>+1KiB", 0, 1025));
  EXPECT_FALSE(fails("activation>+1KiB", 0, 1024));
  EXPECT_TRUE(fails("peak>1KiB", 5000, 1025)) << "without a sign: the number itself";
  EXPECT_FALSE(fails("peak<=1KiB", 0, 1025));
  EXPECT_TRUE(fails("peak>+2%", 0, 1)) << "from nothing to something";
  EXPECT_FALSE(fails("peak>+2%", 0, 0));
  EXPECT_TRUE(fails("flops>+5e8", 0, 0));
  EXPECT_TRUE(fails("seconds<0.3s", 0, 0));
  EXPECT_FALSE(fails("gradient>+0", 0, 0)) << "a role that neither run has";
  EXPECT_TRUE(fails("gradient<=0", 0, 0));
  EXPECT_EQ(met_by(parse_condition("peak>+2%"), simple(1024, 2048)),
            std::vector<std::string>{"peak>+2%: peak is 1.0 KiB in a and 2.0 KiB in b, +100.00 %"});
}

TEST(Condition, EachRunAfterTheFirstIsChecked) {
  Comparison c = simple(100, 101);
  c.runs.push_back({"c", 0, "cpu", ""});
  for (auto* rows : {&c.totals, &c.roles}) {
    for (Change& r : *rows) r.values.push_back(2 * r.values[0]);
  }
  EXPECT_THAT(met_by(parse_condition("peak>+2%"), c),
              testing::ElementsAre(testing::HasSubstr("200 B in c")));
}

TEST(Condition, WhatIsNoConditionSaysTheGrammar) {
  const auto sentence = [](const std::string& text) -> std::string {
    try {
      parse_condition(text);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  for (const char* text : {"", "peak", "peak>", "peak>+", "peak>+2x", "top>+2%", "peak>2%",
                           "peak>+%", "peak=>2", "flops>+fast", ">+2%", "peak>+nan%"}) {
    EXPECT_THAT(sentence(text), testing::StartsWith(std::string("--fail-on '") + text + "': "))
        << text;
    EXPECT_THAT(sentence(text), testing::HasSubstr("write KEY, one of > >= < <=")) << text;
  }
  EXPECT_THAT(sentence("top>+2%"), testing::HasSubstr("'top' is no key; the keys are peak, "));
  EXPECT_EQ(sentence("forward-edge>+2%"), "") << "with a hyphen as --at has it";
}

}  // namespace
}  // namespace tally::analysis
