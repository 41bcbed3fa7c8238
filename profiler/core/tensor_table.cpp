// SPDX-License-Identifier: Apache-2.0
#include "profiler/core/tensor_table.h"

#include <cstdlib>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace tally {

TensorId TensorTable::intern(uint64_t key, uint8_t dtype, std::span<const int64_t> shape) {
  const std::lock_guard lock(mutex_);
  if (const auto found = ids_.find(key); found != ids_.end()) return found->second;
  const std::string dtype_name =
      dtype < dtype_names_.size() ? dtype_names_[dtype] : fmt::format("dtype {}", dtype);
  entries_.push_back({strings_.intern(dtype_name),
                      strings_.intern(fmt::format("[{}]", fmt::join(shape, ", ")))});
  const TensorId id{static_cast<uint32_t>(entries_.size() - 1)};
  ids_.emplace(key, id);
  return id;
}

std::vector<int64_t> parse_shape(const std::string& text) {
  std::vector<int64_t> out;
  for (const char* at = text.c_str(); *at;) {
    char* end = nullptr;
    const long long size = std::strtoll(at, &end, 10);
    if (end == at) {
      ++at;
    } else {
      out.push_back(size);
      at = end;
    }
  }
  return out;
}

}  // namespace tally
