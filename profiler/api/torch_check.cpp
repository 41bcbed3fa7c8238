// SPDX-License-Identifier: Apache-2.0
#include "profiler/api/torch_check.h"

#include <dlfcn.h>
#include <torch/version.h>

#include <cstdint>

#include "profiler/core/error.h"

namespace tally {

std::string torch_version() { return TORCH_VERSION; }

void check_torch_version() {
  using AbiVersion = uint64_t (*)();
  const auto loaded = reinterpret_cast<AbiVersion>(dlsym(RTLD_DEFAULT, "aoti_torch_abi_version"));
  if (!loaded) return;  // a build without it: the linker has checked what it could
  const uint64_t version = loaded();  // one byte each: major, minor, patch, ...
  const auto major = version >> 56;
  const auto minor = version >> 48 & 0xFF;
  if (major != TORCH_VERSION_MAJOR || minor != TORCH_VERSION_MINOR) {
    throw Error("TorchTally was built for LibTorch {}, but {}.{} is loaded; build it again with "
                "-DTORCHTALLY_TORCH=<folder of that LibTorch>", TORCH_VERSION, major, minor);
  }
}

}  // namespace tally
