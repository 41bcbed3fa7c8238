// SPDX-License-Identifier: Apache-2.0
// Pinned host memory under the profiler: every block of LibTorch's own host allocator is in books
// of its own, which close against its statistics at every mark. The card is virtual.
#include <ATen/core/CachingHostAllocator.h>
#include <gmock/gmock.h>

#include <thread>
#include <vector>

#include "tests/support/profiled_run.h"

namespace tally::test {
namespace {

at::HostAllocator* host_allocator() { return at::getHostAllocator(c10::DeviceType::CUDA); }

class PinnedMemory : public testing::Test {
 protected:
  void SetUp() override {
    at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
    host_allocator()->empty_cache();
    ASSERT_EQ(host_allocator()->get_stats().allocated_bytes.current, 0);
  }
};

// Position of the device in the run's list, and its books in a step.
DeviceIndex pinned_index(const recording::Run& run) {
  for (size_t i = 0; i < run.info.devices.size(); ++i) {
    if (run.info.devices[i].id == "pinned") return static_cast<DeviceIndex>(i);
  }
  return 0;
}
const DeviceBooks& pinned(const recording::Run& run, size_t step) {
  for (const DeviceBooks& books : run.steps.at(step).books.devices) {
    if (books.device == pinned_index(run) && books.device != 0) return books;
  }
  throw std::out_of_range("the step has no books of pinned memory");
}
MarkBook mark(const recording::Run& run, size_t step, Mark kind) {
  for (const MarkBook& book : pinned(run, step).marks) {
    if (book.mark == kind) return book;
  }
  throw std::out_of_range("no such mark");
}

// 12000 bytes in a block of 16384, copied to the card and read there.
void step_with_batch(Profiler& profiler, const torch::Tensor& weight,
                     std::vector<torch::Tensor>* keep) {
  const auto step = profiler.step();
  const torch::Tensor batch = torch::ones({3000}).pin_memory();
  EXPECT_TRUE(batch.is_pinned());
  const torch::Tensor on_card = batch.to(torch::kCUDA, /*non_blocking=*/true);
  (weight * on_card).sum().backward();
  if (keep) keep->push_back(batch);
}

TEST_F(PinnedMemory, ABatchIsInputToTheByte) {
  const auto weight = torch::ones({3000}, torch::kCUDA).requires_grad_(true);
  std::vector<torch::Tensor> kept;
  const auto run = profiled([&](Profiler& profiler) {
    for (int i = 0; i < 3; ++i) step_with_batch(profiler, weight, i == 2 ? &kept : nullptr);
  });
  const size_t index = pinned_index(run);
  ASSERT_EQ(index, 1 + torch::cuda::device_count());  // after the CPU and the cards
  EXPECT_EQ(run.info.devices[index].name, "pinned host memory");
  EXPECT_GT(run.info.devices[index].memory_bytes, 0);
  for (size_t step = 0; step < 3; ++step) {
    const MarkBook edge = mark(run, step, Mark::kForwardEdge);
    EXPECT_EQ(edge.bytes, 12000);
    EXPECT_EQ(bytes_of(edge, Role::kInput), 12000);
    EXPECT_EQ(edge.rounding_bytes(), 16384 - 12000);
    EXPECT_EQ(edge.caching->reserved_bytes, 16384);
    EXPECT_EQ(edge.caching->allocator_reserved_bytes, 16384);
    EXPECT_EQ(edge.caching->allocator_active_bytes, 16384);
    const MarkBook end = mark(run, step, Mark::kEnd);
    EXPECT_EQ(end.bytes, step == 2 ? 12000 : 0);
    EXPECT_EQ(end.cached_bytes(), step == 2 ? 0 : 16384);
    EXPECT_EQ(end.caching->reserved_bytes, 16384) << "one block, used again";
    EXPECT_EQ(pinned(run, step).allocations, 1u);
    // The CPU's books have the batch before it was pinned, and nothing that bypasses its allocator.
    EXPECT_EQ(run.steps[step].books.devices[0].foreign_bytes, 0);
  }
  EXPECT_EQ(pinned(run, 0).peak_blocks.size(), 1u);
}

TEST_F(PinnedMemory, BlocksOfManySizesAndTheEmptiedCache) {
  std::vector<torch::Tensor> kept;
  const auto run = profiled([&](Profiler& profiler) {
    for (int i = 0; i < 2; ++i) {
      const auto step = profiler.step();
      // 1, 3 and 5000 bytes: blocks of 1, 4 and 8192.
      for (const int64_t bytes : {1, 3, 5000}) {
        kept.push_back(
            torch::empty({bytes}, torch::TensorOptions(torch::kByte).pinned_memory(true)));
      }
      if (i == 0) kept.pop_back();
      host_allocator()->empty_cache();
    }
  });
  EXPECT_EQ(mark(run, 0, Mark::kEnd).bytes, 4);
  EXPECT_EQ(mark(run, 0, Mark::kEnd).caching->reserved_bytes, 5);
  EXPECT_EQ(mark(run, 0, Mark::kPeak).bytes, 5004);
  EXPECT_EQ(mark(run, 0, Mark::kPeak).caching->reserved_bytes, 8197);
  EXPECT_EQ(mark(run, 1, Mark::kEnd).bytes, 5008);
  EXPECT_EQ(mark(run, 1, Mark::kEnd).caching->reserved_bytes, 8202);
  EXPECT_EQ(mark(run, 1, Mark::kEnd).caching->allocator_reserved_bytes, 8202);
}

TEST_F(PinnedMemory, AttachedInTheMiddle) {
  const auto weight = torch::ones({3000}, torch::kCUDA).requires_grad_(true);
  const torch::Tensor before = torch::ones({3000}).pin_memory();     // 16384, seen when it is read
  const torch::Tensor unseen = torch::ones({30000}).pin_memory();    // 131072, never
  { const torch::Tensor cached = torch::ones({300}).pin_memory(); }  // 2048
  ASSERT_EQ(host_allocator()->get_stats().allocated_bytes.current, 16384 + 131072 + 2048);
  const auto run = profiled([&](Profiler& profiler) {
    for (int i = 0; i < 2; ++i) {
      const auto step = profiler.step();
      (weight * before.to(torch::kCUDA)).sum().backward();
      const torch::Tensor again = torch::ones({400}).pin_memory();  // the cached block
      const torch::Tensor fresh = torch::ones({400}).pin_memory();  // a new one
    }
  });
  const MarkBook edge = mark(run, 0, Mark::kForwardEdge);
  EXPECT_EQ(edge.bytes, 12000);
  EXPECT_EQ(bytes_of(edge, Role::kInput), 12000);
  EXPECT_EQ(edge.caching->active_bytes, 16384);
  EXPECT_EQ(edge.caching->allocator_active_bytes, 16384);
  for (size_t step = 0; step < 2; ++step) {
    EXPECT_EQ(mark(run, step, Mark::kPeak).bytes, 12000 + 2 * 1600);
    EXPECT_EQ(mark(run, step, Mark::kEnd).caching->reserved_bytes, 16384 + 131072 + 2 * 2048);
    EXPECT_EQ(mark(run, step, Mark::kEnd).caching->allocator_reserved_bytes,
              16384 + 131072 + 2 * 2048);
  }
}

TEST_F(PinnedMemory, SessionsOneAfterTheOther) {
  at::HostAllocator* const theirs = host_allocator();
  torch::Tensor kept;
  for (int session = 0; session < 3; ++session) {
    const auto run = profiled([&](Profiler& profiler) {
      EXPECT_NE(host_allocator(), theirs);
      for (int i = 0; i < 2; ++i) {
        const auto step = profiler.step();
        if (i == 1) kept = torch::empty({100}).pin_memory();  // frees that of the session before
      }
    });
    EXPECT_EQ(host_allocator(), theirs);
    EXPECT_EQ(mark(run, 1, Mark::kEnd).bytes, 400) << session;
    if (session > 0) {
      EXPECT_EQ(mark(run, 0, Mark::kStart).bytes, 400);
    }
  }
  kept = torch::Tensor();  // its deleter is still ours, without a session
  theirs->empty_cache();
  EXPECT_EQ(theirs->get_stats().allocated_bytes.current, 0);
}

TEST_F(PinnedMemory, ManyThreads) {
  const auto run = profiled([&](Profiler& profiler) {
    for (int i = 0; i < 4; ++i) {
      const auto step = profiler.step();
      std::vector<std::thread> threads;
      for (int t = 0; t < 4; ++t) {
        threads.emplace_back([t] {
          std::vector<torch::Tensor> mine;
          for (int64_t n = 1; n < 200; ++n) {
            mine.push_back(torch::empty({n * (t + 1)}).pin_memory());
            if (n % 3 == 0) mine.erase(mine.begin());
            if (n % 50 == 0) host_allocator()->empty_cache();
          }
        });
      }
      for (std::thread& thread : threads) thread.join();
    }
  });
  for (size_t step = 0; step < 4; ++step) {
    EXPECT_EQ(pinned(run, step).allocations, 4u * 199u);
    EXPECT_EQ(mark(run, step, Mark::kEnd).bytes, 0);
  }
}

TEST_F(PinnedMemory, AnAllocationThatFailsIsAMarkWithItsNumbers) {
  torch::Tensor kept;
  const auto run = profiled([&](Profiler& profiler) {
    const auto step = profiler.step();
    kept = torch::empty({1000}).pin_memory();
    const auto host = torch::TensorOptions(torch::kByte).pinned_memory(true);
    EXPECT_THROW(torch::empty({int64_t{1} << 50}, host), c10::Error);
  });
  const MarkBook oom = mark(run, 0, Mark::kOom);
  EXPECT_EQ(oom.wanted_bytes, int64_t{1} << 50);
  EXPECT_EQ(oom.limit_bytes, run.info.devices[pinned_index(run)].memory_bytes);
  EXPECT_EQ(oom.bytes, 4000);
  EXPECT_EQ(mark(run, 0, Mark::kEnd).bytes, 4000);
}

// The statistics that LibTorch itself gives through our allocator are its own.
TEST_F(PinnedMemory, TheProgramSeesItsOwnStatistics) {
  (void)profiled([&](Profiler& profiler) {
    const auto step = profiler.step();
    host_allocator()->reset_accumulated_stats();
    const torch::Tensor one = torch::empty({3000}).pin_memory();
    const at::HostStats stats = host_allocator()->get_stats();
    EXPECT_EQ(stats.active_bytes.allocated, 16384);
    EXPECT_EQ(stats.allocated_bytes.current, 16384);
    EXPECT_EQ(stats.active_requests.allocated, 1);
  });
}

}  // namespace
}  // namespace tally::test
