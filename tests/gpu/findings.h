// SPDX-License-Identifier: Apache-2.0
// How the programs for a real GPU tell what they found: one line of JSON a finding. What has a
// number answers that question of scripts/gpu_check.
#pragma once

#include <torch/torch.h>

#include <chrono>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>

#include "hooks/cupti/flop_metrics.h"
#include "hooks/cupti/range_counter.h"

namespace tally::gpu {

using Json = nlohmann::ordered_json;

inline void say(const Json& line) {
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);  // a later question may crash
}
inline void answer(int question, const char* asked, Json finding) {
  Json line{{"answers", question}, {"asked", asked}};
  line.update(finding);
  say(line);
}

inline double milliseconds(const std::function<void()>& what) {
  const auto begin = std::chrono::steady_clock::now();
  what();
  torch::cuda::synchronize();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
      .count();
}

// Of one row: what is counted as `what`, weighted.
inline double total(const hooks::cupti::MetricSet& set, const std::vector<double>& values,
                    hooks::cupti::Counted what) {
  double sum = 0;
  for (size_t m = 0; m < set.metrics.size() && m < values.size(); ++m) {
    if (set.metrics[m].counted == what) sum += set.metrics[m].weight * values[m];
  }
  return sum;
}

}  // namespace tally::gpu
