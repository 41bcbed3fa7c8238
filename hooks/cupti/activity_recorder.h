// SPDX-License-Identifier: Apache-2.0
// Kernels and device allocations as CUPTI's Activity API tells them, each with the id of the
// operator that caused it. CUPTI has one place for subscribers in a process: it is taken by start()
// and given back by stop(), and when another tool has it, start() says so and takes nothing.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "hooks/cupti/subscription.h"

namespace tally::hooks::cupti {

class ActivityRecorder {
 public:
  struct Kernel {
    std::string name;
    uint64_t begin_ns = 0, end_ns = 0;  // CUPTI's clock
    uint32_t device = 0, stream = 0, correlation = 0;
    uint64_t op = 0;  // 0: of no operator that was named
  };
  struct Memory {
    bool is_release = false;
    uint64_t address = 0, bytes = 0;
    uint32_t device = 0, correlation = 0;
    uint64_t op = 0;
  };
  struct Copy {
    uint64_t bytes = 0, begin_ns = 0, end_ns = 0;
    uint32_t correlation = 0;
    bool is_fill = false;
    uint64_t op = 0;
  };
  struct Report {
    std::vector<Kernel> kernels;
    std::vector<Memory> memory;
    std::vector<Copy> copies;
    uint64_t dropped = 0;          // records that CUPTI had no room for
    uint64_t unknown = 0;          // records of kinds that nobody asked for
    uint64_t refused_buffers = 0;  // CUPTI wanted more room than it may have
  };

  explicit ActivityRecorder(const Api& api) : api_(api), subscription_(api) {}
  ~ActivityRecorder() { stop(); }
  ActivityRecorder(const ActivityRecorder&) = delete;
  ActivityRecorder& operator=(const ActivityRecorder&) = delete;

  // "", or why not; nothing stays behind then.
  std::string start();
  // Around an operator, on its thread.
  void push_op(uint64_t op);
  void pop_op();
  // After the device was synchronised. Joins records to operators: they come in any order.
  Report stop();
  // One filled buffer.
  void parse(uint8_t* buffer, size_t valid_bytes);

 private:
  static void CUPTIAPI on_buffer_wanted(uint8_t** buffer, size_t* bytes, size_t* most_records);
  static void CUPTIAPI on_buffer_full(CUcontext context, uint32_t stream, uint8_t* buffer,
                                      size_t bytes, size_t valid_bytes);
  void add(const CUpti_Activity* record);

  const Api& api_;
  Subscription subscription_;
  std::vector<CUpti_ActivityKind> enabled_;
  std::mutex mutex_;  // guards what is below; CUPTI calls back on threads of its own
  std::unordered_map<uint32_t, uint64_t> op_of_;
  Report report_;
  size_t buffers_ = 0;
};

}  // namespace tally::hooks::cupti
