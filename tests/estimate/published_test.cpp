// SPDX-License-Identifier: Apache-2.0
// Every published number that we have, one test a row; the rows are read, never typed.
#include <cmath>
#include <fstream>
#include <iterator>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "profiler/estimate/table_data.h"
#include "tests/estimate/reference_functions.h"
#include "torchtally/estimate.h"

namespace tally::estimate {
namespace {

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

const CsvTable& cases() {
  static const CsvTable table("cases.csv", read_file(TALLY_TEST_DATA "/cases.csv"));
  return table;
}
const CsvTable& peaks() {
  static const CsvTable table("peaks.csv", read_file(TALLY_TEST_DATA "/peaks.csv"));
  return table;
}
std::vector<nlohmann::json> json_lines(const char* name) {
  std::vector<nlohmann::json> lines;
  std::ifstream file(std::string(TALLY_TEST_DATA "/") + name);
  for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

std::string test_name(std::string text) {
  for (char& c : text) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return text;
}

double deviation(double got, double expected) {
  return expected != 0 ? std::abs(got - expected) / std::abs(expected) : std::abs(got);
}

class PublishedModel : public ::testing::TestWithParam<ModelSpec> {};
TEST_P(PublishedModel, HasItsParameters) {
  const ModelSpec& m = GetParam();
  const ParameterCount count = count_parameters(m);
  ASSERT_GT(m.published_parameters, 0);
  EXPECT_LE(
      deviation(static_cast<double>(count.total), static_cast<double>(m.published_parameters)),
      m.published_tolerance)
      << to_string(count.total) << " against " << to_string(m.published_parameters);
  if (m.published_active_parameters > 0) {
    EXPECT_LE(deviation(static_cast<double>(count.active),
                        static_cast<double>(m.published_active_parameters)),
              m.published_tolerance)
        << to_string(count.active);
  }
}
std::vector<ModelSpec> published_models() {
  std::vector<ModelSpec> list;
  for (const ModelSpec& m : model_presets()) {
    if (m.has_shape()) list.push_back(m);
  }
  return list;
}
INSTANTIATE_TEST_SUITE_P(Models, PublishedModel, ::testing::ValuesIn(published_models()),
                         [](const auto& param_info) { return test_name(param_info.param.name); });

class PublishedCase : public ::testing::TestWithParam<size_t> {};
TEST_P(PublishedCase, IsReproduced) {
  const std::string& expression = cases().text(GetParam(), "expr");
  const double got = testing::evaluate(expression, testing::reference_scope()).number();
  const double expected = cases().number(GetParam(), "expected");
  EXPECT_LE(deviation(got, expected), cases().number(GetParam(), "rel_tol") + 1e-12)
      << expression << " gives " << got << ", expected " << expected << " ("
      << cases().text(GetParam(), "source") << ")";
}
INSTANTIATE_TEST_SUITE_P(Cases, PublishedCase, ::testing::Range(size_t{0}, cases().size()),
                         [](const auto& param_info) {
                           return test_name(cases().text(param_info.param, "id"));
                         });

class HuggingFaceConfig : public ::testing::TestWithParam<nlohmann::json> {};
TEST_P(HuggingFaceConfig, IsCountedAsTransformersBuildsIt) {
  const ModelSpec m = model_from_config(GetParam()["config"].dump(), "config.json");
  EXPECT_EQ(to_string(count_parameters(m).total), GetParam()["parameters"].dump());
}
INSTANTIATE_TEST_SUITE_P(
    Configs, HuggingFaceConfig, ::testing::ValuesIn(json_lines("configs.jsonl")),
    [](const auto& param_info) {
      return test_name(param_info.param["config"]["model_type"].template get<std::string>() + "_" +
                       std::to_string(param_info.index));
    });

class MeasuredActivations : public ::testing::TestWithParam<nlohmann::json> {};
TEST_P(MeasuredActivations, AreWhatAutogradKeeps) {
  const nlohmann::json& row = GetParam();
  const ModelSpec m = model_from_config(row["config"].dump(), "config.json");
  TrainingConfig config;
  config.batch = row["batch"].get<int64_t>();
  config.sequence = row["sequence"].get<int64_t>();
  config.dropout = row["dropout"].get<double>();
  config.cpu = true;
  const std::string dtype = row["dtype"].get<std::string>();
  config.dtype = dtype == "fp32" ? Dtype::kFp32 : dtype == "bf16" ? Dtype::kBf16 : Dtype::kAmpBf16;
  config.attention = row["attention"] == "eager" ? Attention::kEager : Attention::kSdpa;
  const MemoryEstimate memory = estimate_memory(m, config);
  Integer expected = memory.group(Group::kActivations);
  for (const Row& each : memory.rows) {
    if (each.key == "autocast_copies") expected += each.bytes;
  }
  const Integer tokens = Integer{config.batch} * config.sequence;
  // The capped logits keep their tanh, which stands in the logits' group.
  if (m.logit_softcap) expected += tokens * m.vocab * (config.dtype == Dtype::kFp32 ? 4 : 2);
  const Integer measured = row["saved_bytes"].get<int64_t>();
  const Integer difference = measured - expected;
  const bool kernel_copies_output = m.rotary_dim > 0 || m.fused_gate_up;
  if (kernel_copies_output && config.attention == Attention::kSdpa) {
    // Rotating by concatenation makes the CPU kernel's output need a transposed copy.
    EXPECT_LE(deviation(static_cast<double>(expected), static_cast<double>(measured)), 0.06);
    return;
  }
  // Only position indices (8 B a token) may be missing: they belong to the input.
  EXPECT_GE(difference, 0) << to_string(measured) << " measured, " << to_string(expected)
                           << " expected";
  EXPECT_LE(difference, 8 * tokens)
      << to_string(measured) << " measured, " << to_string(expected) << " expected";
}
INSTANTIATE_TEST_SUITE_P(Autograd, MeasuredActivations,
                         ::testing::ValuesIn(json_lines("activations.jsonl")),
                         [](const auto& param_info) {
                           const auto& row = param_info.param;
                           return test_name(
                               row["config"]["model_type"].template get<std::string>() + "_" +
                               row["dtype"].template get<std::string>() + "_" +
                               row["attention"].template get<std::string>() + "_" +
                               std::to_string(param_info.index));
                         });

class MeasuredPeak : public ::testing::TestWithParam<size_t> {};
TEST_P(MeasuredPeak, IsTheLargestMoment) {
  const size_t row = GetParam();
  const auto whole = [&](const char* column) {
    return static_cast<int64_t>(peaks().number(row, column));
  };
  ModelSpec m = family_model("gpt");
  m.name = "gpt";
  m.layers = whole("layers");
  m.d_model = whole("d_model");
  m.heads = whole("heads");
  m.vocab = whole("vocab");
  m.context = whole("context");
  complete(m);
  TrainingConfig config;
  config.cpu = true;
  config.batch = whole("batch");
  config.dropout = peaks().number(row, "dropout");
  config.attention =
      peaks().text(row, "attention") == "eager" ? Attention::kEager : Attention::kSdpa;
  config.accumulate = whole("accumulate");
  config.optimizer = peaks().text(row, "optimizer");
  config.keep_logits = whole("keep_logits") == 1;
  config.foreach_optimizer = whole("foreach") == 1;
  if (whole("checkpoint_every") > 0) {
    config.checkpoint = Checkpoint::kEvery;
    config.checkpoint_every = whole("checkpoint_every");
  }
  const MemoryEstimate memory = estimate_memory(m, config);
  const double got = static_cast<double>(memory.peak - memory.group(Group::kParameters) -
                                         memory.group(Group::kOptimizerState));
  EXPECT_LE(deviation(got, peaks().number(row, "peak_bytes")), peaks().number(row, "tolerance"))
      << got << " at " << memory.moments[memory.peak_moment].key;
}
INSTANTIATE_TEST_SUITE_P(Traces, MeasuredPeak, ::testing::Range(size_t{0}, peaks().size()));

class MeasuredConfigPeak : public ::testing::TestWithParam<nlohmann::json> {};
TEST_P(MeasuredConfigPeak, IsTheLargestMoment) {
  const nlohmann::json& row = GetParam();
  const ModelSpec m = model_from_config(row["config"].dump(), "config.json");
  TrainingConfig config;
  config.cpu = true;
  config.keep_logits = true;
  config.batch = row["batch"].get<int64_t>();
  config.sequence = row["sequence"].get<int64_t>();
  config.attention = row["attention"] == "eager" ? Attention::kEager : Attention::kSdpa;
  config.optimizer = row["optimizer"].get<std::string>();
  const MemoryEstimate memory = estimate_memory(m, config);
  const double got = static_cast<double>(memory.peak - memory.group(Group::kParameters) -
                                         memory.group(Group::kOptimizerState));
  EXPECT_LE(deviation(got, row["peak_bytes"].get<double>()), row["tolerance"].get<double>())
      << got << " at " << memory.moments[memory.peak_moment].key;
}
INSTANTIATE_TEST_SUITE_P(Traces, MeasuredConfigPeak,
                         ::testing::ValuesIn(json_lines("peaks.jsonl")));

}  // namespace
}  // namespace tally::estimate
