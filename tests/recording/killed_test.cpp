// SPDX-License-Identifier: Apache-2.0
// SIGKILL at any moment leaves every committed step; the reader says what happened.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "profiler/core/error.h"
#include "profiler/recording/reader.h"
#include "profiler/recording/writer.h"
#include "tests/support/describe_books.h"
#include "tests/support/synthetic_run.h"
#include "tests/support/temporary_folder.h"

namespace tally::recording {
namespace {

using test::TemporaryFolder;

test::SyntheticRun four_steps() {
  test::SyntheticOptions options;
  options.detailed_steps = options.steps = 4;
  return test::make_synthetic_run(options);
}

// A child writes `steps` steps and dies at once.
pid_t write_and_die(const test::SyntheticRun& run, const std::string& path, size_t steps) {
  const pid_t child = fork();
  if (child == 0) {
    Writer writer(path, *run.strings);
    writer.write_run(run.info);
    for (size_t i = 0; i < steps; ++i) writer.write_step(run.steps[i], {});
    std::raise(SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status));
  return child;
}

TEST(Killed, EveryCommittedStepIsThere) {
  const test::SyntheticRun run = four_steps();
  for (const size_t steps : {0, 1, 3}) {
    const TemporaryFolder folder;
    write_and_die(run, folder / "run.tally", steps);
    EXPECT_TRUE(std::filesystem::exists(folder / "run.tally-wal"));
    for (int again = 0; again < 2; ++again) {  // reading changes nothing
      const recording::Run back = read_run(folder / "run.tally", {.load = Load::kAll, .step = {}});
      EXPECT_EQ(back.end.ended, "killed");
      ASSERT_EQ(back.steps.size(), steps);
      for (size_t i = 0; i < steps; ++i) {
        EXPECT_EQ(test::describe(back.steps[i].books, *back.strings),
                  test::describe(run.steps[i], *run.strings));
      }
    }
  }
}

TEST(Killed, AReadOnlyFolderIsReadThroughACopy) {
  const TemporaryFolder folder;
  write_and_die(four_steps(), folder / "run.tally", 3);
  // As someone copies a recording: without SQLite's index of the WAL.
  std::filesystem::remove(folder / "run.tally-shm");
  chmod((folder / "run.tally").c_str(), 0444);
  chmod((folder / "run.tally-wal").c_str(), 0444);
  chmod(folder.path().c_str(), 0555);
  const pid_t child = fork();
  if (child == 0) {
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) _exit(3);
    try {
      _exit(read_run(folder / "run.tally").steps.size() == 3 ? 0 : 1);
    } catch (const Error& error) {
      std::fprintf(stderr, "%s\n", error.what());
      _exit(2);
    }
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  chmod(folder.path().c_str(), 0755);
  EXPECT_FALSE(std::filesystem::exists(folder / "run.tally-shm"));
}

void set_in_run(const std::string& path, const std::string& assignment) {
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &db), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(db, ("UPDATE run SET " + assignment).c_str(), nullptr, nullptr, nullptr),
            SQLITE_OK);
  sqlite3_close(db);
}

TEST(Killed, AReusedProcessIdIsNotTakenForTheProgram) {
  const TemporaryFolder folder;
  const std::string path = folder / "run.tally";
  test::write_recording(four_steps(), path);
  EXPECT_EQ(read_run(path).end.ended, "clean");
  set_in_run(path, "ended = 'running'");
  EXPECT_EQ(read_run(path).end.ended, "running") << "this very process wrote it and is alive";
  set_in_run(path, "pid_start = pid_start - 1");
  EXPECT_EQ(read_run(path).end.ended, "killed");
  set_in_run(path, "pid_start = pid_start + 1");
  EXPECT_EQ(read_run(path).end.ended, "running");
  set_in_run(path, "pid_namespace = 'pid:[1]', pid = 1");
  EXPECT_EQ(read_run(path).end.ended, "running") << "in a container: it cannot be seen from here";
  set_in_run(path, "boot_id = 'another boot'");
  EXPECT_EQ(read_run(path).end.ended, "killed");
}

TEST(Killed, AReaderMayLookOnWhileTheProgramRuns) {
  const TemporaryFolder folder;
  const test::SyntheticRun run = four_steps();
  Writer writer(folder / "run.tally", *run.strings);
  writer.write_run(run.info);
  for (size_t i = 0; i < run.steps.size(); ++i) {
    writer.write_step(run.steps[i], {});
    const recording::Run seen = read_run(folder / "run.tally");
    EXPECT_EQ(seen.end.ended, "running");
    EXPECT_EQ(seen.steps.size(), i + 1);
  }
  writer.finish(run.end);
  EXPECT_EQ(writer.problem(), "");
  EXPECT_EQ(read_run(folder / "run.tally").end.ended, "clean");
}

TEST(Killed, AForkedChildLeavesTheRecordingAlone) {
  const TemporaryFolder folder;
  const test::SyntheticRun run = four_steps();
  auto writer = std::make_unique<Writer>(folder / "run.tally", *run.strings);
  writer->write_run(run.info);
  writer->write_step(run.steps[0], {});
  const pid_t child = fork();
  if (child == 0) {
    writer->write_step(run.steps[1], {});
    writer->finish({});
    writer.reset();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  writer->write_step(run.steps[1], {});
  writer->finish(run.end);
  EXPECT_EQ(writer->problem(), "");
  const recording::Run back = read_run(folder / "run.tally");
  EXPECT_EQ(back.steps.size(), 2u);
  EXPECT_EQ(back.end.ended, "clean");
}

}  // namespace
}  // namespace tally::recording
