// SPDX-License-Identifier: Apache-2.0
#include "reports/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include <fmt/format.h>

#include "profiler/analysis/build.h"
#include "reports/names.h"
#include "reports/palette.h"
#include "tests/support/synthetic_run.h"

namespace tally::reports {
namespace {

using testing::HasSubstr;
using testing::Not;

std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) out.push_back(line);
  return out;
}
std::string render(const recording::Run& run, const TextOptions& options = {}) {
  return render_text(analysis::build_summary(run), options);
}

TEST(TextReport, SaysTheAnswerFirstAndClosesTheBooks) {
  const auto out = lines(render(test::make_synthetic_run().as_recorded()));
  EXPECT_EQ(
      out[0],
      "Peak 9.6 MiB in step 1, backward, after lm_head; 41 % activations. Theory says 9.0 MiB "
      "(measured: +6.1 %).");
  EXPECT_THAT(
      out,
      testing::Contains(
          "forward edge         1.69     3.36     0.00     3.96     0.00     0.00     9.01      "
          "9.01          0"));
  EXPECT_THAT(out, testing::Contains("activations              #################                   "
                                     "            4.0 MiB   41.4 %"));
  EXPECT_THAT(out,
              testing::Contains("gradients             1.7 MiB     1.7 MiB          0  exact"));
  EXPECT_THAT(out, testing::Contains("- cuda was not available: built without CUDA."));
}

// Everything that can be long is: roles, marks, modules, causes, notes, names.
recording::Run crowded() {
  test::SyntheticOptions options;
  options.micro_steps = 40;
  options.steps = 5;
  options.leak_bytes = 4096;
  recording::Run run = test::make_synthetic_run(options).as_recorded();
  auto& strings = const_cast<StringTable&>(*run.strings);
  run.end.ended = "killed";
  for (int i = 0; i < 40; ++i) {
    run.end.notes.push_back("Note " + std::to_string(i) + " " + std::string(300, 'n'));
    run.info.sources.push_back({"source", false, std::string(200, 'r')});
    run.info.command.push_back(std::string(100, 'c'));
  }
  for (auto& step : run.steps) {
    for (MarkBook& mark : step.books.devices[0].marks) {
      for (size_t role = 0; role < kRoleCount; ++role)
        mark.roles[role] += 1000 + static_cast<int64_t>(role);
      mark.bytes = sum(mark.roles);
      mark.module = strings.intern(std::string(80, 'm'));
      for (Cell& cell : mark.cells)
        cell.module = strings.intern(run.text(cell.module) + std::string(90, 'x'));
    }
    for (BlockRow& block : step.books.devices[0].peak_blocks)
      block.name = strings.intern(std::string(150, 'b'));
  }
  return run;
}

TEST(TextReport, NeverMoreThan60LinesOf100Columns) {
  for (const bool color : {false, true}) {
    const auto out = lines(render(crowded(), {.color = color, .dark = true}));
    EXPECT_LE(out.size(), 60u);
    EXPECT_GE(out.size(), 50u);
    EXPECT_EQ(out.back(), "… and lists are shortened to 60 lines: --full shows all of it.");
    for (size_t i = 1; i < out.size() && !color; ++i) EXPECT_LE(length(out[i]), 100u) << out[i];
  }
  EXPECT_LE(lines(render(test::make_synthetic_run().as_recorded())).size(), 60u);
}

// All that a report can have at once: a device whose allocator caches, counters, ranks, verdicts
// with evidence and remedies, and every list longer than its room.
TEST(TextReport, EverySectionHasItsPlaceIn60Lines) {
  test::SyntheticOptions options;
  options.on_card = true;
  options.micro_steps = 8;
  analysis::Summary s = analysis::build_summary(test::make_synthetic_run(options).as_recorded());
  analysis::MarkSummary oom = s.device_step()->peak;
  oom.mark = Mark::kOom;
  s.steps[s.shown].devices[0].marks.push_back(oom);
  s.verdicts.clear();
  for (const char* kind : {"oom", "checkpointing", "accumulation", "leak", "rank_imbalance"}) {
    const std::string words = std::string(kind) + std::string(40, ' ') + "word";
    s.verdicts.push_back({kind, words + words + words + words, {words, words, words}, 1 << 20,
                          {{words + words, 1 << 20, "a cost"}, {words, 5, ""}, {words, 3, ""}}});
  }
  for (int rank = 0; rank < 9; ++rank) {
    s.ranks.push_back({rank, "r.tally", "clean", 3, "cuda:0", 1000 + rank, 1, {}, 0.1, 1e9});
  }
  for (int i = 0; i < 30; ++i) s.notes.push_back(std::string(150, 'n'));
  const auto out = lines(render_text(s));
  EXPECT_LE(out.size(), 60u);
  const std::string text = render_text(s);
  for (const char* section :
       {"Books of step", "Allocator, MiB", "Alive at the peak", "Largest of", "Largest blocks",
        "Measured against theory", "FLOPs: ", "Executed, by hardware counters: ",
        "Kernels of step 1, by name; ", "Roofline: ", "Peaks of 9 ranks", "Verdicts",
        "- oom: ", "- rank_imbalance: ", "What this report does not know"}) {
    EXPECT_THAT(text, HasSubstr(section));
  }

  // Nothing that explains is lost: --full has each word.
  const auto full = render_text(s, {.full = true});
  EXPECT_THAT(full, Not(HasSubstr("…")));
  EXPECT_THAT(full, Not(HasSubstr(" more marks")));
  EXPECT_THAT(full, HasSubstr("rank 8 "));
  for (const auto& row : s.theory) {
    if (row.cause.find(' ') == std::string::npos) continue;
    const std::string first = row.cause.substr(0, row.cause.find(' '));
    EXPECT_THAT(full, HasSubstr(first));
  }
  size_t notes = 0;
  for (const std::string& line : lines(full)) notes += line == "- " + std::string(150, 'n');
  EXPECT_EQ(notes, 30u);
}

TEST(TextReport, SaysWhatTheCachingAllocatorHas) {
  test::SyntheticOptions options;
  options.on_card = true;
  const analysis::Summary s =
      analysis::build_summary(test::make_synthetic_run(options).as_recorded());
  ASSERT_EQ(s.device, "cuda:0");
  const analysis::MarkSummary& peak = s.device_step()->peak;
  const auto mib = [](int64_t bytes) {
    return fmt::format("{:.2f}", static_cast<double>(bytes) / (1 << 20));
  };
  const std::string row = fmt::format(
      "{:16}{:>11}{:>10}{:>10}{:>10}{:>9}{:>9}{:>10}{:>15}", "peak", mib(peak.bytes),
      mib(peak.caching->active_bytes), mib(peak.caching->allocated_bytes),
      mib(peak.caching->reserved_bytes), mib(peak.cached_bytes),
      mib(peak.caching->largest_free_bytes), "523.00", "0 0 0");
  EXPECT_THAT(lines(render_text(s)), testing::Contains(row));
  EXPECT_THAT(render_text(s),
              HasSubstr("Executed, by hardware counters: tensor cores 403 MFLOP (bf16 381 MFLOP, tf32 22"));
  const std::string full = render_text(s, {.full = true});
  EXPECT_THAT(full, HasSubstr("1.125x"));
  EXPECT_THAT(full, HasSubstr("padded tiles +44.8 MFLOP"));
  EXPECT_THAT(full, testing::ContainsRegex("tilesize128x128x64 +tensor bf16 381 MFLOP  tensor tf32 22"));
  EXPECT_THAT(render_text(s), HasSubstr("Roofline: executed FLOPs over the bytes of the device's "));
}

TEST(TextReport, ManyMarksAreFoldedButThePeakAndTheEndStay) {
  const std::string out = render(crowded());
  EXPECT_THAT(out, HasSubstr("\npeak "));
  EXPECT_THAT(out, HasSubstr("\nend "));
  EXPECT_THAT(out, HasSubstr(" more marks\n"));
  EXPECT_THAT(out, HasSubstr("- leak: suspected"));
  EXPECT_THAT(out, HasSubstr("The process was killed"));
}

TEST(TextReport, PlainIsPlainAndColourIsThePalette) {
  const recording::Run run = test::make_synthetic_run().as_recorded();
  const std::string plain = render(run);
  EXPECT_THAT(plain, Not(HasSubstr("\x1b")));
  EXPECT_THAT(plain, Not(HasSubstr("█")));
  const std::string dark = render(run, {.color = true, .dark = true});
  EXPECT_THAT(dark, HasSubstr("\x1b[38;2;38;143;100m█"));  // activations, #268f64
  EXPECT_THAT(render(run, {.color = true, .dark = false}), HasSubstr("\x1b[38;2;24;164;127m█"));
}

TEST(TextReport, AHostileNameCannotSteerTheTerminal) {
  recording::Run run = test::make_synthetic_run().as_recorded();
  auto& strings = const_cast<StringTable&>(*run.strings);
  for (MarkBook& mark : run.steps[1].books.devices[0].marks)
    mark.module = strings.intern(test::kHostileName);
  const std::string out = render(run);
  EXPECT_THAT(out, Not(HasSubstr("\x1b")));
  EXPECT_THAT(out, Not(HasSubstr("\xE2\x80\xAE")));
  EXPECT_THAT(out, HasSubstr("<U+202E>drowssap<U+001B>[31m"));
}

TEST(TextReport, ARunWithoutWatchesOrDevicesStillReads) {
  recording::Run run = test::make_synthetic_run().as_recorded();
  run.info.parameters.clear();
  run.info.modules.clear();
  run.info.optimizers.clear();
  for (auto& step : run.steps) {
    step.books.devices.clear();
    step.books.operators.clear();
  }
  const std::string out = render(run);
  EXPECT_THAT(out, testing::StartsWith("Step 1 has no books of memory.\n"));
  EXPECT_THAT(out, HasSubstr("not applicable"));
}

TEST(Names, CleanShowsWhatWouldHide) {
  EXPECT_EQ(clean("h.0.mlp"), "h.0.mlp");
  EXPECT_EQ(clean("größe 模块 🙂"), "größe 模块 🙂");
  EXPECT_EQ(clean("a\tb\n\x7f"), "a<U+0009>b<U+000A><U+007F>");
  EXPECT_EQ(clean("\xE2\x80\x8B\xE2\x81\xA6\xEF\xBB\xBF\xC2\xAD"),
            "<U+200B><U+2066><U+FEFF><U+00AD>");
  EXPECT_EQ(clean("\xff\xC0\xAF\xED\xA0\x80\xE2\x82"),
            "<0xFF><0xC0><0xAF><0xED><0xA0><0x80><0xE2><0x82>");
}

TEST(Names, FitCountsCodePoints) {
  EXPECT_EQ(fit("abc", 5), "abc  ");
  EXPECT_EQ(fit("abc", 5, true), "  abc");
  EXPECT_EQ(fit("abcdef", 4), "abc…");
  EXPECT_EQ(fit("äöüßäö", 4), "äöü…");
  EXPECT_EQ(fit("äöü", 3), "äöü");
  EXPECT_EQ(fit("", 2), "  ");
}

TEST(Palette, NoTwoRolesShareAColour) {
  for (size_t a = 0; a < kRoleCount; ++a) {
    for (size_t b = a + 1; b < kRoleCount; ++b) {
      EXPECT_NE(kRoleColors[a].light, kRoleColors[b].light);
      EXPECT_NE(kRoleColors[a].dark, kRoleColors[b].dark);
    }
  }
}

}  // namespace
}  // namespace tally::reports
