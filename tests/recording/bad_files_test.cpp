// SPDX-License-Identifier: Apache-2.0
// Everything that is no recording is refused with a sentence that says what it is, and nothing of
// anyone else is ever overwritten.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <functional>

#include "profiler/core/error.h"
#include "profiler/recording/reader.h"
#include "profiler/recording/writer.h"
#include "tests/support/synthetic_run.h"
#include "tests/support/temporary_folder.h"

namespace tally::recording {
namespace {

using test::read_bytes;
using test::TemporaryFolder;
using test::write_bytes;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

std::string sentence(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "";
}
std::string reading(const std::string& path) {
  return sentence([&] { read_run(path, {.load = Load::kAll, .step = {}}); });
}
std::string writing(const std::string& path) {
  const StringTable strings;
  return sentence([&] { Writer writer(path, strings); });
}
void sql(const std::string& path, const std::string& statements) {
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &db), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(db, statements.c_str(), nullptr, nullptr, nullptr), SQLITE_OK)
      << sqlite3_errmsg(db);
  sqlite3_close(db);
}

// Runs `action` in a child, as somebody who may not write everywhere when we are root.
bool in_child_as_nobody(const std::function<bool()>& action) {
  const pid_t child = fork();
  if (child == 0) {
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) _exit(3);
    _exit(action() ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

class BadFiles : public testing::Test {
 protected:
  void SetUp() override { test::write_recording(test::make_synthetic_run(), good_); }
  const TemporaryFolder folder_;
  const std::string good_ = folder_ / "good.tally";
  const std::string path_ = folder_ / "x.tally";
};

TEST_F(BadFiles, ReadingSaysWhatIsWrong) {
  EXPECT_EQ(reading(path_), path_ + " does not exist");
  EXPECT_EQ(reading(folder_.path()), folder_.path() + " is a folder, not a recording");
  EXPECT_EQ(reading("/dev/null"), "/dev/null is not a recording: no plain file");
  write_bytes(path_, "");
  EXPECT_EQ(reading(path_), path_ + " is empty: nothing was recorded in it");
  write_bytes(path_, "a text, and no database at all");
  EXPECT_EQ(reading(path_), path_ + " is not a recording: no SQLite file");
  std::filesystem::remove(path_);
  sql(path_, "CREATE TABLE t(x)");
  EXPECT_EQ(reading(path_), path_ + " is not a recording: a SQLite file of another program");
}

TEST_F(BadFiles, ANewerSchemaIsRefused) {
  sql(good_, "PRAGMA user_version=6");
  EXPECT_EQ(reading(good_), good_ +
                                " was written by a newer torchtally: schema version 6, this one "
                                "reads up to 5; update torchtally");
}

TEST_F(BadFiles, ATruncatedFileIsDamagedAtEveryLength) {
  const std::string whole = read_bytes(good_);
  for (size_t size = 1; size < whole.size(); size += 509) {
    write_bytes(path_, whole.substr(0, size));
    EXPECT_THAT(reading(path_), StartsWith(path_ + " is ")) << size;
  }
}

TEST_F(BadFiles, FlippedBytesAreAnErrorOrHarmlessNeverACrash) {
  const std::string whole = read_bytes(good_);
  uint64_t state = 99;
  int errors = 0;
  for (int round = 0; round < 400; ++round) {
    std::string bytes = whole;
    for (int flip = 0; flip < 8; ++flip) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      bytes[(state >> 20) % bytes.size()] = static_cast<char>(state >> 56);
    }
    write_bytes(path_, bytes);
    errors += !reading(path_).empty();
  }
  EXPECT_GT(errors, 50);
}

TEST_F(BadFiles, ContradictionsAreDamage) {
  const std::pair<const char*, const char*> cases[]{
      {"DELETE FROM blob WHERE blob = 1", "lacks the block of columns 1"},
      {"DELETE FROM string WHERE string = 3", "strings has a gap"},
      {"DELETE FROM run", "says nothing about its run"},
      {"DELETE FROM step WHERE step = 1", "parts of a step 1 that is missing"},
      {"DELETE FROM device", "names a device"},
      {"UPDATE mark SET name = 'middle' WHERE mark = 2", "unknown word 'middle'"},
      {"UPDATE mark SET module = 1000000 WHERE mark = 2", "names a string"},
      {"UPDATE mark_role SET role = 77 WHERE mark = 2 AND role = 0", "unknown role 77"},
      {"DELETE FROM mark WHERE mark = 2", "books of a mark that is missing"},
      {"UPDATE parameter SET optimizer = 9", "names an optimizer"},
      {"DROP TABLE phase", "no such table: phase"},
  };
  for (const auto& [change, complaint] : cases) {
    std::filesystem::copy_file(good_, path_, std::filesystem::copy_options::overwrite_existing);
    sql(path_, change);
    const std::string text = reading(path_);
    EXPECT_THAT(text, StartsWith(path_ + " is damaged: ")) << change;
    EXPECT_THAT(text, HasSubstr(complaint)) << change;
  }
}

TEST_F(BadFiles, WritingRefusesWhatIsNotOurs) {
  const std::string ending = "; choose another path or delete the file";
  write_bytes(path_, "somebody's thesis");
  EXPECT_EQ(writing(path_), "cannot record to " + path_ + ": " + path_ +
                                " is not a recording: no SQLite file" + ending);
  EXPECT_EQ(read_bytes(path_), "somebody's thesis");
  std::filesystem::remove(path_);
  sql(path_, "CREATE TABLE t(x); INSERT INTO t VALUES(42)");
  const std::string before = read_bytes(path_);
  EXPECT_THAT(writing(path_), HasSubstr("a SQLite file of another program"));
  EXPECT_EQ(read_bytes(path_), before);
  EXPECT_EQ(writing(folder_.path()), "cannot record to " + folder_.path() + ": it is a folder");
  EXPECT_EQ(writing(""), "cannot record: the path of the recording is empty");
  EXPECT_EQ(writing("/dev/null"), "cannot record to /dev/null: it is no plain file");
  EXPECT_EQ(
      writing(folder_ / "no/such/run.tally"),
      "cannot record to " + (folder_ / "no/such/run.tally") + ": unable to open database file");
}

TEST_F(BadFiles, AFolderThatMayNotBeWrittenIsAnErrorOfTheConstructor) {
  chmod(folder_.path().c_str(), 0755);
  EXPECT_TRUE(in_child_as_nobody([&] {
    return writing(path_) == "cannot record to " + path_ + ": unable to open database file";
  }));
}

TEST_F(BadFiles, AnOlderRecordingIsReplacedWhole) {
  test::SyntheticOptions options;
  options.steps = 1;
  test::write_recording(test::make_synthetic_run(options), good_);
  EXPECT_EQ(read_run(good_).step_count, 1);
  write_bytes(path_, "");
  EXPECT_EQ(writing(path_), "") << "an empty file holds nothing to lose";
}

TEST_F(BadFiles, TwoWritersOfOnePathAreRefused) {
  const StringTable strings;
  const Writer first(path_, strings);
  EXPECT_EQ(
      writing(folder_.path() + "/./x.tally"),
      "cannot record to " + folder_.path() + "/./x.tally: this process is recording to it already");
}

TEST_F(BadFiles, AFolderThatMayNotBeSeenIsAnErrorToo) {
  chmod(folder_.path().c_str(), 0700);
  EXPECT_TRUE(in_child_as_nobody([&] {
    return writing(path_) == "cannot record to " + path_ + ": Permission denied" &&
           reading(good_) == "cannot read " + good_ + ": Permission denied";
  }));
}

TEST_F(BadFiles, AnotherProcessMayNotTakeTheFileOfOneThatRuns) {
  int ready[2];
  int done[2];
  ASSERT_EQ(pipe(ready), 0);
  ASSERT_EQ(pipe(done), 0);
  const pid_t child = fork();
  if (child == 0) {
    const StringTable strings;
    const Writer writer(path_, strings);
    char byte = 'r';
    if (write(ready[1], &byte, 1) != 1 || read(done[0], &byte, 1) != 1) _exit(1);
    _exit(0);
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_EQ(writing(path_), "cannot record to " + path_ + ": process " + std::to_string(child) +
                                " is recording to it; choose another path or delete the file");
  EXPECT_EQ(read_run(path_).end.ended, "running");
  ASSERT_EQ(write(done[1], &byte, 1), 1);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(read_run(path_).end.ended, "killed");
  EXPECT_EQ(writing(path_), "") << "nobody writes it any more";
}

TEST_F(BadFiles, AFullDiskIsRememberedAndEarlierStepsStay) {
  EXPECT_TRUE(in_child_as_nobody([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    test::SyntheticOptions options;
    options.steps = 40;
    options.vary = true;
    options.layers = 12;
    const test::SyntheticRun run = test::make_synthetic_run(options);
    const TemporaryFolder mine;
    const std::string path = mine / "full.tally";
    Writer writer(path, *run.strings);
    writer.write_run(run.info);
    writer.write_step(run.steps[0], run.end);
    const rlimit limit{100 << 10, 100 << 10};
    if (!writer.problem().empty() || setrlimit(RLIMIT_FSIZE, &limit) != 0) return false;
    RunEnd running;
    for (size_t i = 1; i < run.steps.size(); ++i) writer.write_step(run.steps[i], running);
    writer.finish(run.end);
    const recording::Run back = read_run(path, {.load = Load::kAll, .step = {}});
    const auto missing = run.steps.size() - back.steps.size();
    return !back.steps.empty() && missing > 0 &&
           writer.problem().starts_with("not everything could be recorded to ") &&
           writer.problem().ends_with("(steps that are missing: " + std::to_string(missing) + ")");
  }));
}

}  // namespace
}  // namespace tally::recording
