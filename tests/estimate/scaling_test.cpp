// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "tests/estimate/helpers.h"

namespace tally::estimate {
namespace {
using testing::error_of;
using ::testing::HasSubstr;

const ScalingAnswer& answer(const std::vector<ScalingAnswer>& answers, std::string_view law) {
  for (const ScalingAnswer& a : answers) {
    if (a.law == law) return a;
  }
  throw std::runtime_error("no law " + std::string(law));
}

TEST(Scaling, ChinchillasBudget) {
  ScalingQuestion question;
  question.compute = 5.76e23;
  const auto answers = scaling_laws(question);
  EXPECT_NEAR(*answer(answers, "hoffmann-1").parameters, 67.8e9, 0.1e9);
  EXPECT_NEAR(*answer(answers, "hoffmann-2").parameters, 63.4e9, 0.1e9);
  EXPECT_NEAR(*answer(answers, "hoffmann-3").parameters, 40.4e9, 0.1e9);
  EXPECT_NEAR(*answer(answers, "hoffmann-3-printed").parameters, 32.2e9, 0.1e9);
  for (const ScalingAnswer& a : answers) {
    if (a.law != "kaplan") {
      EXPECT_NEAR(6 * *a.parameters * *a.tokens / 5.76e23, 1, 1e-12) << a.law;
    }
  }
}

// The four systems that the lecture's figure marks.
TEST(Scaling, LossOfTheMarkedSystems) {
  struct Case {
    double parameters, tokens, printed, unrounded, refit;
  };
  for (const Case& c : {Case{70e9, 1.4e12, 1.9366, 1.9208, 1.9739},
                        {280e9, 300e9, 1.9933, 1.9672, 1.9996},
                        {175e9, 300e9, 2.0023, 1.9764, 2.0085},
                        {530e9, 270e9, 1.9906, 1.9636, 1.9948}}) {
    EXPECT_NEAR(predicted_loss("hoffmann-3-printed", c.parameters, c.tokens), c.printed, 1.5e-4);
    EXPECT_NEAR(predicted_loss("hoffmann-3", c.parameters, c.tokens), c.unrounded, 1e-4);
    EXPECT_NEAR(predicted_loss("besiroglu", c.parameters, c.tokens), c.refit, 1e-3);
  }
}

// Whatever is given, the other answers of a law lead back to it.
TEST(Scaling, QuestionsAgreeWithEachOther) {
  for (const double compute : {1e18, 5.76e23, 1e27}) {
    ScalingQuestion by_compute;
    by_compute.compute = compute;
    for (const ScalingAnswer& a : scaling_laws(by_compute)) {
      ScalingQuestion by_parameters, by_tokens, by_loss;
      by_parameters.parameters = a.parameters;
      by_tokens.tokens = a.tokens;
      const auto n = scaling_laws(by_parameters), d = scaling_laws(by_tokens);
      // Kaplan's two fits multiply to 6 N D only roughly: its constants are rounded.
      const double tolerance = a.law == "kaplan" ? 1e-9 : 1e-6;
      EXPECT_NEAR(*answer(n, a.law).tokens / *a.tokens, 1, tolerance) << a.law;
      EXPECT_NEAR(*answer(d, a.law).parameters / *a.parameters, 1, tolerance) << a.law;
      EXPECT_NEAR(*answer(n, a.law).compute / compute, 1, 1e-6) << a.law;
      if (!a.loss) continue;
      by_loss.loss = a.loss;
      const auto l = scaling_laws(by_loss);
      EXPECT_NEAR(*answer(l, a.law).parameters / *a.parameters, 1, 1e-6) << a.law;
    }
  }
}

TEST(Scaling, TheOptimumIsAnOptimum) {
  for (const char* law : {"hoffmann-3", "hoffmann-3-printed", "besiroglu", "besiroglu-refit"}) {
    const double compute = 1e22, n = optimal_parameters(law, compute);
    const double best = predicted_loss(law, n, compute / 6 / n);
    for (const double factor : {0.5, 0.9, 1.1, 2.0}) {
      EXPECT_GT(predicted_loss(law, n * factor, compute / 6 / (n * factor)), best) << law;
    }
  }
}

TEST(Scaling, ALossOutOfReachHasNoAnswer) {
  ScalingQuestion question;
  question.loss = 1.5;
  const auto answers = scaling_laws(question);
  EXPECT_FALSE(answer(answers, "hoffmann-3-printed").parameters);
  EXPECT_TRUE(answer(answers, "kaplan").parameters);
}

TEST(Scaling, BadQuestionsAreNamed) {
  EXPECT_THAT(error_of([] { scaling_laws({}); }), HasSubstr("--compute"));
  ScalingQuestion q;
  q.compute = -1;
  EXPECT_THAT(error_of([&] { scaling_laws(q); }), HasSubstr("--compute"));
  q.compute = NAN;
  EXPECT_THAT(error_of([&] { scaling_laws(q); }), HasSubstr("--compute"));
  q.compute = 1e20, q.parameters = 1e9, q.tokens = 1e9;
  EXPECT_THAT(error_of([&] { scaling_laws(q); }), HasSubstr("two"));
  q = {};
  q.loss = 2, q.tokens = 1e9;
  EXPECT_THAT(error_of([&] { scaling_laws(q); }), HasSubstr("--loss"));
}

}  // namespace
}  // namespace tally::estimate
