// SPDX-License-Identifier: Apache-2.0
// Figures of training programs on a CUDA device, as JSON: peaks, reserved and saved bytes, what the
// books say beside the allocator's statistics. The same program is built for the virtual card and
// for a real one, so that their figures stand side by side. Exit code 1: some books did not close.
#include <ATen/autocast_mode.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "profiler/recording/reader.h"
#include "samples/gpt.h"
#include "torchtally/profiler.h"

namespace at::cuda {
void clearCublasWorkspaces();  // its own header wants those of more libraries
}

namespace {

using Json = nlohmann::ordered_json;
namespace cuda_allocator = c10::cuda::CUDACachingAllocator;
constexpr int kSteps = 4;
constexpr size_t kCard = 1;  // the index of cuda:0

struct Program {
  const char* name;
  sample::GptConfig config;
  int64_t batch;
  int micro_steps;
  bool bf16;
};

void train(tally::Profiler& profiler, const Program& program) {
  const auto on_card = torch::TensorOptions(torch::kCUDA);
  sample::Gpt model(program.config);
  model->to(torch::kCUDA);
  torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(1e-4));
  profiler.watch(*model);
  profiler.watch(optimizer);
  for (int i = 0; i < kSteps; ++i) {
    const auto step = profiler.step();
    for (int micro = 0; micro < program.micro_steps; ++micro) {
      const auto x =
          torch::randint(program.config.vocabulary, {program.batch, program.config.context},
                         on_card.dtype(torch::kLong));
      at::autocast::set_autocast_enabled(at::kCUDA, program.bf16);
      at::autocast::set_autocast_dtype(at::kCUDA, at::kBFloat16);
      const auto logits = model->forward(x).view({-1, program.config.vocabulary});
      const auto loss = torch::nn::functional::cross_entropy(logits, x.view({-1}));
      at::autocast::set_autocast_enabled(at::kCUDA, false);
      at::autocast::clear_cache();
      loss.backward();
    }
    optimizer.step();
    optimizer.zero_grad();
  }
}

// Whether every mark of the device agrees with the allocator; counts marks.
bool closed(const tally::DeviceBooks& device, int* marks) {
  bool good = device.largest_difference == 0;
  for (const tally::MarkBook& mark : device.marks) {
    ++*marks;
    good = good && tally::sum(mark.roles) == mark.bytes && mark.allocator_bytes == mark.bytes &&
           mark.caching && mark.caching->is_exact;
    if (!mark.caching) continue;
    const auto same = [](int64_t allocators, int64_t ours) {
      return allocators < 0 || allocators == ours;  // -1: not asked at that moment
    };
    good = good && same(mark.caching->allocator_reserved_bytes, mark.caching->reserved_bytes) &&
           same(mark.caching->allocator_active_bytes, mark.caching->active_bytes) &&
           same(mark.caching->allocator_allocated_bytes, mark.caching->allocated_bytes);
  }
  return good;
}

Json run(const Program& program, bool* good) {
  const std::string path =
      std::filesystem::temp_directory_path() / ("card-figures-" + std::to_string(getpid()));
  cuda_allocator::emptyCache();
  cuda_allocator::resetPeakStats(0);
  {
    tally::Options options;
    options.recording = path;
    tally::Profiler profiler(options);
    train(profiler, program);
  }
  const auto stats = cuda_allocator::getDeviceStats(0);
  const tally::recording::Run recorded =
      tally::recording::read_run(path, {.load = tally::recording::Load::kAll, .step = {}});
  std::filesystem::remove(path);
  Json out{{"program", program.name}};
  int marks = 0;
  bool all_closed = true;
  int64_t peak = 0;
  for (const auto& step : recorded.steps) {
    if (step.books.devices.size() <= kCard) {
      out["error"] = "the CUDA device is not in the recording";
      *good = false;
      return out;
    }
    const tally::DeviceBooks& device = step.books.devices[kCard];
    all_closed = closed(device, &marks) && all_closed;
    for (const tally::MarkBook& mark : device.marks) {
      if (mark.mark == tally::Mark::kPeak) peak = std::max(peak, mark.bytes);
      if (step.books.index != kSteps - 1) continue;
      const auto role = [&mark](tally::Role r) { return mark.roles[static_cast<size_t>(r)]; };
      if (mark.mark == tally::Mark::kForwardEdge) out["saved_bytes"] = mark.saved_bytes;
      if (mark.mark != tally::Mark::kEnd) continue;
      out["workspace_bytes"] = role(tally::Role::kWorkspace);
      out["unattributed_bytes"] = role(tally::Role::kUnattributed);
      out["reserved_bytes"] = mark.caching->reserved_bytes;
      out["outside_bytes"] = mark.caching->outside_bytes;
    }
  }
  out["peak_bytes"] = peak;
  out["allocators_peak_bytes"] = stats.requested_bytes[0].peak;
  out["reserved_peak_bytes"] = stats.reserved_bytes[0].peak;
  out["marks"] = marks;
  out["books_close"] = all_closed && peak == stats.requested_bytes[0].peak;
  *good = *good && out["books_close"].get<bool>();
  at::cuda::clearCublasWorkspaces();
  return out;
}

}  // namespace

int main() {
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  const sample::GptConfig small{.vocabulary = 50257,
                                .context = 256,
                                .layers = 4,
                                .width = 512,
                                .heads = 8,
                                .untied = false,
                                .sdpa = true,
                                .checkpoint = false};
  sample::GptConfig eager = small, checkpointed = small;
  eager.sdpa = false;
  checkpointed.checkpoint = true;
  bool good = true;
  Json figures = Json::array();
  for (const Program& program : {Program{"gpt fp32", small, 4, 1, false},
                                 Program{"gpt fp32, eager attention", eager, 4, 1, false},
                                 Program{"gpt bf16", small, 4, 1, true},
                                 Program{"gpt checkpointed", checkpointed, 4, 1, false},
                                 Program{"gpt, 3 micro-steps", small, 2, 3, false}}) {
    figures.push_back(run(program, &good));
  }
  std::printf("%s\n", figures.dump(1).c_str());
  return good ? 0 : 1;
}
