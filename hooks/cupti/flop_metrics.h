// SPDX-License-Identifier: Apache-2.0
// Which hardware counters make up "FLOPs executed", by chip. FLOPs = sum of weight x value; a fused
// multiply-add is two. Names and pass counts are those of CUPTI 13.0, checked by tests against its
// host library; the weights of tensor counters were not checked on every chip.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "profiler/core/flop_format.h"

namespace tally::hooks::cupti {

enum class Counted {
  kTensorFlops,   // by tensor cores, of Metric::format
  kScalarFlops,   // by scalar instructions, of Metric::format
  kNanoseconds,   // of kernels, on the device
  kDramBytes,     // read and written
  kInstructions,  // tells whether a set is worth its passes; no FLOPs
};

struct Metric {
  std::string name;
  double weight = 1;
  Counted counted = Counted::kTensorFlops;
  FlopFormat format{};             // of FLOPs
  std::string_view instruction{};  // of kInstructions: "mma.sync" or "wgmma"
};

struct MetricSet {
  std::string name;
  std::vector<Metric> metrics;
  int passes = 0;  // as CUPTI schedules them on that chip; 0: not known
};

// The sets for a chip as cuptiDeviceGetChipName calls it ("GH100"). The first one is a single pass
// where the chip can do that, with kernel time and DRAM traffic; the others add the rest.
std::vector<MetricSet> metric_sets(std::string_view chip);

}  // namespace tally::hooks::cupti
