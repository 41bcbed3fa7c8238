// SPDX-License-Identifier: Apache-2.0
// What a report costs. Bar: of a recording of 5,000,000 allocation events less than 5 s and 500
// MiB. The events go through the real ledger and writer; then the program itself makes each report.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <string>
#include <vector>

#include "profiler/core/units.h"
#include "profiler/ledger/ledger.h"
#include "profiler/recording/writer.h"
#include "tests/benchmarks/step_of_a_transformer.h"

namespace {

using namespace tally;

constexpr uint64_t kWanted = 5'000'000;
constexpr double kMostSeconds = 5;
constexpr int64_t kMostBytes = 500 * kMiB;

uint64_t allocations_and_frees(const std::vector<Event>& events) {
  uint64_t count = 0;
  for (const Event& e : events) count += e.kind == EventKind::kAlloc || e.kind == EventKind::kFree;
  return count;
}

// Returns how many allocations and frees it holds.
uint64_t record(const std::string& path, int layers) {
  StringTable strings;
  TensorTable tensors(strings);
  for (const uint64_t tensor : {1, 2, 3}) tensors.intern(tensor, 0, {});
  RunDirectory directory;
  const benchmarks::StepOfATransformer step(strings, directory, layers);
  directory.update([](RunInfo& info) { info.devices = {{"cpu", "a processor", 16 * kGiB}}; });
  Ledger ledger(strings, tensors, directory, {});
  recording::Writer writer(path, strings);
  uint64_t version = 0;
  writer.write_run(directory.snapshot(&version));
  uint64_t sequence = 0;
  int64_t clock_ns = 0;
  uint64_t count = 0;
  const auto apply = [&](const std::vector<Event>& events) {
    for (Event event : events) {
      event.sequence = ++sequence;
      event.time_ns = clock_ns += 900;
      ledger.apply(event);
    }
    count += allocations_and_frees(events);
    for (const StepBooks& books : ledger.take_closed_steps()) writer.write_step(books, {});
  };
  apply(step.before());
  while (count < kWanted) apply(step.events());
  RunEnd end;
  end.ended = "clean";
  writer.finish(end);
  if (!writer.problem().empty()) std::fprintf(stderr, "%s\n", writer.problem().c_str());
  return count;
}

bool measure(const std::string& recording, const char* format, const std::string& output) {
  const auto begin = std::chrono::steady_clock::now();
  const pid_t child = fork();
  if (child == 0) {
    execl(TALLY_PROGRAM, TALLY_PROGRAM, "report", recording.c_str(), "--format", format, "-o",
          output.c_str(), static_cast<char*>(nullptr));
    _exit(98);
  }
  int status = 0;
  rusage usage{};
  wait4(child, &status, 0, &usage);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const double processor =
      static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
      1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
  const int64_t bytes = int64_t{1024} * usage.ru_maxrss;
  const bool good =
      WIFEXITED(status) && WEXITSTATUS(status) == 0 && seconds < kMostSeconds && bytes < kMostBytes;
  std::printf("%-6s %6.2f s (%.2f s of a processor), %s at most, %s written%s\n", format, seconds,
              processor, format_bytes(bytes).c_str(),
              format_bytes(static_cast<int64_t>(std::filesystem::file_size(output))).c_str(),
              good ? "" : "  MISSED");
  return good;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::string folder = argc > 1 ? argv[1] : ".";
    const std::string recording = folder + "/report_benchmark.tally";
    bool good = true;
    // Many steps of a usual model; a few steps of one with 30,000 modules.
    for (const int layers : {300, 30'000}) {
      const auto begin = std::chrono::steady_clock::now();
      const uint64_t count = record(recording, layers);
      const double seconds =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      std::printf(
          "%s allocations and frees in steps of %d layers: booked and written in %.2f s, %s\n",
          format_integer(static_cast<int64_t>(count)).c_str(), layers, seconds,
          format_bytes(static_cast<int64_t>(std::filesystem::file_size(recording))).c_str());
      for (const char* format : {"text", "json", "csv", "html"}) {
        good = measure(recording, format, folder + "/report_benchmark." + format) && good;
      }
    }
    return good ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "report_benchmark: %s\n", error.what());
    return 2;
  }
}
