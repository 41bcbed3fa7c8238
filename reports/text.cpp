// SPDX-License-Identifier: Apache-2.0
// Long because the sections share one budget of lines.
#include "reports/text.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>

#include <fmt/format.h>

#include "profiler/analysis/metrics.h"
#include "profiler/core/units.h"
#include "reports/names.h"
#include "reports/palette.h"

namespace tally::reports {
namespace {

using analysis::Summary;

// What each section may take of the 60 lines.
constexpr size_t kLines = 60;
constexpr size_t kWidth = 100;
constexpr size_t kMarks = 6;
constexpr size_t kFewestMarks = 3;  // the first, the peak, the last
constexpr size_t kRoles = 7;
constexpr size_t kFewestRoles = 4;
constexpr size_t kModules = 4;
constexpr size_t kBlocks = 3;
constexpr size_t kWork = 4;
constexpr size_t kKernels = 4;
constexpr size_t kExecuted = 50;  // width of what a kernel executed, by format
constexpr size_t kNotes = 6;
constexpr size_t kRanks = 4;
constexpr size_t kRemedies = 3;
constexpr size_t kVerdictLines = 3;  // of its sentence
constexpr size_t kFewest = 1;       // a list shrinks to this where the lines do not suffice
constexpr size_t kFoldExact = 5;    // from here on what matches theory shares a line
constexpr size_t kTightest = 7;
constexpr size_t kAll = std::numeric_limits<size_t>::max();
constexpr size_t kBar = 40;

// One unit for a column, so that its numbers can be compared by eye.
struct Unit {
  const char* name;
  double bytes;
  std::string operator()(int64_t value) const {
    return fmt::format("{:.2f}", static_cast<double>(value) / bytes);
  }
};
Unit unit_for(int64_t largest) {
  if (largest >= 10 * kGiB) return {"GiB", static_cast<double>(kGiB)};
  if (largest >= kMiB) return {"MiB", static_cast<double>(kMiB)};
  return {"KiB", static_cast<double>(kKiB)};
}

std::string percent(double part, double whole) {
  return whole > 0 ? fmt::format("{:.1f} %", 100 * part / whole) : "-";
}

// The columns of the table of marks: roles that belong together.
struct Column {
  const char* title;
  std::array<Role, 3> roles;  // the last ones repeat the first where there are fewer
};
constexpr std::array kColumns{
    Column{"params", {Role::kParameter, Role::kBuffer, Role::kBuffer}},
    Column{"state", {Role::kOptimizerState, Role::kOptimizerState, Role::kOptimizerState}},
    Column{"grads", {Role::kGradient, Role::kGradient, Role::kGradient}},
    Column{"activ.", {Role::kActivation, Role::kRecomputedActivation, Role::kRecomputedActivation}},
    Column{"temp.", {Role::kTemporaryForward, Role::kTemporaryBackward, Role::kTemporaryOptimizer}},
};
int64_t in_column(const RoleBytes& roles, const Column& column) {
  int64_t bytes = 0;
  for (size_t i = 0; i < kRoleCount; ++i) {
    const auto role = static_cast<Role>(i);
    const auto& listed = column.roles;
    if (std::find(listed.begin(), listed.end(), role) != listed.end()) bytes += roles[i];
  }
  return bytes;
}

class Text {
 public:
  Text(const Summary& summary, const TextOptions& options)
      : s_(summary), o_(options), step_(summary.step()) {
    device_ = summary.device_step();
    mark_ = summary.mark();
  }
  std::string render();

 private:
  void line(std::string text) {
    while (text.ends_with(' ')) text.pop_back();
    out_ += text + "\n";
  }
  void heading(const std::string& text) {
    line("");
    line(bold(text));
  }
  std::string bold(const std::string& text) const {
    return o_.color ? "\x1b[1m" + text + "\x1b[0m" : text;
  }
  std::string bar(Role role, double share) const;
  // `sure` lines, or fewer; more while there are lines to spare, under a margin as wide as `head`.
  void wrapped(const std::string& head, std::string text, size_t width, size_t sure = 1);
  // As fit(), and the report knows that something was cut; uncut where all is asked for.
  std::string cut(const std::string& text, size_t width);
  std::vector<const analysis::MarkSummary*> shown_marks();
  std::string name_of(const analysis::MarkSummary& mark) const;
  void run();
  void marks();
  void caching();
  void alive();
  void modules();
  void blocks();
  void theory();
  void flops();
  void kernels();
  void ranks();
  void verdicts();
  void trade_off();
  void unknown();
  // How much of a list is shown: less, the more the report has to say.
  size_t at_most(size_t count, size_t fewest = kFewest) const {
    return o_.full ? kAll : std::max(fewest, count - std::min(count, tight_));
  }

  const Summary& s_;
  const TextOptions& o_;
  const analysis::StepSummary& step_;
  const analysis::DeviceStep* device_ = nullptr;
  const analysis::MarkSummary* mark_ = nullptr;
  std::string out_;
  size_t spare_ = 0;
  size_t tight_ = 0;
  bool is_cut_ = false;
  bool with_trade_off_ = true;
};

std::string Text::cut(const std::string& text, size_t width) {
  if (length(text) <= width) return fit(text, width);
  if (o_.full) return text;
  is_cut_ = true;
  return fit(text, width);
}

std::string Text::bar(Role role, double share) const {
  const auto cells = static_cast<size_t>(std::lround(std::clamp(share, 0.0, 1.0) * kBar));
  const std::string padding(kBar - cells, ' ');
  if (!o_.color) return std::string(cells, '#') + padding;
  const uint32_t rgb = o_.dark ? color(role).dark : color(role).light;
  std::string blocks;
  for (size_t i = 0; i < cells; ++i) blocks += "█";
  return fmt::format("\x1b[38;2;{};{};{}m{}\x1b[0m{}", rgb >> 16, rgb >> 8 & 0xff, rgb & 0xff,
                     blocks, padding);
}

void Text::run() {
  std::string command;
  for (const std::string& argument : s_.command) command += (command.empty() ? "" : " ") + argument;
  size_t detailed = 0, ended = 0;
  for (const auto& step : s_.steps) {
    ended += step.ended;
    detailed += step.ended && step.detailed;
  }
  line("");
  const std::string rank =
      s_.rank < 0
          ? ""
          : fmt::format("rank {} of {}; ", s_.rank,
                        s_.world_size ? s_.world_size : static_cast<int64_t>(s_.ranks.size()));
  line(cut(
      fmt::format("Run: {} ({}{}; {} steps, {} in detail) {}", s_.ended, rank, s_.started,
                  format_integer(static_cast<int64_t>(ended)), detailed, clean(command)),
      kWidth));
  line(fmt::format(
      "Profiler: {} in hooks ({:.2f} % of the recorded steps), {} on its own thread, {}",
      format_seconds(s_.overhead.seconds), 100 * s_.overhead.share,
      format_seconds(s_.overhead.bookkeeper_seconds), format_bytes(s_.overhead.bytes)));
}

void Text::marks() {
  const Unit unit = unit_for(device_->peak.bytes);
  heading(fmt::format("Books of step {} on {}, in {}; {}", step_.index, clean(device_->device),
                      unit.name, "sum = what the ledger holds, difference in bytes"));
  std::string header = fit("", 16);
  for (const Column& column : kColumns) header += fit(column.title, 9, true);
  line(header + fit("other", 9, true) + fit(analysis::metric("bytes").title, 9, true) +
       fit(analysis::metric("allocator_bytes").title, 10, true) +
       fit(analysis::metric("difference").title, 11, true));
  const auto shown = shown_marks();
  for (const auto* mark : shown) {
    std::string row = fit(name_of(*mark), 16);
    int64_t other = mark->bytes;
    for (const Column& column : kColumns) {
      const int64_t bytes = in_column(mark->roles, column);
      other -= bytes;
      row += fit(unit(bytes), 9, true);
    }
    line(row + fit(unit(other), 9, true) + fit(unit(mark->bytes), 9, true) +
         fit(unit(mark->allocator_bytes), 10, true) +
         fit(fmt::format("{}", mark->difference), 11, true));
  }
  if (const size_t all = device_->marks.size(); shown.size() < all) {
    is_cut_ = true;
    line(fmt::format("... and {} more marks", all - shown.size()));
  }
}

// Of a device whose allocator caches: what it has around the blocks, by the marks.
void Text::caching() {
  const auto& marks = device_->marks;
  if (std::none_of(marks.begin(), marks.end(), [](const auto& m) { return m.caching; })) return;
  int64_t most = 0;
  for (const auto& m : marks) most = std::max(most, m.caching ? m.caching->reserved_bytes : 0);
  const Unit unit = unit_for(most);
  line(bold(fit(fmt::format("Allocator, {}", unit.name), 16) + fit("requested", 11, true) +
            fit("active", 10, true) + fit("allocated", 10, true) + fit("reserved", 10, true) +
            fit("free", 9, true) + fit("largest", 9, true) + fit("outside", 10, true) +
            fit("differences", 15, true)));
  for (const auto* mark : shown_marks()) {
    if (!mark->caching) continue;
    const CachingBook& c = *mark->caching;
    // With little room only the mark that is explained.
    if (tight_ >= kMarks && !o_.full && mark->mark != s_.at) continue;
    const auto off = [](int64_t ours, int64_t theirs) {
      return theirs < 0 ? std::string("?") : fmt::format("{}", ours - theirs);
    };
    line(fit(name_of(*mark), 16) + fit(unit(mark->bytes), 11, true) +
         fit(unit(c.active_bytes), 10, true) + fit(unit(c.allocated_bytes), 10, true) +
         fit(unit(c.reserved_bytes), 10, true) + fit(unit(mark->cached_bytes), 9, true) +
         fit(unit(c.largest_free_bytes), 9, true) +
         fit(c.outside_bytes < 0 ? "?" : unit(c.outside_bytes), 10, true) +
         fit(fmt::format("{} {} {}", off(c.active_bytes, c.allocator_active_bytes),
                         off(c.allocated_bytes, c.allocator_allocated_bytes),
                         off(c.reserved_bytes, c.allocator_reserved_bytes)),
             15, true));
  }
}

// With many micro-steps: the first marks, the peak, the mark explained and the last one.
std::vector<const analysis::MarkSummary*> Text::shown_marks() {
  const size_t most = at_most(kMarks, kFewestMarks);
  const auto& all = device_->marks;
  std::vector<const analysis::MarkSummary*> shown;
  for (size_t i = 0; i < all.size(); ++i) {
    const bool wanted = all[i].mark == Mark::kPeak || all[i].mark == Mark::kOom ||
                        all[i].mark == s_.at || i + 1 == all.size();
    if (wanted || o_.full || shown.size() + 2 < most) shown.push_back(&all[i]);
  }
  if (shown.size() > most) {
    shown.erase(shown.begin() + static_cast<std::ptrdiff_t>(most) - 1, shown.end() - 1);
  }
  return shown;
}

std::string Text::name_of(const analysis::MarkSummary& mark) const {
  std::string name(title(mark.mark));
  if (step_.micro_steps > 1) name += fmt::format(" {}", mark.micro_step);
  return name;
}

void Text::alive() {
  const auto& p = *mark_;
  heading(fmt::format("Alive at the {}: {} ({} bytes), {} into the step", title(p.mark),
                      format_bytes(p.bytes), format_integer(p.bytes), format_seconds(p.seconds)));
  std::vector<size_t> order;
  for (size_t role = 0; role < kRoleCount; ++role) {
    if (p.roles[role] != 0) order.push_back(role);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return p.roles[a] > p.roles[b]; });
  const size_t most = at_most(kRoles, kFewestRoles);
  int64_t rest = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    const int64_t bytes = p.roles[order[i]];
    if (i + 1 >= most && order.size() > most) {
      rest += bytes;
      continue;
    }
    const auto whole = static_cast<double>(p.bytes);
    line(fmt::format("{}{} {}{}", fit(kRoleWords[order[i]].title, 25),
                     bar(static_cast<Role>(order[i]), static_cast<double>(bytes) / whole),
                     fit(format_bytes(bytes), 14, true),
                     fit(percent(static_cast<double>(bytes), whole), 9, true)));
  }
  is_cut_ = is_cut_ || rest != 0;
  if (rest != 0) line(fit("other roles", 25 + kBar + 1) + fit(format_bytes(rest), 14, true));
}

void Text::modules() {
  std::vector<std::pair<int64_t, const analysis::ModuleSummary*>> rows;
  for (const auto& module : s_.modules) {
    if (const int64_t bytes = sum(module.bytes); bytes != 0) rows.emplace_back(bytes, &module);
  }
  std::stable_sort(rows.begin(), rows.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  if (rows.empty()) return;
  heading(fmt::format("Largest of {} modules at the {}", rows.size(), title(s_.at)));
  for (size_t i = 0; i < std::min(rows.size(), at_most(kModules)); ++i) {
    const RoleBytes& bytes = rows[i].second->bytes;
    const auto most =
        static_cast<size_t>(std::max_element(bytes.begin(), bytes.end()) - bytes.begin());
    const std::string& name = rows[i].second->name;
    line(cut(name.empty() ? "(no module)" : clean(name), 46) +
         fit(format_bytes(rows[i].first), 14, true) + "  " +
         fit(fmt::format(
                 "{} {}",
                 percent(static_cast<double>(bytes[most]), static_cast<double>(rows[i].first)),
                 kRoleWords[most].title),
             38));
  }
}

void Text::blocks() {
  if (device_->peak_blocks.empty() || s_.at != Mark::kPeak) return;
  line(bold("Largest blocks"));
  const size_t shown = std::min(device_->peak_blocks.size(), at_most(kBlocks));
  size_t source_width = 0;  // of the widest: the file's own name and the line
  const auto source = [this](const analysis::BlockRow& b) {
    return clean(o_.full ? b.source : b.source.substr(b.source.rfind('/') + 1));
  };
  for (size_t i = 0; i < shown; ++i) {
    source_width = std::max(source_width, length(source(device_->peak_blocks[i])));
  }
  source_width = std::min<size_t>(source_width ? source_width + 2 : 0, 28);
  for (size_t i = 0; i < shown; ++i) {
    const auto& b = device_->peak_blocks[i];
    const std::string name = !b.name.empty() ? b.name : b.module + " " + b.op;
    line(cut(clean(name) + (b.count > 1 ? fmt::format(" x {}", b.count) : ""),
             46 - source_width / 2) +
         fit(format_bytes(b.bytes), 14, true) + "  " +
         cut(fmt::format("{} {} {}", title(b.role), clean(b.dtype), clean(b.shape)),
             38 - (source_width + 1) / 2) +
         (source_width ? "  " + cut(source(b), source_width - 2) : ""));
  }
}

// Each cause has a line; the longer ones are wrapped while the report has lines to spare.
void Text::theory() {
  const bool has_closed_form = std::any_of(s_.theory.begin(), s_.theory.end(),
                                           [](const auto& row) { return row.closed_form; });
  heading(fit("Measured against theory", 25) +
          (has_closed_form ? "   by rules    deviation  closed form" : ""));
  std::string exact;
  for (const analysis::TheoryRow& row : s_.theory) {
    const bool bytes = row.unit == "bytes";
    const auto number = [bytes](double value) {
      return bytes ? format_bytes(std::llround(value)) : format_flops(value);
    };
    if (tight_ >= kFoldExact && row.expected && row.deviation == 0) {
      exact += (exact.empty() ? "" : ", ") + row.title + " " + number(row.measured);
      continue;
    }
    std::string expected = "-";
    std::string deviation = "-";
    if (row.expected) {
      expected = number(*row.expected);
      const double percent_off = 100 * row.deviation / *row.expected;
      if (row.deviation == 0) {
        deviation = "0";
      } else if (*row.expected == 0 || std::abs(percent_off) < 0.005) {
        // "+0.00 %" would look like an exact match.
        deviation = (row.deviation < 0 ? "-" : "+") + number(std::abs(row.deviation));
      } else {
        deviation = fmt::format("{:+.2f} %", percent_off);
      }
    }
    std::string head = fit(row.title, 17) + fit(number(row.measured), 12, true) +
                       fit(expected, 12, true) + fit(deviation, 11, true) + "  ";
    if (has_closed_form) {
      head += fit(row.closed_form ? number(*row.closed_form) : "-", 11, true) + "  ";
    }
    wrapped(head, clean(row.cause), has_closed_form ? 33 : 46);
  }
  if (!exact.empty()) wrapped("exact: ", exact, kWidth - 7);
  if (has_closed_form) {
    wrapped("closed form: ", clean("of " + s_.closed_form_of), kWidth - 13);
  } else if (!s_.theory.empty()) {
    wrapped("closed form: ", clean(s_.theory.front().closed_form_cause), kWidth - 13);
  }
}

// " (bf16 1.2 TFLOP, tf32 3 GFLOP)": of tensor cores or of scalar instructions; "" where not known.
std::string formats(const analysis::Executed& executed, bool tensor) {
  std::string out;
  for (const auto& part : executed.by_format) {
    if (is_tensor(part.format) != tensor) continue;
    const std::string_view name = key(part.format);
    out += fmt::format("{}{} {}", out.empty() ? " (" : ", ", name.substr(name.find('_') + 1),
                       format_flops(part.flops));
  }
  return out.empty() ? out : out + ")";
}

// Modules at the left, operators at the right.
void Text::flops() {
  const analysis::Flops& f = step_.flops;
  std::string parts;
  const auto part = [&parts](double value, const char* name) {
    if (value == 0) return;
    parts += fmt::format("{}{} {}", parts.empty() ? " = " : " + ", name, format_flops(value));
  };
  part(f.forward, "forward");
  part(f.backward, "backward");
  part(f.recompute, "recompute");
  part(f.optimizer, "optimizer");
  heading(cut(fmt::format("FLOPs: {}{}; element-wise {}", format_flops(f.total()), parts,
                          format_flops(f.elementwise)),
              kWidth));
  const analysis::Utilization& u = s_.utilization;
  const std::string rate = format_flops(u.flops_per_second) + "/s";
  const std::string used =
      u.mfu ? fmt::format("{}: MFU {:.1f} %, HFU {:.1f} % ", rate, 100 * *u.mfu, 100 * *u.hfu)
            : rate + "; MFU, HFU: ";
  wrapped(used, clean(u.cause), kWidth - length(used));
  if (f.executed) {
    const analysis::Executed& e = *f.executed;
    std::string counted;
    const auto add = [&counted](bool there, const std::string& text) {
      if (there) counted += (counted.empty() ? "" : ", ") + text;
    };
    add(e.tensor_flops > 0, "tensor cores " + format_flops(e.tensor_flops) + formats(e, true));
    add(e.scalar_flops > 0,
        "scalar instructions " + format_flops(e.scalar_flops) + formats(e, false));
    add(e.device_seconds > 0, "kernels " + format_seconds(e.device_seconds));
    add(e.dram_bytes > 0,
        format_bytes(std::llround(e.dram_bytes)) + " read from and written to the device's memory");
    if (u.executed_hfu) counted += fmt::format("; {:.1f} % of the peak", 100 * *u.executed_hfu);
    if (u.executed_ratio) {
      const bool has_causes = u.executed_difference && !u.executed_difference->causes.empty();
      counted += fmt::format("; tensor cores {:.3f}x the formulas{}: {}", *u.executed_ratio,
                             has_causes ? "; from the model's FLOPs to them" : "",
                             clean(u.executed_cause));
    }
    wrapped("Executed, by hardware counters: ", counted, kWidth - 32, 2);
  }
  kernels();
  // On a processor its absence is no news.
  if (s_.device != "cpu" || o_.full) wrapped("Roofline: ", clean(u.roofline_cause), kWidth - 10);
  std::map<std::string, double> by_module, by_operator;
  for (const analysis::OperatorRow& row : step_.operators) {
    by_module[row.module] += row.flops;
    by_operator[row.op] += row.flops;
  }
  const auto sorted = [this](const std::map<std::string, double>& sums) {
    std::vector<std::pair<std::string, double>> rows(sums.begin(), sums.end());
    std::erase_if(rows, [](const auto& row) { return row.second <= 0; });
    std::stable_sort(rows.begin(), rows.end(),
                     [](const auto& a, const auto& b) { return a.second > b.second; });
    rows.resize(std::min(rows.size(), at_most(kWork)));
    return rows;
  };
  const auto left = sorted(by_module);
  const auto right = sorted(by_operator);
  const auto cell = [&](const auto& rows, size_t i) {
    if (i >= rows.size()) return fit("", 49);
    const std::string& name = rows[i].first;
    return cut(name.empty() ? "(no module)" : clean(name), 27) +
           fit(format_flops(rows[i].second), 13, true) +
           fit(percent(rows[i].second, f.total()), 9, true);
  };
  for (size_t i = 0; i < std::max(left.size(), right.size()); ++i) {
    line(cell(left, i) + "  " + cell(right, i));
  }
}

// By name: an operator launches some of each.
void Text::kernels() {
  struct Sum {
    double time = 0;
    uint32_t calls = 0;
    FlopsByFormat executed;  // where counters were read kernel by kernel
  };
  std::map<std::string, Sum> by_name;
  double seconds = 0;
  for (const analysis::KernelRow& row : s_.kernels) {
    Sum& sum = by_name[row.kernel];
    sum.time += row.executed.device_seconds;
    sum.calls += row.calls;
    sum.executed.add(row.executed.by_format);
    seconds += row.executed.device_seconds;
  }
  std::vector<std::pair<std::string, Sum>> rows(by_name.begin(), by_name.end());
  std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) {
    return a.second.time > b.second.time;
  });
  if (rows.empty()) return;
  const size_t shown = std::min(rows.size(), at_most(kKernels, 1));
  line(fmt::format("Kernels of step {}, by name; {} in all{}:", s_.kernels_step,
                   format_seconds(seconds),
                   shown < rows.size() ? fmt::format(", {} of {} names", shown, rows.size()) : ""));
  for (size_t i = 0; i < shown; ++i) {
    const Sum& sum = rows[i].second;
    std::string executed;  // most FLOPs first
    std::vector<FlopsByFormat::Part> parts(sum.executed.begin(), sum.executed.end());
    std::stable_sort(parts.begin(), parts.end(),
                     [](const auto& a, const auto& b) { return a.flops > b.flops; });
    for (const auto& part : parts) {
      executed += fmt::format("  {} {}", title(part.format), format_flops(part.flops));
    }
    line(fit(format_seconds(sum.time), 10, true) + fit(percent(sum.time, seconds), 8, true) +
         fit(fmt::format("x{}", sum.calls), 8, true) + "  " +
         cut(clean(rows[i].first), kWidth - 28 - std::min(executed.size(), kExecuted)) +
         executed.substr(0, o_.full ? kAll : kExecuted));
  }
}

// The highest, the lowest, and those between in their order while there are lines.
void Text::ranks() {
  if (s_.ranks.empty()) return;
  int64_t most = 1;
  std::vector<const analysis::RankSummary*> rows;
  for (const auto& r : s_.ranks) {
    most = std::max(most, r.peak_bytes);
    rows.push_back(&r);
  }
  heading(fmt::format("Peaks of {} ranks", rows.size()));
  const auto by_peak = [](const auto* a, const auto* b) { return a->peak_bytes > b->peak_bytes; };
  if (rows.size() > at_most(kRanks)) {
    std::stable_sort(rows.begin(), rows.end(), by_peak);
    rows.erase(rows.begin() + static_cast<std::ptrdiff_t>(at_most(kRanks)) - 1, rows.end() - 1);
  }
  for (const auto* r : rows) {
    const auto role =
        static_cast<Role>(std::max_element(r->roles.begin(), r->roles.end()) - r->roles.begin());
    line(fmt::format("{}{} {}{}{}", fit(fmt::format("rank {}", r->rank), 25),
                     bar(role, static_cast<double>(r->peak_bytes) / static_cast<double>(most)),
                     fit(format_bytes(r->peak_bytes), 14, true),
                     fit(format_seconds(r->seconds), 11, true), " a step"));
  }
  if (rows.size() < s_.ranks.size()) {
    line(fmt::format("... and {} ranks between", s_.ranks.size() - rows.size()));
  }
}

// What has something to say: a judgement that found nothing stands in the page and in JSON.
void Text::verdicts() {
  bool first = true;
  for (const analysis::Verdict& v : s_.verdicts) {
    const bool quiet = v.kind == "leak" || v.kind == "rank_imbalance";
    if (quiet && v.bytes == 0) continue;
    if (first) heading("Verdicts");
    first = false;
    // The sentence in full, then what proves it and what would help.
    const std::string head = "- " + clean(v.kind) + ": ";
    wrapped(head, clean(v.verdict), kWidth - length(head), at_most(kVerdictLines));
    std::string text;
    for (const std::string& evidence : v.evidence) text += (text.empty() ? "" : "; ") + evidence;
    if (tight_ >= kTightest && !text.empty()) {
      is_cut_ = true;
    } else if (!text.empty()) {
      wrapped("    ", clean(text), kWidth - 4);
    }
    for (size_t i = 0; i < std::min(v.remedies.size(), at_most(kRemedies)); ++i) {
      const analysis::Remedy& r = v.remedies[i];
      std::string help = r.text;
      if (r.bytes) help += ": saves " + format_bytes(r.bytes);
      if (!r.cost.empty()) help += fmt::format(" ({})", r.cost);
      wrapped("  > ", clean(help), kWidth - 4);
    }
  }
}

// Peaks of other settings, predicted: a row for each way to checkpoint, a column for each way to
// cut the batch.
void Text::trade_off() {
  if (s_.trade_off.empty()) return;
  if (!with_trade_off_) {
    is_cut_ = true;
    return;
  }
  constexpr size_t kName = 30, kColumn = 11;
  std::vector<std::string> ways;
  std::string head = fit("predicted peak by checkpointing", kName + 2);
  for (const analysis::TradeOffRow& row : s_.trade_off) {
    if (std::find(ways.begin(), ways.end(), row.checkpointing) == ways.end())
      ways.push_back(row.checkpointing);
    if (row.checkpointing != ways.front()) continue;
    const std::string size = row.parts == 1 ? "batch" : fmt::format("1/{}", row.parts);
    head += fit(row.accumulated ? "n x " + size : size, kColumn, true);
  }
  heading("Batch x accumulation x checkpointing");
  line(head);
  for (const std::string& way : ways) {
    std::string cells;
    double extra = 0;
    for (const analysis::TradeOffRow& row : s_.trade_off) {
      if (row.checkpointing != way) continue;
      extra = row.extra_flops;
      cells += fit((row.is_recorded ? "*" : "") + format_bytes(row.peak_bytes), kColumn, true);
    }
    const std::string cost = extra > 0 ? fmt::format(" (+{:.0f} % FLOPs)", 100 * extra) : "";
    line(fit(clean(way) + cost, kName + 2) + cells);
  }
}

void Text::unknown() {
  std::vector<std::string> lines;
  heading("What this report does not know");
  lines.insert(lines.end(), s_.notes.begin(), s_.notes.end());
  if (lines.empty()) lines.emplace_back("Nothing is open: every byte at every mark has a role.");
  const size_t room = at_most(kNotes);
  const size_t shown = lines.size() > room ? room - 1 : lines.size();
  for (size_t i = 0; i < shown; ++i) wrapped("- ", clean(lines[i]), kWidth - 2);
  if (shown < lines.size()) {
    is_cut_ = true;
    line(fmt::format("- and {} more", lines.size() - shown));
  }
}

void Text::wrapped(const std::string& head, std::string text, size_t width, size_t sure) {
  const std::string margin(length(head), ' ');
  std::string prefix = head;
  while ((sure > 1 || spare_ > 0) && length(text) > width) {
    const std::string first = fit(text, width + 1);  // ends in the ellipsis
    const size_t space = first.rfind(' ');
    if (space == std::string::npos || space == 0) break;  // one long word
    line(prefix + text.substr(0, space));
    text.erase(0, space + 1);
    prefix = margin;
    if (sure > 1) {
      --sure;
    } else {
      --spare_;
    }
  }
  line(prefix + cut(text, width));
}

std::string Text::render() {
  const auto draw = [this](size_t tight, size_t spare) {
    out_.clear();
    tight_ = tight;
    spare_ = spare;
    is_cut_ = false;
    line(bold(clean(s_.headline)));
    run();
    if (device_) {
      marks();
      caching();
      alive();
      modules();
      blocks();
    }
    theory();
    flops();
    ranks();
    verdicts();
    trade_off();
    unknown();
    return static_cast<size_t>(std::count(out_.begin(), out_.end(), '\n'));
  };
  if (o_.full) {
    draw(0, kAll);
    return out_;
  }
  constexpr size_t kRoom = kLines - 1;  // for what was cut
  size_t tight = 0;
  with_trade_off_ = false;
  size_t lines = draw(tight, 0);
  while (lines > kRoom && tight < kTightest) lines = draw(++tight, 0);
  with_trade_off_ = true;  // where there is room for it beside all else
  if (draw(tight, 0) > kRoom) with_trade_off_ = false;
  lines = draw(tight, 0);
  if (lines < kRoom) draw(tight, kRoom - lines);
  if (is_cut_) line("… and lists are shortened to 60 lines: --full shows all of it.");
  return out_;
}

}  // namespace

std::string render_text(const Summary& summary, const TextOptions& options) {
  return Text(summary, options).render();
}

}  // namespace tally::reports
