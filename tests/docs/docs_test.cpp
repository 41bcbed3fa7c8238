// SPDX-License-Identifier: Apache-2.0
// Documents that are checked: the README's code is the sample's, links lead somewhere, files that
// are named exist, no word of the outputs is left out.
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "profiler/core/words.h"

namespace tally {
namespace {

namespace fs = std::filesystem;
const fs::path kRoot = TALLY_ROOT;

std::string read(const fs::path& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file) << path;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}
std::vector<fs::path> documents() {
  std::vector<fs::path> paths{kRoot / "README.md", kRoot / "CHANGELOG.md",
                              kRoot / "samples/README.md"};
  for (const auto& entry : fs::directory_iterator(kRoot / "docs")) {
    if (entry.path().extension() == ".md") paths.push_back(entry.path());
  }
  return paths;
}
std::set<std::string> all_matches(const std::string& text, const std::string& pattern) {
  const std::regex regex(pattern);
  std::set<std::string> found;
  for (std::sregex_iterator at(text.begin(), text.end(), regex), end; at != end; ++at) {
    found.insert((*at)[1]);
  }
  return found;
}

// The lines of the sample between its marks, without their indentation.
std::string snippet() {
  std::istringstream sample(read(kRoot / "samples/wrap_a_loop.cpp"));
  std::string result;
  bool inside = false;
  for (std::string line; std::getline(sample, line);) {
    if (line.find("[README: end]") != std::string::npos) inside = false;
    if (inside) result += (line.starts_with("  ") ? line.substr(2) : line) + "\n";
    if (line.find("[README: wrap]") != std::string::npos) inside = true;
  }
  return result;
}

TEST(Readme, ShowsTheLoopOfTheSampleLineByLine) {
  const std::string code = snippet();
  ASSERT_NE(code.find("profiler.step()"), std::string::npos);
  const std::string readme = read(kRoot / "README.md");
  EXPECT_NE(readme.find("#include <torchtally/profiler.h>\n\n" + code + "```\n"), std::string::npos)
      << "between the marks the sample says:\n"
      << code;
}

TEST(Readme, NamesExactlyTheEnvironmentVariablesThatAreRead) {
  const std::string options = read(kRoot / "profiler/api/options.cpp");
  const std::set<std::string> read_ones = all_matches(options, "\"(TORCHTALLY_[A-Z]+)\"");
  EXPECT_GE(read_ones.size(), 6u);
  EXPECT_EQ(all_matches(read(kRoot / "README.md"), "\\n\\| `(TORCHTALLY_[A-Z]+)`"), read_ones);
}

TEST(Documents, LinksLeadToFilesThatExist) {
  size_t links = 0;
  for (const fs::path& path : documents()) {
    for (const std::string& link : all_matches(read(path), "\\]\\(([^)#]+)[^)]*\\)")) {
      if (link.starts_with("http")) continue;
      ++links;
      EXPECT_TRUE(fs::exists(path.parent_path() / link)) << path << " links to " << link;
    }
  }
  EXPECT_GE(links, 7u);
}

TEST(Documents, SourcesThatAreNamedExist) {
  const std::string pattern =
      "`((?:profiler|hooks|reports|samples|scripts|tests|docs)/[a-z_/]+(?:\\.[a-z]+)?)[` ]";
  size_t names = 0;
  for (const fs::path& path : documents()) {
    for (const std::string& name : all_matches(read(path), pattern)) {
      ++names;
      EXPECT_TRUE(fs::exists(kRoot / name)) << path << " names " << name;
    }
  }
  EXPECT_GE(names, 20u);
}

TEST(Roles, EachWordOfTheOutputsIsExplained) {
  const std::string roles = read(kRoot / "docs/roles.md");
  const auto expect_named = [&](std::string_view key) {
    EXPECT_NE(roles.find("`" + std::string(key) + "`"), std::string::npos) << key;
  };
  for (const Word& word : kRoleWords) expect_named(word.key);
  for (const Word& word : kPhaseWords) expect_named(word.key);
  for (const Word& word : kMarkWords) expect_named(word.key);
}

TEST(Formats, EachWordOfTheOutputsIsExplained) {
  const std::string document = read(kRoot / "docs/gpu.md");
  for (const Word& word : kFlopFormatWords) {
    EXPECT_NE(document.find("`" + std::string(word.key) + "`"), std::string::npos) << word.key;
  }
}

}  // namespace
}  // namespace tally
