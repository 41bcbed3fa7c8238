// SPDX-License-Identifier: Apache-2.0
// What a set of hooks looks like to a session. A source that cannot work here is still an object:
// it says why, and the sentence reaches the report.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "profiler/core/event_log.h"
#include "profiler/core/ids.h"
#include "profiler/core/run_info.h"
#include "profiler/core/tensor_table.h"

namespace tally {

// What a source writes to; lives as long as the process.
struct Context {
  EventLog& log;
  StringTable& strings;
  TensorTable& tensors;
  RunDirectory& directory;
};

struct Availability {
  bool yes = false;
  std::string reason;  // a sentence: why not, or what is limited
};

struct SourceStatistics {
  uint64_t events = 0;
  int64_t nanoseconds = 0;  // spent in hooks on the program's threads, estimated by sampling
  int64_t bytes = 0;        // held by tables of the source
  std::vector<std::string> notes;  // sentences for "what this report does not know"
};

class Source {
 public:
  virtual ~Source() = default;
  virtual std::string_view name() const = 0;
  virtual Availability availability() const = 0;
  // Loud: throws Error when it cannot start although it is available.
  virtual void start(Context& context) = 0;
  // A step begins or ends on the calling thread: what can be looked at is looked at now.
  virtual void step_begin() noexcept {}
  virtual void step_end() noexcept {}
  virtual void stop() noexcept = 0;
  virtual SourceStatistics statistics() const = 0;
};

}  // namespace tally
