// SPDX-License-Identifier: Apache-2.0
// Work of the open step by phase, module and operator.
#pragma once

#include <utility>
#include <vector>

#include "profiler/core/flat_map.h"
#include "profiler/ledger/books.h"

namespace tally {

class OperatorTable {
 public:
  OperatorRow& row(Phase phase, StringId module, StringId op) {
    const uint64_t key = (static_cast<uint64_t>(phase) << 60) |
                         (static_cast<uint64_t>(module.value) << 30) | op.value;
    const auto [index, is_new] = index_.insert(key, static_cast<uint32_t>(rows_.size()));
    if (is_new) {
      OperatorRow& row = rows_.emplace_back();
      row.phase = phase;
      row.module = module;
      row.op = op;
    }
    return rows_[*index];
  }
  std::vector<OperatorRow> take() {
    index_.clear();
    return std::exchange(rows_, {});
  }

 private:
  FlatMap<uint32_t> index_;
  std::vector<OperatorRow> rows_;
};

}  // namespace tally
