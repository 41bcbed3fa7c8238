// SPDX-License-Identifier: Apache-2.0
// What hardware counters told: to the row of the operator whose range it was, by number format, and
// beside it the formulas of all that ran in the range.
#include <bit>

#include "tests/support/event_script.h"

namespace tally::test {
namespace {

class Executed : public testing::Test {
 protected:
  void range(uint64_t number, uint64_t alignment = 0, uint8_t flags = 0) {
    script_.push(EventKind::kRange, number, alignment, 0, 0, flags);
  }
  void counted(uint64_t range, FlopFormat format, double value) {
    counted(range, static_cast<uint32_t>(format), value);
  }
  void counted(uint64_t range, uint32_t quantity, double value) {
    script_.push(EventKind::kCounted, range, std::bit_cast<uint64_t>(value), 0, quantity);
  }
  void kernel(uint64_t range, FlopFormat format, double value, uint64_t calls) {
    script_.push(EventKind::kKernel, range, std::bit_cast<uint64_t>(value), calls,
                 script_.id("gemm"), static_cast<uint8_t>(format));
  }
  // linear, with the product inside it, in a range of its own.
  void linear(uint64_t number, uint64_t flops, uint64_t alignment = 0) {
    script_.op("aten::linear", {}, [&] {
      range(number, alignment);
      script_.work_inside("aten::addmm", flops);
    });
  }
  EventScript script_;
};

TEST_F(Executed, FormatsAndTheirSums) {
  const StepBooks books = script_.step([&] {
    linear(0, 100);
    linear(1, 100);
    counted(0, FlopFormat::kTensorBf16, 90);
    counted(0, FlopFormat::kTensorTf32, 20);
    counted(1, FlopFormat::kTensorBf16, 7);
    counted(1, FlopFormat::kScalarFp32, 4);
    counted(1, static_cast<uint32_t>(CountedQuantity::kNanoseconds), 1000);
    counted(1, static_cast<uint32_t>(CountedQuantity::kDramBytes), 64);
    counted(1, kCountedQuantities, 1e9);       // nobody knows what it is
    counted(2, FlopFormat::kTensorBf16, 1e9);  // nor which operator
  });
  const OperatorRow row = script_.row(books, Phase::kForward, "", "aten::linear");
  EXPECT_EQ(row.by_format.of(FlopFormat::kTensorBf16), 97);
  EXPECT_EQ(row.by_format.of(FlopFormat::kTensorTf32), 20);
  EXPECT_EQ(row.by_format.of(FlopFormat::kScalarFp32), 4);
  EXPECT_EQ(row.tensor_flops, 117);
  EXPECT_EQ(row.scalar_flops, 4);
  EXPECT_EQ(row.device_ns, 1000);
  EXPECT_EQ(row.dram_bytes, 64);
}

TEST_F(Executed, TheFormulasOfPartsStandBesideTheWhole) {
  const StepBooks books = script_.step([&] {
    linear(0, 100, 64);
    linear(1, 30, 16);
    script_.op("aten::mm", {.flops = 8}, [&] { range(2, 8); });
    script_.op("aten::mm", {.flops = 2});  // another thread's range was open
    counted(0, FlopFormat::kTensorBf16, 1);
  });
  const OperatorRow linear = script_.row(books, Phase::kForward, "", "aten::linear");
  EXPECT_EQ(linear.flops, 0);
  EXPECT_EQ(linear.range_flops, 130);
  EXPECT_EQ(linear.alignment, 16u);  // the least of its calls
  EXPECT_EQ(linear.causal_flops, 0);
  const OperatorRow part = script_.row(books, Phase::kForward, "", "aten::addmm");
  EXPECT_EQ(part.flops, 130);
  EXPECT_EQ(part.range_flops, 0);
  const OperatorRow mm = script_.row(books, Phase::kForward, "", "aten::mm");
  EXPECT_EQ(mm.flops, 10);
  EXPECT_EQ(mm.range_flops, 8);
}

TEST_F(Executed, CausalAttentionIsKept) {
  const StepBooks books = script_.step([&] {
    script_.op("aten::sdpa", {.flops = 40}, [&] { range(0, 0, event_flags::kCausal); });
    script_.op("aten::sdpa", {.flops = 50}, [&] { range(1); });
    counted(0, FlopFormat::kTensorBf16, 21);
  });
  const OperatorRow row = script_.row(books, Phase::kForward, "", "aten::sdpa");
  EXPECT_EQ(row.range_flops, 90);
  EXPECT_EQ(row.causal_flops, 40);
}

// What a part took back before it began did not run.
TEST_F(Executed, APartThatDidNotRunIsNotInTheRange) {
  const StepBooks books = script_.step([&] {
    script_.op("aten::linear", {}, [&] {
      range(0);
      script_.work_inside("aten::addmm", 100);
      script_.work_inside("aten::addmm", 100, true);
    });
    counted(0, FlopFormat::kTensorBf16, 1);
  });
  EXPECT_EQ(script_.row(books, Phase::kForward, "", "aten::linear").range_flops, 0);
}

TEST_F(Executed, AStepThatWasNotCountedHasNothing) {
  const StepBooks books = script_.step([&] { linear(0, 100, 64); });  // it named kernels
  for (const OperatorRow& row : books.operators) {
    EXPECT_EQ(row.range_flops, 0);
    EXPECT_EQ(row.alignment, 0u);
    EXPECT_TRUE(row.by_format.empty());
  }
}

TEST_F(Executed, AnOperatorThatOutlivesItsStepIsInNoRangeOfTheNext) {
  script_.step_begin();
  script_.push(EventKind::kOpEnter, 1000, 0, 0, script_.id("aten::mm"), kForward);
  range(0);
  (void)script_.step_end();
  const StepBooks books = script_.step([&] {
    script_.on_thread(1).op("aten::bmm", {.flops = 5}, [&] { range(0); });
    script_.on_thread(0).push(EventKind::kOpExit);
    counted(0, FlopFormat::kTensorBf16, 5);
  });
  EXPECT_EQ(script_.row(books, Phase::kForward, "", "aten::bmm").range_flops, 5);
}

TEST_F(Executed, KernelsHaveFormatsToo) {
  const StepBooks books = script_.step([&] {
    linear(0, 100);
    kernel(0, FlopFormat::kTensorFp8, 70, 2);
    kernel(0, FlopFormat::kScalarFp16, 6, 0);
    kernel(~uint64_t{0}, FlopFormat::kScalarFp64, 3, 1);
  });
  ASSERT_EQ(books.kernels.size(), 2u);
  EXPECT_EQ(books.kernels[0].by_format.of(FlopFormat::kTensorFp8), 70);
  EXPECT_EQ(books.kernels[0].tensor_flops, 70);
  EXPECT_EQ(books.kernels[0].scalar_flops, 6);
  EXPECT_EQ(books.kernels[0].calls, 2u);
  EXPECT_EQ(books.kernels[1].by_format.of(FlopFormat::kScalarFp64), 3);
}

}  // namespace
}  // namespace tally::test
