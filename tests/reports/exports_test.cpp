// SPDX-License-Identifier: Apache-2.0
// What is written for other tools: the structure that Perfetto and memory_viz need, and numbers
// that are the recording's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <set>
#include <nlohmann/json.hpp>

#include "profiler/analysis/build.h"
#include "profiler/core/error.h"
#include "reports/memory_snapshot.h"
#include "reports/trace.h"
#include "tests/support/synthetic_run.h"

namespace tally::reports {
namespace {

using analysis::Summary;
using nlohmann::json;

Summary summary(int micro_steps = 1) {
  test::SyntheticOptions options;
  options.micro_steps = micro_steps;
  Summary out = analysis::build_summary(test::make_synthetic_run(options).as_recorded());
  out.start_unix_ns = 1'700'000'000'123'456'789;
  return out;
}
std::string sentence(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(ChromeTrace, EveryEventHasWhatItsKindNeeds) {
  const json trace = json::parse(render_chrome_trace(summary(2)));
  std::map<std::string, int> kinds;
  for (const json& e : trace["traceEvents"]) {
    const std::string kind = e["ph"];
    ++kinds[kind];
    EXPECT_TRUE(e["pid"].is_number_integer());
    EXPECT_TRUE(e["name"].is_string() && e["args"].is_object());
    if (kind == "M") continue;
    EXPECT_TRUE(e["ts"].is_number());
    EXPECT_GE(e["ts"].get<double>(), 0);
    if (kind == "X") {
      EXPECT_GE(e["dur"].get<double>(), 0);
    }
    if (kind == "i") {
      EXPECT_EQ(e["s"], "p");
    }
  }
  EXPECT_EQ(kinds.size(), 4u) << "names, slices, counters, instants";
  EXPECT_GT(kinds["C"], 100);
  EXPECT_EQ(trace["displayTimeUnit"], "ms");
}

// The Trace Event Format as its document and Perfetto's importer have it: numbers where numbers are
// wanted, each counter with the same series at every event, threads that are named before they are
// used, instants with a scope, times that do not go back within a counter.
TEST(ChromeTrace, IsStrictlyInTheDocumentedFormat) {
  test::SyntheticOptions options;
  options.on_card = true;
  options.micro_steps = 2;
  const Summary s = analysis::build_summary(test::make_synthetic_run(options).as_recorded());
  const std::string text = render_chrome_trace(s);
  const json trace = json::parse(text);
  EXPECT_THAT(std::set<std::string>({"traceEvents", "otherData", "displayTimeUnit"}),
              testing::IsSupersetOf([&] {
                std::set<std::string> keys;
                for (const auto& [key, value] : trace.items()) keys.insert(key);
                return keys;
              }()));
  std::map<std::string, std::set<std::string>> series;
  std::map<std::string, double> last;
  std::set<int> threads;
  for (const json& e : trace["traceEvents"]) {
    const std::string kind = e["ph"];
    std::set<std::string> allowed{"ph", "pid", "tid", "name", "args"};
    if (kind != "M") allowed.insert("ts");
    if (kind == "X") allowed.insert("dur");
    if (kind == "i") allowed.insert("s");
    for (const auto& [key, value] : e.items()) EXPECT_TRUE(allowed.contains(key)) << e;
    if (kind == "M") {
      EXPECT_TRUE(e["name"] == "process_name" || e["name"] == "thread_name") << e;
      EXPECT_EQ(e["args"].size(), 1u);
      EXPECT_TRUE(e["args"]["name"].is_string());
      threads.insert(e["tid"].get<int>());
      continue;
    }
    EXPECT_TRUE(e["ts"].is_number_float()) << e;
    if (kind == "C") {
      const std::string name = e["name"];
      EXPECT_GE(e["ts"].get<double>(), last[name]);
      last[name] = e["ts"];
      std::set<std::string> names;
      for (const auto& [key, value] : e["args"].items()) {
        EXPECT_TRUE(value.is_number_integer() && value >= 0) << e;
        names.insert(key);
      }
      if (series[name].empty()) series[name] = names;
      EXPECT_EQ(names, series[name]) << "a series that comes and goes has gaps";
    } else {
      EXPECT_TRUE(kind == "X" || kind == "i") << e;
      EXPECT_TRUE(threads.contains(e["tid"].get<int>())) << e;
    }
  }
  EXPECT_EQ(series.size(), 2u);
}

TEST(ChromeTrace, SlicesOfATrackDoNotOverlapAndStayInTheirStep) {
  const Summary s = summary(2);
  const json trace = json::parse(render_chrome_trace(s));
  std::map<int, double> end;
  std::map<int, int> count;
  for (const json& e : trace["traceEvents"]) {
    if (e["ph"] != "X") continue;
    const int track = e["tid"];
    EXPECT_GE(e["ts"].get<double>(), end[track] - 0.002) << e;
    end[track] = e["ts"].get<double>() + e["dur"].get<double>();
    ++count[track];
  }
  EXPECT_EQ(count[1], static_cast<int>(s.steps.size()));
  size_t spans = 0;
  for (const auto& step : s.steps) spans += step.phases.size();
  EXPECT_EQ(count[2], static_cast<int>(spans));
  EXPECT_GT(count[3], 10);
  EXPECT_GT(count[4], 10);
  EXPECT_LE(end[4], end[1] + 0.002);
}

TEST(ChromeTrace, CountersAddUpToTheBooks) {
  const Summary s = summary();
  const json trace = json::parse(render_chrome_trace(s));
  int64_t highest = 0;
  for (const json& e : trace["traceEvents"]) {
    if (e["ph"] != "C") continue;
    EXPECT_EQ(e["name"], "bytes alive, cpu");
    int64_t bytes = 0;
    for (const auto& [role, value] : e["args"].items()) bytes += value.get<int64_t>();
    highest = std::max(highest, bytes);
  }
  EXPECT_EQ(highest, s.device_step()->peak.bytes);
}

TEST(ChromeTrace, ACachingAllocatorHasATrackThatAddsUpToWhatItReserved) {
  test::SyntheticOptions options;
  options.on_card = true;
  const Summary s = analysis::build_summary(test::make_synthetic_run(options).as_recorded());
  const json trace = json::parse(render_chrome_trace(s));
  int64_t most = 0;
  size_t events = 0;
  for (const json& e : trace["traceEvents"]) {
    if (e["name"] != "caching allocator, cuda:0") continue;
    ++events;
    int64_t bytes = 0;
    for (const auto& [what, value] : e["args"].items()) bytes += value.get<int64_t>();
    most = std::max(most, bytes);
  }
  int64_t reserved = 0;
  size_t points = 0;
  for (const auto& step : s.steps) {
    for (const auto& point : step.devices[0].timeline) {
      ++points;
      reserved = std::max(reserved, point.reserved_bytes);
    }
  }
  EXPECT_EQ(most, reserved);
  EXPECT_EQ(events, points);
}

TEST(ChromeTrace, StandsBesideAnotherOnItsClock) {
  const Summary s = summary();
  const std::string kineto =
      R"({"schemaVersion":1,"baseTimeNanoseconds":1700000000000000000,"traceEvents":)"
      R"([{"ph":"X","name":"aten::mm","pid":7,"tid":7,"ts":123456.789,"dur":1}]})";
  const json both = json::parse(render_chrome_trace(s, kineto));
  EXPECT_EQ(both["traceEvents"][0]["name"], "aten::mm");
  EXPECT_EQ(both["baseTimeNanoseconds"], 1700000000000000000);
  for (const json& e : both["traceEvents"]) {
    if (e["name"] != "step 0") continue;
    EXPECT_NEAR(e["ts"].get<double>(), 123456.789 + s.steps[0].start_seconds * 1e6, 0.01);
  }
  EXPECT_EQ(json::parse(render_chrome_trace(s, "[]"))["traceEvents"].size(),
            json::parse(render_chrome_trace(s))["traceEvents"].size());
  EXPECT_EQ(sentence([&] { render_chrome_trace(s, "{\"a\":1}"); }),
            "it is no trace: no JSON with a list of traceEvents");
  EXPECT_THAT(sentence([&] { render_chrome_trace(s, "no json"); }), testing::HasSubstr("no trace"));
  Summary old = s;
  old.start_unix_ns = 0;
  EXPECT_THAT(sentence([&] { render_chrome_trace(old, "[]"); }),
              testing::HasSubstr("does not say when it began"));
}

TEST(ChromeTrace, HostileNamesStayNames) {
  Summary s = summary();
  s.steps[s.shown].devices[0].timeline[3].op = test::kHostileName + std::string("\xff");
  EXPECT_THAT(render_chrome_trace(s), testing::HasSubstr("drowssap\\u001b[31m\xEF\xBF\xBD"));
}

// The opcodes that the writer uses, as any reader of pickles takes them.
json unpickle(const std::string& bytes) {
  std::vector<json> stack;
  std::vector<size_t> marks;
  const auto little = [&](size_t at, size_t size) {
    uint64_t value = 0;
    for (size_t i = 0; i < size; ++i) {
      value |= uint64_t{static_cast<unsigned char>(bytes.at(at + i))} << (8 * i);
    }
    return value;
  };
  for (size_t i = 0;;) {
    switch (const char c = bytes.at(i++); static_cast<unsigned char>(c)) {
      case 0x80:
        EXPECT_EQ(bytes.at(i++), 2);
        break;
      case '}':
        stack.emplace_back(json::object());
        break;
      case ']':
        stack.emplace_back(json::array());
        break;
      case '(':
        marks.push_back(stack.size());
        break;
      case 'u':
        for (size_t k = marks.back(); k < stack.size(); k += 2) {
          stack[marks.back() - 1][stack[k].get<std::string>()] = stack.at(k + 1);
        }
        stack.resize(marks.back());
        marks.pop_back();
        break;
      case 'e':
        for (size_t k = marks.back(); k < stack.size(); ++k) {
          stack[marks.back() - 1].push_back(stack[k]);
        }
        stack.resize(marks.back());
        marks.pop_back();
        break;
      case 'X': {
        const size_t size = little(i, 4);
        stack.emplace_back(bytes.substr(i + 4, size));
        i += 4 + size;
        break;
      }
      case 0x8a:
        EXPECT_EQ(bytes.at(i), 8);
        stack.emplace_back(static_cast<int64_t>(little(i + 1, 8)));
        i += 9;
        break;
      case '.':
        EXPECT_EQ(stack.size(), 1u);
        EXPECT_EQ(i, bytes.size());
        return stack.at(0);
      default:
        ADD_FAILURE() << "opcode " << c << " at " << i;
        return {};
    }
  }
}

TEST(MemorySnapshot, HoldsTheBlocksOfThePeakInMemoryVizLayout) {
  Summary s = summary();
  s.steps[s.shown].devices[0].device = "cuda:1";
  s.steps[s.shown].devices[0].peak_blocks[0].op = "bad \xff name";
  const json snapshot = unpickle(render_memory_snapshot(s));
  ASSERT_EQ(snapshot["segments"].size(), 1u);
  const json& segment = snapshot["segments"][0];
  const int64_t peak = s.step().devices[0].peak.bytes;
  EXPECT_EQ(segment["device"], 1);
  EXPECT_EQ(segment["total_size"], peak);
  int64_t bytes = 0;
  int64_t address = segment["address"];
  for (const json& block : segment["blocks"]) {
    EXPECT_EQ(block["address"], address) << "one behind the other";
    EXPECT_EQ(block["state"], "active_allocated");
    EXPECT_FALSE(block["frames"].empty());
    address += block["size"].get<int64_t>();
    bytes += block["requested_size"].get<int64_t>();
  }
  EXPECT_EQ(bytes, peak);
  ASSERT_EQ(snapshot["device_traces"].size(), 2u) << "one a device, cuda:0 as well";
  EXPECT_TRUE(snapshot["device_traces"][0].empty());
  const json& trace = snapshot["device_traces"][1];
  EXPECT_EQ(trace.size(), segment["blocks"].size());
  int64_t time = 0;
  for (const json& e : trace) {
    EXPECT_EQ(e["action"], "alloc");
    EXPECT_TRUE(role_of(e["category"].get<std::string>()));
    EXPECT_GE(e["time_us"].get<int64_t>(), time);
    time = e["time_us"];
  }
  EXPECT_THAT(render_memory_snapshot(s), testing::HasSubstr("bad ? name"));
}

TEST(MemorySnapshot, NeedsCudaDataAndBlocks) {
  Summary s = summary();
  EXPECT_EQ(sentence([&] { render_memory_snapshot(s); }),
            "synthetic.tally has no CUDA data in step 1: a snapshot is a picture of the CUDA "
            "allocator; '--format chrome-trace' shows what was recorded");
  s.steps[s.shown].devices[0].device = "cuda:0";
  s.steps[s.shown].devices[0].peak_blocks.clear();
  EXPECT_THAT(sentence([&] { render_memory_snapshot(s); }),
              testing::HasSubstr("was not kept in detail: the blocks of cuda:0 are not known"));
}

}  // namespace
}  // namespace tally::reports
