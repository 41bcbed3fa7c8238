// SPDX-License-Identifier: Apache-2.0
// Devices (data/hardware.csv) and their dense peak by dtype.
#include <algorithm>

#include "profiler/core/error.h"
#include "profiler/estimate/table_data.h"
#include "torchtally/estimate.h"

namespace tally::embedded {
extern const std::string_view estimate_hardware;
}

namespace tally::estimate {
namespace {

struct Entry {
  DeviceSpec device;
  std::vector<std::string> names;
};

const std::vector<Entry>& entries() {
  static const std::vector<Entry> all = [] {
    const CsvTable table("hardware.csv", embedded::estimate_hardware);
    std::vector<Entry> list;
    for (size_t i = 0; i < table.size(); ++i) {
      DeviceSpec d;
      d.name = table.text(i, "name");
      d.architecture = table.text(i, "arch");
      d.source = table.text(i, "source");
      const double reported = table.number(i, "mem_bytes_reported");
      d.memory_reported = reported > 0;
      d.memory_bytes =
          static_cast<Integer>(reported > 0 ? reported : table.number(i, "mem_GB_nominal") * 1e9);
      d.bandwidth = table.number(i, "bw_GBps") * 1e9;
      const auto tera = [&](const char* column) { return table.number(i, column) * 1e12; };
      d.fp32 = tera("fp32_TFLOPS");
      d.tf32 = tera("tf32_dense_TFLOPS");
      d.bf16 = tera("bf16_dense_TFLOPS");
      d.fp16 = tera("fp16_dense_TFLOPS");
      d.fp8 = tera("fp8_dense_TFLOPS");
      d.watts = table.number(i, "tdp_W");
      d.nvidia = d.architecture.find("sm_") != std::string::npos;
      Entry entry{d, {plain_name(d.name)}};
      for (const std::string& alias : split(table.text(i, "aliases"), '|')) {
        if (!alias.empty()) entry.names.push_back(plain_name(alias));
      }
      list.push_back(std::move(entry));
    }
    return list;
  }();
  return all;
}

}  // namespace

double DeviceSpec::peak(Dtype dtype) const {
  switch (dtype) {
    case Dtype::kFp32:
      return fp32;
    case Dtype::kTf32:
      return tf32;
    case Dtype::kBf16:
    case Dtype::kAmpBf16:
      return bf16;
    case Dtype::kFp16:
    case Dtype::kAmpFp16:
      return fp16;
  }
  return 0;
}

const std::vector<DeviceSpec>& devices() {
  static const std::vector<DeviceSpec> all = [] {
    std::vector<DeviceSpec> list;
    for (const Entry& entry : entries()) list.push_back(entry.device);
    return list;
  }();
  return all;
}

const DeviceSpec& find_device(const std::string& name) {
  const std::string plain = plain_name(name);
  for (const Entry& entry : entries()) {
    if (std::find(entry.names.begin(), entry.names.end(), plain) != entry.names.end()) {
      return entry.device;
    }
  }
  std::vector<std::string> names;
  for (const Entry& entry : entries()) names.push_back(entry.device.name);
  throw Error("--device: no device is called '{}'; nearest: {} (all: torchtally models --devices)",
              name, join(nearest(name, names, 3), ", "));
}

}  // namespace tally::estimate
