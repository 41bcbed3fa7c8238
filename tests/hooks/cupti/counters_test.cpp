// SPDX-License-Identifier: Apache-2.0
// The source of counters in a real training step, over a fake CUPTI: each operator's executed FLOPs
// reach its row of the recording; where CUPTI refuses, the run goes on and the recording says why.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <functional>
#include <map>

#include "hooks/cupti/counters.h"
#include "hooks/torch/cpu_allocator.h"
#include "hooks/torch/operators.h"
#include "hooks/torch/runtime.h"
#include "profiler/recording/reader.h"
#include "profiler/session/session.h"
#include "tests/hooks/cupti/fake_cupti.h"
#include "tests/support/temporary_folder.h"

namespace tally::test {
namespace {

// Each matrix product launches a kernel of 500 ns with a mangled name, each sum two of 20 ns. Made
// after the session: its callback comes after the source's.
struct KernelsOfOperators {
  KernelsOfOperators() {
    handle = at::addGlobalCallback(at::RecordFunctionCallback(
        [](const at::RecordFunction& function) -> std::unique_ptr<at::ObserverContext> {
          const std::string name = function.name();
          FakeCupti& fake = FakeCupti::instance();
          if (name == "aten::mm") fake.launch("_ZN5atest4gemmIfEEvi", 500);
          if (name != "aten::sum" || sums++ > 0) return nullptr;
          for (int i = 0; i < 2; ++i) fake.launch("reduce", 20);
          return nullptr;
        },
        [](const at::RecordFunction& function, at::ObserverContext*) {
          if (std::string(function.name()) == "aten::sum") --sums;
        }));
  }
  static inline thread_local int sums = 0;  // a sum calls a sum
  ~KernelsOfOperators() { at::removeCallback(handle); }
  at::CallbackHandle handle;
};

class Counters : public testing::Test {
 protected:
  void SetUp() override { FakeCupti::reset(); }

  recording::Run run(int steps, hooks::CounterOptions counter_options = {}) {
    const TemporaryFolder folder;
    const hooks::cupti::Api api = FakeCupti::make_api();
    hooks::prepare(Session::context());
    std::vector<std::unique_ptr<Source>> sources;
    sources.push_back(hooks::make_cpu_allocator_source());
    sources.push_back(hooks::make_operator_source({0}));
    sources.push_back(hooks::cupti::make_counter_source(counter_options, api, driver_));
    SessionOptions options;
    options.recording = folder / "run.tally";
    options.ledger.detailed_steps = 1000;
    {
      Session session(options, std::move(sources));
      const KernelsOfOperators kernels;
      const auto weight = torch::randn({8, 8}).requires_grad_(true);
      for (int i = 0; i < steps; ++i) {
        session.step_begin();
        forward_(weight).sum().backward();
        ranges_of_step_.push_back(FakeCupti::instance().ranges.size());
        session.step_end(false);
      }
      session.stop("clean");
    }
    return recording::read_run(options.recording, {.load = recording::Load::kAll, .step = {}});
  }
  static double sum(const recording::Run& run, size_t step, double OperatorRow::*member) {
    double total = 0;
    for (const OperatorRow& row : run.steps.at(step).books.operators) total += row.*member;
    return total;
  }
  static double sum(const recording::Run& run, size_t step, FlopFormat format) {
    double total = 0;
    for (const OperatorRow& row : run.steps.at(step).books.operators)
      total += row.by_format.of(format);
    return total;
  }
  static std::string reason(const recording::Run& run) {
    for (const SourceInfo& source : run.info.sources) {
      if (source.name == "cupti.counters") return source.available ? "" : source.reason;
    }
    return "no such source";
  }
  // Of the kernels of one name in a phase.
  static KernelRow kernel(const recording::Run& run, size_t step, const std::string& name,
                          Phase phase) {
    KernelRow sum;
    for (const KernelRow& row : run.steps.at(step).books.kernels) {
      if (run.text(row.kernel) != name || row.phase != phase) continue;
      sum.op = row.op;
      sum.calls += row.calls;
      sum.device_ns += row.device_ns;
      sum.tensor_flops += row.tensor_flops;
      sum.by_format.add(row.by_format);
    }
    return sum;
  }
  FakeDriver driver_;
  std::vector<size_t> ranges_of_step_;
  // The forward pass of the program.
  std::function<torch::Tensor(const torch::Tensor&)> forward_ = [](const torch::Tensor& weight) {
    return torch::randn({4, 8}).mm(weight);
  };
};

TEST_F(Counters, EachOperatorHasWhatItExecuted) {
  const recording::Run recorded = run(4);
  EXPECT_EQ(reason(recorded), "");
  const size_t ranges = ranges_of_step_[0];
  ASSERT_GT(ranges, 3u);
  // Hopper's first set: five tensor counters, two of instructions, time, traffic.
  double tensor = 0, time = 0, traffic = 0;
  for (size_t range = 0; range < ranges; ++range) {
    for (size_t metric = 0; metric < 5; ++metric) tensor += FakeCupti::value(range, metric);
    time += FakeCupti::value(range, 7);
    traffic += FakeCupti::value(range, 8);
  }
  EXPECT_EQ(sum(recorded, 0, &OperatorRow::tensor_flops), tensor);
  EXPECT_EQ(sum(recorded, 0, &OperatorRow::device_ns), time);
  EXPECT_EQ(sum(recorded, 0, &OperatorRow::dram_bytes), traffic);
  EXPECT_EQ(sum(recorded, 0, &OperatorRow::scalar_flops), 0);
  // No mma.sync ran: the second step has the scalar set, the third names kernels, the fourth has
  // the first set again.
  EXPECT_GT(sum(recorded, 1, &OperatorRow::scalar_flops), 0);
  EXPECT_EQ(sum(recorded, 1, &OperatorRow::tensor_flops), 0);
  EXPECT_GT(sum(recorded, 3, &OperatorRow::tensor_flops), 0);
  // The product's row has the values of its own range; its gradient belongs to the backward pass.
  bool forward = false, backward = false;
  for (const OperatorRow& row : recorded.steps[0].books.operators) {
    if (recorded.text(row.op) != "aten::mm") continue;
    (row.phase == Phase::kForward ? forward : backward) = row.tensor_flops > 0;
  }
  EXPECT_TRUE(forward);
  EXPECT_TRUE(backward);
}

// Hopper's counters in the order of its sets; the fake gives each its own value.
TEST_F(Counters, ExecutedFlopsKeepTheirFormat) {
  FakeCupti::instance().mma_instructions = 5;
  const recording::Run recorded = run(3);
  using enum FlopFormat;
  const auto value = [this](size_t step, const std::vector<std::pair<size_t, double>>& metrics) {
    double total = 0;
    for (size_t range = 0; range < ranges_of_step_[step]; ++range) {
      for (const auto& [metric, weight] : metrics)
        total += weight * FakeCupti::value(range, metric);
    }
    return total;
  };
  const FlopFormat of_wgmma[] = {kTensorBf16, kTensorFp16, kTensorTf32, kTensorFp8, kTensorFp64};
  for (size_t metric = 0; metric < 5; ++metric) {
    EXPECT_EQ(sum(recorded, 0, of_wgmma[metric]), value(0, {{metric, 1}})) << metric;
  }
  EXPECT_EQ(sum(recorded, 0, kTensorFp4), 0);
  EXPECT_EQ(sum(recorded, 0, kScalarFp32), 0);
  // mma.sync: fp16 with results in fp16 and in fp32 are one format.
  EXPECT_EQ(sum(recorded, 1, kTensorBf16), value(1, {{0, 1}}));
  EXPECT_EQ(sum(recorded, 1, kTensorFp16), value(1, {{1, 1}, {2, 1}}));
  EXPECT_EQ(sum(recorded, 1, kTensorTf32), value(1, {{3, 1}}));
  // Additions, multiplications and both at once; two halves in an instruction.
  EXPECT_EQ(sum(recorded, 2, kScalarFp32), value(2, {{0, 1}, {1, 1}, {2, 2}}));
  EXPECT_EQ(sum(recorded, 2, kScalarFp64), value(2, {{3, 1}, {4, 1}, {5, 2}}));
  EXPECT_EQ(sum(recorded, 2, kScalarFp16), value(2, {{6, 2}, {7, 2}, {8, 4}}));
  for (const recording::RecordedStep& step : recorded.steps) {
    for (const OperatorRow& row : step.books.operators) {
      double tensor = 0, scalar = 0;
      for (const auto& part : row.by_format) {
        (is_tensor(part.format) ? tensor : scalar) += part.flops;
      }
      EXPECT_EQ(tensor, row.tensor_flops);
      EXPECT_EQ(scalar, row.scalar_flops);
    }
  }
}

// The product of the forward pass is inside another operator, which executes it: beside what that
// one executed stands what its parts have by formula. Its gradient is an operator of its own.
TEST_F(Counters, WhatIsExecutedStandsBesideTheFormulasOfAllThatRan) {
  forward_ = [](const torch::Tensor& weight) { return torch::randn({4, 8}).matmul(weight); };
  const recording::Run recorded = run(1);
  const double flops = 2.0 * 4 * 8 * 8;
  double in_ranges = 0;
  for (const OperatorRow& row : recorded.steps[0].books.operators) {
    in_ranges += row.range_flops;
    const std::string op = recorded.text(row.op);
    if (row.flops > 0) {
      EXPECT_EQ(op, "aten::mm");
      EXPECT_EQ(row.flops, flops);
    }
    const bool is_outer = op == (row.phase == Phase::kBackward ? "aten::mm" : "aten::matmul");
    EXPECT_EQ(row.range_flops, is_outer ? flops : 0) << op << " in " << key(row.phase);
    EXPECT_EQ(row.alignment, is_outer ? 4u : 0u) << op;  // of 4, 8 and 8
  }
  EXPECT_EQ(in_ranges, 2 * flops);
}

// The sizes of what is multiplied, as far as the operator's inputs tell them.
TEST_F(Counters, AlignmentIsOfEverySizeOfTheProduct) {
  forward_ = [](const torch::Tensor& weight) {
    // 3 x 4 rows beside a matrix; each matrix of a stack by itself; a convolution.
    const auto rows = at::linear(torch::randn({3, 4, 8}), weight);
    const auto stack = at::matmul(torch::randn({3, 16, 32}), torch::randn({3, 32, 64}));
    const auto image = at::conv2d(torch::randn({1, 8, 4, 4}), torch::randn({8, 8, 3, 3}));
    return rows.sum() + stack.sum() + image.sum();
  };
  const recording::Run recorded = run(1);
  std::map<std::string, uint32_t> alignment;
  for (const OperatorRow& row : recorded.steps[0].books.operators) {
    if (row.phase != Phase::kBackward && row.range_flops > 0) {
      alignment[recorded.text(row.op)] = row.alignment;
    }
  }
  EXPECT_EQ(alignment["aten::linear"], 4u);
  EXPECT_EQ(alignment["aten::matmul"], 16u);
  ASSERT_TRUE(alignment.contains("aten::conv2d"));
  EXPECT_EQ(alignment["aten::conv2d"], 0u);
}

TEST_F(Counters, CausalAttentionSaysSo) {
  for (const bool causal : {true, false}) {
    FakeCupti::reset();
    forward_ = [causal](const torch::Tensor& weight) {
      const auto q = weight.view({1, 1, 8, 8});
      return at::scaled_dot_product_attention(q, q, q, {}, 0, causal);
    };
    const recording::Run recorded = run(1);
    double in_ranges = 0, left_out = 0;
    size_t rows = 0;
    for (const OperatorRow& row : recorded.steps[0].books.operators) {
      if (recorded.text(row.op).find("attention") == std::string::npos || row.range_flops == 0)
        continue;
      in_ranges += row.range_flops;
      left_out += row.causal_flops;
      ++rows;
    }
    EXPECT_EQ(rows, 2u);  // forward and backward
    EXPECT_GT(in_ranges, 0);
    EXPECT_EQ(left_out, causal ? in_ranges : 0);
  }
}

TEST_F(Counters, MmaSyncIsCountedWhereItRan) {
  FakeCupti::instance().mma_instructions = 5;
  const recording::Run recorded = run(3);
  EXPECT_GT(sum(recorded, 1, &OperatorRow::tensor_flops), 0);  // of mma.sync
  EXPECT_EQ(sum(recorded, 1, &OperatorRow::device_ns), 0);
  EXPECT_GT(sum(recorded, 2, &OperatorRow::scalar_flops), 0);
}

TEST_F(Counters, TwoPassesAreTwoSteps) {
  FakeCupti::instance().passes = 2;
  const recording::Run recorded = run(2);
  EXPECT_EQ(sum(recorded, 0, &OperatorRow::tensor_flops), 0);
  EXPECT_GT(sum(recorded, 1, &OperatorRow::tensor_flops), 0);
}

TEST_F(Counters, ARefusalEndsNothingAndIsExplained) {
  for (const char* call :
       {"cuptiProfilerInitialize", "cuptiRangeProfilerEnable", "cuptiRangeProfilerPushRange",
        "cuptiRangeProfilerStop", "cuptiRangeProfilerDecodeData"}) {
    FakeCupti::reset();
    FakeCupti::instance().refused_call = call;
    FakeCupti::instance().refusal = CUPTI_ERROR_HARDWARE_BUSY;
    const recording::Run recorded = run(2);
    EXPECT_EQ(recorded.end.ended, "clean");
    EXPECT_EQ(recorded.steps.size(), 2u);
    EXPECT_THAT(reason(recorded), testing::HasSubstr("dcgmi profile --pause")) << call;
    EXPECT_THAT(recorded.end.notes, testing::Contains(testing::HasSubstr(call)));
    EXPECT_EQ(sum(recorded, 1, &OperatorRow::tensor_flops), 0);
    EXPECT_GT(sum(recorded, 1, &OperatorRow::flops), 0);  // the formulas stay
  }
}

// ---- names and times of kernels

constexpr const char* kGemm = "void atest::gemm<float>(int)";

TEST_F(Counters, OneStepNamesItsKernels) {
  const recording::Run recorded = run(5);
  // Steps 0 and 1 count the two sets; 2 names; then the first set again.
  for (const size_t step : {0u, 1u, 3u, 4u}) {
    EXPECT_TRUE(recorded.steps[step].books.kernels.empty()) << step;
    EXPECT_GT(sum(recorded, step, &OperatorRow::tensor_flops) +
                  sum(recorded, step, &OperatorRow::scalar_flops),
              0)
        << step;
  }
  EXPECT_EQ(sum(recorded, 2, &OperatorRow::tensor_flops), 0);
  const KernelRow forward = kernel(recorded, 2, kGemm, Phase::kForward);
  EXPECT_EQ(recorded.text(forward.op), "aten::mm");
  EXPECT_EQ(forward.calls, 1u);
  EXPECT_EQ(forward.device_ns, 500);
  // On autograd's thread: the gradient of the weight.
  const KernelRow backward = kernel(recorded, 2, kGemm, Phase::kBackward);
  EXPECT_EQ(recorded.text(backward.op), "aten::mm");
  EXPECT_EQ(backward.calls, 1u);
  const KernelRow reduce = kernel(recorded, 2, "reduce", Phase::kForward);
  EXPECT_EQ(recorded.text(reduce.op), "aten::sum");
  EXPECT_EQ(reduce.calls, 2u);
  EXPECT_EQ(reduce.device_ns, 40);
  // The place for subscribers was taken once, after the device was waited for, and given back.
  EXPECT_EQ(FakeCupti::times("cuptiSubscribe_v2"), 1u);
  EXPECT_EQ(FakeCupti::times("cuptiUnsubscribe"), 1u);
  EXPECT_EQ(driver_.synchronized, 1);
  EXPECT_TRUE(FakeCupti::external_ids().empty());
}

TEST_F(Counters, WhereCountersAreRefusedKernelsHaveTheirTimes) {
  FakeCupti::instance().refused_call = "cuptiRangeProfilerEnable";
  FakeCupti::instance().refusal = CUPTI_ERROR_INSUFFICIENT_PRIVILEGES;
  const recording::Run recorded = run(3);
  EXPECT_THAT(reason(recorded), testing::HasSubstr("NVreg_RestrictProfilingToAdminUsers=0"));
  EXPECT_EQ(kernel(recorded, 1, kGemm, Phase::kForward).device_ns, 500);
  EXPECT_TRUE(recorded.steps[2].books.kernels.empty());
}

TEST_F(Counters, WhereThePlaceIsTakenItIsAskedForAgain) {
  FakeCupti::instance().subscribed = true;  // torch.profiler traces
  FakeCupti::instance().other_subscriber = "Kineto";
  const recording::Run recorded = run(4);
  EXPECT_EQ(FakeCupti::times("cuptiSubscribe_v2"), 2u);
  EXPECT_EQ(FakeCupti::times("cuptiUnsubscribe"), 0u);
  EXPECT_EQ(FakeCupti::times("cuptiActivityRegisterCallbacks"), 0u);
  EXPECT_THAT(recorded.end.notes,
              testing::Contains(testing::AllOf(testing::HasSubstr("Kernels have no names"),
                                               testing::HasSubstr("use one at a time"),
                                               testing::HasSubstr("'Kineto'"))));
  // Those steps count instead.
  EXPECT_GT(sum(recorded, 3, &OperatorRow::tensor_flops), 0);
}

TEST_F(Counters, KernelByKernel) {
  FakeCupti::instance().passes = 3;  // replayed by CUPTI: one step has them all
  const recording::Run recorded = run(2, {.per_kernel = true});
  EXPECT_EQ(reason(recorded), "");
  EXPECT_EQ(FakeCupti::times("cuptiRangeProfilerPushRange"), 0u);
  const KernelRow forward = kernel(recorded, 0, kGemm, Phase::kForward);
  EXPECT_EQ(recorded.text(forward.op), "aten::mm");
  EXPECT_EQ(forward.calls, 1u);
  double tensor = 0;  // it was the first kernel of the step
  for (size_t metric = 0; metric < 5; ++metric) tensor += FakeCupti::value(0, metric);
  EXPECT_EQ(forward.tensor_flops, tensor);
  EXPECT_EQ(forward.by_format.of(FlopFormat::kTensorTf32), FakeCupti::value(0, 2));
  EXPECT_EQ(forward.device_ns, FakeCupti::value(0, 7));
  EXPECT_EQ(kernel(recorded, 0, "reduce", Phase::kForward).calls, 2u);
  EXPECT_EQ(recorded.text(kernel(recorded, 0, kGemm, Phase::kBackward).op), "aten::mm");
  // Operators have the sums of their kernels.
  double kernels = 0;
  for (const KernelRow& row : recorded.steps[0].books.kernels) kernels += row.tensor_flops;
  EXPECT_GT(kernels, tensor);
  EXPECT_EQ(sum(recorded, 0, &OperatorRow::tensor_flops), kernels);
  EXPECT_EQ(FakeCupti::times("cuptiSubscribe_v2"), 2u);  // once a step
  EXPECT_EQ(FakeCupti::times("cuptiUnsubscribe"), 2u);
}

TEST_F(Counters, KernelByKernelWithoutNames) {
  FakeCupti::instance().subscribed = true;
  const recording::Run recorded = run(1, {.per_kernel = true});
  const KernelRow all = kernel(recorded, 0, "(not named)", Phase::kOther);
  EXPECT_EQ(all.calls, 4u);
  EXPECT_GT(all.tensor_flops, 0);
  EXPECT_EQ(sum(recorded, 0, &OperatorRow::tensor_flops), 0);
  EXPECT_THAT(recorded.end.notes,
              testing::Contains(testing::HasSubstr("one place for subscribers")));
}

TEST_F(Counters, AProgramWithoutAContextIsAskedAgainEachStep) {
  driver_.has_context = false;
  const recording::Run recorded = run(2);
  EXPECT_THAT(reason(recorded), testing::HasSubstr("no CUDA context"));
  EXPECT_EQ(FakeCupti::times("cuptiProfilerInitialize"), 0u);
}

}  // namespace
}  // namespace tally::test
