// SPDX-License-Identifier: Apache-2.0
// What is written comes back, field by field; what it costs; and what the document says of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <chrono>
#include <filesystem>
#include <regex>

#include "profiler/core/error.h"
#include "profiler/recording/reader.h"
#include "profiler/recording/writer.h"
#include "tests/support/describe_books.h"
#include "tests/support/synthetic_run.h"
#include "tests/support/temporary_folder.h"

namespace tally::recording {
namespace {

using test::describe;
using test::make_synthetic_run;
using test::SyntheticRun;
using test::TemporaryFolder;

// The shape of GPT-2 small: 12 layers, 148 modules and an attack, 600 points, 700 operator rows.
test::SyntheticOptions gpt2_small() {
  test::SyntheticOptions options;
  options.layers = 12;
  options.width = 768;
  options.heads = 12;
  options.vocabulary = 50257;
  options.sequence = 256;
  options.detailed_steps = 0;
  return options;
}

// More operators, as a real step has, each with its own numbers.
void widen(SyntheticRun* run) {
  for (StepBooks& step : run->steps) {
    const std::vector<OperatorRow> rows = step.operators;
    for (size_t i = 0; step.operators.size() < 700; ++i) {
      OperatorRow row = rows[i % rows.size()];
      row.op = run->strings->intern("aten::op_" + std::to_string(i / rows.size()));
      row.elementwise_flops += static_cast<double>(i);
      row.nanoseconds += static_cast<int64_t>(i * 7919 % 10007);
      step.operators.push_back(row);
    }
  }
}

// No two numbers of a timeline, a cell or an operator are alike any more, nor those of two steps.
// The books no longer close; only their size matters.
void scramble(SyntheticRun* run) {
  uint64_t state = 5;
  const auto noise = [&state](int64_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<int64_t>((state >> 33) % static_cast<uint64_t>(below));
  };
  for (StepBooks& step : run->steps) {
    for (DeviceBooks& device : step.devices) {
      RoleBytes live = device.timeline[0].roles;
      for (TimelinePoint& point : device.timeline) {
        live[static_cast<size_t>(noise(11))] += noise(1 << 22) - (1 << 21);
        live[4] += noise(1 << 22) - (1 << 21);
        point.roles = live;
        point.op = {static_cast<uint32_t>(noise(run->strings->size()))};
      }
      for (MarkBook& mark : device.marks) {
        for (Cell& cell : mark.cells) {
          if (cell.role >= Role::kActivation) cell.bytes += noise(1 << 20);
        }
      }
    }
    for (OperatorRow& row : step.operators) {
      row.nanoseconds += noise(100'000);
      if (row.flops > 0)
        row.flops = row.torch_flops = row.flops + static_cast<double>(noise(1 << 24));
      if (row.elementwise_flops > 0) row.elementwise_flops += static_cast<double>(noise(1 << 16));
    }
  }
}

TEST(RoundTrip, EveryFieldOfDetailedStepsComesBack) {
  const TemporaryFolder folder;
  test::SyntheticOptions options;
  options.detailed_steps = options.steps = 3;
  options.micro_steps = 2;
  SyntheticRun run = make_synthetic_run(options);
  run.end.notes = {"One thing is not known.", "it's \"quoted\""};
  run.end.dropped_events = 3;
  run.steps[1].operators[0].flops = 0.1;
  run.steps[1].operators[0].torch_flops = 1e300;
  run.steps[1].devices[0].marks[1].allocator_bytes += 512;
  run.steps[1].devices[0].largest_difference = 512;
  const StringId module = run.strings->intern("h.0"), node = run.strings->intern("CheckpointBackward");
  run.steps[1].regions = {{0, module, node, 10, 1'000'000'000'000, 2.5, 30, 40, 50},
                          {1, {}, node, 1, 2, 3, 4, 5, 6}};
  run.steps[2].units = {{module, 1, 10, 20, 30, 40, 50}, {{}, 0, 1, 2, 3, 4, 5}};
  test::write_recording(run, folder / "run.tally");

  const recording::Run back = read_run(folder / "run.tally", {.load = Load::kAll, .step = {}});
  EXPECT_EQ(back.schema, 5);
  EXPECT_EQ(back.step_count, 3);
  EXPECT_EQ(describe(back.info, *back.strings), describe(run.info, *run.strings));
  EXPECT_EQ(describe(back.end), describe(run.end));
  ASSERT_EQ(back.steps.size(), run.steps.size());
  for (size_t i = 0; i < run.steps.size(); ++i) {
    EXPECT_TRUE(back.steps[i].full);
    EXPECT_EQ(describe(back.steps[i].books, *back.strings), describe(run.steps[i], *run.strings));
  }
}

// A device with a caching allocator, beside the CPU of the synthetic run.
void add_card(SyntheticRun* run) {
  run->info.devices.push_back({"cuda:0", "a card", 1 << 30});
  for (StepBooks& step : run->steps) {
    DeviceBooks card = step.devices[0];
    card.device = 1;
    int64_t salt = 0;
    for (MarkBook& mark : card.marks) {
      CachingBook caching;
      caching.reserved_bytes = mark.bytes + 4096 + ++salt;
      caching.active_bytes = mark.bytes + 512;
      caching.allocated_bytes = mark.bytes + 256;
      caching.largest_free_bytes = 77 + salt;
      caching.allocator_reserved_bytes = caching.reserved_bytes;
      if (salt % 2 == 0) {
        caching.allocator_active_bytes = caching.active_bytes;
        caching.allocator_allocated_bytes = caching.allocated_bytes;
        caching.outside_bytes = 0;
      }
      mark.wanted_bytes = salt * 1000;
      mark.limit_bytes = salt * 2000;
      caching.is_exact = salt % 3 != 0;
      mark.caching = caching;
    }
    for (TimelinePoint& point : card.timeline) {
      point.reserved_bytes = sum(point.roles) + ++salt;
      point.active_bytes = sum(point.roles);
      point.largest_free_bytes = salt;
    }
    step.devices.push_back(std::move(card));
  }
}

TEST(RoundTrip, WhatACachingAllocatorHasComesBack) {
  const TemporaryFolder folder;
  SyntheticRun run = make_synthetic_run();
  add_card(&run);
  run.steps[1].operators[0].tensor_flops = 1e15;
  run.steps[1].operators[0].device_ns = 0.5;
  run.steps[1].operators[1].scalar_flops = 3;
  run.steps[1].operators[1].dram_bytes = 1e300;
  test::write_recording(run, folder / "run.tally");
  const recording::Run back = read_run(folder / "run.tally", {.load = Load::kAll, .step = {}});
  ASSERT_EQ(back.steps.size(), run.steps.size());
  for (size_t i = 0; i < 2; ++i) {  // the steps that are kept in detail
    EXPECT_EQ(describe(back.steps[i].books, *back.strings), describe(run.steps[i], *run.strings));
  }
  EXPECT_EQ(back.steps[0].books.devices[1].marks[0].cached_bytes(), 4096 + 1 - 512);
  EXPECT_EQ(back.steps[0].books.devices[1].marks[0].rounding_bytes(), 512);
}

TEST(RoundTrip, WhatWasExecutedComesBackByFormat) {
  const TemporaryFolder folder;
  test::SyntheticOptions options;
  options.on_card = true;
  SyntheticRun run = make_synthetic_run(options);
  FlopsByFormat& formats = run.steps[1].operators[2].by_format;
  for (size_t i = 0; i < kFlopFormatCount; ++i) {
    formats.add(static_cast<FlopFormat>(i), 1e18 + 0.5 * static_cast<double>(i));
    run.steps[1].kernels[0].by_format.add(static_cast<FlopFormat>(i), static_cast<double>(i));
  }
  run.steps[1].operators[3].alignment = 1 << 20;
  run.steps[1].operators[3].causal_flops = 0.5;
  test::write_recording(run, folder / "run.tally");
  const recording::Run back = read_run(folder / "run.tally", {.load = Load::kAll, .step = {}});
  ASSERT_EQ(back.steps.size(), run.steps.size());
  size_t kernels = 0;
  for (size_t i = 0; i < run.steps.size(); ++i) {
    EXPECT_EQ(back.steps[i].books.kernels.size(), run.steps[i].kernels.size());
    for (size_t k = 0; k < run.steps[i].kernels.size(); ++k, ++kernels) {
      EXPECT_EQ(back.steps[i].books.kernels[k].by_format, run.steps[i].kernels[k].by_format);
    }
  }
  EXPECT_GT(kernels, 2u);
  for (size_t i = 0; i < 2; ++i) {  // the steps that are kept in detail
    EXPECT_EQ(describe(back.steps[i].books, *back.strings), describe(run.steps[i], *run.strings));
  }
}

TEST(RoundTrip, ARankAndAModelComeBack) {
  const TemporaryFolder folder;
  const auto before = std::chrono::system_clock::now().time_since_epoch();
  SyntheticRun run = make_synthetic_run();
  run.info.rank = 3;
  run.info.world_size = 8;
  run.info.model = "gpt2";
  test::write_recording(run, folder / "run.tally");
  const recording::Run back = read_run(folder / "run.tally");
  EXPECT_EQ(back.info.rank, 3);
  EXPECT_EQ(back.info.world_size, 8);
  EXPECT_EQ(back.info.model, "gpt2");
  const int64_t begin = std::chrono::nanoseconds(before).count();
  EXPECT_GE(back.start_unix_ns, begin);
  EXPECT_LT(back.start_unix_ns, begin + int64_t{600'000'000'000});
}

TEST(RoundTrip, TheBooksOfAStepReplaceItsProvisionalOnes) {
  const TemporaryFolder folder;
  test::SyntheticOptions options;
  options.steps = options.detailed_steps = 2;
  SyntheticRun run = make_synthetic_run(options);
  StepBooks provisional = run.steps[1];
  provisional.provisional = true;
  provisional.duration_ns = 1;
  recording::Writer writer(folder / "run.tally", *run.strings);
  writer.write_run(run.info);
  writer.write_step(run.steps[0], run.end);
  writer.write_step(provisional, run.end);
  EXPECT_EQ(read_run(folder / "run.tally").steps.at(1).books.duration_ns, 1);
  writer.write_step(run.steps[1], run.end);
  const recording::Run back = read_run(folder / "run.tally", {.load = Load::kAll, .step = {}});
  EXPECT_EQ(writer.problem(), "");
  ASSERT_EQ(back.steps.size(), 2u);
  EXPECT_EQ(describe(back.steps[1].books, *back.strings), describe(run.steps[1], *run.strings));
}

TEST(RoundTrip, ACleanRunIsOneFile) {
  const TemporaryFolder folder;
  test::write_recording(make_synthetic_run(), folder / "run.tally");
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    names.push_back(entry.path().filename());
  }
  EXPECT_THAT(names, testing::ElementsAre("run.tally"));
  const std::string bytes = test::read_bytes(folder / "run.tally");
  EXPECT_EQ(bytes.substr(0, 15), "SQLite format 3");
  EXPECT_EQ(bytes.substr(60, 4), std::string("\0\0\0\5", 4));  // user_version
  EXPECT_EQ(bytes.substr(68, 4), "TTly");                      // application_id
}

TEST(RoundTrip, StepsThatAreNotShownComeBackAsTotals) {
  const TemporaryFolder folder;
  test::SyntheticOptions options;
  options.steps = 9;
  options.detailed_steps = 1;
  const SyntheticRun run = make_synthetic_run(options);
  test::write_recording(run, folder / "run.tally");
  const recording::Run back = read_run(folder / "run.tally", {.load = Load::kShown, .step = 3});
  std::vector<int> full;
  for (const RecordedStep& step : back.steps) {
    if (step.full) full.push_back(static_cast<int>(step.books.index));
  }
  // Detailed: 0. Asked: 3. Highest peak, the first of equal ones: 1. The last four.
  EXPECT_THAT(full, testing::ElementsAre(0, 1, 3, 5, 6, 7, 8));
  const StepBooks& light = back.steps[4].books;
  EXPECT_TRUE(light.devices[0].timeline.empty());
  EXPECT_TRUE(light.devices[0].marks[0].cells.empty());
  EXPECT_EQ(light.devices[0].marks[2].roles, run.steps[4].devices[0].marks[2].roles);
  double flops = 0, light_flops = 0;
  for (const OperatorRow& row : run.steps[4].operators) flops += row.flops;
  for (const OperatorRow& row : light.operators) light_flops += row.flops;
  EXPECT_EQ(flops, light_flops);
  EXPECT_LE(light.operators.size(), kPhaseCount);
  EXPECT_TRUE(read_run(folder / "run.tally", {.load = Load::kRun, .step = {}}).steps.empty());
}

TEST(RoundTrip, AThinnedStepKeepsItsPeakAndItsMarks) {
  const TemporaryFolder folder;
  const SyntheticRun run = make_synthetic_run(gpt2_small());
  test::write_recording(run, folder / "run.tally");
  const recording::Run back = read_run(folder / "run.tally", {.load = Load::kAll, .step = {}});
  for (const RecordedStep& step : back.steps) {
    const DeviceBooks& device = step.books.devices[0];
    const auto has = [&](const MarkBook& mark) {
      for (const TimelinePoint& p : device.timeline) {
        if (p.time_ns == mark.time_ns && sum(p.roles) == mark.bytes) return true;
      }
      return false;
    };
    EXPECT_LE(device.timeline.size(), 600u);
    EXPECT_LT(device.timeline.size(), run.steps[step.books.index].devices[0].timeline.size());
    for (const MarkBook& mark : device.marks) {
      if (mark.mark != Mark::kPeak) continue;
      EXPECT_TRUE(has(mark)) << step.books.index;
    }
  }
}

int64_t bytes_a_step(const test::SyntheticOptions& base, bool scrambled, int64_t* timeline_points) {
  const TemporaryFolder folder;
  const auto size_of = [&](int steps) {
    test::SyntheticOptions options = base;
    options.steps = steps;
    SyntheticRun run = make_synthetic_run(options);
    widen(&run);
    if (scrambled) scramble(&run);
    EXPECT_GE(run.info.modules.size(), 148u);
    EXPECT_GE(run.steps[0].operators.size(), 700u);
    const std::string path = folder / (std::to_string(steps) + ".tally");
    test::write_recording(run, path);
    const recording::Run back = read_run(path, {.load = Load::kAll, .step = {}});
    *timeline_points = static_cast<int64_t>(back.steps.back().books.devices[0].timeline.size());
    return static_cast<int64_t>(std::filesystem::file_size(path));
  };
  return (size_of(24) - size_of(4)) / 20;
}

TEST(RecordingSize, AStepThatRepeatsCostsAFewKiB) {
  int64_t points = 0;
  const int64_t bytes = bytes_a_step(gpt2_small(), false, &points);
  RecordProperty("bytes_a_step", std::to_string(bytes));
  std::printf("repeating steps: %ld bytes a step, %ld points\n", static_cast<long>(bytes),
              static_cast<long>(points));
  EXPECT_LE(bytes, 8 << 10);
}

TEST(RecordingSize, AStepWhereNothingRepeatsStaysBelow20KiB) {
  test::SyntheticOptions options = gpt2_small();
  options.vary = true;
  int64_t points = 0;
  const int64_t bytes = bytes_a_step(options, true, &points);
  RecordProperty("bytes_a_step", std::to_string(bytes));
  std::printf("steps that never repeat: %ld bytes a step, %ld points\n", static_cast<long>(bytes),
              static_cast<long>(points));
  EXPECT_LE(bytes, 20 << 10);
  EXPECT_GE(points, 100);
}

TEST(Document, ItsQueriesRunAndItNamesEveryTable) {
  const TemporaryFolder folder;
  SyntheticRun run = make_synthetic_run();
  run.steps[1].operators[0].by_format.add(FlopFormat::kTensorBf16, 7);
  run.steps[1].operators[0].tensor_flops = 7;
  test::write_recording(run, folder / "run.tally");
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(folder.operator/("run.tally").c_str(), &db), SQLITE_OK);
  const auto rows = [&](const std::string& sql) {
    std::vector<std::vector<std::string>> out;
    char* error = nullptr;
    sqlite3_exec(
        db, sql.c_str(),
        [](void* to, int count, char** values, char**) {
          auto& row = static_cast<std::vector<std::vector<std::string>>*>(to)->emplace_back();
          for (int i = 0; i < count; ++i) row.emplace_back(values[i] ? values[i] : "NULL");
          return 0;
        },
        &out, &error);
    EXPECT_EQ(error, nullptr) << error << "\n" << sql;
    return out;
  };
  const std::string document =
      test::read_bytes(std::string(TORCHTALLY_SOURCE_DIR) + "/docs/recording.md");
  std::vector<std::vector<std::vector<std::string>>> results;
  const std::regex block("```sql\n([^`]*)```");
  for (std::sregex_iterator at(document.begin(), document.end(), block), end; at != end; ++at) {
    results.push_back(rows((*at)[1]));
  }
  ASSERT_EQ(results.size(), 6u);
  EXPECT_THAT(results[0][1], testing::ElementsAre("1", "10022020", "backward", "after lm_head"));
  EXPECT_THAT(results[1][0], testing::ElementsAre("activation", "4152320", "41.4"));
  EXPECT_TRUE(results[2].empty()) << "the books close";
  EXPECT_EQ(results[3].size(), 4u * 4u + 0u);  // four roles alive at the end of four steps
  ASSERT_EQ(results[4].size(), 4u);
  EXPECT_EQ(std::stod(results[4][1][1]), 358612992.0);
  EXPECT_THAT(results[5], testing::ElementsAre(testing::ElementsAre("1", "tensor_bf16", "7.0")));

  for (const auto& table : rows("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')")) {
    EXPECT_NE(document.find("`" + table[0] + "`"), std::string::npos) << table[0];
    if (table[0] == "book") continue;
    for (const auto& column : rows("SELECT name FROM pragma_table_info('" + table[0] + "')")) {
      if (column[0] == "run" || column[0].ends_with("temporary_peak")) continue;
      EXPECT_NE(document.find("`" + column[0] + "`"), std::string::npos)
          << table[0] << "." << column[0];
    }
  }
  sqlite3_close(db);
}

}  // namespace
}  // namespace tally::recording
