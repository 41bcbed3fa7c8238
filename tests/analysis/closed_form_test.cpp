// SPDX-License-Identifier: Apache-2.0
// Closed forms from the model's configuration, and how much of the device a step used.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "profiler/analysis/build.h"
#include "tests/support/synthetic_run.h"
#include "torchtally/estimate.h"

namespace tally::analysis {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

// The synthetic run's model: 3 layers of width 96, 4 heads, 1024 words, 64 positions.
constexpr const char* kModel =
    R"({"model_type":"gpt2","n_layer":3,"n_embd":96,"n_head":4,"vocab_size":1024,)"
    R"("n_positions":64,"activation_function":"gelu"})";

class ClosedForm : public testing::Test {
 protected:
  std::map<std::string, TheoryRow> rows(const std::string& model) {
    std::map<std::string, TheoryRow> out;
    for (const TheoryRow& row : build_summary(run_, {.step = 1, .model = model}).theory) {
      out[row.key] = row;
    }
    return out;
  }
  recording::Run run_ = test::make_synthetic_run().as_recorded();
};

TEST_F(ClosedForm, SaysEachRowOfTheModelThatWasRecordedOrGiven) {
  estimate::TrainingConfig config;
  config.batch = 2;
  config.sequence = 64;
  config.cpu = true;
  const auto expected =
      estimate::estimate(estimate::model_from_config(kModel, "config.json"), config);
  const auto check = [&](const std::map<std::string, TheoryRow>& rows) {
    EXPECT_EQ(rows.at("parameter").closed_form,
              static_cast<double>(expected.memory.group(estimate::Group::kParameters)));
    EXPECT_EQ(rows.at("gradient").closed_form, rows.at("parameter").closed_form);
    EXPECT_EQ(rows.at("optimizer_state").closed_form, 2 * *rows.at("parameter").closed_form);
    // What the layers keep, and log_softmax's output: 4 bytes of batch x sequence x vocabulary.
    EXPECT_EQ(rows.at("activation").closed_form,
              static_cast<double>(expected.memory.group(estimate::Group::kActivations)) +
                  4.0 * 2 * 64 * 1024);
    EXPECT_EQ(rows.at("peak").closed_form, static_cast<double>(expected.memory.peak));
    EXPECT_EQ(rows.at("flops_forward").closed_form, static_cast<double>(expected.flops.forward));
    EXPECT_EQ(rows.at("flops_total").closed_form,
              3.0 * static_cast<double>(expected.flops.forward));
    EXPECT_FALSE(rows.at("buffer").closed_form);
    EXPECT_THAT(rows.at("peak").closed_form_cause, HasSubstr("W + O + "));
  };
  check(rows(kModel));
  run_.info.model = kModel;
  check(rows(""));
  EXPECT_EQ(build_summary(run_, {.step = 1}).closed_form_of,
            "the model's configuration, batch 2 x 64 tokens, adamw, eager attention");
}

TEST_F(ClosedForm, IsNeverBlank) {
  const auto why = [&](const std::string& model) {
    const auto all = rows(model);
    for (const auto& [key, row] : all) {
      EXPECT_FALSE(row.closed_form) << key;
      EXPECT_EQ(row.closed_form_cause, all.at("peak").closed_form_cause) << key;
    }
    return all.at("peak").closed_form_cause;
  };
  EXPECT_EQ(why(""),
            "not applicable because the model's configuration is not known (torchtally report "
            "--model gives it)");
  EXPECT_THAT(why("no-such-model"), StartsWith("not applicable because the model's configuration "
                                               "cannot be used: "));
  for (auto& block : run_.steps[1].books.devices[0].peak_blocks) block.shape = {};
  EXPECT_THAT(why(kModel), HasSubstr("the batch's shape is not known: no input of 128 tokens"));
  run_.steps[1].books.tokens = 0;
  EXPECT_THAT(why(kModel), HasSubstr("no embedding"));
  run_.info.optimizers.clear();
  EXPECT_THAT(why(kModel), HasSubstr("no optimizer was watched"));
  run_.info.parameters.clear();
  EXPECT_THAT(why(kModel), HasSubstr("no module with parameters was watched"));
}

TEST_F(ClosedForm, AnotherModelsParametersAreSaid) {
  EXPECT_THAT(rows("gpt2").at("parameter").closed_form_cause,
              HasSubstr("the configuration has 124439808 parameters, the run "));
}

TEST_F(ClosedForm, IsOfATrainingOfAllParameters) {
  run_.info.parameters.front().trainable = false;
  EXPECT_THAT(rows(kModel).at("gradient").closed_form_cause,
              HasSubstr("parameters are frozen, and closed forms are of training them all"));
}

TEST(Utilization, OfAProcessorIsNotKnownAndSaysWhy) {
  const Summary summary = build_summary(test::make_synthetic_run().as_recorded());
  const Utilization& u = summary.utilization;
  EXPECT_FALSE(u.mfu);
  EXPECT_THAT(u.cause, StartsWith("not applicable because no peak rate of this processor"));
  EXPECT_DOUBLE_EQ(u.flops_per_second, summary.step().flops.total() / summary.step().seconds);
  EXPECT_THAT(u.roofline_cause, HasSubstr("hardware counters"));
}

TEST(Utilization, FindsTheDeviceByWhatItsDriverCallsIt) {
  recording::Run run = test::make_synthetic_run().as_recorded();
  run.info.devices[0].id = "cuda:0";
  const auto of = [&](const char* name) {
    run.info.devices[0].name = name;
    return build_summary(run).utilization;
  };
  EXPECT_EQ(of("NVIDIA A100-SXM4-80GB").device, "A100-SXM4-80GB");
  EXPECT_EQ(of("NVIDIA H100 PCIe").device, "H100-PCIe-80GB");
  EXPECT_THAT(of("A card of tomorrow").cause,
              testing::Eq("not applicable because A card of tomorrow is not in the table of "
                          "devices"));
  const Utilization u = of("NVIDIA H100 80GB HBM3");
  EXPECT_EQ(u.device, "H100-SXM5-80GB");
  EXPECT_EQ(u.arithmetic, "fp32");
  ASSERT_TRUE(u.peak && u.mfu && u.hfu);
  EXPECT_DOUBLE_EQ(*u.peak, 66.9e12);
  const Summary summary = build_summary(run);
  EXPECT_DOUBLE_EQ(*u.mfu, (summary.step().flops.forward + summary.step().flops.backward) /
                               summary.step().seconds / 66.9e12);
  EXPECT_GE(*u.hfu, *u.mfu);
}

}  // namespace
}  // namespace tally::analysis
