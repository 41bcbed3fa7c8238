// SPDX-License-Identifier: Apache-2.0
// What LibTorch's CUDA allocator tells its trackers: each rule that hooks/cuda stands on is one
// test, so another version of LibTorch that changes a rule says so by its name. The allocator is
// the real one; only the card is virtual.
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <thread>

#include "tests/virtual_gpu/events.h"
#include "tests/virtual_gpu/virtual_gpu.h"

namespace tally::test {
namespace {

using Entry = c10::CachingDeviceAllocator::TraceEntry;
constexpr int64_t kMiB = 1 << 20;

bool runs_with(const char* variable) { return std::getenv(variable) != nullptr; }
bool is_expandable() {
  return cuda_allocator::snapshot({0, 0}, false).config_metadata.expandable_segments;
}
std::vector<Action> actions(const std::vector<AllocatorEvent>& events) {
  std::vector<Action> list;
  for (const AllocatorEvent& event : events) list.push_back(event.action);
  return list;
}

class AllocatorRules : public testing::Test {
 protected:
  void SetUp() override {
    if (runs_with("PYTORCH_NO_CUDA_MEMORY_CACHING")) GTEST_SKIP() << "caching is off";
    AllocatorEvents::instance();
    cuda_allocator::emptyCache();
    events().clear();
    requested_ = requested_bytes();
    reserved_ = reserved_bytes();
  }
  static AllocatorEvents& events() { return AllocatorEvents::instance(); }
  void expect_sums(const char* where) {
    SCOPED_TRACE(where);
    EXPECT_EQ(requested_ + events().sum(Action::ALLOC) - events().sum(Action::FREE_COMPLETED),
              requested_bytes());
    EXPECT_EQ(reserved_ + events().sum(Action::SEGMENT_ALLOC) - events().sum(Action::SEGMENT_FREE) +
                  events().sum(Action::SEGMENT_MAP) - events().sum(Action::SEGMENT_UNMAP),
              reserved_bytes());
  }

 private:
  int64_t requested_ = 0;
  int64_t reserved_ = 0;
};

TEST(AllocatorEventsBeforeInitialisation, ATrackerAttachedTooEarlyNeverHearsAnything) {
  if (cuda_allocator::get()->initialized()) GTEST_SKIP() << "needs a process of its own";
  static int heard = 0;
  cuda_allocator::attachAllocatorTraceTracker([](const Entry&) { ++heard; });
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  { const at::Tensor tensor = bytes_on_card(1000); }
  EXPECT_EQ(heard, 0);
}

TEST_F(AllocatorRules, TwoTrackersAreTwoCallsAnEvent) {
  static std::atomic<int> heard{0};
  cuda_allocator::attachAllocatorTraceTracker([](const Entry&) { ++heard; });
  { const at::Tensor tensor = bytes_on_card(1000); }
  EXPECT_EQ(heard.load(), static_cast<int>(events().all().size()));
}

TEST_F(AllocatorRules, SizesAreThoseAskedFor) {
  const at::Tensor small = bytes_on_card(1000);
  const at::Tensor large = bytes_on_card(3 * kMiB + 17);
  const auto allocs = events().of(Action::ALLOC);
  ASSERT_EQ(allocs.size(), 2u);
  EXPECT_EQ(allocs[0].size, 1000u);
  EXPECT_EQ(allocs[1].size, 3u * kMiB + 17);
  EXPECT_EQ(allocs[0].address, reinterpret_cast<size_t>(small.data_ptr()));
  EXPECT_FALSE(allocs[0].has_context);
}

TEST_F(AllocatorRules, TensorsOfNoBytesMakeNoEvent) {
  const at::Tensor tensor = bytes_on_card(0);
  EXPECT_TRUE(events().all().empty());
}

TEST_F(AllocatorRules, AllocationsWithoutCompletedFreesAreRequestedBytes) {
  torch::nn::Sequential net(torch::nn::Linear(1000, 4096), torch::nn::GELU(),
                            torch::nn::Linear(4096, 10));
  net->to(torch::kCUDA);
  torch::optim::AdamW optimizer(net->parameters(), torch::optim::AdamWOptions(1e-3));
  expect_sums("model");
  for (int step = 0; step < 2; ++step) {
    const auto labels =
        torch::randint(10, {64}, torch::TensorOptions(torch::kLong).device(torch::kCUDA));
    auto loss = torch::nn::functional::cross_entropy(
        net->forward(torch::randn({64, 1000}, torch::kCUDA)), labels);
    expect_sums("forward");
    loss.backward();
    expect_sums("backward");
    optimizer.step();
    optimizer.zero_grad();
    expect_sums("step");
  }
  cuda_allocator::emptyCache();
  expect_sums("empty cache");
}

TEST_F(AllocatorRules, ASegmentComesBeforeTheBlockItServes) {
  const at::Tensor tensor = bytes_on_card(30 * kMiB);
  const auto all = events().all();
  ASSERT_GE(all.size(), 2u);
  EXPECT_THAT(all.front().action, testing::AnyOf(Action::SEGMENT_ALLOC, Action::SEGMENT_MAP));
  EXPECT_EQ(all.back().action, Action::ALLOC);
}

TEST_F(AllocatorRules, APlainFreeIsRequestedAndCompletedAtOnce) {
  { const at::Tensor tensor = bytes_on_card(5000); }
  const auto all = events().all();
  ASSERT_GE(all.size(), 2u);
  EXPECT_EQ(all[all.size() - 2].action, Action::FREE_REQUESTED);
  EXPECT_EQ(all.back().action, Action::FREE_COMPLETED);
  EXPECT_EQ(all.back().size, 5000u);
}

TEST_F(AllocatorRules, AFreeWaitsForTheStreamThatWasRecorded) {
  at::Tensor tensor = bytes_on_card(5 * kMiB);
  const at::Tensor keeps_segment = bytes_on_card(kMiB + 1);
  const c10::cuda::CUDAStream other = c10::cuda::getStreamFromPool();
  cuda_allocator::recordStream(tensor.storage().data_ptr(), other);
  const int64_t requested = requested_bytes();
  const int64_t active = active_bytes();
  const int64_t allocated = allocated_bytes();
  vgpu_set_event_lag(3);
  events().clear();
  tensor.reset();
  vgpu_set_event_lag(0);
  EXPECT_THAT(actions(events().all()), testing::ElementsAre(Action::FREE_REQUESTED));
  EXPECT_EQ(requested_bytes(), requested);
  EXPECT_EQ(active_bytes(), active);
  EXPECT_LT(allocated_bytes(), allocated);
  std::vector<at::Tensor> later;
  int asked = 0;
  while (events().of(Action::FREE_COMPLETED).empty() && asked++ < 10)
    later.push_back(bytes_on_card(8));
  const auto all = events().all();
  ASSERT_GE(all.size(), 3u);
  // Completed within a later allocation that asked the event, before that allocation's own event.
  EXPECT_EQ(all[all.size() - 2].action, Action::FREE_COMPLETED);
  EXPECT_EQ(all.back().action, Action::ALLOC);
  EXPECT_EQ(requested_bytes(), requested - 5 * kMiB + 8 * asked);
}

TEST_F(AllocatorRules, StatisticsInsideTheCallback) {
  const int64_t requested = requested_bytes();
  const int64_t reserved = reserved_bytes();
  const int64_t allocated = allocated_bytes();
  events().ask_statistics(true);
  { const at::Tensor tensor = bytes_on_card(30 * kMiB); }
  cuda_allocator::emptyCache();
  events().ask_statistics(false);
  int64_t segment_bytes = 0;
  for (const AllocatorEvent& event : events().all()) {
    switch (event.action) {
      case Action::SEGMENT_ALLOC:
      case Action::SEGMENT_MAP:
        segment_bytes += static_cast<int64_t>(event.size);
        EXPECT_EQ(event.reserved, reserved + segment_bytes);
        break;
      case Action::ALLOC:
        EXPECT_EQ(event.requested, requested);
        EXPECT_EQ(event.allocated, allocated);
        break;
      case Action::FREE_REQUESTED:
        EXPECT_EQ(event.allocated, allocated);
        EXPECT_EQ(event.requested, requested + 30 * kMiB);
        break;
      case Action::FREE_COMPLETED:
        EXPECT_EQ(event.requested, requested + 30 * kMiB);
        break;
      case Action::SEGMENT_FREE:
        EXPECT_EQ(event.reserved, reserved + segment_bytes);
        segment_bytes -= static_cast<int64_t>(event.size);
        break;
      default:
        break;
    }
  }
}

TEST_F(AllocatorRules, CallbacksRunOnTheThreadThatAllocates) {
  std::thread([] { const at::Tensor tensor = bytes_on_card(100); }).join();
  for (const AllocatorEvent& event : events().all()) EXPECT_NE(event.thread, gettid());
  events().clear();
  auto x = torch::randn({100, 100}, torch::TensorOptions(torch::kCUDA).requires_grad(true));
  x.mm(x).sum().backward();
  bool on_main = false;
  bool elsewhere = false;  // autograd has a thread of its own for each card
  for (const AllocatorEvent& event : events().of(Action::ALLOC)) {
    (event.thread == gettid() ? on_main : elsewhere) = true;
  }
  EXPECT_TRUE(on_main);
  EXPECT_TRUE(elsewhere);
}

TEST_F(AllocatorRules, FourThreadsLoseNoByte) {
  std::vector<std::thread> threads;
  std::vector<std::vector<at::Tensor>> kept(4);
  for (auto& own : kept) {
    threads.emplace_back([&own] {
      for (int64_t i = 0; i < 2000; ++i) {
        own.push_back(bytes_on_card(i * 7919 % 3000000 + 1));
        if (own.size() > 20) own.erase(own.begin() + i % 20);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  expect_sums("four threads");
}

TEST_F(AllocatorRules, OutOfMemoryFreesTheCacheThenTellsThenThrows) {
  const at::Tensor keep = bytes_on_card(30 * kMiB);
  { const at::Tensor cached = bytes_on_card(40 * kMiB); }
  const uint64_t total = vgpu_get_model()->total;
  vgpu_set_total(vgpu_used(0) + 20 * kMiB);
  events().clear();
  EXPECT_THROW(bytes_on_card(90 * kMiB + 5), c10::OutOfMemoryError);
  const uint64_t limit = vgpu_get_model()->total;
  vgpu_set_total(total);
  const auto all = events().all();
  ASSERT_FALSE(all.empty());
  const Action gives_back = is_expandable() ? Action::SEGMENT_UNMAP : Action::SEGMENT_FREE;
  EXPECT_EQ(events().sum(gives_back), 40 * kMiB);
  EXPECT_EQ(all.back().action, Action::OOM);
  EXPECT_EQ(all.back().size, 90u * kMiB + 512);  // rounded up to 512
  EXPECT_EQ(all.back().address, 60u * kMiB);     // bytes that are free
  const auto told = events().out_of_memory();
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].events_before, all.size());  // the observer comes after the event
  EXPECT_EQ(told[0].total, limit);
  EXPECT_EQ(told[0].free, 60u * kMiB);
  EXPECT_EQ(told[0].wanted, 92u * kMiB);  // the segment, in pieces of 2 MiB
}

TEST_F(AllocatorRules, OutOfMemoryTellsTheLimitOfTheProcess) {
  cuda_allocator::setMemoryFraction(0.001, 0);
  EXPECT_THROW(bytes_on_card(400 * kMiB), c10::OutOfMemoryError);
  cuda_allocator::setMemoryFraction(1.0, 0);
  const auto told = events().out_of_memory();
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].total,
            static_cast<size_t>(0.001 * static_cast<double>(vgpu_get_model()->total)));
}

TEST_F(AllocatorRules, ASnapshotIsNoEventOfMemory) {
  const at::Tensor tensor = bytes_on_card(4 * kMiB);
  events().clear();
  cuda_allocator::snapshot();
  // One for each device, in their order; all of them name device 0.
  const auto all = events().all();
  EXPECT_EQ(all.size(), static_cast<size_t>(c10::cuda::device_count()));
  EXPECT_THAT(actions(all), testing::Each(Action::SNAPSHOT));
  for (const AllocatorEvent& event : all) EXPECT_EQ(event.device, 0);
}

TEST_F(AllocatorRules, PoolsAreNamedByTheirIds) {
  { const at::Tensor tensor = bytes_on_card(100); }
  for (const AllocatorEvent& event : events().all())
    EXPECT_EQ(event.pool, (c10::MempoolId_t{0, 0}));
  events().clear();
  const c10::MempoolId_t own{0, 77};
  cuda_allocator::beginAllocateToPool(0, own, [](cudaStream_t) { return true; });
  { const at::Tensor tensor = bytes_on_card(4 * kMiB); }
  cuda_allocator::endAllocateToPool(0, own);
  cuda_allocator::releasePool(0, own);
  ASSERT_FALSE(events().all().empty());
  for (const AllocatorEvent& event : events().of(Action::ALLOC)) EXPECT_EQ(event.pool, own);
}

TEST_F(AllocatorRules, AGraphAllocatesWhenCapturedNotWhenReplayed) {
  const auto stream = c10::cuda::getStreamFromPool();
  const c10::cuda::CUDAStreamGuard guard(stream);
  const at::Tensor x = torch::zeros({1000}, torch::kCUDA);
  at::Tensor y;
  at::cuda::CUDAGraph graph;
  events().clear();
  graph.capture_begin();
  y = x * 2;
  graph.capture_end();
  const auto allocs = events().of(Action::ALLOC);  // the graph's random state, then y
  ASSERT_FALSE(allocs.empty());
  EXPECT_EQ(allocs.back().size, 4000u);
  EXPECT_NE(allocs.back().pool.first, 0u);
  EXPECT_EQ(allocs.back().pool.second, 0u);
  events().clear();
  graph.replay();
  EXPECT_TRUE(events().all().empty());
}

TEST_F(AllocatorRules, PinnedHostMemoryIsNotOfThisAllocator) {
  const at::Tensor pinned = torch::empty({1 << 20}).pin_memory();
  EXPECT_TRUE(pinned.is_pinned());
  EXPECT_TRUE(events().all().empty());
}

TEST_F(AllocatorRules, EmptyCacheGivesBackWhatNobodyUses) {
  const at::Tensor keep = bytes_on_card(3 * kMiB);
  { const at::Tensor gone = bytes_on_card(30 * kMiB); }
  events().clear();
  cuda_allocator::emptyCache();
  if (is_expandable()) {
    // Pieces of 20 MiB around the living block go, at addresses inside the segment.
    EXPECT_EQ(events().sum(Action::SEGMENT_UNMAP), 20 * kMiB);
    EXPECT_EQ(reserved_bytes(), 20 * kMiB);
  } else {
    EXPECT_EQ(events().sum(Action::SEGMENT_FREE), 30 * kMiB);
    EXPECT_EQ(reserved_bytes(), 20 * kMiB);
  }
}

TEST_F(AllocatorRules, ExpandableSegmentsAreMapped) {
  if (!is_expandable()) GTEST_SKIP() << "needs expandable segments";
  const at::Tensor tensor = bytes_on_card(30 * kMiB);
  EXPECT_TRUE(events().of(Action::SEGMENT_ALLOC).empty());
  EXPECT_EQ(events().sum(Action::SEGMENT_MAP), 40 * kMiB);  // in pieces of 20 MiB
}

TEST_F(AllocatorRules, TwoDevicesHaveEventsOfTheirOwn) {
  if (c10::cuda::device_count() < 2) GTEST_SKIP() << "needs two cards";
  const int64_t before = requested_bytes(1);
  const at::Tensor tensor = bytes_on_card(123456, 1);
  EXPECT_EQ(events().sum(Action::ALLOC, 0), 0);
  EXPECT_EQ(events().sum(Action::ALLOC, 1), 123456);
  EXPECT_EQ(requested_bytes(1), before + 123456);
}

TEST(AllocatorWithoutCache, MakesNoEvents) {
  if (!runs_with("PYTORCH_NO_CUDA_MEMORY_CACHING")) GTEST_SKIP() << "needs a process of its own";
  AllocatorEvents::instance();
  { const at::Tensor tensor = bytes_on_card(5000); }
  EXPECT_TRUE(AllocatorEvents::instance().all().empty());
}

TEST(AllocatorOfTheDriver, RefusesTrackers) {
  if (cuda_allocator::get()->name() != "cudaMallocAsync")
    GTEST_SKIP() << "needs a process of its own";
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  try {
    cuda_allocator::attachAllocatorTraceTracker([](const Entry&) {});
    FAIL() << "it took a tracker";
  } catch (const c10::Error& error) {
    EXPECT_THAT(
        error.what_without_backtrace(),
        testing::HasSubstr("cudaMallocAsync does not yet support attachAllocatorTraceTracker"));
  }
}

}  // namespace
}  // namespace tally::test
