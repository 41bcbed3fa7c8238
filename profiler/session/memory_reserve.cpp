// SPDX-License-Identifier: Apache-2.0
#include "profiler/session/memory_reserve.h"

#include <sys/mman.h>

namespace tally {
namespace {

constexpr size_t kMost = 64 << 20;
constexpr size_t kLeast = 1 << 20;
constexpr size_t kRoom = 16 << 20;

void* map(size_t bytes) noexcept {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

}  // namespace

bool MemoryReserve::is_there_room() noexcept {
  void* room = map(kRoom);
  if (room) munmap(room, kRoom);
  return room != nullptr;
}

void MemoryReserve::take() noexcept {
  for (bytes_ = kMost; bytes_ >= kLeast; bytes_ /= 2) {
    memory_ = map(bytes_);
    if (memory_) return;
  }
}

void MemoryReserve::give_up() noexcept {
  if (memory_) munmap(memory_, bytes_);
  memory_ = nullptr;
}

}  // namespace tally
