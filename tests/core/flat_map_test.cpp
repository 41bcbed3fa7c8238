// SPDX-License-Identifier: Apache-2.0
#include "profiler/core/flat_map.h"

#include <cstdlib>
#include <new>
#include <optional>
#include <random>
#include <unordered_map>

#include <gtest/gtest.h>

namespace tally {
namespace {

void expect_same(FlatMap<int64_t>& map, const std::unordered_map<uint64_t, int64_t>& truth) {
  ASSERT_EQ(map.size(), truth.size());
  size_t visited = 0;
  map.for_each([&](uint64_t key, int64_t value) {
    ++visited;
    const auto found = truth.find(key);
    ASSERT_NE(found, truth.end());
    EXPECT_EQ(found->second, value);
  });
  EXPECT_EQ(visited, truth.size());
  for (const auto& [key, value] : truth) {
    const int64_t* found = map.find(key);
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(*found, value);
  }
}

// A host without memory, for this file's maps.
thread_local bool no_memory = false;

}  // namespace
}  // namespace tally

// Not inlined: the compiler would see them beside its own and warn.
[[gnu::noinline]] void* operator new(size_t bytes) {
  void* memory = tally::no_memory ? nullptr : std::malloc(bytes);
  if (!memory) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace tally {
namespace {

TEST(FlatMap, FillsUpWhereThereIsNoMemoryToGrow) {
  FlatMap<int64_t> map;
  map.insert(0, 0);
  std::unordered_map<uint64_t, int64_t> truth = {{0, 0}};
  for (int64_t key = 1; key < 15; ++key) truth[static_cast<uint64_t>(key)] = key;
  no_memory = true;
  for (int64_t key = 1; key < 15; ++key) map.insert(static_cast<uint64_t>(key), key);
  EXPECT_THROW(map.insert(15, 15), std::bad_alloc);
  no_memory = false;
  expect_same(map, truth);
  EXPECT_EQ(map.find(15), nullptr);
  EXPECT_TRUE(map.erase(3));
  EXPECT_TRUE(map.insert(15, 15).second);
}

class AgainstUnorderedMap : public testing::TestWithParam<uint64_t> {};

// Keys in steps of the parameter: addresses of blocks are multiples of 64, ids are dense.
TEST_P(AgainstUnorderedMap, DoesTheSameUnderRandomInsertionsAndErasures) {
  FlatMap<int64_t> map;
  std::unordered_map<uint64_t, int64_t> truth;
  std::mt19937_64 random(GetParam());
  for (int i = 0; i < 200'000; ++i) {
    const uint64_t key = random() % 3000 * GetParam();
    const auto value = static_cast<int64_t>(random());
    switch (random() % 4) {
      case 0:
      case 1: {
        const auto [at, is_new] = map.insert(key, value);
        const auto [same, is_new_there] = truth.emplace(key, value);
        ASSERT_EQ(is_new, is_new_there);
        ASSERT_EQ(*at, same->second);  // the first value stays
        break;
      }
      case 2: {
        const auto known = truth.find(key);
        const std::optional<int64_t> taken = map.take(key);
        ASSERT_EQ(taken.has_value(), known != truth.end());
        if (taken) {
          ASSERT_EQ(*taken, known->second);
          truth.erase(known);
        }
        break;
      }
      default: {
        const auto found = truth.find(key);
        const int64_t* at = map.find(key);
        ASSERT_EQ(at != nullptr, found != truth.end());
        if (at) {
          ASSERT_EQ(*at, found->second);
        }
      }
    }
    if (i % 50'000 == 0) expect_same(map, truth);
  }
  expect_same(map, truth);
}
INSTANTIATE_TEST_SUITE_P(Steps, AgainstUnorderedMap,
                         testing::Values(1, 64, 4096, uint64_t{1} << 32, 0x9E3779B97F4A7C15ull));

TEST(FlatMap, AnEmptyOneFindsAndErasesNothingAndHoldsNoMemory) {
  FlatMap<int> map;
  EXPECT_EQ(map.find(1), nullptr);
  EXPECT_FALSE(map.erase(1));
  EXPECT_EQ(map.bytes(), 0u);
  map.clear();
  EXPECT_EQ(map.size(), 0u);
}

TEST(FlatMap, ClearedItStartsAgain) {
  FlatMap<int> map;
  for (uint64_t key = 0; key < 100; ++key) map.insert(key, 1);
  map.clear();
  EXPECT_EQ(map.size(), 0u);
  for (uint64_t key = 0; key < 100; ++key) EXPECT_EQ(map.find(key), nullptr);
  EXPECT_TRUE(map.insert(7, 2).second);
  EXPECT_EQ(*map.find(7), 2);
}

TEST(FlatMap, AValueMayBeChangedThroughWhatInsertAndFindGive) {
  FlatMap<int> map;
  *map.insert(5).first = 1;
  *map.find(5) += 1;
  EXPECT_EQ(*map.insert(5, 100).first, 2);
}

}  // namespace
}  // namespace tally
