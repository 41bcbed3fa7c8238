// SPDX-License-Identifier: Apache-2.0
#include "profiler/recording/books_codec.h"

#include <algorithm>

#include "profiler/core/error.h"
#include "profiler/recording/columns.h"

namespace tally::recording {
namespace {

template <typename Word>
Word checked(uint64_t value, size_t count) {
  if (value >= count) throw Error("a block of columns names an unknown word");
  return static_cast<Word>(value);
}
Phase phase(uint64_t value) { return checked<Phase>(value, kPhaseCount); }
StringId string_id(int64_t value) { return {static_cast<uint32_t>(value)}; }

// Since version 5: only the formats that occur have a column; a bit mask says which.
void encode_formats(const std::vector<OperatorRow>& rows, Encoder* out) {
  uint64_t mask = 0;
  for (const OperatorRow& row : rows) {
    for (const auto& part : row.by_format) mask |= uint64_t{1} << static_cast<size_t>(part.format);
  }
  out->put(mask);
  for (size_t i = 0; i < kFlopFormatCount; ++i) {
    if (!(mask >> i & 1)) continue;
    const auto format = static_cast<FlopFormat>(i);
    out->real_column(rows, [format](const OperatorRow& r) { return r.by_format.of(format); });
  }
}

void decode_formats(Decoder* in, std::vector<OperatorRow>* rows) {
  const uint64_t mask = in->get();
  if (mask >> kFlopFormatCount != 0) throw Error("a block of columns names an unknown word");
  for (size_t i = 0; i < kFlopFormatCount; ++i) {
    if (!(mask >> i & 1)) continue;
    const auto format = static_cast<FlopFormat>(i);
    in->real_column(*rows, [format](OperatorRow& r, double v) { r.by_format.add(format, v); });
  }
}

}  // namespace

std::string encode_cells(const std::vector<Cell>& cells) {
  Encoder out;
  out.put(cells.size());
  out.delta_column(cells, [](const Cell& c) { return c.module.value; });
  out.column(cells, [](const Cell& c) { return c.bytes; });
  out.column(cells, [](const Cell& c) { return c.blocks; });
  return out.raw();
}

std::vector<Cell> decode_cells(std::string_view raw, Role role) {
  Decoder in(raw);
  std::vector<Cell> cells(in.get_count(3));
  for (Cell& cell : cells) cell.role = role;
  in.delta_column(cells, [](Cell& c, int64_t v) { c.module = string_id(v); });
  in.column(cells, [](Cell& c, uint64_t v) { c.bytes = static_cast<int64_t>(v); });
  in.column(cells, [](Cell& c, uint64_t v) { c.blocks = static_cast<uint32_t>(v); });
  in.expect_end();
  return cells;
}

// What a caching allocator has beside the roles; their columns are there when their bit is.
constexpr int kCachingBit = 63;

// Only the roles that occur have a column; a bit mask says which.
std::string encode_timeline(const std::vector<TimelinePoint>& points) {
  uint64_t mask = 0;
  for (const TimelinePoint& point : points) {
    for (size_t role = 0; role < kRoleCount; ++role) {
      if (point.roles[role] != 0) mask |= uint64_t{1} << role;
    }
  }
  for (const TimelinePoint& point : points) {
    if (point.reserved_bytes != 0) mask |= uint64_t{1} << kCachingBit;
  }
  Encoder out;
  out.put(points.size());
  out.put(mask);
  for (size_t role = 0; role < kRoleCount; ++role) {
    if (mask >> role & 1) {
      out.delta_column(points, [role](const TimelinePoint& p) { return p.roles[role]; });
    }
  }
  out.column(points, [](const TimelinePoint& p) { return static_cast<uint8_t>(p.phase); });
  out.delta_column(points, [](const TimelinePoint& p) { return p.micro_step; });
  out.delta_column(points, [](const TimelinePoint& p) { return p.module.value; });
  out.column(points, [](const TimelinePoint& p) { return p.op.value; });
  if (mask >> kCachingBit & 1) {
    out.delta_column(points, [](const TimelinePoint& p) { return p.reserved_bytes; });
    out.delta_column(points, [](const TimelinePoint& p) { return p.active_bytes; });
    out.delta_column(points, [](const TimelinePoint& p) { return p.largest_free_bytes; });
  }
  return out.raw();
}

std::string encode_timeline_times(const std::vector<TimelinePoint>& points) {
  Encoder out;
  out.delta_column(points, [](const TimelinePoint& p) { return p.time_ns; });
  return out.raw();
}

std::vector<TimelinePoint> decode_timeline(std::string_view raw, std::string_view raw_times) {
  Decoder in(raw);
  const size_t count = in.get_count();
  const uint64_t mask = in.get();
  if (count > raw.size() / 4) throw Error("a timeline is damaged");
  std::vector<TimelinePoint> points(count);
  for (size_t role = 0; role < kRoleCount; ++role) {
    if (mask >> role & 1) {
      in.delta_column(points, [role](TimelinePoint& p, int64_t v) { p.roles[role] = v; });
    }
  }
  in.column(points, [](TimelinePoint& p, uint64_t v) { p.phase = phase(v); });
  in.delta_column(points,
                  [](TimelinePoint& p, int64_t v) { p.micro_step = static_cast<uint16_t>(v); });
  in.delta_column(points, [](TimelinePoint& p, int64_t v) { p.module = string_id(v); });
  in.column(points,
            [](TimelinePoint& p, uint64_t v) { p.op = string_id(static_cast<int64_t>(v)); });
  if (mask >> kCachingBit & 1) {
    in.delta_column(points, [](TimelinePoint& p, int64_t v) { p.reserved_bytes = v; });
    in.delta_column(points, [](TimelinePoint& p, int64_t v) { p.active_bytes = v; });
    in.delta_column(points, [](TimelinePoint& p, int64_t v) { p.largest_free_bytes = v; });
  }
  in.expect_end();
  Decoder times(raw_times);
  times.delta_column(points, [](TimelinePoint& p, int64_t v) { p.time_ns = v; });
  times.expect_end();
  return points;
}

std::string encode_operators(const std::vector<OperatorRow>& rows) {
  Encoder out;
  out.put(rows.size());
  out.column(rows, [](const OperatorRow& r) { return static_cast<uint8_t>(r.phase); });
  out.delta_column(rows, [](const OperatorRow& r) { return r.module.value; });
  out.column(rows, [](const OperatorRow& r) { return r.op.value; });
  out.column(rows, [](const OperatorRow& r) { return r.calls; });
  out.real_column(rows, [](const OperatorRow& r) { return r.flops; });
  // Mostly the same number: one byte says so.
  for (const OperatorRow& r : rows) {
    out.put(r.torch_flops == r.flops);
    if (r.torch_flops != r.flops) out.put_real(r.torch_flops);
  }
  out.real_column(rows, [](const OperatorRow& r) { return r.elementwise_flops; });
  // Since version 3: what hardware counters told, if they told anything.
  if (std::any_of(rows.begin(), rows.end(), [](const OperatorRow& r) { return r.is_counted(); })) {
    out.real_column(rows, [](const OperatorRow& r) { return r.tensor_flops; });
    out.real_column(rows, [](const OperatorRow& r) { return r.scalar_flops; });
    out.real_column(rows, [](const OperatorRow& r) { return r.device_ns; });
    out.real_column(rows, [](const OperatorRow& r) { return r.dram_bytes; });
    encode_formats(rows, &out);
    out.real_column(rows, [](const OperatorRow& r) { return r.range_flops; });
    out.real_column(rows, [](const OperatorRow& r) { return r.causal_flops; });
    out.column(rows, [](const OperatorRow& r) { return r.alignment; });
  }
  return out.raw();
}

std::string encode_operator_times(const std::vector<OperatorRow>& rows) {
  Encoder out;
  out.column(rows, [](const OperatorRow& r) { return r.nanoseconds; });
  return out.raw();
}

std::vector<OperatorRow> decode_operators(std::string_view raw, std::string_view raw_times) {
  Decoder in(raw);
  std::vector<OperatorRow> rows(in.get_count(7));
  in.column(rows, [](OperatorRow& r, uint64_t v) { r.phase = phase(v); });
  in.delta_column(rows, [](OperatorRow& r, int64_t v) { r.module = string_id(v); });
  in.column(rows, [](OperatorRow& r, uint64_t v) { r.op = string_id(static_cast<int64_t>(v)); });
  in.column(rows, [](OperatorRow& r, uint64_t v) { r.calls = static_cast<uint32_t>(v); });
  in.real_column(rows, [](OperatorRow& r, double v) { r.flops = v; });
  for (OperatorRow& r : rows) r.torch_flops = in.get() ? r.flops : in.get_real();
  in.real_column(rows, [](OperatorRow& r, double v) { r.elementwise_flops = v; });
  if (!in.at_end()) {
    in.real_column(rows, [](OperatorRow& r, double v) { r.tensor_flops = v; });
    in.real_column(rows, [](OperatorRow& r, double v) { r.scalar_flops = v; });
    in.real_column(rows, [](OperatorRow& r, double v) { r.device_ns = v; });
    in.real_column(rows, [](OperatorRow& r, double v) { r.dram_bytes = v; });
    if (!in.at_end()) {
      decode_formats(&in, &rows);
      in.real_column(rows, [](OperatorRow& r, double v) { r.range_flops = v; });
      in.real_column(rows, [](OperatorRow& r, double v) { r.causal_flops = v; });
      in.column(rows, [](OperatorRow& r, uint64_t v) { r.alignment = static_cast<uint32_t>(v); });
    }
  }
  in.expect_end();
  Decoder times(raw_times);
  times.column(rows, [](OperatorRow& r, uint64_t v) { r.nanoseconds = static_cast<int64_t>(v); });
  times.expect_end();
  return rows;
}

std::string encode_blocks(const std::vector<BlockRow>& blocks) {
  Encoder out;
  out.put(blocks.size());
  out.column(blocks, [](const BlockRow& b) { return b.bytes; });
  out.column(blocks, [](const BlockRow& b) { return b.count; });
  out.column(blocks, [](const BlockRow& b) { return static_cast<uint8_t>(b.role); });
  out.column(blocks, [](const BlockRow& b) { return b.saved; });
  out.column(blocks, [](const BlockRow& b) { return static_cast<uint8_t>(b.phase); });
  out.delta_column(blocks, [](const BlockRow& b) { return b.module.value; });
  out.column(blocks, [](const BlockRow& b) { return b.op.value; });
  out.column(blocks, [](const BlockRow& b) { return b.name.value; });
  out.column(blocks, [](const BlockRow& b) { return b.dtype.value; });
  out.column(blocks, [](const BlockRow& b) { return b.shape.value; });
  out.column(blocks, [](const BlockRow& b) { return b.source.value; });
  out.delta_column(blocks, [](const BlockRow& b) { return b.age_ns; });
  return out.raw();
}

std::vector<BlockRow> decode_blocks(std::string_view raw) {
  Decoder in(raw);
  std::vector<BlockRow> blocks(in.get_count(12));
  const auto id = [](uint64_t v) { return string_id(static_cast<int64_t>(v)); };
  in.column(blocks, [](BlockRow& b, uint64_t v) { b.bytes = static_cast<int64_t>(v); });
  in.column(blocks, [](BlockRow& b, uint64_t v) { b.count = static_cast<uint32_t>(v); });
  in.column(blocks, [](BlockRow& b, uint64_t v) { b.role = checked<Role>(v, kRoleCount); });
  in.column(blocks, [](BlockRow& b, uint64_t v) { b.saved = v != 0; });
  in.column(blocks, [](BlockRow& b, uint64_t v) { b.phase = phase(v); });
  in.delta_column(blocks, [](BlockRow& b, int64_t v) { b.module = string_id(v); });
  in.column(blocks, [&](BlockRow& b, uint64_t v) { b.op = id(v); });
  in.column(blocks, [&](BlockRow& b, uint64_t v) { b.name = id(v); });
  in.column(blocks, [&](BlockRow& b, uint64_t v) { b.dtype = id(v); });
  in.column(blocks, [&](BlockRow& b, uint64_t v) { b.shape = id(v); });
  in.column(blocks, [&](BlockRow& b, uint64_t v) { b.source = id(v); });
  in.delta_column(blocks, [](BlockRow& b, int64_t v) { b.age_ns = v; });
  in.expect_end();
  return blocks;
}

std::vector<TimelinePoint> thin_timeline(const std::vector<TimelinePoint>& points,
                                         const std::vector<MarkBook>& marks, size_t limit) {
  if (points.size() <= limit) return points;
  std::vector<int64_t> totals;
  totals.reserve(points.size());
  for (const TimelinePoint& point : points) totals.push_back(sum(point.roles));

  std::vector<bool> keep(points.size(), false);
  size_t kept = 0;
  const auto keep_point = [&](size_t at) {
    kept += !keep[at];
    keep[at] = true;
  };
  const auto keep_extremes = [&](size_t begin, size_t end) {
    const auto [low, high] = std::minmax_element(totals.begin() + static_cast<ptrdiff_t>(begin),
                                                 totals.begin() + static_cast<ptrdiff_t>(end));
    keep_point(static_cast<size_t>(high - totals.begin()));
    keep_point(static_cast<size_t>(low - totals.begin()));
  };
  keep_point(0);
  keep_point(points.size() - 1);
  keep_extremes(0, points.size());
  for (const MarkBook& mark : marks) {
    if (kept >= limit) break;
    auto at = static_cast<size_t>(
        std::lower_bound(points.begin(), points.end(), mark.time_ns,
                         [](const TimelinePoint& p, int64_t t) { return p.time_ns < t; }) -
        points.begin());
    if (at == points.size()) continue;
    // Several events may share a nanosecond; the mark's bytes tell which is meant.
    size_t same = at;
    while (same < points.size() && points[same].time_ns == mark.time_ns &&
           totals[same] != mark.bytes) {
      ++same;
    }
    if (same < points.size() && points[same].time_ns == mark.time_ns) at = same;
    keep_point(at);
  }
  const size_t stretches = (limit - kept) / 2;
  for (size_t i = 0; i < stretches; ++i) {
    keep_extremes(i * points.size() / stretches, (i + 1) * points.size() / stretches);
  }
  std::vector<TimelinePoint> thinned;
  thinned.reserve(kept);
  for (size_t at = 0; at < points.size(); ++at) {
    if (keep[at]) thinned.push_back(points[at]);
  }
  return thinned;
}

}  // namespace tally::recording
