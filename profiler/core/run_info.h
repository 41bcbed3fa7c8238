// SPDX-License-Identifier: Apache-2.0
// What is known of the program that is recorded: its devices, modules, parameters, optimizers.
// Sources fill a RunDirectory; the recording keeps the latest RunInfo.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "profiler/core/ids.h"

namespace tally {

// A parameter, buffer or piece of optimizer state as a walk over the objects gives it.
struct ParameterInfo {
  StringId name;    // "h.0.attn.c_attn.weight"
  StringId module;  // "h.0.attn.c_attn"
  StringId dtype;
  StringId shape;
  int64_t elements = 0;
  int64_t bytes = 0;  // of the tensor
  bool trainable = true;
  bool is_buffer = false;
  bool shared = false;           // its storage was listed before under another name (tied weights)
  int64_t optimizer_index = -1;  // into RunInfo::optimizers; -1: none watched holds it
};

struct ModuleInfo {
  StringId name;
  StringId type;  // "torch::nn::LinearImpl"
};

struct OptimizerInfo {
  StringId type;    // "AdamW"
  StringId recipe;  // "adamw", "adamw-amsgrad", "sgd", "sgd-momentum", ...; "" when not known
  int64_t parameters = 0;
};

struct DeviceInfo {
  std::string id;    // "cpu"
  std::string name;  // "Intel Xeon ..."
  int64_t memory_bytes = 0;
};

struct SourceInfo {
  std::string name;  // "torch.cpu_allocator"
  bool available = false;
  std::string reason;  // why not, or what is limited; a sentence
};

// What is known of the run when it starts or changes; the recording holds the latest.
struct RunInfo {
  int64_t start_unix_ns = 0;  // when the steps' clock began; 0: when the recording was created
  int64_t rank = -1;          // of this process in a distributed run; -1: it is alone
  int64_t world_size = 0;     // processes of that run
  std::string model;          // its configuration: a preset's name or the text of a config.json
  std::vector<std::string> command;
  std::vector<std::pair<std::string, std::string>>
      versions;  // "torchtally", "torch", "compiler", "os"
  std::vector<std::pair<std::string, std::string>> options;
  std::vector<DeviceInfo> devices;
  std::vector<SourceInfo> sources;
  std::vector<ModuleInfo> modules;
  std::vector<ParameterInfo> parameters;
  std::vector<OptimizerInfo> optimizers;
};

// The RunInfo under construction. Thread-safe: watch() may be called while the bookkeeper reads.
class RunDirectory {
 public:
  // Changes the information under the lock.
  template <typename Change>
  auto update(Change&& change) {
    const std::lock_guard lock(mutex_);
    ++version_;
    return change(info_);
  }
  // A copy, and the version it is of.
  RunInfo snapshot(uint64_t* version) const {
    const std::lock_guard lock(mutex_);
    *version = version_;
    return info_;
  }
  uint64_t version() const {
    const std::lock_guard lock(mutex_);
    return version_;
  }
  // Name and module of parameter `index`; what the ledger asks for each step.
  ParameterInfo parameter(uint32_t index) const {
    const std::lock_guard lock(mutex_);
    return info_.parameters.at(index);
  }

 private:
  mutable std::mutex mutex_;
  uint64_t version_ = 0;
  RunInfo info_;
};

}  // namespace tally
