// SPDX-License-Identifier: Apache-2.0
// Which step a report explains.
#include <algorithm>

#include "profiler/analysis/build.h"
#include "profiler/analysis/parts.h"
#include "profiler/core/error.h"

namespace tally::analysis {
namespace {

bool has_mark(const StepBooks& books, Mark wanted) {
  return std::any_of(books.devices.begin(), books.devices.end(), [&](const DeviceBooks& device) {
    return std::any_of(device.marks.begin(), device.marks.end(),
                       [&](const MarkBook& mark) { return mark.mark == wanted; });
  });
}

int64_t peak_bytes(const StepBooks& books) {
  int64_t highest = -1;
  for (const DeviceBooks& device : books.devices) {
    for (const MarkBook& mark : device.marks) {
      if (mark.mark == Mark::kPeak) highest = std::max(highest, mark.bytes);
    }
  }
  return highest;
}

}  // namespace

bool has_ended(const StepBooks& books) {
  return books.devices.empty() || has_mark(books, Mark::kEnd);
}

size_t choose_step(const recording::Run& run, const SummaryOptions& options) {
  const auto& steps = run.steps;
  if (steps.empty()) {
    throw Error("{} has no finished step to report on{}", run.path,
                run.end.ended == "killed" ? ": its process was killed in the first one" : "");
  }
  if (options.step) {
    for (size_t i = 0; i < steps.size(); ++i) {
      if (steps[i].books.index == *options.step) return i;
    }
    throw Error("{} has no step {}: it holds {} steps, {} to {}", run.path, *options.step,
                steps.size(), steps.front().books.index, steps.back().books.index);
  }
  // Of those that have the mark which is asked for, else of those that came to their end: the books
  // of a failure behind the last one have no more than their moment. Of these the detailed ones.
  std::vector<size_t> candidates(steps.size());
  for (size_t i = 0; i < steps.size(); ++i) candidates[i] = i;
  const auto keep_if_any = [&](auto&& is_wanted) {
    std::vector<size_t> wanted;
    for (const size_t i : candidates) {
      if (is_wanted(steps[i].books)) wanted.push_back(i);
    }
    if (!wanted.empty()) candidates = std::move(wanted);
  };
  if (options.at == Mark::kOom) {
    keep_if_any([](const StepBooks& books) { return has_mark(books, Mark::kOom); });
  } else {
    keep_if_any(has_ended);
  }
  keep_if_any([](const StepBooks& books) { return books.detailed; });
  size_t best = candidates.front();
  for (const size_t i : candidates) {
    const int64_t here = peak_bytes(steps[i].books);
    const int64_t highest = peak_bytes(steps[best].books);
    if (here > highest || (here == highest && steps[best].books.index == 0)) best = i;
  }
  return best;
}

}  // namespace tally::analysis
