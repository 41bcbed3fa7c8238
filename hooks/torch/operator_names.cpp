// SPDX-License-Identifier: Apache-2.0
#include "hooks/torch/operator_names.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <deque>
#include <iterator>
#include <memory>
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

// The engine writes a new text around each node.
bool is_engine_bracket(const char* name) {
  constexpr std::string_view kPrefix = "autograd::engine::";
  return std::strncmp(name, kPrefix.data(), kPrefix.size()) == 0;
}
// Also a name that there was no memory for.
constexpr OperatorName ignored = [] {
  OperatorName name;
  name.kind = OperatorName::Kind::kIgnored;
  return name;
}();

OperatorName look_up(StringTable& strings, const std::string& text) {
  OperatorName name;
  name.id = strings.intern(text);
  // torch.compile's brackets say nothing of inputs; the function that they call does.
  const bool is_bracket =
      text.starts_with("Torch-Compiled Region") || text == "TorchDynamo Cache Lookup";
  if (is_bracket || text.starts_with("torchtally::")) {
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
      "aten::item",    "aten::_local_scalar_dense", "aten::detach",
      "aten::detach_", "aten::is_nonzero",          "aten::equal"};
  for (const std::string_view other : kNoGraph) name.makes_no_graph |= text == other;
  name.communicates = text.starts_with("c10d::") || text.starts_with("_c10d_functional::") ||
                      text.starts_with("fsdp::");
  name.casts = text == "aten::_to_copy";
  name.in_place = text.ends_with('_') && !text.ends_with("__");
  name.work = find_work_rule(text);
  name.save = find_save_rule(text);
  return name;
}

// How often an operator has gone. An address was that of a registered operator's name if the count
// is the same since.
std::atomic<uint64_t> deregistrations{0};
class CountDeregistrations final : public c10::OpRegistrationListener {
  void onOperatorRegistered(const c10::OperatorHandle&) override {}
  void onOperatorDeregistered(const c10::OperatorHandle&) override {
    deregistrations.fetch_add(1, std::memory_order_release);
  }
};

// Whether `name` is where the operator of that name and overload keeps it.
bool is_of_operator(const char* name, const char* overload) {
  static auto* const listening =
      new c10::RegistrationHandleRAII(c10::Dispatcher::singleton().addRegistrationListener(
          std::make_unique<CountDeregistrations>()));
  (void)listening;
  const auto handle = c10::Dispatcher::singleton().findSchema({name, overload});
  return handle && handle->schema().name().c_str() == name;
}

// What one thread knows: registered operators by the address of their name, and by content the
// texts that are made anew each time (nodes). Another name may take a slot over.
struct NameCache {
  static constexpr size_t kSize = 512;
  struct Address {
    const char* address;
    const OperatorName* name;
  };
  uint64_t deregistered = 0;  // when by_address was empty last
  Address by_address[kSize] = {};
  const OperatorName* by_content[kSize] = {};

  Address& slot(const char* address) noexcept {
    return by_address[(reinterpret_cast<uintptr_t>(address) * 0x9E3779B97F4A7C15ull) >> 55];
  }
};
static_assert(NameCache::kSize == 1 << (64 - 55));

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

const OperatorName* find_by_content(StringTable& strings, NameCache& cache, const char* name) {
  uint64_t hash = 0xCBF29CE484222325ull;
  for (const char* c = name; *c; ++c) {
    hash = (hash ^ static_cast<unsigned char>(*c)) * 0x100000001B3ull;
  }
  const OperatorName*& slot = cache.by_content[hash % NameCache::kSize];
  if (!slot || std::strcmp(slot->text, name) != 0) slot = find_or_add(strings, name);
  return slot;
}

// Not in the cache by its address.
const OperatorName& find_function(StringTable& strings, NameCache& cache,
                                  const at::RecordFunction& function, uint64_t deregistered) {
  const char* const name = function.name();
  if (is_engine_bracket(name)) return ignored;
  const OperatorName* found = find_by_content(strings, cache, name);
  if (std::strstr(name, "::") && is_of_operator(name, function.overload_name())) {
    if (cache.deregistered != deregistered) {
      std::fill(std::begin(cache.by_address), std::end(cache.by_address), NameCache::Address{});
      cache.deregistered = deregistered;
    }
    cache.slot(name) = {name, found};
  }
  return *found;
}

}  // namespace

const OperatorName& operator_name(StringTable& strings, const char* name) noexcept try {
  NameCache* cache = OfThread<NameCache>::get();
  return cache ? *find_by_content(strings, *cache, name) : *find_or_add(strings, name);
} catch (const std::bad_alloc&) {
  return ignored;
}

const OperatorName& operator_name(StringTable& strings, const at::RecordFunction& function) noexcept
    try {
  NameCache* cache = OfThread<NameCache>::get();
  const char* const name = function.name();
  if (!cache) return is_engine_bracket(name) ? ignored : *find_or_add(strings, name);
  const uint64_t deregistered = deregistrations.load(std::memory_order_acquire);
  const NameCache::Address& known = cache->slot(name);
  if (known.address == name && cache->deregistered == deregistered) [[likely]]
    return *known.name;
  return find_function(strings, *cache, function, deregistered);
} catch (const std::bad_alloc&) {
  return ignored;
}

}  // namespace tally::hooks
