// SPDX-License-Identifier: Apache-2.0
// The number formats that executed FLOPs are told by: of what is multiplied, on tensor cores or by
// scalar instructions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tally {

enum class FlopFormat : uint8_t {
  kTensorBf16,
  kTensorFp16,
  kTensorTf32,
  kTensorFp8,
  kTensorFp4,
  kTensorFp64,
  kScalarFp32,
  kScalarFp64,
  kScalarFp16,
};
inline constexpr size_t kFlopFormatCount = 9;

constexpr bool is_tensor(FlopFormat format) { return format < FlopFormat::kScalarFp32; }

// FLOPs by format. Most work has one format and most operators were not counted at all: it keeps
// only what occurred, in the order of the formats, and nothing takes no memory.
class FlopsByFormat {
 public:
  struct Part {
    FlopFormat format = FlopFormat::kTensorBf16;
    double flops = 0;
    bool operator==(const Part&) const = default;
  };
  void add(FlopFormat format, double flops) {
    if (flops == 0) return;
    auto at = parts_.begin();
    while (at != parts_.end() && at->format < format) ++at;
    if (at == parts_.end() || at->format != format) at = parts_.insert(at, {format, 0});
    at->flops += flops;
  }
  void add(const FlopsByFormat& other) {
    for (const Part& part : other.parts_) add(part.format, part.flops);
  }
  double of(FlopFormat format) const {
    for (const Part& part : parts_) {
      if (part.format == format) return part.flops;
    }
    return 0;
  }
  bool empty() const { return parts_.empty(); }
  auto begin() const { return parts_.begin(); }
  auto end() const { return parts_.end(); }
  bool operator==(const FlopsByFormat&) const = default;

 private:
  std::vector<Part> parts_;
};

}  // namespace tally
