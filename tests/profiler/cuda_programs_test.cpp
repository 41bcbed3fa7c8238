// SPDX-License-Identifier: Apache-2.0
// Training programs on a CUDA device under the profiler: the books of LibTorch's own caching
// allocator close at every mark, against its statistics, and roles are proved as on the CPU. The
// card is virtual (tests/virtual_gpu), everything above it is real. Run again with other settings
// of the allocator; see CMakeLists.txt.
#include <ATen/autocast_mode.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>

#include "samples/gpt.h"
#include "tests/support/profiled_run.h"
#include "tests/virtual_gpu/events.h"
#include "tests/virtual_gpu/virtual_gpu.h"

namespace tally::test {
namespace {

constexpr int64_t kMiB = 1 << 20;
constexpr size_t kCard = 1;  // the index of cuda:0

void use_cuda() { at::globalContext().lazyInitDevice(c10::DeviceType::CUDA); }
torch::TensorOptions on_card() { return torch::TensorOptions(torch::kCUDA); }
torch::Tensor tokens(int64_t batch, int64_t length, int64_t vocabulary) {
  return torch::randint(vocabulary, {batch, length}, on_card().dtype(torch::kLong));
}
int64_t bytes_of_parameters(const torch::nn::Module& module) {
  int64_t bytes = 0;
  for (const auto& parameter : module.parameters())
    bytes += static_cast<int64_t>(parameter.nbytes());
  return bytes;
}
// What only the device knows: unknown to nobody, so nothing may stay unnamed.
void expect_nothing_unnamed(const recording::Run& run, size_t device = kCard) {
  for (const auto& step : run.steps) {
    for (const MarkBook& mark : step.books.devices.at(device).marks) {
      EXPECT_EQ(bytes_of(mark, Role::kUnattributed), 0)
          << "step " << step.books.index << " " << key(mark.mark);
    }
  }
}
class CudaProgram : public testing::Test {
 protected:
  void SetUp() override { use_cuda(); }
};

struct Training {
  sample::GptConfig config{.vocabulary = 512,
                           .context = 64,
                           .layers = 3,
                           .width = 128,
                           .heads = 4,
                           .untied = false,
                           .sdpa = false,
                           .checkpoint = false};
  int64_t batch = 4;
  int micro_steps = 1;
  int steps = 4;
  bool bf16 = false;
};

class Autocast {
 public:
  explicit Autocast(bool on) : on_(on) {
    if (!on_) return;
    at::autocast::set_autocast_enabled(at::kCUDA, true);
    at::autocast::set_autocast_dtype(at::kCUDA, at::kBFloat16);
  }
  ~Autocast() {
    if (!on_) return;
    at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(at::kCUDA, false);
  }

 private:
  bool on_;
};

void train(Profiler& profiler, const Training& training) {
  sample::Gpt model(training.config);
  model->to(torch::kCUDA);
  torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(1e-3));
  profiler.watch(*model);
  profiler.watch(optimizer);
  for (int i = 0; i < training.steps; ++i) {
    const auto step = profiler.step();
    for (int micro = 0; micro < training.micro_steps; ++micro) {
      const auto x = tokens(training.batch, training.config.context, training.config.vocabulary);
      torch::Tensor loss;
      {
        const Autocast autocast(training.bf16);
        const auto logits = model->forward(x);
        loss = torch::nn::functional::cross_entropy(logits.view({-1, training.config.vocabulary}),
                                                    x.view({-1}));
      }
      loss.backward();
    }
    optimizer.step();
    optimizer.zero_grad();
  }
}

TEST_F(CudaProgram, AnMlpFromItsFirstByte) {
  int64_t parameters = 0;
  int64_t workspaces = 0;
  clear_workspaces();
  const int64_t before = requested_bytes();
  const auto run = profiled([&](Profiler& profiler) {
    torch::nn::Sequential net(torch::nn::Linear(1000, 4096), torch::nn::GELU(),
                              torch::nn::Linear(4096, 1000));
    net->to(torch::kCUDA);
    torch::optim::AdamW optimizer(net->parameters(), torch::optim::AdamWOptions(1e-3));
    parameters = bytes_of_parameters(*net);
    profiler.watch(*net);
    profiler.watch(optimizer);
    const auto x = torch::randn({64, 1000}, on_card());
    const auto y = torch::randint(1000, {64}, on_card().dtype(torch::kLong));
    for (int i = 0; i < 3; ++i) {
      const auto step = profiler.step();
      torch::nn::functional::cross_entropy(net->forward(x), y).backward();
      optimizer.step();
      optimizer.zero_grad();
    }
    workspaces = clear_workspaces();
    EXPECT_EQ(requested_bytes() - before,
              3 * parameters + static_cast<int64_t>(x.nbytes() + y.nbytes()));
  });
  expect_nothing_unnamed(run);
  const MarkBook end = mark_of(run, 2, Mark::kEnd, 0, kCard);
  EXPECT_EQ(bytes_of(end, Role::kParameter), parameters);
  EXPECT_EQ(bytes_of(end, Role::kOptimizerState), 2 * parameters);
  EXPECT_EQ(bytes_of(end, Role::kWorkspace), workspaces);
  EXPECT_GT(workspaces, 0);
  EXPECT_EQ(bytes_of(end, Role::kInput), 64 * 1000 * 4 + 64 * 8);
  const MarkBook after = mark_of(run, 2, Mark::kBackwardEnd, 0, kCard);
  EXPECT_EQ(bytes_of(after, Role::kGradient), parameters);
  EXPECT_EQ(bytes_of(mark_of(run, 2, Mark::kForwardEdge, 0, kCard), Role::kGradient), 0);
  EXPECT_EQ(run.info.devices.at(kCard).id, "cuda:0");
  EXPECT_EQ(run.info.devices.at(kCard).name, "NVIDIA H100 80GB HBM3");
  EXPECT_EQ(run.info.devices.at(kCard).memory_bytes, static_cast<int64_t>(vgpu_get_model()->total));
}

// The peak of the books is the allocator's own.
TEST_F(CudaProgram, ThePeakIsTheAllocators) {
  std::vector<int64_t> peaks;
  std::vector<int64_t> reserved;
  const auto run = profiled([&](Profiler& profiler) {
    torch::nn::Linear layer(512, 512);
    layer->to(torch::kCUDA);
    for (int i = 0; i < 3; ++i) {
      cuda_allocator::resetPeakStats(0);
      {
        const auto step = profiler.step();
        layer->forward(torch::randn({1 << (8 + i), 512}, on_card())).sum().backward();
      }
      peaks.push_back(cuda_allocator::getDeviceStats(0).requested_bytes[0].peak);
      reserved.push_back(reserved_bytes());
    }
  });
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(mark_of(run, i, Mark::kPeak, 0, kCard).bytes, peaks[i]);
    EXPECT_EQ(mark_of(run, i, Mark::kEnd, 0, kCard).caching->reserved_bytes, reserved[i]);
  }
}

TEST_F(CudaProgram, Gpt) {
  const auto run = profiled([](Profiler& profiler) { train(profiler, {}); });
  expect_nothing_unnamed(run);
  const MarkBook edge = mark_of(run, 2, Mark::kForwardEdge, 0, kCard);
  // As samples/gpt.h derives it: s = 64, b = 4, h = 128, a = 4, and one block's mask.
  const int64_t block = 64 * 64 * 4 * 128 + 4 * 4 * 4 * 64 * 64 + 16 * 4 * 64 + 64 * 64;
  const int64_t around = 8 * 64 * 4 * 128 + 8 * 4 * 64 + 4 * 4 * 64 * 512 + 4 + 8 * 4 * 64 + 8 * 64;
  EXPECT_EQ(edge.saved_bytes, 3 * block + around);
  EXPECT_EQ(mark_of(run, 1, Mark::kForwardEdge, 0, kCard).expected_saved_bytes,
            mark_of(run, 1, Mark::kForwardEdge, 0, kCard).saved_bytes);
}

TEST_F(CudaProgram, GptInBfloat16) {
  const auto run = profiled([](Profiler& profiler) { train(profiler, {.bf16 = true}); });
  expect_nothing_unnamed(run);
  const auto fp32 = profiled([](Profiler& profiler) { train(profiler, {}); });
  EXPECT_LT(mark_of(run, 2, Mark::kForwardEdge, 0, kCard).saved_bytes,
            mark_of(fp32, 2, Mark::kForwardEdge, 0, kCard).saved_bytes);
}

TEST_F(CudaProgram, GptCheckpointed) {
  Training training;
  training.config.checkpoint = true;
  const auto run = profiled([&](Profiler& profiler) { train(profiler, training); });
  expect_nothing_unnamed(run);
  const int64_t input = 4 * 64 * 4 * 128;
  const int64_t around = 8 * 64 * 4 * 128 + 8 * 4 * 64 + 4 * 4 * 64 * 512 + 4 + 8 * 4 * 64 + 8 * 64;
  EXPECT_EQ(mark_of(run, 2, Mark::kForwardEdge, 0, kCard).saved_bytes, 3 * input + around);
  int64_t recomputed = 0;
  for (const TimelinePoint& point : run.steps[2].books.devices[kCard].timeline) {
    recomputed =
        std::max(recomputed, point.roles[static_cast<size_t>(Role::kRecomputedActivation)]);
  }
  EXPECT_GT(recomputed, 0);
}

TEST_F(CudaProgram, GptAccumulated) {
  Training training;
  training.micro_steps = 3;
  const auto run = profiled([&](Profiler& profiler) { train(profiler, training); });
  expect_nothing_unnamed(run);
  EXPECT_EQ(marks_of(run, 2, Mark::kForwardEdge, kCard).size(), 3u);
  const int64_t parameters = bytes_of(mark_of(run, 2, Mark::kEnd, 0, kCard), Role::kParameter);
  EXPECT_EQ(bytes_of(mark_of(run, 2, Mark::kForwardEdge, 1, kCard), Role::kGradient), parameters);
}

// Attached in the middle: what lives already is adopted with the blocks that it lies in.
TEST_F(CudaProgram, AttachedInTheMiddle) {
  sample::Gpt model(Training{}.config);
  model->to(torch::kCUDA);
  torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(1e-3));
  const auto one_step = [&] {
    const auto x = tokens(4, 64, 512);
    const auto logits = model->forward(x).view({-1, 512});
    torch::nn::functional::cross_entropy(logits, x.view({-1})).backward();
    optimizer.step();
    optimizer.zero_grad();
  };
  one_step();
  const auto unknown = torch::randn({1000}, on_card());
  const auto run = profiled([&](Profiler& profiler) {
    profiler.watch(*model);
    profiler.watch(optimizer);
    for (int i = 0; i < 3; ++i) {
      const auto step = profiler.step();
      one_step();
    }
  });
  expect_nothing_unnamed(run);
  const MarkBook start = mark_of(run, 0, Mark::kStart, 0, kCard);
  EXPECT_EQ(bytes_of(start, Role::kParameter), bytes_of_parameters(*model));
  EXPECT_EQ(bytes_of(start, Role::kOptimizerState), 2 * bytes_of_parameters(*model));
  EXPECT_EQ(bytes_of(start, Role::kWorkspace), clear_workspaces());
  EXPECT_EQ(bytes_of(start, Role::kExternal), 4000);
}

// A second session of the process hears each event once.
TEST_F(CudaProgram, ASecondSession) {
  for (int session = 0; session < 2; ++session) {
    const auto run = profiled([](Profiler& profiler) { train(profiler, {.steps = 2}); });
    EXPECT_EQ(run.steps[1].books.devices.size(), 2u);
  }
}

TEST_F(CudaProgram, FreesThatWaitForAStream) {
  const auto run = profiled([](Profiler& profiler) {
    for (int i = 0; i < 3; ++i) {
      const auto step = profiler.step();
      auto x = torch::randn({1 << 20}, on_card().requires_grad(true));
      auto y = x * 2;
      const auto other = c10::cuda::getStreamFromPool();
      cuda_allocator::recordStream(y.storage().data_ptr(), other);
      vgpu_set_event_lag(1000);
      y.sum().backward();
      y.reset();  // requested, and not complete before the step ends
    }
    vgpu_set_event_lag(0);
    vgpu_complete_all_events();
  });
  const MarkBook end = mark_of(run, 0, Mark::kEnd, 0, kCard);
  EXPECT_EQ(end.caching->active_bytes - end.caching->allocated_bytes, 4 * kMiB);
}

TEST_F(CudaProgram, StreamsPoolsAndEmptyCache) {
  const auto run = profiled([](Profiler& profiler) {
    torch::nn::Linear layer(256, 256);
    layer->to(torch::kCUDA);
    for (int i = 0; i < 3; ++i) {
      const auto step = profiler.step();
      std::vector<torch::Tensor> kept;
      for (int s = 0; s < 3; ++s) {
        const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool());
        kept.push_back(layer->forward(torch::randn({512, 256}, on_card())));
      }
      const c10::MempoolId_t pool{0, 100 + static_cast<c10::CaptureId_t>(i)};
      cuda_allocator::beginAllocateToPool(0, pool, [](cudaStream_t) { return true; });
      { const auto tensor = torch::empty({5 * kMiB}, on_card()); }
      cuda_allocator::endAllocateToPool(0, pool);
      cuda_allocator::releasePool(0, pool);
      kept[0].sum().backward();
      cuda_allocator::emptyCache();
    }
  });
}

// Captured in a pool of its own; a replay allocates nothing, and what the pool holds stays in the
// books.
TEST_F(CudaProgram, AGraphCapturedAndReplayed) {
  const auto run = profiled([](Profiler& profiler) {
    const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool());
    torch::nn::Linear layer(256, 256);
    layer->to(torch::kCUDA);
    const auto x = torch::randn({64, 256}, on_card());
    at::cuda::CUDAGraph graph;
    torch::Tensor y;
    {
      const auto step = profiler.step();
      const torch::NoGradGuard no_gradients;
      layer->forward(x);  // cuBLAS takes its workspace before the capture
      graph.capture_begin();
      y = torch::relu(layer->forward(x));
      graph.capture_end();
    }
    for (int i = 0; i < 3; ++i) {
      const auto step = profiler.step();
      graph.replay();
      (y * 2).sum();
    }
  });
  EXPECT_EQ(mark_of(run, 1, Mark::kEnd, 0, kCard).bytes,
            mark_of(run, 3, Mark::kEnd, 0, kCard).bytes);
}

TEST_F(CudaProgram, OutOfMemoryIsAMarkWithItsNumbers) {
  const uint64_t total = vgpu_get_model()->total;
  cuda_allocator::emptyCache();
  vgpu_set_total(uint64_t{2} << 30);
  const int64_t before = requested_bytes();
  int held = 0;
  const auto run = profiled([&](Profiler& profiler) {
    const auto step = profiler.step();
    std::vector<torch::Tensor> tensors;
    try {
      for (;;) {
        tensors.push_back(bytes_on_card(100 * kMiB));
        ++held;
      }
    } catch (const c10::OutOfMemoryError&) {
    }
  });
  vgpu_set_total(total);
  const MarkBook oom = mark_of(run, 0, Mark::kOom, 0, kCard);
  EXPECT_GE(held, 10);
  EXPECT_EQ(oom.bytes, before + int64_t{held} * 100 * kMiB);
  EXPECT_GE(oom.wanted_bytes, 100 * kMiB);
  EXPECT_EQ(oom.limit_bytes, int64_t{2} << 30);
}

TEST_F(CudaProgram, TwoDevicesHaveBooksOfTheirOwn) {
  if (c10::cuda::device_count() < 2) GTEST_SKIP() << "needs two cards";
  const auto run = profiled([](Profiler& profiler) {
    torch::nn::Linear first(512, 256), second(256, 10);
    first->to(torch::Device("cuda:0"));
    second->to(torch::Device("cuda:1"));
    profiler.watch(*first, "first");
    profiler.watch(*second, "second");
    for (int i = 0; i < 3; ++i) {
      const auto step = profiler.step();
      const auto x = torch::randn({64, 512}, torch::Device("cuda:0"));
      second->forward(first->forward(x).to(torch::Device("cuda:1"))).sum().backward();
    }
  });
  ASSERT_EQ(run.steps[2].books.devices.size(), 3u);
  EXPECT_EQ(run.info.devices.size(), 3u);
  const MarkBook on_first = mark_of(run, 2, Mark::kForwardEdge, 0, 1);
  const MarkBook on_second = mark_of(run, 2, Mark::kForwardEdge, 0, 2);
  EXPECT_EQ(bytes_of(on_first, Role::kParameter), 4 * (512 * 256 + 256));
  EXPECT_EQ(bytes_of(on_second, Role::kParameter), 4 * (256 * 10 + 10));
  // Of the second layer autograd keeps its input, on its own card.
  EXPECT_EQ(on_second.saved_bytes, 64 * 256 * 4);
  EXPECT_EQ(on_first.saved_bytes, 64 * 512 * 4);
}

}  // namespace
}  // namespace tally::test
