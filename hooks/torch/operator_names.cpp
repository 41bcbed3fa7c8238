// SPDX-License-Identifier: Apache-2.0
#include "hooks/torch/operator_names.h"

#include <array>
#include <cstring>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "hooks/torch/runtime.h"

namespace tally::hooks {
namespace {

struct NameTable {
  std::mutex mutex;
  std::deque<std::string> texts;
  std::deque<OperatorName> names;
  std::unordered_map<std::string_view, const OperatorName*> index;
};
NameTable& table() {
  static auto* const instance = new NameTable;  // threads may outlive static objects
  return *instance;
}

OperatorName look_up(StringTable& strings, std::string_view text) {
  OperatorName name;
  name.id = strings.intern(text);
  if (text.starts_with("autograd::engine::") || text.starts_with("torchtally::")) {
    name.kind = OperatorName::Kind::kIgnored;
  } else if (text == "torch::autograd::AccumulateGrad") {
    name.kind = OperatorName::Kind::kAccumulate;
  } else if (text.starts_with("Optimizer.step#")) {
    name.kind = OperatorName::Kind::kUpdate;
  } else if (text == "_NoopSaveInputs") {
    name.kind = OperatorName::Kind::kKeepInputs;
  } else if (!text.starts_with("aten::")) {
    name.kind = OperatorName::Kind::kNode;
  }
  static constexpr std::array<std::string_view, 6> kNoGraph{
      "aten::item", "aten::_local_scalar_dense", "aten::detach",
      "aten::detach_", "aten::is_nonzero", "aten::equal"};
  for (const std::string_view other : kNoGraph) name.makes_no_graph |= text == other;
  name.communicates = text.starts_with("c10d::") || text.starts_with("_c10d_functional::");
  name.in_place = text.ends_with('_') && !text.ends_with("__");
  name.work = find_work_rule(text);
  name.save = find_save_rule(text);
  return name;
}

// Two small caches of one thread. The first goes by the address of the text, which is constant for
// an operator's schema; texts that are made anew each time (nodes) are found by content.
struct NameCache {
  static constexpr size_t kSize = 512;
  struct ByAddress {
    const char* address;
    const OperatorName* name;
  };
  ByAddress by_address[kSize] = {};
  const OperatorName* by_content[kSize] = {};
};

const OperatorName* find_or_add(StringTable& strings, const char* name) {
  NameTable& all = table();
  const std::lock_guard lock(all.mutex);
  if (const auto found = all.index.find(name); found != all.index.end()) return found->second;
  const std::string& text = all.texts.emplace_back(name);
  OperatorName& made = all.names.emplace_back(look_up(strings, text));
  made.text = text.c_str();
  all.index.emplace(text, &made);
  return &made;
}

}  // namespace

const OperatorName& operator_name(StringTable& strings, const char* name) noexcept {
  NameCache* cache = OfThread<NameCache>::get();
  if (!cache) return *find_or_add(strings, name);
  const auto address = reinterpret_cast<uintptr_t>(name);
  NameCache::ByAddress& near = cache->by_address[(address >> 4) % NameCache::kSize];
  // Another name may stand at the same address by now.
  if (near.address == name && std::strcmp(near.name->text, name) == 0) return *near.name;
  uint64_t hash = 0xCBF29CE484222325ull;
  for (const char* c = name; *c; ++c) {
    hash = (hash ^ static_cast<unsigned char>(*c)) * 0x100000001B3ull;
  }
  const OperatorName*& slot = cache->by_content[hash % NameCache::kSize];
  if (!slot || std::strcmp(slot->text, name) != 0) slot = find_or_add(strings, name);
  near = {name, slot};
  return *slot;
}

}  // namespace tally::hooks
