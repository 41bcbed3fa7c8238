// SPDX-License-Identifier: Apache-2.0
// The flags of `torchtally estimate`: one table that names, explains and reads each of them, and
// the sweep over comma lists. Every flag may hold a list; each combination is one job.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "torchtally/estimate.h"

namespace tally::cli {

struct EstimateJob {
  estimate::ModelSpec model;
  estimate::TrainingConfig config;
  // The values of the swept flags, in their order; empty for a single job.
  std::vector<std::string> swept;
};

struct EstimateFlag {
  std::string_view name;  // "--batch"
  std::string_view argument;
  std::string_view help;
  std::string_view group;
  void (*read)(const std::string& value, std::string_view flag, EstimateJob& job);
  bool of_model = false;  // changes the model's dimensions

  bool is_switch() const { return argument == "yes|no"; }  // alone it means yes
};
const std::vector<EstimateFlag>& estimate_flags();

struct Sweep {
  std::vector<std::string> names;  // of the swept flags, "model" first where several are given
  std::vector<EstimateJob> jobs;
};
// `values` holds what was given, by flag name.
Sweep make_sweep(const std::vector<std::string>& models,
                 const std::map<std::string, std::string>& values);

std::string_view dtype_name(estimate::Dtype dtype);
std::string_view attention_name(estimate::Attention attention);
std::string checkpoint_name(const estimate::TrainingConfig& config);

}  // namespace tally::cli
