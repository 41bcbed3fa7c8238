// SPDX-License-Identifier: Apache-2.0
// Each pair of dtype and shape once, so that an event names a tensor in 32 bits. Hooks ask through
// a small cache of their own thread; the table is locked only for what that cache does not know.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "profiler/core/ids.h"

namespace tally {

using TensorId = Id<struct TensorTag>;  // 0: no tensor was seen

// The sizes in "[8, 1024]", a shape as the table spells it.
std::vector<int64_t> parse_shape(const std::string& text);

class TensorTable {
 public:
  struct Entry {
    StringId dtype;
    StringId shape;  // "[8, 1024]"
  };

  explicit TensorTable(StringTable& strings) : strings_(strings) { entries_.push_back({}); }

  // Names of the dtypes by the code that hooks use; set once, before the first event.
  void set_dtype_names(std::vector<std::string> names) {
    const std::lock_guard lock(mutex_);
    dtype_names_ = std::move(names);
  }

  // `key` is hash() of the same arguments.
  TensorId intern(uint64_t key, uint8_t dtype, std::span<const int64_t> shape);
  Entry entry(TensorId id) const {
    const std::lock_guard lock(mutex_);
    return entries_.at(id.value);
  }

  static uint64_t hash(uint8_t dtype, std::span<const int64_t> shape) noexcept {
    uint64_t h = 0x9E3779B97F4A7C15ull * (dtype + 1) + shape.size();
    for (const int64_t size : shape) {
      h ^= static_cast<uint64_t>(size);
      h *= 0xBF58476D1CE4E5B9ull;
      h ^= h >> 29;
    }
    return h;
  }

  // Of one thread; POD, so that it may live in thread-local storage of a plug-in.
  struct Cache {
    static constexpr size_t kSize = 128;
    struct Slot {
      uint64_t key;
      TensorId id;
    };
    Slot slots[kSize];
  };
  TensorId intern(Cache& cache, uint8_t dtype, std::span<const int64_t> shape) {
    const uint64_t key = hash(dtype, shape);
    Cache::Slot& slot = cache.slots[key % Cache::kSize];
    if (slot.key != key || !slot.id) slot = {key, intern(key, dtype, shape)};
    return slot.id;
  }

 private:
  StringTable& strings_;
  mutable std::mutex mutex_;
  std::vector<std::string> dtype_names_;
  std::deque<Entry> entries_;
  std::unordered_map<uint64_t, TensorId> ids_;
};

}  // namespace tally
