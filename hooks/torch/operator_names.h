// SPDX-License-Identifier: Apache-2.0
// What is known of an operator or node by its name: found once, then a pointer. Any thread; the
// table is locked only the first time that a thread meets a name.
#pragma once

#include <ATen/record_function.h>

#include <cstdint>

#include "hooks/torch/save_rules.h"
#include "hooks/torch/work_rules.h"
#include "profiler/core/ids.h"

namespace tally::hooks {

struct OperatorName {
  enum class Kind : uint8_t {
    kOperator,
    kIgnored,     // a bracket of the engine or of torch.compile, our own operators
    kAccumulate,  // the node that writes a .grad
    kNode,
    kUpdate,      // the scope that Python's optimizers open around a step
    kKeepInputs,  // the node of a checkpoint that keeps the block's inputs, out of the graph's
                  // reach
  };
  const char* text = nullptr;  // for comparing; lives as long as the process
  StringId id;
  Kind kind = Kind::kOperator;
  bool makes_no_graph = false;  // reads a value out of the graph (item, detach): no forward pass
  bool in_place = false;        // writes its first input
  bool casts = false;           // copies its first input into another dtype
  bool communicates = false;    // a collective: its tensors go over the network
  WorkRule work;
  SaveRule save;
};

// `name` need not live on.
const OperatorName& operator_name(StringTable& strings, const char* name) noexcept;
// What `function`, an operator, is called: found again by the address of its name alone, for as
// long as it is registered.
const OperatorName& operator_name(StringTable& strings,
                                  const at::RecordFunction& function) noexcept;

}  // namespace tally::hooks
