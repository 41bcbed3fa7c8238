// SPDX-License-Identifier: Apache-2.0
#include "hooks/cuda/torch_cuda.h"

#include <ATen/core/Tensor.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <shared_mutex>
#include <string_view>
#include <tuple>
#include <utility>

namespace tally::hooks::cuda {
namespace {

// Of a library that is mapped already; never loads one. The handle is kept: what we found in it is
// called for as long as the process lives. RTLD_DEFAULT would not do: Python loads LibTorch with
// local scope.
template <typename Symbol>
Symbol* find(const char* library, const char* symbol) noexcept {
  void* handle = dlopen(library, RTLD_LAZY | RTLD_NOLOAD);
  return handle ? reinterpret_cast<Symbol*>(dlsym(handle, symbol)) : nullptr;
}

// As ATen/cuda/CUDAContextLight.h declares it; that header wants those of cuBLAS, cuSPARSE and
// cuSOLVER as well.
struct WorkspaceMap {
  std::map<std::tuple<void*, void*>, at::DataPtr> map;
  std::shared_mutex mutex;
};

}  // namespace

Allocator* find_allocator() noexcept {
  static auto* const allocator = find<std::atomic<Allocator*>>(
      "libc10_cuda.so", "_ZN3c104cuda20CUDACachingAllocator9allocatorE");
  return allocator ? allocator->load() : nullptr;
}

std::string why_no_device() {
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (visible && (*visible == '\0' || std::string_view(visible) == "-1")) {
    return "CUDA_VISIBLE_DEVICES hides every CUDA device from this program";
  }
  if (void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD)) {
    dlclose(driver);
    return "";
  }
  for (const char* sign : {"/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg"}) {
    if (access(sign, F_OK) == 0) return "";
  }
  return "this machine has no NVIDIA driver";
}

std::vector<DeviceInfo> list_devices() {
  using Get = int(int*, int);
  using Name = int(char*, int, int);
  using Memory = int(size_t*, int);
  static auto* const get = find<Get>("libcuda.so.1", "cuDeviceGet");
  static auto* const name = find<Name>("libcuda.so.1", "cuDeviceGetName");
  static auto* const memory = find<Memory>("libcuda.so.1", "cuDeviceTotalMem_v2");
  std::vector<DeviceInfo> devices;
  const c10::DeviceIndex count = c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA).deviceCount();
  for (c10::DeviceIndex index = 0; index < count; ++index) {
    DeviceInfo info{fmt::format("cuda:{}", index), "CUDA device", 0};
    int device = 0;
    if (get && get(&device, index) == 0) {
      char text[256] = "";
      size_t bytes = 0;
      if (name && name(text, sizeof text, device) == 0) info.name = text;
      if (memory && memory(&bytes, device) == 0) info.memory_bytes = static_cast<int64_t>(bytes);
    }
    devices.push_back(std::move(info));
  }
  return devices;
}

void register_devices(RunInfo& info) {
  if (info.devices.size() > 1) return;
  for (DeviceInfo& device : list_devices()) info.devices.push_back(std::move(device));
}

int current_device() {
  return c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA).getDevice().index();
}

void list_workspaces(std::vector<uint64_t>& pointers) {
  using Map = WorkspaceMap&();
  static Map* const maps[] = {
      find<Map>("libtorch_cuda.so", "_ZN2at4cuda33cublas_handle_stream_to_workspaceEv"),
      find<Map>("libtorch_cuda.so", "_ZN2at4cuda35cublaslt_handle_stream_to_workspaceEv")};
  for (Map* map : maps) {
    if (!map) continue;
    WorkspaceMap& workspaces = map();
    const std::shared_lock lock(workspaces.mutex, std::try_to_lock);
    if (!lock) continue;
    for (const auto& [key, data] : workspaces.map) {
      pointers.push_back(reinterpret_cast<uint64_t>(data.get()));
    }
  }
}

}  // namespace tally::hooks::cuda
