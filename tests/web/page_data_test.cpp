// SPDX-License-Identifier: Apache-2.0
// What goes into the page: nothing of it can leave its script element, and every number survives.
#include "reports/page_data.h"

#include <zlib.h>

#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "reports/html.h"
#include "reports/page_columns.h"
#include "tests/support/synthetic_run.h"

namespace tally::reports {
namespace {

using analysis::Summary;
using ::testing::HasSubstr;
using ::testing::Not;

const char* const kNames[] = {"</script><script>window.pwned=1</script>",
                              "<!--<script>",
                              "a\"b'c`d${e}",
                              "\xE2\x80\xAEgpj.exe",
                              "\xE2\x80\xA8\xE2\x80\xA9",
                              "&lt;b&gt;",
                              "]]>",
                              "\x01\x7f",
                              "\xF0\x9F\x94\xA5"};

Summary with_names() {
  Summary summary;
  analysis::StepSummary step;
  analysis::DeviceStep device;
  device.device = "cpu";
  for (const char* name : kNames) {
    analysis::MarkSummary mark;
    mark.module = name;
    device.marks.push_back(mark);
    summary.notes.push_back(name);
    summary.command.push_back(name);
  }
  step.devices.push_back(device);
  summary.steps.push_back(step);
  summary.headline = kNames[0];
  return summary;
}

std::string inflated(const std::string& text) {
  std::string packed;
  uint32_t bits = 0;
  int held = 0;
  for (const char c : text) {
    if (c == '=') break;
    const int digit = c >= 'a'   ? c - 'a' + 26
                      : c >= 'A' ? c - 'A'
                      : c >= '0' ? c - '0' + 52
                      : c == '+' ? 62
                                 : 63;
    bits = bits << 6 | static_cast<uint32_t>(digit);
    held += 6;
    if (held < 8) continue;
    held -= 8;
    packed += static_cast<char>(bits >> held & 0xff);
  }
  z_stream stream{};
  EXPECT_EQ(inflateInit2(&stream, 15 + 16), Z_OK);
  std::string out(1 << 22, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(inflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  inflateEnd(&stream);
  return out;
}

TEST(PageData, HoldsNothingThatEndsAnElement) {
  const PageData data = page_data(with_names());
  for (const char c : data.meta) {
    EXPECT_TRUE(static_cast<unsigned char>(c) < 0x80 && c != '<' && c != '>' && c != '&') << c;
  }
}

TEST(PageData, NamesComeBackAsTheyWere) {
  const auto meta = nlohmann::json::parse(page_data(with_names()).meta);
  EXPECT_EQ(meta["version"], kPageDataVersion);
  size_t i = 0;
  for (const char* name : kNames) {
    EXPECT_EQ(meta["notes"][i], name);
    EXPECT_EQ(meta["command"][i++], name);
    EXPECT_THAT(meta["strings"], ::testing::Contains(name));
  }
}

TEST(PageData, BrokenUtf8IsReplaced) {
  Summary summary = with_names();
  summary.notes = {"\xff\xfe"};
  EXPECT_EQ(nlohmann::json::parse(page_data(summary).meta)["notes"][0], "\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(PageData, EveryWordAndColourIsThere) {
  const auto meta = nlohmann::json::parse(page_data(with_names()).meta);
  EXPECT_EQ(meta["roles"].size(), kRoleCount);
  EXPECT_EQ(meta["phases"].size(), kPhaseCount);
  EXPECT_EQ(meta["marks"].size(), kMarkCount);
  EXPECT_EQ(meta["roles"][0]["key"], "parameter");
  EXPECT_THAT(meta["roles"][0]["light"].get<std::string>(),
              ::testing::MatchesRegex("#[0-9a-f]{6}"));
}

TEST(RenderHtml, ShowsHostileNamesOnlyEscaped) {
  const std::string page = render_html(with_names());
  EXPECT_THAT(page, Not(HasSubstr("window.pwned=1</script>")));
  EXPECT_THAT(page, Not(HasSubstr("\xE2\x80\xAE")));
  EXPECT_THAT(page, Not(HasSubstr("<!--tally:")));
}

TEST(RenderHtml, APlaceholderInANameStaysAName) {
  Summary summary = with_names();
  summary.headline = "<!--tally:data-->";
  EXPECT_THAT(render_html(summary), HasSubstr("&lt;!--tally:data--&gt;"));
}

TEST(Columns, TakeTheSmallestTypeThatHoldsThem) {
  Columns columns;
  columns.add("a", {0, 255});
  columns.add("b", {0, 256});
  columns.add("c", {0, 65536});
  columns.add("d", {-1, 5});
  columns.add("e", {0, 0x1p40});
  columns.add("f", {0.5});
  columns.add("g", {});
  const auto& directory = columns.directory();
  const char* const types[] = {"u8", "u16", "u32", "i32", "f64", "f64", "u8"};
  for (size_t i = 0; i < directory.size(); ++i) {
    EXPECT_EQ(directory[i][1], types[i]);
    EXPECT_EQ(directory[i][2].get<size_t>() % 8, 0u);
  }
}

TEST(Columns, NumbersComeBackAsTheyWere) {
  Columns columns;
  const std::vector<double> bytes{0, 0x1p52 + 1, -3, 7};
  columns.add("x", {1, 2, 3});
  columns.add("bytes", bytes);
  const std::string raw = inflated(columns.packed());
  const auto entry = columns.directory()[1];
  for (size_t i = 0; i < bytes.size(); ++i) {
    double value = 0;
    std::memcpy(&value, raw.data() + entry[2].get<size_t>() + 8 * i, sizeof value);
    EXPECT_EQ(value, bytes[i]);
  }
}

TEST(Base64, PadsAsTheStandardSays) {
  EXPECT_EQ(base64(""), "");
  EXPECT_EQ(base64("f"), "Zg==");
  EXPECT_EQ(base64("fo"), "Zm8=");
  EXPECT_EQ(base64("foo"), "Zm9v");
  EXPECT_EQ(base64("foobar"), "Zm9vYmFy");
  EXPECT_EQ(base64("\xff\xfe\xfd"), "//79");
}

}  // namespace
}  // namespace tally::reports
