// SPDX-License-Identifier: Apache-2.0
// What a recording says, ready to be shown: the only thing that reports read. Names are strings
// here; bytes are exact integers; times are seconds unless a name says otherwise.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "profiler/core/words.h"
#include "profiler/ledger/books.h"

namespace tally::analysis {

struct Cell {
  Role role = Role::kUnattributed;
  std::string module;
  int64_t bytes = 0;
  uint32_t blocks = 0;
};

struct MarkSummary {
  Mark mark = Mark::kStart;
  int micro_step = 0;
  double seconds = 0;  // since the step began
  int64_t bytes = 0;
  int64_t allocator_bytes = 0;
  int64_t difference = 0;  // bytes - allocator_bytes
  RoleBytes roles{};
  int64_t saved_bytes = 0;
  int64_t saved_parameter_bytes = 0;
  int64_t saved_number_bytes = 0;
  std::optional<int64_t> expected_saved_bytes;
  int64_t wanted_bytes = 0;  // of an `oom` mark: the allocation that failed or crossed the budget
  int64_t limit_bytes = 0;   // and the memory that there is
  // Of devices with a caching allocator: beside the blocks, and in no sum of roles.
  std::optional<CachingBook> caching;
  int64_t rounding_bytes = 0;
  int64_t cached_bytes = 0;
  Phase phase = Phase::kOther;
  std::string module;
  std::string op;
  std::string source;  // "file:line", of `peak` and `oom`; "" where not known
  std::vector<Cell> cells;
};

struct TimelinePoint {
  double seconds = 0;
  RoleBytes roles{};
  Phase phase = Phase::kOther;
  int micro_step = 0;
  std::string module;
  std::string op;
  // Of a caching allocator, else 0.
  int64_t reserved_bytes = 0;
  int64_t active_bytes = 0;
  int64_t largest_free_bytes = 0;
};

struct PhaseSpan {
  Phase phase = Phase::kOther;
  int micro_step = 0;
  double begin = 0;
  double end = 0;
};

// What kernels executed, by hardware counters. A step collects one set of them, so some may be 0.
struct Executed {
  double tensor_flops = 0;
  double scalar_flops = 0;
  double device_seconds = 0;  // of kernels
  double dram_bytes = 0;
  FlopsByFormat by_format = {};  // of the FLOPs; empty where the recording does not know
  double flops() const { return tensor_flops + scalar_flops; }
  void add(const Executed& part) {
    tensor_flops += part.tensor_flops;
    scalar_flops += part.scalar_flops;
    device_seconds += part.device_seconds;
    dram_bytes += part.dram_bytes;
    by_format.add(part.by_format);
  }
};

struct OperatorRow {
  Phase phase = Phase::kOther;
  std::string module;
  std::string op;
  uint32_t calls = 0;
  double flops = 0;
  double torch_flops = 0;
  double elementwise_flops = 0;
  double seconds = 0;
  std::optional<Executed> executed = {};  // where hardware counters were read
};

// Kernels of one name that an operator launched.
struct KernelRow {
  Phase phase = Phase::kOther;
  std::string module;
  std::string op;  // "": launched by none
  std::string kernel;
  uint32_t calls = 0;
  Executed executed;  // beside the time all 0, unless counters were read kernel by kernel
};

// A checkpointed region, and what a repeated block holds for its backward pass: see
// profiler/ledger/books.h. Seconds are since the step began.
struct RegionRow {
  int micro_step = 0;
  std::string module;
  std::string node;
  int64_t kept_bytes = 0;
  int64_t avoided_bytes = 0;
  double flops = 0;
  double seconds = 0;  // of the recomputation
  int64_t begin_bytes = 0;
  int64_t peak_bytes = 0;
};
struct UnitRow {
  std::string unit;
  int micro_step = 0;
  int64_t activation_bytes = 0;
  int64_t output_bytes = 0;
  double forward_end = 0;  // these three: 0 when not seen
  double backward_begin = 0;
  double backward_end = 0;
};

struct BlockRow {
  int64_t bytes = 0;  // of one block
  uint32_t count = 1;
  Role role = Role::kUnattributed;
  bool saved = false;
  Phase phase = Phase::kOther;
  std::string module;
  std::string op;
  std::string name;
  std::string dtype;
  std::string shape;
  std::string source;
  double age_seconds = 0;
};

struct DeviceStep {
  std::string device;  // "cpu"
  MarkSummary peak;
  std::vector<MarkSummary> marks;       // all, the peak among them, in the order of time
  std::vector<TimelinePoint> timeline;  // empty unless this step is shown in detail
  std::vector<BlockRow> peak_blocks;    // only where the recording kept them
  int64_t forward_temporary_peak = 0;
  int64_t backward_temporary_peak = 0;
  int64_t optimizer_temporary_peak = 0;
  int64_t foreign_bytes = 0;
  int64_t adopted_bytes = 0;  // seen for the first time in this step, older than the recording
  int64_t largest_difference = 0;
  uint64_t allocations = 0;
  uint64_t frees = 0;
};

struct Flops {
  double forward = 0;
  double backward = 0;
  double recompute = 0;
  double optimizer = 0;
  double elementwise = 0;  // all phases, beside the others
  double torch = 0;        // what torch.utils.flop_counter would have counted
  std::string source = "formula";
  std::optional<Executed> executed;  // all phases; only of steps that were counted and are shown
  std::map<Phase, FlopsByFormat> executed_by_phase;  // where the formats are known
  double total() const { return forward + backward + recompute + optimizer; }
};

struct StepSummary {
  uint64_t index = 0;
  double start_seconds = 0;  // since the run began
  double seconds = 0;
  int micro_steps = 0;
  bool detailed = false;
  bool ended = true;  // false: the run ended before it did; books of a failed allocation in it
  double tokens = 0;
  std::vector<DeviceStep> devices;
  Flops flops;
  std::vector<PhaseSpan> phases;
  std::vector<OperatorRow> operators;  // of shown steps
  std::vector<RegionRow> regions;      // of detailed steps, as the units
  std::vector<UnitRow> units;
};

struct ModuleSummary {
  std::string name;
  std::string type;
  RoleBytes bytes{};  // at the mark explained
  Flops flops;        // of the step shown
  double seconds = 0;
};

struct TheoryRow {
  std::string key;  // "gradient"
  std::string title;
  std::string unit = "bytes";  // or "FLOP"
  double measured = 0;
  std::optional<double> expected;
  double deviation = 0;  // measured - expected
  std::string formula;
  std::string cause;  // of the deviation, or why there is no expectation; never empty
  // The same from the model's configuration alone (profiler/estimate).
  std::optional<double> closed_form;
  std::string closed_form_cause;  // its formula, or why there is none; never empty
};

// What would change a verdict: "checkpoint every block", what it saves, what it costs.
struct Remedy {
  std::string text;
  int64_t bytes = 0;  // saved at the peak; 0: not known
  std::string cost;   // "+31 % FLOPs"; "": none
};

// Of a verdict: nothing to do, a look is worth it, or not judged (an offer at most).
enum class Tone : uint8_t { kGood, kBad, kOpen };
constexpr std::string_view key(Tone tone) {
  return tone == Tone::kGood ? "good" : tone == Tone::kBad ? "bad" : "open";
}

struct Verdict {
  std::string kind;  // "checkpointing", "accumulation", "oom", "leak"
  std::string verdict;
  std::vector<std::string> evidence;
  int64_t bytes = 0;
  std::vector<Remedy> remedies = {};
  Tone tone = Tone::kOpen;
};

// A combination of micro-batch, accumulation and checkpointing, predicted from the step shown.
struct TradeOffRow {
  int parts = 1;              // micro-batches of 1/parts of the recorded size
  bool accumulated = false;   // several of them in a step: gradients wait
  std::string checkpointing;  // "none", "as recorded", "each of h.0 to h.7"
  double tokens = 0;          // of a micro-batch; 0: not known
  int64_t peak_bytes = 0;
  double extra_flops = 0;    // of those of the recorded step
  bool is_recorded = false;  // this is the step itself
};

struct Device {
  std::string id;
  std::string name;
  int64_t memory_bytes = 0;
};

struct Source {
  std::string name;
  bool available = false;
  std::string reason;
};

struct Overhead {
  double seconds = 0;             // in hooks, on the program's threads
  double bookkeeper_seconds = 0;  // on the profiler's own thread
  int64_t bytes = 0;
  double share = 0;  // of the time of the recorded steps
};

// One process of a distributed run.
struct RankSummary {
  int64_t rank = 0;
  std::string recording;
  std::string ended;
  size_t steps = 0;
  std::string device;      // of the highest peak
  int64_t peak_bytes = 0;  // the highest of its run
  uint64_t peak_step = 0;
  RoleBytes roles{};   // at that peak
  double seconds = 0;  // a step, median without the first
  double flops = 0;    // of the step with the peak
};

// An operator on the roofline, all its calls in the step: work over the bytes that it moved.
struct RooflinePoint {
  std::string op;
  double flops = 0;       // executed where the step counted them, else by formula
  double dram_bytes = 0;  // counted
  double device_seconds = 0;
};

// A part of the difference between what tensor cores executed and the model's FLOPs by formula.
struct ExecutedCause {
  std::string cause;       // "recompute", "padding", ...: see profiler/analysis/executed.cpp
  std::string title;       // for people
  double flops = 0;        // executed more; negative: less
  bool is_proved = false;  // by what was recorded
  std::string why;         // what proves it, or what is not known; never empty
  std::vector<std::pair<std::string, double>> operators = {};  // its FLOPs by operator, most first
};
struct ExecutedDifference {
  double model = 0;     // by formula, without recomputation
  double executed = 0;  // on tensor cores
  std::vector<ExecutedCause> causes;  // their FLOPs add up to executed - model; most first
};

// How much of the device's arithmetic the step used.
struct Utilization {
  std::string device;                      // as the table of devices calls it; "": not in it
  std::string arithmetic;                  // "fp32": the type of the parameters
  double flops_per_second = 0;             // counted, of the step shown
  std::optional<double> peak;              // FLOP/s that the device can do
  std::optional<double> bytes_per_second;  // that its memory can do
  std::optional<double> mfu;               // model FLOPs (without recomputation) of the peak
  std::optional<double> hfu;               // all counted FLOPs of the peak
  std::string cause;                       // what the peak is of, or why there is none; never empty
  // Of a step whose tensor cores were counted: executed FLOPs of the peak, and over the formulas';
  // the cause says where they differ most, and why that may be.
  std::optional<double> executed_hfu;
  std::optional<double> executed_ratio;
  std::string executed_cause;
  std::optional<ExecutedDifference> executed_difference;
  std::vector<RooflinePoint> roofline;     // most time first; empty: roofline_cause says why
  std::string roofline_cause;              // what the points are, or why there are none; never empty
};

struct Summary {
  int schema = 1;
  // run
  std::string recording;      // path
  std::string started;        // ISO 8601, UTC
  int64_t start_unix_ns = 0;  // the same, to the nanosecond; 0: not recorded
  std::vector<std::string> command;
  std::string ended;  // clean | exception | killed | running
  std::vector<std::pair<std::string, std::string>> versions;
  std::vector<std::pair<std::string, std::string>> options;
  Overhead overhead;
  std::vector<Device> devices;
  std::vector<Source> sources;
  // parameters
  int64_t parameter_count = 0;
  int64_t parameter_bytes = 0;
  int64_t trainable_count = 0;
  std::vector<std::string> optimizers;  // "AdamW"
  // steps
  std::vector<StepSummary> steps;  // all; timelines and operators only of those kept in detail
  size_t shown = 0;                // index into steps: the one the report explains
  std::string device;              // the one it explains: "cpu"; "": the step has no books
  Mark at = Mark::kPeak;           // the mark whose books it explains
  // of a distributed run
  int64_t rank = -1;  // of this recording; -1: it was alone
  int64_t world_size = 0;
  std::vector<RankSummary> ranks;      // of all recordings given, in their order; empty for one
  std::vector<ModuleSummary> modules;  // of the step shown, bytes at the mark explained
  std::vector<TheoryRow> theory;       // of the step shown
  std::string closed_form_of;  // "gpt2, batch 8 x 1024 tokens, ..."; "": there are none
  Utilization utilization;             // of the step shown
  // Of the step shown, or of the last one whose kernels have names; most time first.
  std::vector<KernelRow> kernels;
  uint64_t kernels_step = 0;
  std::vector<Verdict> verdicts;
  std::vector<TradeOffRow> trade_off;  // empty: the step shown has no timeline or no backward pass
  // what the report does not know
  int64_t unattributed_bytes = 0;  // at the peak of the step shown
  uint64_t dropped_events = 0;
  std::vector<std::string> notes;  // sentences

  std::string headline;  // "Peak 1.64 GiB in step 3, backward of h.11.mlp; 64 % activations."

  const StepSummary& step() const { return steps.at(shown); }
  const DeviceStep* device_step() const;  // of the device explained; null: no books
  const MarkSummary* mark() const;        // explained: of several of its kind the fullest
};

}  // namespace tally::analysis
