// SPDX-License-Identifier: Apache-2.0
// How much of the device's arithmetic a step used: MFU and HFU, where the device is in the table of
// profiler/estimate.
#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>

#include <fmt/format.h>

#include "profiler/analysis/parts.h"
#include "profiler/core/error.h"
#include "profiler/core/units.h"
#include "torchtally/estimate.h"

namespace tally::analysis {
namespace {

// "NVIDIA H100 80GB HBM3" -> the row of "h100-80gb": the driver's words, fewer and fewer of them.
const estimate::DeviceSpec* device_by_driver_name(const std::string& name) {
  std::vector<std::string> words{""};
  for (const char c : name) {
    if (std::isalnum(static_cast<unsigned char>(c))) {
      words.back() += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    } else if (!words.back().empty()) {
      words.emplace_back();
    }
  }
  std::erase_if(words, [](const std::string& w) {
    return w.empty() || w == "nvidia" || w == "amd" || w == "tesla" || w == "geforce" ||
           w == "instinct";
  });
  for (; !words.empty(); words.pop_back()) {
    std::string joined;
    for (const std::string& w : words) joined += (joined.empty() ? "" : "-") + w;
    try {
      return &estimate::find_device(joined);
    } catch (const Error&) {
      // not this one
    }
  }
  return nullptr;
}

// The type that holds most of the parameters; "" when none is known.
std::string main_dtype(const recording::Run& run) {
  std::map<std::string, int64_t> bytes;
  for (const ParameterInfo& p : run.info.parameters) {
    if (!p.is_buffer && !p.shared) bytes[run.text(p.dtype)] += p.bytes;
  }
  const auto most = std::max_element(
      bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == bytes.end() ? "" : most->first;
}

// Steps whose counters include the traffic of the device's memory, as "0, 2, 4, ...".
std::string steps_with_traffic(const recording::Run& run) {
  constexpr int kMost = 4;
  std::string out;
  int found = 0;
  for (const recording::RecordedStep& step : run.steps) {
    const auto& rows = step.books.operators;
    if (std::none_of(rows.begin(), rows.end(), [](const auto& r) { return r.dram_bytes > 0; })) {
      continue;
    }
    if (++found > kMost) return out + ", ...";
    out += fmt::format("{}{}", out.empty() ? "" : ", ", step.books.index);
  }
  return out;
}

void add_roofline(const recording::Run& run, const Summary& summary, Utilization* out) {
  const StepSummary& step = summary.step();
  const auto& executed = step.flops.executed;
  if (!executed || executed->dram_bytes <= 0) {
    const std::string others = steps_with_traffic(run);
    out->roofline_cause =
        others.empty()
            ? "not applicable because the bytes that each operator moves are not recorded: that "
              "needs hardware counters (TORCHTALLY_COUNTERS=1 on a CUDA device)"
            : fmt::format("not applicable because step {} did not count the bytes that operators "
                          "move: a step counts one set of counters; --step has {}",
                          step.index, others);
    return;
  }
  if (!out->peak || !out->bytes_per_second) {
    out->roofline_cause =
        "not applicable because the rates of the device are not known; what operators move stands "
        "in the table of operators";
    return;
  }
  const bool is_counted = executed->flops() > 0;
  std::map<std::string, RooflinePoint> by_operator;
  for (const OperatorRow& row : step.operators) {
    if (!row.executed || row.executed->dram_bytes <= 0 || row.executed->device_seconds <= 0) continue;
    RooflinePoint& point = by_operator[row.op];
    point.op = row.op;
    point.flops += is_counted ? row.executed->flops() : row.flops + row.elementwise_flops;
    point.dram_bytes += row.executed->dram_bytes;
    point.device_seconds += row.executed->device_seconds;
  }
  for (auto& [op, point] : by_operator) {
    if (point.flops > 0) out->roofline.push_back(std::move(point));
  }
  std::stable_sort(out->roofline.begin(), out->roofline.end(), [](const auto& a, const auto& b) {
    return a.device_seconds > b.device_seconds;
  });
  out->roofline_cause =
      out->roofline.empty()
          ? std::string("not applicable because no operator with counted bytes did counted work")
          : fmt::format("{} over the bytes of the device's memory and the time of kernels, which "
                        "are counted",
                        is_counted ? "executed FLOPs" : "FLOPs by formula");
}

Utilization rates(const recording::Run& run, const Summary& summary) {
  Utilization out;
  const StepSummary& step = summary.step();
  const Flops& f = step.flops;
  if (step.seconds > 0) out.flops_per_second = f.total() / step.seconds;
  const auto device = std::find_if(summary.devices.begin(), summary.devices.end(),
                                   [&](const Device& d) { return d.id == summary.device; });
  if (device == summary.devices.end()) {
    out.cause = "not applicable because the step has no books of a device";
    return out;
  }
  if (device->id == "cpu") {
    out.cause = fmt::format(
        "not applicable because no peak rate of this processor is known ({}; the table of devices "
        "holds accelerators)",
        device->name);
    return out;
  }
  const estimate::DeviceSpec* spec = device_by_driver_name(device->name);
  if (!spec) {
    out.cause = fmt::format("not applicable because {} is not in the table of devices",
                            device->name.empty() ? device->id : device->name);
    return out;
  }
  out.device = spec->name;
  if (spec->bandwidth > 0) out.bytes_per_second = spec->bandwidth;
  static const std::map<std::string, std::pair<estimate::Dtype, const char*>> kTypes{
      {"float32", {estimate::Dtype::kFp32, "fp32"}},
      {"bfloat16", {estimate::Dtype::kBf16, "bf16"}},
      {"float16", {estimate::Dtype::kFp16, "fp16"}}};
  const std::string dtype = main_dtype(run);
  const auto type = kTypes.find(dtype);
  if (type == kTypes.end()) {
    out.cause = "not applicable because the type of the arithmetic is not known: " +
                (dtype.empty() ? std::string("no module with parameters was watched")
                               : "parameters are " + dtype);
    return out;
  }
  out.arithmetic = type->second.second;
  const double peak = spec->peak(type->second.first);
  if (peak <= 0 || step.seconds <= 0) {
    out.cause = fmt::format("not applicable because no {} rate of {} is published", out.arithmetic,
                            spec->name);
    return out;
  }
  out.peak = peak;
  out.mfu = (f.forward + f.backward) / step.seconds / peak;
  out.hfu = f.total() / step.seconds / peak;
  out.cause = fmt::format(
      "of {}/s, the dense {} rate of {}: the type of the parameters; under autocast the tensor "
      "cores' rate would be the measure",
      format_flops(peak), out.arithmetic, spec->name);
  return out;
}

}  // namespace

Utilization utilization(const recording::Run& run, const Summary& summary) {
  Utilization out = rates(run, summary);
  add_executed(run, summary, &out);
  add_roofline(run, summary, &out);
  return out;
}

}  // namespace tally::analysis
