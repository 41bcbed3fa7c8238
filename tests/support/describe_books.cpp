// SPDX-License-Identifier: Apache-2.0
#include "tests/support/describe_books.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace tally::test {
namespace {

std::string describe_mark(const MarkBook& m, const StringTable& strings) {
  std::string out = fmt::format(
      " mark {} micro {} at {} bytes {} allocator {} saved {} {} {} expected {} phase {} module {} "
      "op {} line {} roles {} wanted {} of {}\n",
      key(m.mark), m.micro_step, m.time_ns, m.bytes, m.allocator_bytes, m.saved_bytes,
      m.saved_parameter_bytes, m.saved_number_bytes, m.expected_saved_bytes, key(m.phase),
      strings.text(m.module), strings.text(m.op), strings.text(m.source), m.roles, m.wanted_bytes,
      m.limit_bytes);
  if (m.caching) {
    const CachingBook& c = *m.caching;
    out += fmt::format("  caching {} {} {} {} {} {} {} {} {}\n", c.reserved_bytes,
                       c.active_bytes, c.allocated_bytes, c.largest_free_bytes,
                       c.allocator_reserved_bytes, c.allocator_active_bytes,
                       c.allocator_allocated_bytes, c.outside_bytes, c.is_exact);
  }
  std::vector<Cell> cells = m.cells;
  std::stable_sort(cells.begin(), cells.end(), [](const Cell& a, const Cell& b) {
    return std::pair(a.role, a.module) < std::pair(b.role, b.module);
  });
  for (const Cell& c : cells) {
    out +=
        fmt::format("  cell {} {} {} {}\n", key(c.role), strings.text(c.module), c.bytes, c.blocks);
  }
  return out;
}

std::string describe(const FlopsByFormat& formats) {
  std::string out;
  for (const auto& part : formats) out += fmt::format(" {} {:a}", key(part.format), part.flops);
  return out;
}

std::string describe_device(const DeviceBooks& d, const StringTable& strings) {
  std::string out = fmt::format(
      "device {} temporaries {} {} {} foreign {} adopted {} largest {} allocations {} frees {}\n", d.device,
      d.forward_temporary_peak, d.backward_temporary_peak, d.optimizer_temporary_peak,
      d.foreign_bytes, d.adopted_bytes, d.largest_difference, d.allocations, d.frees);
  for (const MarkBook& m : d.marks) out += describe_mark(m, strings);
  for (const TimelinePoint& p : d.timeline) {
    out += fmt::format(" point {} {} {} {} {} {} {} {} {}\n", p.time_ns, p.roles, key(p.phase),
                       p.micro_step, strings.text(p.module), strings.text(p.op), p.reserved_bytes,
                       p.active_bytes, p.largest_free_bytes);
  }
  for (const BlockRow& b : d.peak_blocks) {
    out += fmt::format(" block {} x{} {} saved {} {} {} {} {} {} {} {} age {}\n", b.bytes, b.count,
                       key(b.role), b.saved, key(b.phase), strings.text(b.module),
                       strings.text(b.op), strings.text(b.name), strings.text(b.dtype),
                       strings.text(b.shape), strings.text(b.source), b.age_ns);
  }
  return out;
}

}  // namespace

std::string describe(const StepBooks& s, const StringTable& strings) {
  std::string out = fmt::format(
      "step {} start {} took {} micro steps {} detailed {} tokens {} events {} unmatched {} "
      "profiler {}\n",
      s.index, s.start_ns, s.duration_ns, s.micro_steps, s.detailed, s.tokens, s.events,
      s.unmatched_frees, s.profiler_ns);
  for (const DeviceBooks& d : s.devices) out += describe_device(d, strings);
  for (const PhaseSpan& p : s.phases) {
    out += fmt::format("phase {} {} {} {}\n", key(p.phase), p.micro_step, p.begin_ns, p.end_ns);
  }
  for (const OperatorRow& r : s.operators) {
    out += fmt::format("operator {} {} {} x{} {:a} {:a} {:a} {} counted {:a} {:a} {:a} {:a}{} {:a} {:a} {}\n",
                       key(r.phase), strings.text(r.module), strings.text(r.op), r.calls, r.flops,
                       r.torch_flops, r.elementwise_flops, r.nanoseconds, r.tensor_flops,
                       r.scalar_flops, r.device_ns, r.dram_bytes, describe(r.by_format), r.range_flops,
                       r.causal_flops, r.alignment);
  }
  for (const KernelRow& k : s.kernels) {
    out += fmt::format("kernel {} {} {} {} x{} {:a} {:a} {:a} {:a}{}\n", key(k.phase),
                       strings.text(k.module), strings.text(k.op), strings.text(k.kernel), k.calls,
                       k.device_ns, k.tensor_flops, k.scalar_flops, k.dram_bytes, describe(k.by_format));
  }
  for (const RegionRow& r : s.regions) {
    out += fmt::format("region {} {} {} kept {} avoided {} {:a} {} {} {}\n", r.micro_step,
                       strings.text(r.module), strings.text(r.node), r.kept_bytes, r.avoided_bytes,
                       r.flops, r.nanoseconds, r.begin_bytes, r.peak_bytes);
  }
  for (const UnitRow& u : s.units) {
    out += fmt::format("unit {} {} {} {} {} {} {}\n", u.micro_step, strings.text(u.unit),
                       u.activation_bytes, u.output_bytes, u.forward_end_ns, u.backward_begin_ns,
                       u.backward_end_ns);
  }
  return out;
}

std::string describe(const RunInfo& i, const StringTable& strings) {
  std::string out =
      fmt::format("command {}\nversions {}\noptions {}\n", i.command, i.versions, i.options);
  for (const DeviceInfo& d : i.devices)
    out += fmt::format("device {} {} {}\n", d.id, d.name, d.memory_bytes);
  for (const SourceInfo& s : i.sources)
    out += fmt::format("source {} {} {}\n", s.name, s.available, s.reason);
  for (const ModuleInfo& m : i.modules) {
    out += fmt::format("module {} {}\n", strings.text(m.name), strings.text(m.type));
  }
  for (const ParameterInfo& p : i.parameters) {
    out += fmt::format("parameter {} {} {} {} {} {} {} {} {} {}\n", strings.text(p.name),
                       strings.text(p.module), strings.text(p.dtype), strings.text(p.shape),
                       p.elements, p.bytes, p.trainable, p.is_buffer, p.shared, p.optimizer_index);
  }
  for (const OptimizerInfo& o : i.optimizers) {
    out += fmt::format("optimizer {} {} {}\n", strings.text(o.type), strings.text(o.recipe),
                       o.parameters);
  }
  return out;
}

std::string describe(const RunEnd& e) {
  return fmt::format("{} {} {} {} {} {}", e.ended, e.overhead_seconds, e.bookkeeper_seconds,
                     e.overhead_bytes, e.dropped_events, e.notes);
}

}  // namespace tally::test
