// SPDX-License-Identifier: Apache-2.0
// How much of the device's arithmetic a step used: MFU and HFU, where the device is in the table of
// profiler/estimate.
#include <algorithm>
#include <cctype>
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

}  // namespace

Utilization utilization(const recording::Run& run, const Summary& summary) {
  Utilization out;
  const StepSummary& step = summary.step();
  const Flops& f = step.flops;
  if (step.seconds > 0) out.flops_per_second = f.total() / step.seconds;
  out.roofline_cause =
      "not applicable because the bytes that each operator moves are not recorded: that needs "
      "hardware counters";
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

}  // namespace tally::analysis
