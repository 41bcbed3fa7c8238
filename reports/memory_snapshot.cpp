// SPDX-License-Identifier: Apache-2.0
#include "reports/memory_snapshot.h"

#include <algorithm>
#include <charconv>
#include <vector>

#include "profiler/core/error.h"

namespace tally::reports {
namespace {

using analysis::BlockRow;
using analysis::DeviceStep;

// Writes protocol 2 of Python's pickle, as far as the layout needs it: values are pushed, and a
// dictionary's items or a list's elements between mark() and their end.
class Pickle {
 public:
  Pickle() { out_ = "\x80\x02"; }
  void begin_dictionary() { out_ += "}("; }
  void end_dictionary() { out_ += 'u'; }  // SETITEMS
  void begin_list() { out_ += "]("; }
  void end_list() { out_ += 'e'; }  // APPENDS
  void text(std::string_view value) {
    out_ += 'X';  // BINUNICODE: 4 bytes of length
    little(value.size(), 4);
    out_ += value;
  }
  void integer(int64_t value) {
    out_ += "\x8a\x08";  // LONG1 of 8 bytes
    little(static_cast<uint64_t>(value), 8);
  }
  void item(std::string_view key, int64_t value) {
    text(key);
    integer(value);
  }
  void item(std::string_view key, std::string_view value) {
    text(key);
    text(value);
  }
  std::string finish() && { return std::move(out_) + "."; }

 private:
  void little(uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) out_ += static_cast<char>(value >> (8 * i) & 0xff);
  }
  std::string out_;
};

// The file's own text would break the reader: what is no UTF-8 becomes '?'.
std::string utf8(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    const size_t length = c < 0x80                ? 1
                          : c >= 0xf0 && c < 0xf5 ? 4
                          : c >= 0xe0             ? 3
                          : c >= 0xc2             ? 2
                                                  : 0;
    bool good = length > 0 && c < 0xf5 && i + length <= text.size();
    for (size_t k = 1; good && k < length; ++k) {
      good = (static_cast<unsigned char>(text[i + k]) & 0xc0) == 0x80;
    }
    if (good && length == 3) {  // surrogates and overlong forms are no UTF-8
      const auto d = static_cast<unsigned char>(text[i + 1]);
      good = !(c == 0xed && d >= 0xa0) && !(c == 0xe0 && d < 0xa0);
    }
    if (good && length == 4) {
      const auto d = static_cast<unsigned char>(text[i + 1]);
      good = !(c == 0xf0 && d < 0x90) && !(c == 0xf4 && d >= 0x90);
    }
    out += good ? text.substr(i, length) : "?";
    i += good ? length : 1;
  }
  return out;
}

struct Placed {
  const BlockRow* row;
  int64_t address;
};

// Far apart for each device, as real ones are.
int64_t base_of(int64_t device) { return int64_t{0x7f0000000000} + (device << 40); }

void frames(Pickle* p, const BlockRow& b) {
  p->text("frames");
  p->begin_list();
  const auto frame = [&](const std::string& name, const std::string& file, int64_t line) {
    p->begin_dictionary();
    p->item("name", utf8(name));
    p->item("filename", utf8(file));
    p->item("line", line);
    p->end_dictionary();
  };
  // The innermost first, as stacks have it: operator, tensor, module; then the source's line.
  frame(b.op.empty() ? "(no operator)" : b.op, "", 0);
  std::string what(title(b.role));
  if (!b.name.empty()) what += " " + b.name;
  if (!b.shape.empty()) what += " " + b.dtype + " " + b.shape;
  frame(what, "", 0);
  if (!b.module.empty()) frame(b.module, "", 0);
  if (const size_t colon = b.source.rfind(':'); colon != std::string::npos) {
    int64_t line = 0;
    const char* end = b.source.data() + b.source.size();
    std::from_chars(b.source.data() + colon + 1, end, line);
    frame("", b.source.substr(0, colon), line);
  }
  p->end_list();
}

std::vector<Placed> place(const DeviceStep& step, int64_t device, int64_t* end) {
  std::vector<const BlockRow*> rows;
  for (const BlockRow& b : step.peak_blocks) {
    for (uint32_t i = 0; i < b.count; ++i) rows.push_back(&b);
  }
  std::stable_sort(rows.begin(), rows.end(), [](const BlockRow* a, const BlockRow* b) {
    return a->age_seconds > b->age_seconds;
  });
  std::vector<Placed> placed;
  *end = base_of(device);
  for (const BlockRow* row : rows) {
    placed.push_back({row, *end});
    *end += row->bytes;
  }
  return placed;
}

void segment(Pickle* p, int64_t device, const std::vector<Placed>& blocks, int64_t end) {
  p->begin_dictionary();
  const int64_t size = end - base_of(device);
  p->item("device", device);
  p->item("address", base_of(device));
  p->item("total_size", size);
  p->item("allocated_size", size);
  p->item("active_size", size);
  p->item("requested_size", size);
  p->item("stream", 0);
  p->item("segment_type", "large");
  p->text("segment_pool_id");
  p->begin_list();
  p->integer(0);
  p->integer(0);
  p->end_list();
  p->text("is_expandable");
  p->integer(0);
  p->text("frames");
  p->begin_list();
  p->end_list();
  p->text("blocks");
  p->begin_list();
  for (const Placed& block : blocks) {
    p->begin_dictionary();
    p->item("address", block.address);
    p->item("size", block.row->bytes);
    p->item("requested_size", block.row->bytes);
    p->item("state", "active_allocated");
    frames(p, *block.row);
    p->end_dictionary();
  }
  p->end_list();
  p->end_dictionary();
}

void trace(Pickle* p, const std::vector<Placed>& blocks, double peak_seconds, int64_t start_us) {
  p->begin_list();
  for (const Placed& block : blocks) {
    p->begin_dictionary();
    p->item("action", "alloc");
    p->item("addr", block.address);
    p->item("size", block.row->bytes);
    p->item("stream", 0);
    p->item("time_us",
            start_us + static_cast<int64_t>((peak_seconds - block.row->age_seconds) * 1e6));
    p->item("category", key(block.row->role));
    frames(p, *block.row);
    p->end_dictionary();
  }
  p->end_list();
}

}  // namespace

std::string render_memory_snapshot(const analysis::Summary& summary) {
  const analysis::StepSummary& step = summary.step();
  std::vector<std::pair<int64_t, const DeviceStep*>> devices;
  for (const DeviceStep& device : step.devices) {
    if (!device.device.starts_with("cuda:")) continue;
    int64_t index = -1;
    const char* end = device.device.data() + device.device.size();
    std::from_chars(device.device.data() + 5, end, index);
    if (index < 0) continue;
    if (device.peak_blocks.empty()) {
      throw Error(
          "step {} of {} was not kept in detail: the blocks of {} are not known; choose another "
          "with --step",
          step.index, summary.recording, device.device);
    }
    devices.emplace_back(index, &device);
  }
  if (devices.empty()) {
    throw Error(
        "{} has no CUDA data in step {}: a snapshot is a picture of the CUDA allocator; "
        "'--format chrome-trace' shows what was recorded",
        summary.recording, step.index);
  }
  std::sort(devices.begin(), devices.end());
  std::vector<std::vector<Placed>> blocks;
  std::vector<int64_t> ends(devices.size());
  for (size_t i = 0; i < devices.size(); ++i) {
    blocks.push_back(place(*devices[i].second, devices[i].first, &ends[i]));
  }
  Pickle p;
  p.begin_dictionary();
  p.text("segments");
  p.begin_list();
  for (size_t i = 0; i < devices.size(); ++i) segment(&p, devices[i].first, blocks[i], ends[i]);
  p.end_list();
  p.text("device_traces");
  p.begin_list();
  const int64_t start_us =
      summary.start_unix_ns / 1000 + static_cast<int64_t>(step.start_seconds * 1e6);
  for (int64_t device = 0; device <= devices.back().first; ++device) {
    size_t i = 0;
    while (i < devices.size() && devices[i].first != device) ++i;
    if (i < devices.size()) {
      trace(&p, blocks[i], devices[i].second->peak.seconds, start_us);
    } else {
      p.begin_list();
      p.end_list();
    }
  }
  p.end_list();
  p.end_dictionary();
  return std::move(p).finish();
}

}  // namespace tally::reports
