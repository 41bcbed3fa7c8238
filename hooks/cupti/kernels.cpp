// SPDX-License-Identifier: Apache-2.0
#include "hooks/cupti/kernels.h"

#include <cxxabi.h>
#include <fmt/format.h>

#include <bit>
#include <cstdlib>
#include <map>
#include <memory>
#include <utility>

namespace tally::hooks::cupti {
namespace {

struct Sum {
  uint32_t calls = 0;
  CountedSums counted;
};
using Kernels = std::map<std::pair<uint64_t, std::string>, Sum>;  // by id of the operator and name

constexpr auto kTime = static_cast<size_t>(CountedQuantity::kNanoseconds);
constexpr auto kTraffic = static_cast<size_t>(CountedQuantity::kDramBytes);

void tell(Context& context, const Kernels& kernels) {
  for (const auto& [key, sum] : kernels) {
    const auto& [op, name] = key;
    Event event;
    event.kind = EventKind::kKernel;
    event.a = op - 1;  // ~0 of no operator
    event.id = context.strings.intern(demangled(name)).value;
    uint32_t calls = sum.calls;
    for (size_t quantity = 0; quantity < kCountedQuantities; ++quantity) {
      const double value = sum.counted.of[quantity];
      // Calls come with the first event, whatever it tells.
      if (value == 0 && !(calls > 0 && quantity == kTime)) continue;
      event.b = std::bit_cast<uint64_t>(value);
      event.c = std::exchange(calls, 0);
      event.flags = static_cast<uint8_t>(quantity);
      context.log.push(event);
    }
  }
}

double nanoseconds(uint64_t begin, uint64_t end) {
  return end > begin ? static_cast<double>(end - begin) : 0;  // 0: CUPTI could not tell
}

}  // namespace

std::string demangled(const std::string& name) {
  int problem = 0;
  const std::unique_ptr<char, void (*)(void*)> text(
      abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &problem), &std::free);
  return text && problem == 0 ? text.get() : name;
}

void CountedSums::add(const std::vector<Metric>& metrics, const std::vector<double>& values) {
  for (size_t i = 0; i < metrics.size() && i < values.size(); ++i) {
    const double value = metrics[i].weight * values[i];
    switch (metrics[i].counted) {
      case Counted::kTensorFlops:
      case Counted::kScalarFlops:
        of[static_cast<size_t>(metrics[i].format)] += value;
        break;
      case Counted::kNanoseconds:
        of[kTime] += value;
        break;
      case Counted::kDramBytes:
        of[kTraffic] += value;
        break;
      case Counted::kInstructions:
        break;
    }
  }
}

void tell_range(Context& context, uint64_t range, const CountedSums& sums) {
  for (size_t quantity = 0; quantity < kCountedQuantities; ++quantity) {
    if (sums.of[quantity] == 0) continue;
    Event event;
    event.kind = EventKind::kCounted;
    event.a = range;
    event.b = std::bit_cast<uint64_t>(sums.of[quantity]);
    event.id = static_cast<uint32_t>(quantity);
    context.log.push(event);
  }
}

void tell_kernels(Context& context, const ActivityRecorder::Report& report) {
  Kernels kernels;
  const auto add = [&kernels](uint64_t op, const std::string& name, double ns) {
    Sum& sum = kernels[{op, name}];
    ++sum.calls;
    sum.counted.of[kTime] += ns;
  };
  for (const auto& kernel : report.kernels) {
    add(kernel.op, kernel.name, nanoseconds(kernel.begin_ns, kernel.end_ns));
  }
  for (const auto& copy : report.copies) {
    add(copy.op, copy.is_fill ? "(memset)" : "(memcpy)", nanoseconds(copy.begin_ns, copy.end_ns));
  }
  tell(context, kernels);
}

std::string tell_kernels(Context& context, const std::vector<Metric>& metrics,
                         const std::vector<RangeCounter::Row>& rows,
                         const std::vector<LaunchNames::Launch>& launches) {
  const bool known = rows.size() == launches.size();
  Kernels kernels;
  std::map<uint64_t, CountedSums> operators;
  for (size_t i = 0; i < rows.size(); ++i) {
    const uint64_t op = known ? launches[i].op : 0;
    Sum& sum = kernels[{op, known ? launches[i].kernel : "(not named)"}];
    ++sum.calls;
    sum.counted.add(metrics, rows[i].values);
    if (op != 0) operators[op].add(metrics, rows[i].values);
  }
  tell(context, kernels);
  for (const auto& [op, sums] : operators) tell_range(context, op - 1, sums);
  if (known) return "";
  return fmt::format("{} kernels were counted and {} launches seen: they cannot be named",
                     rows.size(), launches.size());
}

}  // namespace tally::hooks::cupti
