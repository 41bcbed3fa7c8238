// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "profiler/analysis/build.h"
#include "tests/support/synthetic_run.h"

namespace tally::analysis {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class Theory : public testing::Test {
 protected:
  explicit Theory(const test::SyntheticOptions& options = {})
      : run_(test::make_synthetic_run(options).as_recorded()) {}
  TheoryRow row(const std::string& key) const {
    for (const TheoryRow& r : build_summary(run_, {.step = 1}).theory) {
      EXPECT_FALSE(r.formula.empty()) << r.key;
      EXPECT_FALSE(r.cause.empty()) << r.key;
      EXPECT_FALSE(r.title.empty()) << r.key;
      if (r.key == key) return r;
    }
    ADD_FAILURE() << "no row " << key;
    return {};
  }
  // Changes every book of a role in the step that is shown; the cells with it.
  void change(Role role, int64_t from, int64_t to) {
    for (MarkBook& mark : run_.steps[1].books.devices[0].marks) {
      int64_t& bytes = mark.roles[static_cast<size_t>(role)];
      if (bytes != from) continue;
      mark.bytes += to - from;
      mark.allocator_bytes += to - from;
      bytes = to;
    }
  }
  StringId id(const std::string& text) {
    return const_cast<StringTable&>(*run_.strings).intern(text);
  }
  void expect_exact(const std::string& key, double bytes) const {
    const TheoryRow r = row(key);
    EXPECT_EQ(r.measured, bytes) << key;
    ASSERT_TRUE(r.expected) << key << ": " << r.cause;
    EXPECT_EQ(*r.expected, bytes) << key;
    EXPECT_EQ(r.deviation, 0) << key;
    EXPECT_EQ(r.cause, "exact") << key;
  }
  void expect_none(const std::string& key, const std::string& cause) const {
    const TheoryRow r = row(key);
    EXPECT_FALSE(r.expected) << key;
    EXPECT_THAT(r.cause, HasSubstr(cause)) << key;
  }

  static constexpr int64_t kParameters = 4 * 440160;
  recording::Run run_;
};

TEST_F(Theory, AnOrdinaryStepOfAdamWIsExact) {
  expect_exact("parameter", kParameters);
  expect_exact("buffer", 3 * 64 * 64);
  expect_exact("gradient", kParameters);
  expect_exact("optimizer_state", 2 * kParameters);
  expect_exact("activation", 4152320);
}

TEST_F(Theory, ThePeakIsToldRoleByRole) {
  const TheoryRow peak = row("peak");
  EXPECT_EQ(peak.measured, 10022020);
  // At the forward edge: parameters, buffers, state by rule, saved by rule, inputs and the loss.
  EXPECT_EQ(*peak.expected, 3 * kParameters + 3 * 64 * 64 + 4152320 + 2 * 8 * 128 + 4);
  EXPECT_EQ(peak.deviation, 573440);
  EXPECT_EQ(
      peak.cause,
      "the peak is in the phase backward; beyond the rules: +560.0 KiB temporaries, backward");
  EXPECT_THAT(peak.formula, StartsWith("at the forward edge of micro-step 0: "));
}

TEST_F(Theory, ASmallBatchPeaksInTheUpdate) {
  test::SyntheticOptions options;
  options.sequence = 1;
  run_ = test::make_synthetic_run(options).as_recorded();
  const TheoryRow peak = row("peak");
  EXPECT_THAT(peak.formula, StartsWith("in the optimizer's update: "));
  // Two temporaries of the largest parameter, wte; the synthetic optimizer makes one.
  const int64_t largest = 4 * 1024 * 96;
  EXPECT_EQ(peak.deviation, -largest);
  EXPECT_THAT(peak.cause, HasSubstr("beyond the rules: 384.0 KiB less of temporaries, optimizer"));
}

TEST_F(Theory, WithoutAWatchNothingIsExpectedAndTheRowSaysSo) {
  run_.info.parameters.clear();
  run_.info.modules.clear();
  run_.info.optimizers.clear();
  expect_none("parameter", "no module with parameters was watched");
  expect_none("buffer", "no module was watched");
  expect_none("gradient", "no module with parameters was watched");
  expect_none("optimizer_state", "no optimizer was watched");
  expect_none("peak", "not known");
  expect_none("flops_total", "no module with parameters was watched");
  expect_exact("activation", 4152320);
}

TEST_F(Theory, ParametersOutsideTheAllocatorAreMissed) {
  change(Role::kParameter, kParameters, kParameters - 4096);
  const TheoryRow r = row("parameter");
  EXPECT_EQ(r.deviation, -4096);
  EXPECT_EQ(r.cause, "4.0 KiB of the parameters are not in memory of the watched allocators");
}

TEST_F(Theory, ParametersWithoutAGradientAreCountedAndNamed) {
  const StringId ln_f = id("ln_f");
  for (MarkBook& mark : run_.steps[1].books.devices[0].marks) {
    std::erase_if(mark.cells, [&](const tally::Cell& c) {
      return c.role == Role::kGradient && c.module == ln_f;
    });
  }
  change(Role::kGradient, kParameters, kParameters - 8 * 96);
  const TheoryRow r = row("gradient");
  EXPECT_EQ(r.deviation, -8 * 96);
  EXPECT_EQ(r.cause, "2 parameters got no gradient (ln_f)");
}

TEST_F(Theory, NoGradientAtAllAndNoBackwardAtAll) {
  change(Role::kGradient, kParameters, 0);
  EXPECT_THAT(row("gradient").cause,
              StartsWith("no parameter held a gradient when backward ended"));
  auto& marks = run_.steps[1].books.devices[0].marks;
  std::erase_if(marks, [](const MarkBook& m) {
    return m.mark == Mark::kForwardEdge || m.mark == Mark::kBackwardEnd;
  });
  std::erase_if(run_.steps[1].books.operators,
                [](const auto& r) { return r.phase == Phase::kBackward; });
  expect_none("gradient", "no backward pass ran");
  expect_none("activation", "no backward pass ran");
  expect_none("peak", "no backward pass ran");
  expect_none("flops_backward", "no counted work");
  EXPECT_THAT(row("flops_total").formula, StartsWith("2 N D"));
}

TEST_F(Theory, FrozenParametersAreNotExpectedToHaveGradients) {
  for (ParameterInfo& p : run_.info.parameters) p.trainable = false;
  const TheoryRow r = row("gradient");
  EXPECT_EQ(*r.expected, 0);
  EXPECT_EQ(r.deviation, kParameters);
}

TEST_F(Theory, OptimizerStateByRecipe) {
  const std::pair<const char*, int> recipes[]{{"sgd", 0},
                                              {"sgd-momentum", 1},
                                              {"adam", 2},
                                              {"adamw", 2},
                                              {"adam-amsgrad", 3},
                                              {"adamw-amsgrad", 3},
                                              {"rmsprop", 1},
                                              {"rmsprop-momentum", 2},
                                              {"adagrad", 1},
                                              {"rmsprop-centered", 2},
                                              {"rmsprop-momentum-centered", 3}};
  for (const auto& [recipe, factor] : recipes) {
    run_.info.optimizers[0].recipe = id(recipe);
    change(Role::kOptimizerState, row("optimizer_state").measured, factor * kParameters);
    const TheoryRow r = row("optimizer_state");
    EXPECT_EQ(*r.expected, factor * static_cast<double>(kParameters)) << recipe;
    EXPECT_EQ(r.cause, "exact") << recipe;
    EXPECT_THAT(r.formula, HasSubstr(recipe));
  }
  run_.info.optimizers[0].recipe = id("lbfgs");
  expect_none("optimizer_state", "the history of LBFGS grows with the data");
  run_.info.optimizers[0].recipe = id("");
  expect_none("optimizer_state", "no recipe is known for the optimizer AdamW");
}

TEST_F(Theory, OptimizerStateThatDiffersHasACause) {
  int64_t unique = 0;
  for (const ParameterInfo& p : run_.info.parameters) unique += !p.is_buffer && !p.shared;
  change(Role::kOptimizerState, 2 * kParameters, 2 * kParameters + 4 * unique);
  EXPECT_THAT(row("optimizer_state").cause, StartsWith("step counters: "));
  change(Role::kOptimizerState, 2 * kParameters + 4 * unique, 0);
  EXPECT_EQ(row("optimizer_state").cause,
            "the optimizer had made no state by the end of this step");
}

TEST_F(Theory, ActivationsBeyondTheRules) {
  for (MarkBook& m : run_.steps[1].books.devices[0].marks) {
    if (m.mark == Mark::kForwardEdge) m.expected_saved_bytes = m.saved_bytes - 1000;
  }
  const TheoryRow r = row("activation");
  EXPECT_EQ(r.deviation, 1000);
  EXPECT_THAT(r.cause, StartsWith("1000 B more: "));
  for (MarkBook& m : run_.steps[1].books.devices[0].marks) m.expected_saved_bytes = -1;
  expect_none("activation", "were not recorded");
  expect_none("peak", "not known");
}

TEST_F(Theory, FlopsAgainstSixNDWithEveryDifferenceNamed) {
  const double n = 440160, d = 128, c = 96;
  const TheoryRow total = row("flops_total");
  EXPECT_EQ(total.measured, 358612992);
  EXPECT_EQ(*total.expected, 6 * n * d);
  EXPECT_THAT(total.formula, HasSubstr("N = 440,160 trainable parameters with embeddings"));
  EXPECT_THAT(total.formula, HasSubstr("D = 128 tokens"));
  // wpe, norms and biases multiply nothing: 64 C + 7 x 2 C + 3 x (3 + 1 + 4 + 1) C
  const double idle = 64 * c + 14 * c + 27 * c;
  const double attention = 3.0 * 3 * 4 * 128 * 96 * 64;
  EXPECT_EQ(total.deviation, attention - 6 * idle * d);
  EXPECT_EQ(total.cause,
            "+28.3 MFLOP attention, -7.74 MFLOP embeddings, norms and biases: no products");
  const TheoryRow forward = row("flops_forward");
  EXPECT_EQ(*forward.expected, 2 * n * d);
  EXPECT_EQ(row("flops_backward").cause, "exact");
}

TEST_F(Theory, WithoutTokensThereIsNoD) {
  run_.steps[1].books.tokens = 0;
  expect_none("flops_total", "not applicable because the model has no embedding");
  expect_none("flops_forward", "not applicable because the model has no embedding");
  EXPECT_TRUE(row("flops_backward").expected);
}

TEST_F(Theory, AccumulationKeepsGradientsAtTheForwardEdge) {
  test::SyntheticOptions options;
  options.micro_steps = 2;
  run_ = test::make_synthetic_run(options).as_recorded();
  EXPECT_EQ(row("gradient").cause, "exact");
  // The second micro-step's edge, where gradients of the first are alive, is the fuller one.
  const TheoryRow peak = row("peak");
  EXPECT_THAT(peak.formula, StartsWith("at the forward edge of micro-step 1: "));
  EXPECT_EQ(*peak.expected, 4 * kParameters + 3 * 64 * 64 + 4152320 + 4 * 8 * 128 + 4);
}

}  // namespace
}  // namespace tally::analysis
