// SPDX-License-Identifier: Apache-2.0
#include "profiler/ledger/caching_allocator.h"

#include <algorithm>
#include <bit>
#include <iterator>

namespace tally {
namespace {

constexpr int64_t kSmallest = 512;
constexpr int64_t kSmall = 1 << 20;  // requests up to it come from the pool of small blocks

}  // namespace

int64_t CachingAllocator::rounded(int64_t bytes, uint64_t roundings) {
  if (bytes < kSmallest) return kSmallest;
  const auto size = static_cast<uint64_t>(bytes);
  // Which interval: from 1 MiB on, each power of two has its own; smaller requests use the first.
  const int power = static_cast<int>(std::bit_width(size)) - 1;
  const int interval = std::clamp(power - 20, 0, 15);
  const uint64_t parts = uint64_t{1} << (roundings >> (4 * interval) & 15);
  if (parts > 1 && size > kSmallest * parts) {
    if (std::has_single_bit(size)) return bytes;
    const uint64_t part = (uint64_t{1} << power) / parts;
    if (part == 0) return int64_t{2} << power;
    return static_cast<int64_t>((size + part - 1) / part * part);
  }
  return (bytes + kSmallest - 1) / kSmallest * kSmallest;
}

void CachingAllocator::set_rules(uint64_t max_split_bytes, uint64_t roundings) {
  max_split_bytes_ = max_split_bytes;
  roundings_ = roundings;
}

CachingAllocator::Area CachingAllocator::take(Free::iterator area) {
  const Area taken = area->second;
  free_sizes_.erase(free_sizes_.find(taken.bytes));
  free_.erase(area);
  return taken;
}

// Joins the free neighbours of the same segment.
void CachingAllocator::add_free(uint64_t address, Area area) {
  auto after = free_.lower_bound(address);
  if (after != free_.end() && after->second.segment == area.segment &&
      after->first == address + static_cast<uint64_t>(area.bytes)) {
    const auto joined = after++;
    area.bytes += take(joined).bytes;
  }
  if (after != free_.begin()) {
    const auto before = std::prev(after);
    if (before->second.segment == area.segment &&
        before->first + static_cast<uint64_t>(before->second.bytes) == address) {
      address = before->first;
      area.bytes += take(before).bytes;
    }
  }
  free_.emplace(address, area);
  free_sizes_.insert(area.bytes);
}

CachingAllocator::Free::iterator CachingAllocator::free_around(uint64_t address) {
  auto area = free_.upper_bound(address);
  if (area == free_.begin()) return free_.end();
  --area;
  return address < area->first + static_cast<uint64_t>(area->second.bytes) ? area : free_.end();
}

void CachingAllocator::add_segment(uint64_t address, int64_t bytes, bool is_mapped) {
  reserved_ += bytes;
  add_free(address, {bytes, is_mapped ? kMapped : address});
}

void CachingAllocator::remove_segment(uint64_t address, int64_t bytes, bool is_mapped) {
  reserved_ -= bytes;
  const auto around = free_around(address);
  const uint64_t end = address + static_cast<uint64_t>(bytes);
  if (around == free_.end() || around->first + static_cast<uint64_t>(around->second.bytes) < end ||
      (!is_mapped && (around->first != address || around->second.bytes != bytes))) {
    is_exact_ = false;
    return;
  }
  const uint64_t begin = around->first;
  const Area whole = take(around);
  const uint64_t whole_end = begin + static_cast<uint64_t>(whole.bytes);
  if (begin < address) add_free(begin, {static_cast<int64_t>(address - begin), whole.segment});
  if (end < whole_end) add_free(end, {static_cast<int64_t>(whole_end - end), whole.segment});
}

void CachingAllocator::place(uint64_t address, int64_t block_bytes) {
  const auto around = free_around(address);
  const uint64_t end = address + static_cast<uint64_t>(block_bytes);
  if (around == free_.end() || around->first + static_cast<uint64_t>(around->second.bytes) < end) {
    is_exact_ = false;
    return;
  }
  const uint64_t begin = around->first;
  const Area whole = take(around);
  const uint64_t whole_end = begin + static_cast<uint64_t>(whole.bytes);
  if (begin < address) add_free(begin, {static_cast<int64_t>(address - begin), whole.segment});
  if (end < whole_end) add_free(end, {static_cast<int64_t>(whole_end - end), whole.segment});
  *live_.insert(address).first = {block_bytes, whole.segment, false};
  active_ += block_bytes;
  allocated_ += block_bytes;
}

void CachingAllocator::alloc(uint64_t address, int64_t requested_bytes) {
  if (live_.find(address)) return;  // placed before
  const auto at = free_.find(address);
  if (at == free_.end()) {
    is_exact_ = false;
    return;
  }
  const Area whole = take(at);
  int64_t need = rounded(requested_bytes, roundings_);
  const int64_t rest = whole.bytes - need;
  if (rest < 0) {
    is_exact_ = false;
    need = whole.bytes;
  } else {
    const bool fine = need <= kSmall || whole.segment == kMapped;
    const bool splits =
        fine ? rest >= kSmallest : rest > kSmall && static_cast<uint64_t>(need) < max_split_bytes_;
    if (splits) {
      add_free(address + static_cast<uint64_t>(need), {rest, whole.segment});
    } else {
      need = whole.bytes;
    }
  }
  *live_.insert(address).first = {need, whole.segment, false};
  active_ += need;
  allocated_ += need;
}

void CachingAllocator::request_free(uint64_t address) {
  Live* block = live_.find(address);
  if (!block || block->is_pending) {
    is_exact_ = false;
    return;
  }
  block->is_pending = true;
  allocated_ -= block->bytes;
}

void CachingAllocator::complete_free(uint64_t address) {
  const auto block = live_.take(address);
  if (!block) {
    is_exact_ = false;
    return;
  }
  if (!block->is_pending) allocated_ -= block->bytes;
  active_ -= block->bytes;
  add_free(address, {block->bytes, block->segment});
}

size_t CachingAllocator::bytes() const {
  constexpr size_t kNode = 4 * sizeof(void*);
  return live_.bytes() + free_.size() * (sizeof(Free::value_type) + sizeof(int64_t) + 2 * kNode);
}

}  // namespace tally
