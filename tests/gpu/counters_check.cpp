// SPDX-License-Identifier: Apache-2.0
// On a real GPU: kernels whose FLOPs are known, against the counters; and the questions about CUPTI
// that no machine without a GPU can answer: 1 to 5 of scripts/gpu_check. Prints one line a finding,
// as JSON. Exit code 0: all counts are exact, 1: some are not, 3: counters are refused (the reason
// is printed).
#include <dlfcn.h>

#include "tests/gpu/findings.h"

namespace {

using namespace tally::gpu;
namespace cupti = tally::hooks::cupti;

constexpr unsigned kBlocks = 132, kThreads = 256;
constexpr int kRounds = 1000;
constexpr int64_t kGemm = 4096;
const char* const kSource = R"cuda(
#include <cuda_fp16.h>
extern "C" __global__ void ffma(float* p, int n) {
  float a = p[threadIdx.x], b = a + 1.f;
  for (int i = 0; i < n; ++i) a = __fmaf_rn(a, b, 0.5f);
  p[threadIdx.x] = a;
}
extern "C" __global__ void hfma2(__half2* p, int n) {
  __half2 a = p[threadIdx.x], b = p[threadIdx.x + 1];
  for (int i = 0; i < n; ++i) a = __hfma2(a, b, b);
  p[threadIdx.x] = a;
}
)cuda";

// Functions of libraries that LibTorch has mapped, or can.
struct Library {
  void* handle;
  explicit Library(const char* name) : handle(dlopen(name, RTLD_LAZY)) {}
  template <typename... A>
  int call(const char* name, A... arguments) const {
    auto* function = reinterpret_cast<int (*)(A...)>(handle ? dlsym(handle, name) : nullptr);
    return function ? function(arguments...) : -1;
  }
};

// Compiled at run time, so that no CUDA Toolkit is needed. Null where that fails.
void* compile(const Library& driver, const char* include, int major, int minor) {
  const Library nvrtc("libnvrtc.so.13");
  void* program = nullptr;
  nvrtc.call("nvrtcCreateProgram", &program, kSource, "counters.cu", 0,
             static_cast<const char* const*>(nullptr), static_cast<const char* const*>(nullptr));
  const std::string arch = "--gpu-architecture=compute_" + std::to_string(major * 10 + minor);
  const std::string path = std::string("-I") + include;
  const char* options[] = {arch.c_str(), path.c_str()};
  const int result = nvrtc.call("nvrtcCompileProgram", program, 2, options);
  size_t size = 0;
  if (result != 0 || nvrtc.call("nvrtcGetPTXSize", program, &size) != 0) {
    say({{"finding", "kernels could not be compiled"}, {"nvrtc", result}});
    return nullptr;
  }
  std::string ptx(size, '\0');
  nvrtc.call("nvrtcGetPTX", program, ptx.data());
  void* module = nullptr;
  const int loaded = driver.call("cuModuleLoadData", &module, static_cast<const void*>(ptx.data()));
  if (loaded != 0) say({{"finding", "kernels could not be loaded"}, {"driver", loaded}});
  return loaded == 0 ? module : nullptr;
}

struct Work {
  std::string name;
  std::function<void()> run;
  double scalar_flops;  // -1: not known
  double tensor_flops;
};

// Counts one set around each work; false when something was refused.
bool count(const cupti::Api& api, const cupti::MetricSet& set, const std::vector<Work>& works,
           bool* exact) {
  const auto driver = cupti::make_driver();
  cupti::RangeCounter counter(api, *driver);
  try {
    counter.start(set);
    do {
      for (const Work& work : works) {
        counter.push(work.name);
        work.run();
        torch::cuda::synchronize();
        counter.pop();
      }
    } while (!counter.end_pass());
    const cupti::RangeCounter::Result result = counter.finish();
    answer(3, "passes with the availability of this device",
           {{"set", set.name},
            {"passes", result.passes},
            {"offline", set.passes},
            {"dropped", result.dropped}});
    answer(4, "does a set start after kernels have run", {{"set", set.name}, {"starts", true}});
    for (size_t i = 0; i < result.rows.size() && i < works.size(); ++i) {
      const std::vector<double>& values = result.rows[i].values;
      const double scalar = total(set, values, cupti::Counted::kScalarFlops);
      const double tensor = total(set, values, cupti::Counted::kTensorFlops);
      const double ns = total(set, values, cupti::Counted::kNanoseconds);
      const bool is_scalar = set.name == "scalar";
      const double expected = is_scalar ? works[i].scalar_flops : works[i].tensor_flops;
      const double counted = is_scalar ? scalar : tensor;
      // Products of bf16 run as wgmma or as mma.sync, so one of the two sets has them.
      const bool may_be_elsewhere = !is_scalar && counted == 0 && expected > 0;
      if (expected >= 0 && !may_be_elsewhere && counted != expected) *exact = false;
      if (expected < 0) {
        answer(5, "are scalar instructions inside cuBLAS counted",
               {{"work", works[i].name}, {"counted", counted}});
        continue;
      }
      answer(2, "a range around known work: is the count exact",
             {{"work", works[i].name},
              {"set", set.name},
              {"expected", expected},
              {"counted", counted},
              {"elsewhere", may_be_elsewhere},
              {"nanoseconds", ns}});
    }
    return true;
  } catch (const cupti::Refused& refused) {
    answer(4, "does a set start after kernels have run",
           {{"set", set.name}, {"starts", false}, {"refused", refused.what()}});
    return false;
  }
}

}  // namespace

int main(int argc, char** argv) {
  const char* include = argc > 1 ? argv[1] : "/usr/local/cuda/include";
  if (!torch::cuda::is_available()) {
    say({{"finding", "LibTorch finds no CUDA device"}});
    return 3;
  }
  const auto half = torch::TensorOptions(torch::kCUDA).dtype(torch::kBFloat16);
  const auto a = torch::randn({kGemm, kGemm}, half), b = torch::randn({kGemm, kGemm}, half);
  const auto memory = torch::zeros({1 << 20}, torch::kCUDA);
  auto out = torch::mm(a, b);  // kernels ran before CUPTI is asked for anything: a late start
  torch::cuda::synchronize();

  std::string reason;
  const auto api = cupti::load(reason);
  if (!api) {
    say({{"refused", reason}});
    return 3;
  }
  uint32_t version = 0;
  api->cuptiGetVersion(&version);
  const auto cuda_driver = cupti::make_driver();
  std::string chip;
  try {
    chip = cupti::RangeCounter(*api, *cuda_driver).chip();
  } catch (const cupti::Refused& refused) {
    answer(1, "which CUPTI is mapped, and does its range profiler begin",
           {{"path", api->path}, {"version", version}, {"refused", refused.what()}});
    return 3;
  }
  answer(1, "which CUPTI is mapped, and does its range profiler begin",
         {{"path", api->path}, {"version", version}, {"chip", chip}});

  const Library driver("libcuda.so.1");
  int device = 0, major = 0, minor = 0;
  driver.call("cuCtxGetDevice", &device);
  driver.call("cuDeviceGetAttribute", &major, 75, device);
  driver.call("cuDeviceGetAttribute", &minor, 76, device);
  void* module = compile(driver, include, major, minor);
  const auto launch = [&](const char* name) {
    return [&, name] {
      void* function = nullptr;
      driver.call("cuModuleGetFunction", &function, module, name);
      void* pointer = memory.data_ptr();
      int rounds = kRounds;
      void* arguments[] = {&pointer, &rounds};
      driver.call("cuLaunchKernel", function, kBlocks, 1u, 1u, kThreads, 1u, 1u, 0u,
                  static_cast<void*>(nullptr), static_cast<void**>(arguments),
                  static_cast<void**>(nullptr));
    };
  };
  constexpr double kLoops = 1.0 * kBlocks * kThreads * kRounds;
  std::vector<Work> works;
  if (module) {
    works.push_back(
        {"ffma", launch("ffma"), 2 * kLoops + kBlocks * kThreads, 0});  // and one addition
    works.push_back({"hfma2", launch("hfma2"), 4 * kLoops, 0});
  }
  // Of cuBLAS' kernels the scalar instructions are not known; that they are counted at all is a
  // question.
  works.push_back(
      {"gemm bf16", [&] { torch::mm_out(out, a, b); }, -1, 2.0 * kGemm * kGemm * kGemm});

  bool exact = true, counted = true;
  const auto sets = cupti::metric_sets(chip);
  for (const cupti::MetricSet& set : sets) counted = count(*api, set, works, &exact) && counted;

  if (!counted) return 3;
  return exact ? 0 : 1;
}
