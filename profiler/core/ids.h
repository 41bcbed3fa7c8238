// SPDX-License-Identifier: Apache-2.0
// Ids with types, from one template, and the table that keeps each string once.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

namespace tally {

template <typename Tag>
struct Id {
  uint32_t value = 0;
  constexpr bool operator==(const Id&) const = default;
  constexpr auto operator<=>(const Id&) const = default;
  constexpr explicit operator bool() const { return value != 0; }
};

using StringId = Id<struct StringTag>;  // 0 is the empty string

using DeviceIndex = uint8_t;  // index into RunInfo::devices; 0 is the CPU, k + 1 is cuda:k; pinned memory is last

// Each string once, ids dense from 0 in the order of arrival. Thread-safe; ids never change, so a
// caller caches what it has looked up. Never frees before its own end.
class StringTable {
 public:
  StringTable() { intern(""); }
  StringTable(const StringTable&) = delete;
  StringTable& operator=(const StringTable&) = delete;

  StringId intern(std::string_view text) {
    const std::lock_guard lock(mutex_);
    if (const auto found = ids_.find(text); found != ids_.end()) return {found->second};
    const auto id = static_cast<uint32_t>(texts_.size());
    texts_.emplace_back(text);
    ids_.emplace(texts_.back(), id);
    return {id};
  }
  // The text stays where it is for the life of the table.
  const std::string& text(StringId id) const {
    const std::lock_guard lock(mutex_);
    return texts_.at(id.value);
  }
  uint32_t size() const {
    const std::lock_guard lock(mutex_);
    return static_cast<uint32_t>(texts_.size());
  }

 private:
  mutable std::mutex mutex_;
  std::deque<std::string> texts_;  // a deque: references survive growth
  std::unordered_map<std::string_view, uint32_t> ids_;
};

}  // namespace tally
