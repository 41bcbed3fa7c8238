// SPDX-License-Identifier: Apache-2.0
// Work of kernels by phase, module, operator and name: those of one step.
#pragma once

#include <array>
#include <map>
#include <utility>
#include <vector>

#include "profiler/ledger/books.h"

namespace tally {

class KernelTable {
 public:
  KernelRow& row(Phase phase, StringId module, StringId op, StringId kernel) {
    const auto [found, is_new] = index_.emplace(
        std::array<uint32_t, 4>{static_cast<uint32_t>(phase), module.value, op.value, kernel.value},
        rows_.size());
    if (is_new) {
      KernelRow& row = rows_.emplace_back();
      row.phase = phase;
      row.module = module;
      row.op = op;
      row.kernel = kernel;
    }
    return rows_[found->second];
  }
  std::vector<KernelRow> take() {
    index_.clear();
    return std::exchange(rows_, {});
  }

 private:
  std::map<std::array<uint32_t, 4>, size_t> index_;  // few rows: a step has some hundred
  std::vector<KernelRow> rows_;
};

}  // namespace tally
