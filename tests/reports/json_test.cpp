// SPDX-License-Identifier: Apache-2.0
// The fixed keys of the JSON, and exact numbers under them.
#include "reports/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "profiler/analysis/build.h"
#include "tests/support/synthetic_run.h"

namespace tally::reports {
namespace {

using nlohmann::json;
using testing::IsSubsetOf;

std::vector<std::string> keys(const json& object) {
  std::vector<std::string> out;
  for (const auto& [key, value] : object.items()) out.push_back(key);
  return out;
}
void expect_keys(const json& object, const std::vector<std::string>& fixed) {
  EXPECT_THAT(fixed, IsSubsetOf(keys(object)));
}

class JsonReport : public testing::Test {
 protected:
  static json render(const recording::Run& run, const analysis::SummaryOptions& options = {}) {
    return json::parse(render_json(analysis::build_summary(run, options)));
  }
  recording::Run run_ = test::make_synthetic_run().as_recorded();
};

// A CUDA device beside the CPU: its marks have what a caching allocator has beside the blocks.
TEST_F(JsonReport, ADeviceWithACachingAllocator) {
  run_.info.devices.push_back({"cuda:0", "a card", 1 << 30});
  for (auto& step : run_.steps) {
    DeviceBooks card = step.books.devices[0];
    card.device = 1;
    for (MarkBook& mark : card.marks) {
      mark.caching.emplace();
      mark.caching->reserved_bytes = mark.bytes + 5000;
      mark.caching->active_bytes = mark.bytes + 1000;
      mark.caching->allocator_reserved_bytes = mark.caching->reserved_bytes;
    }
    step.books.devices.push_back(std::move(card));
  }
  const json marks = render(run_)["steps"][1]["devices"]["cuda:0"]["marks"];
  const json& caching = marks[1]["caching"];
  EXPECT_EQ(caching["rounding"], 1000);
  EXPECT_EQ(caching["cached"], 4000);
  EXPECT_EQ(caching["reserved_bytes"], marks[1]["bytes"].get<int64_t>() + 5000);
  EXPECT_EQ(caching["allocator_reserved_bytes"], caching["reserved_bytes"]);
  EXPECT_TRUE(caching["outside_allocator"].is_null());  // not asked
  EXPECT_TRUE(caching["allocator_active_bytes"].is_null());
  EXPECT_EQ(caching["exact"], true);
  EXPECT_FALSE(render(run_)["steps"][1]["devices"]["cpu"]["marks"][1].contains("caching"));
}

TEST_F(JsonReport, WhatCountersToldStandsBesideTheFormulas) {
  EXPECT_FALSE(render(run_)["steps"][1]["flops"].contains("executed"));
  for (auto& step : run_.steps) {
    step.books.operators.at(0).tensor_flops = 100;
    step.books.operators.at(0).device_ns = 5e8;
    step.books.operators.at(1).tensor_flops = 20;
    step.books.operators.at(1).dram_bytes = 7;
  }
  const json executed = render(run_)["steps"][1]["flops"]["executed"];
  EXPECT_EQ(executed["tensor"], 120);
  EXPECT_EQ(executed["scalar"], 0);
  EXPECT_EQ(executed["device_seconds"], 0.5);
  EXPECT_EQ(executed["dram_bytes"], 7);
}

TEST(JsonOfACard, HasTheAllocatorTheCountersAndTheRoofline) {
  test::SyntheticOptions options;
  options.on_card = true;
  const recording::Run run = test::make_synthetic_run(options).as_recorded();
  const json out = json::parse(render_json(analysis::build_summary(run)));
  const json& peak = out["steps"][1]["devices"]["cuda:0"]["peak"];
  const json& caching = peak["caching"];
  EXPECT_EQ(caching["active_bytes"], peak["bytes"].get<int64_t>() + caching["rounding"].get<int64_t>());
  EXPECT_EQ(caching["reserved_bytes"],
            caching["active_bytes"].get<int64_t>() + caching["cached"].get<int64_t>());
  EXPECT_GT(caching["largest_free_bytes"], 0);
  EXPECT_EQ(caching["outside_allocator"], 523 << 20);
  double tensor = 0, dram = 0;
  for (const json& row : out["operators"]) {
    if (!row.contains("executed")) continue;
    tensor += row["executed"]["tensor"].get<double>();
    dram += row["executed"]["dram_bytes"].get<double>();
  }
  const json& executed = out["steps"][1]["flops"]["executed"];
  EXPECT_EQ(tensor, executed["tensor"].get<double>());
  EXPECT_DOUBLE_EQ(dram, executed["dram_bytes"].get<double>());
  double of_modules = 0;
  for (const json& module : out["modules"]) {
    if (module["flops"].contains("executed")) {
      of_modules += module["flops"]["executed"]["tensor"].get<double>();
    }
  }
  EXPECT_EQ(of_modules, tensor);

  // Work over bytes, by operator: of the step that counted bytes; the other says which did.
  const json& roofline = out["utilization"]["roofline"];
  ASSERT_GE(roofline.size(), 2u);
  double work = 0;
  for (size_t i = 0; i < roofline.size(); ++i) {
    work += roofline[i]["flops"].get<double>();
    if (i == 0) continue;
    EXPECT_LE(roofline[i]["device_seconds"], roofline[i - 1]["device_seconds"]);
  }
  EXPECT_EQ(work, tensor);
  EXPECT_EQ(out["utilization"]["device"], "H100-SXM5-80GB");
  // The synthetic card executes an eighth more than the formulas say, in every product.
  const json& use = out["utilization"];
  EXPECT_DOUBLE_EQ(use["executed_ratio"], 1.125);
  EXPECT_DOUBLE_EQ(use["executed_hfu"].get<double>(), 1.125 * use["hfu"].get<double>());
  EXPECT_THAT(use["executed_cause"].get<std::string>(), testing::StartsWith("padded tiles +"));
  const json& difference = use["executed_difference"];
  expect_keys(difference, {"model", "executed", "difference", "causes"});
  EXPECT_EQ(difference["executed"], executed["tensor"]);
  ASSERT_EQ(difference["causes"].size(), 1u);
  const json& cause = difference["causes"][0];
  expect_keys(cause, {"cause", "title", "flops", "proved", "why", "operators"});
  EXPECT_EQ(cause["cause"], "padding");
  EXPECT_EQ(cause["flops"], difference["difference"]);
  EXPECT_EQ(cause["flops"].get<double>(), tensor / 9);
  EXPECT_EQ(cause["proved"], true);
  EXPECT_EQ(cause["why"], "tiles of 128x128, sizes that are multiples of 64 at most");
  double of_operators = 0;
  for (const json& op : cause["operators"]) of_operators += op["flops"].get<double>();
  EXPECT_EQ(of_operators, cause["flops"].get<double>());
  // Formats: of the step, of its phases and of its operators.
  EXPECT_EQ(executed["by_format"]["tensor_bf16"].get<double>() +
                executed["by_format"]["tensor_tf32"].get<double>(),
            tensor);
  EXPECT_EQ(executed["by_format"]["tensor_tf32"].get<double>(), tensor / 18);
  double of_phases = 0;
  for (const auto& [phase, formats] : executed["by_phase"].items()) {
    for (const auto& [format, flops] : formats.items()) of_phases += flops.get<double>();
  }
  EXPECT_EQ(executed["by_phase"].size(), 2u);
  EXPECT_EQ(of_phases, tensor);
  // Kernels, most time first; a step without any shows those of the last that has.
  double tensor_of_kernels = 0;
  ASSERT_GE(out["kernels"].size(), 2u);
  for (size_t i = 0; i < out["kernels"].size(); ++i) {
    const json& row = out["kernels"][i];
    expect_keys(row, {"step", "phase", "module", "operator", "kernel", "calls", "executed"});
    EXPECT_EQ(row["step"], 1);
    tensor_of_kernels += row["executed"]["tensor"].get<double>();
    if (i > 0) {
      EXPECT_LE(row["executed"]["device_seconds"],
                out["kernels"][i - 1]["executed"]["device_seconds"]);
    }
  }
  EXPECT_EQ(tensor_of_kernels, tensor);
  const json other = json::parse(render_json(analysis::build_summary(run, {.step = 0})));
  EXPECT_TRUE(other["utilization"]["roofline"].empty());
  EXPECT_EQ(other["kernels"][0]["step"], 3);
  EXPECT_TRUE(other["utilization"]["executed_hfu"].is_null());
  EXPECT_EQ(other["utilization"]["roofline_cause"],
            "not applicable because step 0 did not count the bytes that operators move: a step "
            "counts one set of counters; --step has 1, 3");
}

TEST_F(JsonReport, TheFixedKeysAreThere) {
  const json out = render(run_);
  expect_keys(out, {"schema", "run", "devices", "parameters", "steps", "modules", "peak_blocks",
                    "theory", "verdicts", "unknown"});
  EXPECT_EQ(out["schema"], 1);
  expect_keys(out["run"], {"started", "command", "torch", "ended", "versions", "overhead"});
  expect_keys(out["run"]["overhead"], {"seconds", "bytes"});
  expect_keys(out["devices"][0], {"id", "name", "memory_bytes"});
  expect_keys(out["parameters"], {"count", "bytes", "trainable"});
  const json& step = out["steps"][1];
  expect_keys(step, {"index", "devices", "flops", "seconds"});
  expect_keys(step["flops"], {"forward", "backward", "recompute", "optimizer", "source"});
  const json& cpu = step["devices"]["cpu"];
  expect_keys(cpu, {"peak", "marks", "temporaries"});
  expect_keys(cpu["peak"], {"bytes", "phase", "module", "operator", "micro_step", "roles"});
  expect_keys(cpu["marks"][1], {"name", "micro_step", "bytes", "roles", "saved_bytes",
                                "saved_parameter_bytes", "allocator_bytes", "difference"});
  expect_keys(cpu["temporaries"], {"forward_peak", "backward_peak", "optimizer_peak"});
  expect_keys(out["modules"][0], {"name", "type", "bytes", "flops"});
  expect_keys(out["peak_blocks"][0], {"bytes", "role", "saved", "module", "operator", "dtype",
                                      "shape", "phase", "source"});
  expect_keys(out["theory"][0], {"key", "measured", "expected", "deviation", "formula", "cause"});
  expect_keys(out["verdicts"][0], {"kind", "verdict", "evidence", "bytes"});
  expect_keys(out["unknown"], {"unattributed_bytes", "notes"});
}

TEST_F(JsonReport, BytesAndFlopsAreExactIntegers) {
  const json out = render(run_);
  const json& cpu = out["steps"][1]["devices"]["cpu"];
  EXPECT_EQ(cpu["peak"]["bytes"].dump(), "10022020");
  EXPECT_EQ(cpu["peak"]["roles"]["activation"].dump(), "4152320");
  EXPECT_EQ(cpu["peak"]["roles"]["workspace"].dump(), "0");
  EXPECT_FALSE(cpu["peak"]["roles"].contains("cached"));
  EXPECT_EQ(out["steps"][1]["flops"]["forward"].dump(), "119537664");
  EXPECT_EQ(out["parameters"]["count"].dump(), "440160");
  for (const json& mark : cpu["marks"]) {
    int64_t sum_of_roles = 0;
    for (const json& bytes : mark["roles"]) sum_of_roles += bytes.get<int64_t>();
    EXPECT_EQ(sum_of_roles, mark["bytes"]);
    EXPECT_EQ(mark["allocator_bytes"], mark["bytes"]);
    EXPECT_EQ(mark["difference"].dump(), "0");
  }
  for (const json& row : out["theory"]) {
    if (row["key"] != "gradient") continue;
    EXPECT_EQ(row["measured"].dump(), "1760640");
    EXPECT_EQ(row["expected"].dump(), "1760640");
    EXPECT_EQ(row["deviation"].dump(), "0");
  }
}

TEST_F(JsonReport, FractionsStayFractionsAndUnknownIsNull) {
  run_.steps[1].books.operators[0].flops = 0.25;
  run_.info.optimizers.clear();
  const json out = render(run_);
  EXPECT_EQ(out["steps"][1]["flops"]["forward"].get<double>(), 119537664.25);
  for (const json& row : out["theory"]) {
    if (row["key"] != "optimizer_state") continue;
    EXPECT_TRUE(row["expected"].is_null());
    EXPECT_TRUE(row["deviation"].is_null());
  }
}

TEST_F(JsonReport, NamesStandAsRecordedAndBrokenUtf8IsReplaced) {
  auto& strings = const_cast<StringTable&>(*run_.strings);
  run_.info.modules.push_back({strings.intern("broken \xff\xfe"), strings.intern("")});
  run_.steps[1].books.devices[0].peak_blocks[0].shape = strings.intern("[8, 1024, 768]");
  const json out = render(run_);
  std::vector<std::string> names;
  for (const json& module : out["modules"]) names.push_back(module["name"]);
  EXPECT_THAT(names, testing::Contains(test::kHostileName));
  EXPECT_THAT(names, testing::Contains("broken \xEF\xBF\xBD\xEF\xBF\xBD"));
  EXPECT_EQ(out["peak_blocks"][0]["shape"].dump(), "[8,1024,768]");
}

TEST_F(JsonReport, TheStepAskedForIsTheOneExplained) {
  EXPECT_EQ(render(run_)["shown"], 1);
  EXPECT_EQ(render(run_, {.step = 0})["shown"], 0);
  EXPECT_NE(render(run_, {.step = 0})["modules"], render(run_)["modules"]);
}

}  // namespace
}  // namespace tally::reports
