// SPDX-License-Identifier: Apache-2.0
// Address space that is kept for the moment when the host has no memory left, so that the books of
// that moment can still be made and written. It is never touched: nothing of it is resident.
#pragma once

#include <cstddef>

namespace tally {

class MemoryReserve {
 public:
  MemoryReserve() noexcept { take(); }
  ~MemoryReserve() { give_up(); }
  MemoryReserve(const MemoryReserve&) = delete;
  MemoryReserve& operator=(const MemoryReserve&) = delete;

  // Whether the system has room for what booking is thought to need at most. Two system calls.
  static bool is_there_room() noexcept;

  // While it lives, the reserve is free for whoever allocates; what is left of it afterwards is
  // taken again.
  class Opened {
   public:
    explicit Opened(MemoryReserve& reserve) noexcept : reserve_(reserve) { reserve_.give_up(); }
    ~Opened() { reserve_.take(); }
    Opened(const Opened&) = delete;
    Opened& operator=(const Opened&) = delete;

   private:
    MemoryReserve& reserve_;
  };

 private:
  void take() noexcept;
  void give_up() noexcept;

  void* memory_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace tally
