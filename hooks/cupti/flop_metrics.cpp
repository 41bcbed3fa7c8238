// SPDX-License-Identifier: Apache-2.0
#include "hooks/cupti/flop_metrics.h"

#include <fmt/format.h>

namespace tally::hooks::cupti {
namespace {

using enum FlopFormat;

bool is_blackwell_server(std::string_view chip) {
  return chip == "GB100" || chip == "GB102" || chip == "GB110";
}

// Counted by instrumented instructions: no hardware counter fits into the same pass. Those on two
// halves (HADD2, HMUL2, HFMA2) count twice.
MetricSet scalar_set(std::string_view chip) {
  struct Instruction {
    std::string_view name;
    double weight;
    FlopFormat format;
  };
  std::vector<Instruction> instructions = {
      {"fadd", 1, kScalarFp32}, {"fmul", 1, kScalarFp32}, {"ffma", 2, kScalarFp32},
      {"dadd", 1, kScalarFp64}, {"dmul", 1, kScalarFp64}, {"dfma", 2, kScalarFp64},
      {"hadd", 2, kScalarFp16}, {"hmul", 2, kScalarFp16}, {"hfma", 4, kScalarFp16}};
  if (is_blackwell_server(chip)) {
    instructions.insert(
        instructions.end(),
        {{"fadd2", 2, kScalarFp32}, {"fmul2", 2, kScalarFp32}, {"ffma2", 4, kScalarFp32}});
  }
  MetricSet set{"scalar", {}, 1};
  for (const auto& [name, weight, format] : instructions) {
    set.metrics.push_back({fmt::format("smsp__sass_thread_inst_executed_op_{}_pred_on.sum", name),
                           weight, Counted::kScalarFlops, format});
  }
  return set;
}

Metric tensor(std::string_view source, FlopFormat format, bool dense = false) {
  return {fmt::format("sm__ops_path_tensor_{}{}.sum", source, dense ? "_sparsity_off" : ""), 1,
          Counted::kTensorFlops, format};
}

void add_time_and_traffic(MetricSet* set) {
  set->metrics.push_back({"gpu__time_duration.sum", 1, Counted::kNanoseconds});
  set->metrics.push_back({"dram__bytes.sum", 1, Counted::kDramBytes});
}

// On GH100 one pass has all that wgmma executes, and two instruction counters that tell whether
// mma.sync ran at all; only then is the second set worth its passes.
std::vector<MetricSet> hopper() {
  MetricSet wgmma{
      "tensor",
      {tensor("op_hgmma_src_bf16_dst_fp32", kTensorBf16),
       tensor("op_hgmma_src_fp16", kTensorFp16),
       tensor("op_hgmma_src_tf32_dst_fp32", kTensorTf32),
       tensor("src_fp8", kTensorFp8),
       tensor("src_fp64", kTensorFp64),
       {"sm__inst_executed_pipe_tensor_op_hmma.sum", 1, Counted::kInstructions, {}, "mma.sync"},
       {"sm__inst_executed_pipe_tensor_op_gmma.sum", 1, Counted::kInstructions, {}, "wgmma"}},
      1};
  add_time_and_traffic(&wgmma);
  const MetricSet mma{"mma.sync",
                      {tensor("op_hmma_src_bf16_dst_fp32", kTensorBf16, true),
                       tensor("op_hmma_src_fp16_dst_fp16", kTensorFp16, true),
                       tensor("op_hmma_src_fp16_dst_fp32", kTensorFp16, true),
                       tensor("op_hmma_src_tf32_dst_fp32", kTensorTf32, true)},
                      2};
  return {wgmma, mma};
}

std::vector<MetricSet> blackwell_server(std::string_view chip) {
  MetricSet set{"tensor",
                {tensor("src_bf16_dst_fp32", kTensorBf16), tensor("src_fp16_dst_fp16", kTensorFp16),
                 tensor("src_fp16_dst_fp32", kTensorFp16), tensor("src_tf32_dst_fp32", kTensorTf32),
                 tensor("src_fp64", kTensorFp64), tensor("src_fp4_dst_fp32", kTensorFp4)},
                0};
  if (chip == "GB110") {
    for (const char* to : {"fp16", "fp32"}) {
      set.metrics.push_back(tensor(fmt::format("src_fp4_fp6_dst_{}", to), kTensorFp4));
      set.metrics.push_back(tensor(fmt::format("src_fp8_dst_{}", to), kTensorFp8));
    }
  } else {
    for (const char* to : {"fp16", "fp32"}) {
      set.metrics.push_back(tensor(fmt::format("src_fp4_fp6_fp8_dst_{}", to), kTensorFp8));
    }
  }
  return {set};
}

std::vector<MetricSet> blackwell_client() {
  MetricSet set{"tensor", {}, 0};
  set.metrics = {tensor("op_hmma_src_bf16_dst_fp32", kTensorBf16, true),
                 tensor("op_hmma_src_fp16_dst_fp16", kTensorFp16, true),
                 tensor("op_hmma_src_fp16_dst_fp32", kTensorFp16, true),
                 tensor("op_hmma_src_tf32_dst_fp32", kTensorTf32, true),
                 tensor("src_fp64", kTensorFp64),
                 tensor("src_fp8_dst_fp16", kTensorFp8, true),
                 tensor("src_fp8_dst_fp32", kTensorFp8, true)};
  return {set};
}

std::vector<MetricSet> ampere_and_ada(std::string_view chip) {
  MetricSet set{"tensor", {}, chip.starts_with("AD") ? 3 : 2};
  set.metrics = {tensor("src_bf16_dst_fp32", kTensorBf16, true),
                 tensor("src_fp16_dst_fp16", kTensorFp16, true),
                 tensor("src_fp16_dst_fp32", kTensorFp16, true),
                 tensor("src_tf32_dst_fp32", kTensorTf32, true), tensor("src_fp64", kTensorFp64)};
  if (chip.starts_with("AD")) set.metrics.push_back(tensor("src_fp8", kTensorFp8, true));
  return {set};
}

}  // namespace

std::vector<MetricSet> metric_sets(std::string_view chip) {
  std::vector<MetricSet> sets;
  if (chip == "GH100") {
    sets = hopper();
  } else if (is_blackwell_server(chip)) {
    sets = blackwell_server(chip);
  } else if (chip.starts_with("GB20")) {
    sets = blackwell_client();
  } else {
    sets = ampere_and_ada(chip);
  }
  sets.push_back(scalar_set(chip));
  return sets;
}

}  // namespace tally::hooks::cupti
