// SPDX-License-Identifier: Apache-2.0
// On a real GPU: how counters and records of kernels live beside what a program does besides:
// torch.profiler, CUDA graphs, threads; what they cost in each mode; and the images of counters
// that tests without a GPU can judge later. Questions 2 (kernel by kernel) and 6 to 10 of
// scripts/gpu_check. Exit code 0: all were answered, 3: there is no GPU, or counters are refused.
#include <ATen/cuda/CUDAGraph.h>
#include <c10/core/StreamGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <fstream>
#include <thread>

#include "hooks/cupti/activity_recorder.h"
#include "tests/gpu/findings.h"

namespace {

using namespace tally::gpu;
namespace cupti = tally::hooks::cupti;
using cupti::Counted;

constexpr int64_t kSide = 2048;
constexpr double kFlops = 2.0 * kSide * kSide * kSide;
constexpr int kProducts = 50;

struct Products {
  torch::TensorOptions half = torch::TensorOptions(torch::kCUDA).dtype(torch::kBFloat16);
  torch::Tensor a = torch::randn({kSide, kSide}, half);
  torch::Tensor b = torch::randn({kSide, kSide}, half);
  torch::Tensor out = torch::mm(a, b);
  void run() { torch::mm_out(out, a, b); }
};

struct Counting {
  Json finding;
  std::vector<double> tensor_flops;  // of each row
};

// `work` within one range, or kernel by kernel; a set of several passes repeats it.
Counting count(const cupti::Api& api, cupti::Driver& driver, const cupti::MetricSet& set,
               bool per_kernel, const std::function<void()>& work,
               const std::string& image_path = {}) {
  Counting out;
  cupti::RangeCounter::Options options;
  options.per_kernel = per_kernel;
  cupti::RangeCounter counter(api, driver, options);
  try {
    counter.start(set);
    do {
      if (!per_kernel) counter.push("work");
      work();
      torch::cuda::synchronize();
      if (!per_kernel) counter.pop();
    } while (!counter.end_pass());
    const cupti::RangeCounter::Result result = counter.finish();
    Json rows = Json::array();
    for (const auto& row : result.rows) {
      out.tensor_flops.push_back(total(set, row.values, Counted::kTensorFlops));
      rows.push_back({{"range", row.range},
                      {"tensor_flops", out.tensor_flops.back()},
                      {"nanoseconds", total(set, row.values, Counted::kNanoseconds)},
                      {"values", row.values}});
    }
    out.finding = {{"set", set.name},
                   {"kernel_by_kernel", per_kernel},
                   {"passes", result.passes},
                   {"dropped", result.dropped},
                   {"ranges", rows}};
    if (!image_path.empty()) {
      std::ofstream file(image_path, std::ios::binary);
      file.write(reinterpret_cast<const char*>(counter.counter_data().data()),
                 static_cast<std::streamsize>(counter.counter_data().size()));
      out.finding["image"] = image_path;
      out.finding["image_bytes"] = counter.counter_data().size();
      for (const auto& metric : set.metrics) out.finding["metrics"].push_back(metric.name);
    }
  } catch (const cupti::Refused& refused) {
    out.finding = {
        {"set", set.name}, {"kernel_by_kernel", per_kernel}, {"refused", refused.what()}};
  }
  return out;
}

// Whether kernels can be named now, and how many a product has.
Json record(const cupti::Api& api, Products& products) {
  cupti::ActivityRecorder recorder(api);
  if (std::string reason = recorder.start(); !reason.empty()) return {{"refused", reason}};
  recorder.push_op(7);
  products.run();
  recorder.pop_op();
  torch::cuda::synchronize();
  const auto report = recorder.stop();
  Json kernels = Json::array();
  for (const auto& kernel : report.kernels) {
    kernels.push_back({{"name", kernel.name},
                       {"nanoseconds", kernel.end_ns - kernel.begin_ns},
                       {"of_the_operator", kernel.op == 7}});
  }
  return {{"kernels", kernels}, {"dropped", report.dropped}};
}

void beside_torch_profiler(const cupti::Api& api, cupti::Driver& driver,
                           const cupti::MetricSet& set, Products& products) {
  namespace profiler = torch::autograd::profiler;
  using torch::profiler::impl::ActivityType;
  const auto both = [&](const char* when) {
    answer(6, "counters and names of kernels beside torch.profiler",
           {{"torch.profiler", when},
            {"counters", count(api, driver, set, false, [&] { products.run(); }).finding},
            {"names", record(api, products)}});
  };
  both("was never used");
  const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
  const std::set<ActivityType> activities{ActivityType::CPU, ActivityType::CUDA};
  profiler::prepareProfiler(config, activities);
  profiler::enableProfiler(config, activities);
  products.run();
  both("traces");
  products.run();
  torch::cuda::synchronize();
  const auto trace = profiler::disableProfiler();
  size_t on_device = 0;
  for (const auto& event : trace->events())
    on_device += event.deviceType() == c10::DeviceType::CUDA;
  answer(6, "does its trace keep its kernels when we counted meanwhile",
         {{"events_on_the_device", on_device}});
  both("has traced");
}

void inside_a_graph(const cupti::Api& api, cupti::Driver& driver, const cupti::MetricSet& set,
                    Products& products) {
  at::cuda::CUDAGraph graph;
  {
    const c10::StreamGuard guard(c10::cuda::getStreamFromPool().unwrap());
    products.run();
    torch::cuda::synchronize();
    graph.capture_begin();
    products.run();
    products.run();
    graph.capture_end();
  }
  for (const bool per_kernel : {false, true}) {
    const Counting counted = count(api, driver, set, per_kernel, [&] { graph.replay(); });
    double sum = 0;
    for (const double flops : counted.tensor_flops) sum += flops;
    answer(7, "two products in a CUDA graph that is replayed",
           {{"expected_tensor_flops", 2 * kFlops},
            {"tensor_flops", sum},
            {"counted", counted.finding}});
  }
}

void two_threads(const cupti::Api& api, cupti::Driver& driver, const cupti::MetricSet& set,
                 Products& products) {
  Products others;
  const auto work = [&] {
    std::thread other([&] { others.run(); });
    products.run();
    other.join();
  };
  const Counting counted = count(api, driver, set, false, work);
  answer(8, "two threads launch a product each inside one range",
         {{"expected_tensor_flops", 2 * kFlops},
          {"tensor_flops", counted.tensor_flops.empty() ? 0 : counted.tensor_flops[0]},
          {"counted", counted.finding}});
}

// Time of many products in a mode, over the time without any of it.
void slowdown(const cupti::Api& api, cupti::Driver& driver,
              const std::vector<cupti::MetricSet>& sets, Products& products) {
  const auto loop = [&] {
    for (int i = 0; i < kProducts; ++i) products.run();
  };
  milliseconds(loop);
  // Everything that a chip counts in one go: its passes together.
  cupti::MetricSet all{"all sets", {}, 0};
  for (const auto& set : sets) {
    all.metrics.insert(all.metrics.end(), set.metrics.begin(), set.metrics.end());
  }
  const auto measure = [&](const char* mode, const cupti::MetricSet& set, bool per_kernel) {
    double plain = 0, counted = 0;
    size_t passes = 0;
    for (int round = 0; round < 3; ++round) {  // in turns: clocks drift
      plain += milliseconds(loop);
      cupti::RangeCounter::Options options;
      options.per_kernel = per_kernel;
      cupti::RangeCounter counter(api, driver, options);
      try {
        counter.start(set);
        counted += milliseconds([&] {
          for (int i = 0; i < kProducts; ++i) {
            if (!per_kernel) counter.push(std::to_string(i));
            products.run();
            if (!per_kernel) counter.pop();
          }
        });
        passes = counter.passes();
        counter.end_pass();
      } catch (const cupti::Refused& refused) {
        return answer(9, "slowdown", {{"mode", mode}, {"refused", refused.what()}});
      }
    }
    answer(9, "slowdown", {{"mode", mode}, {"passes", passes}, {"ratio", counted / plain}});
  };
  measure("one range an operator, first set", sets.front(), false);
  measure("kernel by kernel, first set", sets.front(), true);
  measure("kernel by kernel, all sets", all, true);
  double plain = 0, named = 0;
  for (int round = 0; round < 3; ++round) {
    plain += milliseconds(loop);
    cupti::ActivityRecorder recorder(api);
    if (const std::string reason = recorder.start(); !reason.empty()) {
      return answer(9, "slowdown", {{"mode", "names of kernels"}, {"refused", reason}});
    }
    named += milliseconds(loop);
    recorder.stop();
  }
  answer(9, "slowdown", {{"mode", "names of kernels"}, {"ratio", named / plain}});
}

}  // namespace

int main(int argc, char** argv) {
  const std::string image = argc > 1 ? argv[1] : "counters";
  if (!torch::cuda::is_available()) {
    say({{"finding", "LibTorch finds no CUDA device"}});
    return 3;
  }
  Products products;
  torch::cuda::synchronize();
  std::string reason;
  const auto api = cupti::load(reason);
  if (!api) {
    say({{"refused", reason}});
    return 3;
  }
  const auto driver = cupti::make_driver();
  std::string chip;
  try {
    chip = cupti::RangeCounter(*api, *driver).chip();
  } catch (const cupti::Refused& refused) {
    say({{"refused", refused.what()}});
    return 3;
  }
  const auto sets = cupti::metric_sets(chip);
  for (const auto& set : sets) {
    answer(2, "a product, kernel by kernel: are the counts exact there as well",
           {{"expected_tensor_flops", kFlops},
            {"counted", count(*api, *driver, set, true, [&] { products.run(); }).finding}});
  }
  for (const auto& set : sets) {
    answer(10, "an image of counters, for tests without a GPU",
           {{"chip", chip},
            {"counted", count(
                            *api, *driver, set, false, [&] { products.run(); },
                            image + "." + set.name + ".image")
                            .finding}});
  }
  two_threads(*api, *driver, sets.front(), products);
  inside_a_graph(*api, *driver, sets.front(), products);
  slowdown(*api, *driver, sets, products);
  beside_torch_profiler(*api, *driver, sets.front(), products);
  return 0;
}
