// SPDX-License-Identifier: Apache-2.0
// A small open-addressing hash map from a 64-bit key to a trivially copyable value: linear probing,
// deletion by shifting back, no allocation but growth. For the paths where a node per entry costs
// too much. Not thread-safe. The key ~0 is reserved.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace tally {

template <typename Value>
class FlatMap {
  static_assert(std::is_trivially_copyable_v<Value>);

 public:
  static constexpr uint64_t kNoKey = ~uint64_t{0};

  Value* find(uint64_t key) noexcept {
    if (slots_.empty()) return nullptr;
    for (size_t at = home(key);; at = (at + 1) & mask()) {
      if (slots_[at].key == key) return &slots_[at].value;
      if (slots_[at].key == kNoKey) return nullptr;
    }
  }
  // Makes room for one more, and asks the memory for where `key` belongs: the insertion that
  // follows does not throw, and need not wait if something else is done before it. Where there is
  // no memory to grow, the map fills up first; then this throws std::bad_alloc and the map is as it
  // was.
  void prepare_insert(uint64_t key) {
    make_room();
    __builtin_prefetch(&slots_[home(key)], 1);
  }
  // The value of `key`, made from `initial` when it is new. Throws as prepare_insert() does.
  std::pair<Value*, bool> insert(uint64_t key, Value initial = {}) {
    make_room();
    for (size_t at = home(key);; at = (at + 1) & mask()) {
      if (slots_[at].key == key) return {&slots_[at].value, false};
      if (slots_[at].key == kNoKey) {
        slots_[at] = {key, initial};
        ++size_;
        return {&slots_[at].value, true};
      }
    }
  }
  bool erase(uint64_t key) noexcept { return take(key).has_value(); }
  // Erases `key` and tells its value, if there was one.
  std::optional<Value> take(uint64_t key) noexcept {
    if (slots_.empty()) return {};
    size_t hole = home(key);
    while (slots_[hole].key != key) {
      if (slots_[hole].key == kNoKey) return {};
      hole = (hole + 1) & mask();
    }
    const Value taken = slots_[hole].value;
    for (size_t at = (hole + 1) & mask(); slots_[at].key != kNoKey; at = (at + 1) & mask()) {
      // Move back what would no longer be reachable across the hole.
      const size_t wants = home(slots_[at].key);
      if (((at - wants) & mask()) >= ((at - hole) & mask())) {
        slots_[hole] = slots_[at];
        hole = at;
      }
    }
    slots_[hole].key = kNoKey;
    --size_;
    return taken;
  }
  void clear() noexcept {
    if (size_ == 0) return;
    for (Slot& slot : slots_) slot.key = kNoKey;
    size_ = 0;
  }
  template <typename Visit>
  void for_each(Visit&& visit) {
    for (Slot& slot : slots_) {
      if (slot.key != kNoKey) visit(slot.key, slot.value);
    }
  }
  size_t size() const noexcept { return size_; }
  size_t bytes() const noexcept { return slots_.size() * sizeof(Slot); }

 private:
  struct Slot {
    uint64_t key;
    Value value;
  };
  size_t mask() const noexcept { return slots_.size() - 1; }
  size_t home(uint64_t key) const noexcept {
    uint64_t h = key * 0x9E3779B97F4A7C15ull;
    h ^= h >> 32;
    return h & mask();
  }
  void make_room() {
    if ((size_ + 1) * 4 <= slots_.size() * 3) return;
    try {
      grow();
    } catch (const std::bad_alloc&) {
      if (size_ + 1 >= slots_.size()) throw;  // a free slot ends every search
    }
  }
  void grow() {
    std::vector<Slot> old(slots_.empty() ? 16 : slots_.size() * 2, Slot{kNoKey, {}});
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.key == kNoKey) continue;
      size_t at = home(slot.key);
      while (slots_[at].key != kNoKey) at = (at + 1) & mask();
      slots_[at] = slot;
    }
  }

  std::vector<Slot> slots_;
  size_t size_ = 0;
};

}  // namespace tally
