// SPDX-License-Identifier: Apache-2.0
#include "profiler/ledger/regions.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "profiler/ledger/thread_state.h"

namespace tally {
namespace {

constexpr std::string_view kAfter = "after ";  // of a module that follows from the last one

std::string_view without_after(std::string_view name) {
  if (name.starts_with(kAfter)) name.remove_prefix(kAfter.size());
  return name;
}

bool is_number(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

void Regions::begin_step() {
  rows_.clear();
  beside_.clear();
  units_.clear();
  by_key_.clear();
}

void Regions::finish(StepBooks& books) {
  books.regions = std::exchange(rows_, {});
  books.units = std::exchange(units_, {});
  by_key_.clear();
}

StringId Regions::unit_of(StringId module) {
  const auto [unit, is_new] = unit_of_.insert(module.value, StringId{});
  if (!is_new) return *unit;
  const std::string_view name = without_after(strings_.text(module));
  size_t end = name.size();
  for (size_t begin = 0; begin <= name.size();) {
    const size_t dot = std::min(name.find('.', begin), name.size());
    if (is_number(name.substr(begin, dot - begin))) {
      end = dot;
      break;
    }
    begin = dot + 1;
  }
  *unit = strings_.intern(name.substr(0, end));
  return *unit;
}

UnitRow& Regions::unit(StringId name, uint16_t micro_step) {
  const uint64_t key = (uint64_t{micro_step} << 32) | name.value;
  const auto [index, is_new] = by_key_.insert(key, static_cast<uint32_t>(units_.size()));
  if (is_new) {
    units_.emplace_back();
    units_.back().unit = name;
    units_.back().micro_step = micro_step;
  }
  return units_[*index];
}

void Regions::enter_operator(ThreadState& state, const Event& event, bool again,
                             uint16_t micro_step) {
  if (!again) {
    if (!state.regions.empty() && state.regions.back().running) {
      leave_recomputation(state.regions.back());
    }
    return;
  }
  size_t node = state.frames.size();
  while (node > 0 && state.frames[node - 1].kind != EventKind::kNodeEnter) --node;
  if (node == 0) return;
  --node;
  if (!state.regions.empty() && state.regions.back().node == node) {
    if (!state.regions.back().running) go_on(state.regions.back());
    return;
  }
  OpenRegion& region = state.regions.emplace_back();
  region.node = node;
  region.began = event.sequence;
  region.row.micro_step = micro_step;
  region.row.node = state.frames[node].op;
  std::erase_if(beside_, [this](const Beside& held) {
    const Block* block = blocks_.find(held.pointer);
    return !block || block->born != held.born;
  });
  region.beside = beside_;
}

void Regions::exit_frame(ThreadState& state, const Event& event, StringId module,
                         uint16_t micro_step, int64_t since_step_ns) {
  const Frame& frame = state.frames.back();
  if (frame.kind == EventKind::kScopeEnter) return;
  const int64_t elapsed = event.time_ns - frame.begin_ns;
  if (frame.kind == EventKind::kOpEnter && state.phase == Phase::kRecompute && !state.regions.empty()) {
    OpenRegion& region = state.regions.back();
    region.row.flops += frame.flops;
    region.row.nanoseconds += elapsed - frame.inner_ns;
    if (module && std::find(region.modules.begin(), region.modules.end(), module) == region.modules.end()) {
      region.modules.push_back(module);
    }
  }
  if (module) {
    switch (state.phase) {
      case Phase::kForward: {
        if (frame.kind != EventKind::kOpEnter) break;
        const StringId reader = unit_of(module);
        unit(reader, micro_step).forward_end_ns = since_step_ns;
        for (const uint64_t pointer : state.reads) {
          Block* block = blocks_.find(pointer);
          if (!block || block->carried || !block->module) continue;
          if (unit_of(block->module) != reader) block->crosses_units = true;
        }
        break;
      }
      case Phase::kBackward:
      case Phase::kRecompute: {
        UnitRow& row = unit(unit_of(module), micro_step);
        if (row.backward_begin_ns == 0) row.backward_begin_ns = since_step_ns - elapsed;
        row.backward_end_ns = since_step_ns;
        break;
      }
      default:
        break;
    }
  }
  state.reads.clear();
  if (!state.regions.empty() && state.regions.back().node == state.frames.size() - 1) {
    close(state.regions.back());
    state.regions.pop_back();
  }
}

void Regions::add_work(ThreadState& state, double flops) {
  if (state.phase == Phase::kRecompute && !state.regions.empty()) state.regions.back().row.flops += flops;
}

void Regions::on_alloc(ThreadState& state, const Block& block, int64_t live_bytes) {
  for (OpenRegion& region : state.regions) {
    if (region.device < 0) {
      region.device = block.device;
      region.row.begin_bytes = live_bytes - block.bytes;
    }
    if (region.device == block.device) region.row.peak_bytes = std::max(region.row.peak_bytes, live_bytes);
  }
  if (state.phase == Phase::kRecompute && !state.regions.empty()) {
    state.regions.back().born.push_back(block.pointer);
  }
}

void Regions::on_read(ThreadState& state, const Block& block) {
  if (state.phase == Phase::kForward) {
    if (!block.carried) state.reads.push_back(block.pointer);
    return;
  }
  if (state.phase != Phase::kRecompute || state.regions.empty()) return;
  OpenRegion& region = state.regions.back();
  constexpr uint32_t kOfModel =
      evidence::kParameter | evidence::kBuffer | evidence::kState | evidence::kGradient;
  if ((block.evidence & kOfModel) || block.born >= region.began) return;
  // Only what autograd keeps for the region is its cost; the program's own data is there anyway.
  if (block.evidence & evidence::kSavedInStep) region.kept.insert(block.pointer, block.bytes);
}

void Regions::on_nested_edge(ThreadState& state) {
  if (state.regions.empty()) return;
  state.regions.back().has_edge = true;
  state.regions.back().running = false;
}

void Regions::on_saved_again(ThreadState& state, int64_t bytes) {
  if (!state.regions.empty()) state.regions.back().row.avoided_bytes += bytes;
}

void Regions::on_held_beside(const Block& block) {
  beside_.push_back({block.pointer, block.born, block.bytes, block.module});
}

// Without a backward pass of its own (non-reentrant checkpoints), what is left of the recomputation
// is what the nodes of the forward pass will ask for.
void Regions::leave_recomputation(OpenRegion& region) {
  region.running = false;
  if (region.has_edge) return;
  for (const uint64_t pointer : region.born) {
    Block* block = blocks_.find(pointer);
    if (!block || block->born < region.began || (block->evidence & evidence::kRecomputed)) continue;
    block->evidence |= evidence::kRecomputed;
    region.row.avoided_bytes += block->bytes;
    region.left.push_back(pointer);
  }
  region.born.clear();
}

// It had not ended: what was between was a part of it that does not record (a mask, a table).
void Regions::go_on(OpenRegion& region) {
  region.running = true;
  for (const uint64_t pointer : region.left) {
    Block* block = blocks_.find(pointer);
    if (!block || block->born < region.began || !(block->evidence & evidence::kRecomputed))
      continue;
    block->evidence &= ~evidence::kRecomputed;
    region.row.avoided_bytes -= block->bytes;
    region.born.push_back(pointer);
  }
  region.left.clear();
}

void Regions::close(OpenRegion& region) {
  if (region.running) leave_recomputation(region);
  region.row.module = common_module(region.modules);
  // What its own forward pass made and left beside the graph; without a name nobody can tell whose.
  for (const Beside& held : region.beside) {
    if (region.row.module && held.module && is_in(held.module, region.row.module)) {
      region.kept.insert(held.pointer, held.bytes);
    }
  }
  region.kept.for_each([&](uint64_t, int64_t bytes) { region.row.kept_bytes += bytes; });
  rows_.push_back(region.row);
}

// "after h.3.ln_1" is in "h.3".
bool Regions::is_in(StringId module, StringId whole) const {
  const std::string_view inner = without_after(strings_.text(module));
  const std::string_view outer = strings_.text(whole);
  return inner.starts_with(outer) && (inner.size() == outer.size() || inner[outer.size()] == '.');
}

// "h.3" of {"h.3.attn", "after h.3.ln_1"}; "" when they have nothing in common.
StringId Regions::common_module(const std::vector<StringId>& modules) {
  if (modules.empty()) return {};
  std::string_view common = without_after(strings_.text(modules.front()));
  for (const StringId module : modules) {
    const std::string_view name = without_after(strings_.text(module));
    size_t same = 0;  // length of the shared whole components
    for (size_t at = 0; at <= std::min(common.size(), name.size()); ++at) {
      const bool ends_here = at == common.size() || common[at] == '.';
      const bool ends_there = at == name.size() || name[at] == '.';
      if (ends_here && ends_there) same = at;
      if (at < common.size() && at < name.size() && common[at] != name[at]) break;
    }
    common = common.substr(0, same);
  }
  return common.empty() ? StringId{} : strings_.intern(common);
}

void Regions::on_edge(const Edge& edge, uint16_t micro_step) {
  for (const Edge::Saved& saved : edge.saved) {
    if (saved.is_plain || saved.is_number) continue;
    const Block* block = blocks_.find(saved.pointer);
    if (!block || !block->module || (block->evidence & evidence::kParameter)) continue;
    UnitRow& row = unit(unit_of(block->module), micro_step);
    row.activation_bytes += saved.bytes;
    if (block->crosses_units) row.output_bytes += saved.bytes;
  }
}

}  // namespace tally
