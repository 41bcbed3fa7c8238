// SPDX-License-Identifier: Apache-2.0
// Recordings of older schema versions: what they did not know yet has its default.
#include <gtest/gtest.h>
#include <sqlite3.h>

#include "profiler/recording/books_codec.h"
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

TEST(Versions, TheLineOfAMarkComesBackAndVersionThreeHasNone) {
  const TemporaryFolder folder;
  SyntheticRun run = make_synthetic_run();
  MarkBook& mark = run.steps[1].devices[0].marks.back();
  mark.source = run.strings->intern("train.py:12");
  test::write_recording(run, folder / "run.tally");
  const auto line = [&] {
    const recording::Run back = read_run(folder / "run.tally", {.load = Load::kAll, .step = {}});
    return back.strings->text(back.steps[1].books.devices[0].marks.back().source);
  };
  EXPECT_EQ(line(), "train.py:12");
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open((folder / "run.tally").c_str(), &db), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(db, "ALTER TABLE mark DROP COLUMN source; "
                         "ALTER TABLE step_device DROP COLUMN adopted_bytes; PRAGMA user_version=3", nullptr,
                         nullptr, nullptr),
            SQLITE_OK);
  sqlite3_close(db);
  EXPECT_EQ(line(), "");
}

// Its rows of operators end with the four columns of counters.
TEST(Versions, VersionFourIsStillRead) {
  const TemporaryFolder folder;
  test::SyntheticOptions options;
  options.on_card = true;
  SyntheticRun run = make_synthetic_run(options);
  for (StepBooks& step : run.steps) {
    for (OperatorRow& row : step.operators) {
      row.by_format = {};
      row.range_flops = row.causal_flops = 0;
      row.alignment = 0;
    }
    for (KernelRow& row : step.kernels) row.by_format = {};
  }
  const std::vector<OperatorRow>& rows = run.steps[1].operators;
  // Since then: a mask, and three columns of a byte a row.
  const std::string raw = encode_operators(rows);
  const std::string old = raw.substr(0, raw.size() - 1 - 3 * rows.size());
  const auto back_rows = decode_operators(old, encode_operator_times(rows));
  ASSERT_EQ(back_rows.size(), rows.size());
  double tensor = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    tensor += back_rows[i].tensor_flops;
    EXPECT_EQ(back_rows[i].tensor_flops, rows[i].tensor_flops);
    EXPECT_EQ(back_rows[i].dram_bytes, rows[i].dram_bytes);
    EXPECT_TRUE(back_rows[i].by_format.empty());
  }
  EXPECT_GT(tensor, 0);

  test::write_recording(run, folder / "old.tally");
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open((folder / "old.tally").c_str(), &db), SQLITE_OK);
  EXPECT_EQ(
      sqlite3_exec(db,
                   "DROP TABLE executed_flops; DROP TABLE kernel_flops; "
                   "ALTER TABLE step_device DROP COLUMN adopted_bytes; PRAGMA user_version=4",
                   nullptr, nullptr, nullptr),
      SQLITE_OK);
  sqlite3_close(db);
  const recording::Run back = read_run(folder / "old.tally", {.load = Load::kAll, .step = {}});
  EXPECT_EQ(back.schema, 4);
  EXPECT_EQ(describe(back.steps[1].books, *back.strings), describe(run.steps[1], *run.strings));
}

TEST(Versions, VersionTwoIsStillRead) {
  const TemporaryFolder folder;
  SyntheticRun run = make_synthetic_run();
  test::write_recording(run, folder / "old.tally");
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open((folder / "old.tally").c_str(), &db), SQLITE_OK);
  sqlite3_exec(db,
               "DROP TABLE mark_caching; "
               "ALTER TABLE step_device DROP COLUMN adopted_bytes; PRAGMA user_version=2",
               nullptr, nullptr, nullptr);
  sqlite3_close(db);
  const recording::Run back = read_run(folder / "old.tally", {.load = Load::kAll, .step = {}});
  EXPECT_EQ(back.schema, 2);
  EXPECT_EQ(describe(back.steps[1].books, *back.strings), describe(run.steps[1], *run.strings));
}

TEST(Versions, VersionOneIsStillRead) {
  const TemporaryFolder folder;
  SyntheticRun run = make_synthetic_run();
  run.info.rank = 3;
  run.info.world_size = 8;
  test::write_recording(run, folder / "old.tally");
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open((folder / "old.tally").c_str(), &db), SQLITE_OK);
  for (const char* column : {"start_unix_ns", "rank", "world_size", "model"}) {
    const std::string sql = std::string("ALTER TABLE run DROP COLUMN ") + column;
    ASSERT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK) << column;
  }
  for (const char* column : {"wanted_bytes", "limit_bytes", "source"}) {
    const std::string sql = std::string("ALTER TABLE mark DROP COLUMN ") + column;
    ASSERT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK) << column;
  }
  for (const char* table : {"region", "unit", "mark_caching"}) {
    const std::string sql = std::string("DROP TABLE ") + table;
    ASSERT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK) << table;
  }
  sqlite3_exec(db, "ALTER TABLE step_device DROP COLUMN adopted_bytes; PRAGMA user_version=1", nullptr,
               nullptr, nullptr);
  sqlite3_close(db);
  const recording::Run back = read_run(folder / "old.tally", {.load = Load::kAll, .step = {}});
  EXPECT_EQ(back.schema, 1);
  EXPECT_EQ(back.info.rank, -1);
  EXPECT_EQ(back.start_unix_ns, 0);
  ASSERT_EQ(back.steps.size(), run.steps.size());
  EXPECT_EQ(describe(back.steps[1].books, *back.strings), describe(run.steps[1], *run.strings));
}

}  // namespace
}  // namespace tally::recording
