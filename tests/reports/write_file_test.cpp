// SPDX-License-Identifier: Apache-2.0
#include "reports/write_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "profiler/core/error.h"
#include "tests/support/temporary_folder.h"

namespace tally::reports {
namespace {

using test::read_bytes;

std::string failure(const std::string& path, const std::string& text) {
  try {
    write_file(path, text);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}
size_t entries(const std::string& folder) {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder)) ++count;
  return count;
}

TEST(WriteFile, WritesAndReplacesWhole) {
  const test::TemporaryFolder folder;
  write_file(folder / "a", "first, and longer");
  write_file(folder / "a", "second");
  EXPECT_EQ(read_bytes(folder / "a"), "second");
  EXPECT_EQ(entries(folder.path()), 1u);
}

TEST(WriteFile, FollowsALinkAndKeepsIt) {
  const test::TemporaryFolder folder;
  write_file(folder / "target", "old");
  std::filesystem::create_symlink(folder / "target", folder / "link");
  write_file(folder / "link", "new");
  EXPECT_EQ(read_bytes(folder / "target"), "new");
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "link"));
}

TEST(WriteFile, SaysWhyItCannot) {
  const test::TemporaryFolder folder;
  EXPECT_EQ(failure(folder.path(), "x"), "cannot write " + folder.path() + ": it is a folder");
  EXPECT_EQ(failure(folder / "no/where", "x"),
            "cannot write " + (folder / "no/where") + ": No such file or directory");
  EXPECT_EQ(failure("/dev/full", "x"), "cannot write /dev/full: No space left on device");
  EXPECT_EQ(failure("/dev/null", "x"), "");
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
}

TEST(WriteFile, AFullDiskLeavesTheOldFileAndNothingElse) {
  const test::TemporaryFolder folder;
  write_file(folder / "report", "old");
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1000, 1000};
    setrlimit(RLIMIT_FSIZE, &limit);
    _exit(failure(folder / "report", std::string(100'000, 'x')).ends_with("File too large") ? 0
                                                                                            : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(read_bytes(folder / "report"), "old");
  EXPECT_EQ(entries(folder.path()), 1u);
}

}  // namespace
}  // namespace tally::reports
