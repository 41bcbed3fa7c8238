// SPDX-License-Identifier: Apache-2.0
#include "hooks/cupti/cupti_api.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <link.h>

#include <cstring>
#include <filesystem>
#include <system_error>

namespace tally::hooks::cupti {
namespace {

// Its file may have any name behind "libcupti.so".
std::string mapped_cupti() {
  std::string found;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* out) {
        const char* slash = info->dlpi_name ? std::strrchr(info->dlpi_name, '/') : nullptr;
        if (!slash || std::strncmp(slash + 1, "libcupti.so", 11) != 0) return 0;
        *static_cast<std::string*>(out) = info->dlpi_name;
        return 1;
      },
      &found);
  return found;
}

// libcupti opens libnvperf_host.so by its bare name and has no search path of its own; where that
// lies beside it, as in wheels, every call of the profiler would answer NOT_INITIALIZED. Mapped
// first, the name resolves.
void map_neighbours(const std::string& path) {
  std::error_code error;
  const auto folder = std::filesystem::canonical(path, error).parent_path();
  if (error) return;
  for (const char* name : {"libnvperf_host.so", "libnvperf_target.so"}) {
    const auto neighbour = folder / name;
    if (std::filesystem::exists(neighbour, error))
      dlopen(neighbour.c_str(), RTLD_NOW | RTLD_GLOBAL);
  }
}

}  // namespace

std::string Api::text(CUptiResult result) const {
  const char* words = nullptr;
  if (cuptiGetResultString) cuptiGetResultString(result, &words);
  return words ? words : fmt::format("CUPTI error {}", static_cast<int>(result));
}

std::unique_ptr<Api> load(std::string& reason, const std::string& path) {
  const std::string file = path.empty() ? mapped_cupti() : path;
  if (file.empty()) {
    reason = "this program has not loaded CUPTI (libcupti), which counts what kernels execute";
    return nullptr;
  }
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const char* error = dlerror();
    reason = fmt::format("CUPTI cannot be used: {}", error ? error : file);
    return nullptr;
  }
  auto api = std::make_unique<Api>();
#define TALLY_CUPTI_FIND(function)                                                               \
  api->function = reinterpret_cast<decltype(api->function)>(dlsym(handle, #function));           \
  if (!api->function) {                                                                          \
    reason = fmt::format("CUPTI in {} lacks " #function ": CUDA 13.0 or newer is needed", file); \
    return nullptr;                                                                              \
  }
  TALLY_CUPTI_FUNCTIONS(TALLY_CUPTI_FIND)
#undef TALLY_CUPTI_FIND
  api->path = file;
  map_neighbours(file);
  return api;
}

}  // namespace tally::hooks::cupti
