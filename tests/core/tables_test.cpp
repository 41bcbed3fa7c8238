// SPDX-License-Identifier: Apache-2.0
// Strings and tensors are stored once, whoever asks.
#include <algorithm>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "profiler/core/ids.h"
#include "profiler/core/run_info.h"
#include "profiler/core/tensor_table.h"

namespace tally {
namespace {

TEST(StringTable, NumbersAreDenseAndTheEmptyStringIsZero) {
  StringTable strings;
  EXPECT_EQ(strings.intern("").value, 0u);
  EXPECT_FALSE(strings.intern(""));
  EXPECT_EQ(strings.intern("a").value, 1u);
  EXPECT_EQ(strings.intern("b").value, 2u);
  EXPECT_EQ(strings.intern("a").value, 1u);
  EXPECT_EQ(strings.size(), 3u);
  EXPECT_EQ(strings.text({2}), "b");
  EXPECT_THROW(strings.text({3}), std::out_of_range);
}

TEST(StringTable, ATextStaysWhereItIsWhileTheTableGrows) {
  StringTable strings;
  const std::string& first = strings.text(strings.intern("aten::linear"));
  for (int i = 0; i < 10'000; ++i) strings.intern(std::to_string(i));
  EXPECT_EQ(&first, &strings.text(strings.intern("aten::linear")));
  EXPECT_EQ(first, "aten::linear");
}

TEST(StringTable, ThreadsThatAskForTheSameTextsGetTheSameNumbers) {
  StringTable strings;
  constexpr int kTexts = 500;
  std::vector<std::vector<uint32_t>> seen(4);
  std::vector<std::thread> threads;
  for (auto& ids : seen) {
    threads.emplace_back([&] {
      for (int i = 0; i < kTexts; ++i) ids.push_back(strings.intern(std::to_string(i)).value);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(strings.size(), kTexts + 1u);
  for (const auto& ids : seen) EXPECT_EQ(ids, seen[0]);
}

TensorId intern(TensorTable& table, uint8_t dtype, const std::vector<int64_t>& shape) {
  return table.intern(TensorTable::hash(dtype, shape), dtype, shape);
}

TEST(TensorTable, KeepsEachPairOfTypeAndShapeOnceInWords) {
  StringTable strings;
  TensorTable table(strings);
  table.set_dtype_names({"uint8", "float32"});
  const TensorId first = intern(table, 1, {8, 1024});
  EXPECT_TRUE(first);
  EXPECT_EQ(intern(table, 1, {8, 1024}), first);
  EXPECT_NE(intern(table, 0, {8, 1024}), first);
  EXPECT_NE(intern(table, 1, {1024, 8}), first);
  EXPECT_EQ(strings.text(table.entry(first).dtype), "float32");
  EXPECT_EQ(strings.text(table.entry(first).shape), "[8, 1024]");
  const TensorTable::Entry scalar = table.entry(intern(table, 9, {}));
  EXPECT_EQ(strings.text(scalar.shape), "[]");
  EXPECT_EQ(strings.text(scalar.dtype), "dtype 9");  // a type without a name
  EXPECT_EQ(strings.text(table.entry({}).shape), "");
}

TEST(TensorTable, ShapesThatAreCloseHaveDifferentHashes) {
  std::vector<uint64_t> seen;
  for (uint8_t dtype = 0; dtype < 4; ++dtype) {
    for (int64_t a = 0; a < 12; ++a) {
      seen.push_back(TensorTable::hash(dtype, std::vector<int64_t>{a}));
      for (int64_t b = 0; b < 12; ++b) {
        seen.push_back(TensorTable::hash(dtype, std::vector<int64_t>{a, b}));
        seen.push_back(TensorTable::hash(dtype, std::vector<int64_t>{1, a, b}));
      }
    }
  }
  const size_t count = seen.size();
  std::sort(seen.begin(), seen.end());
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  EXPECT_EQ(seen.size(), count);
}

TEST(TensorTable, AThreadsCacheGivesTheSameAsTheTable) {
  StringTable strings;
  TensorTable table(strings);
  TensorTable::Cache cache{};
  for (int round = 0; round < 2; ++round) {
    for (int64_t size = 0; size < 1000; ++size) {  // more than it has slots
      const std::vector<int64_t> shape{size, 3};
      EXPECT_EQ(table.intern(cache, 1, shape), intern(table, 1, shape));
    }
  }
}

TEST(RunDirectory, EachChangeIsANewVersion) {
  RunDirectory directory;
  const uint64_t before = directory.version();
  const auto index = directory.update([](RunInfo& info) {
    info.parameters.emplace_back().name = {4};
    return info.parameters.size() - 1;
  });
  EXPECT_EQ(directory.version(), before + 1);
  uint64_t version = 0;
  EXPECT_EQ(directory.snapshot(&version).parameters.at(index).name.value, 4u);
  EXPECT_EQ(version, before + 1);
  EXPECT_EQ(directory.parameter(0).name.value, 4u);
  EXPECT_THROW(directory.parameter(1), std::out_of_range);
}

}  // namespace
}  // namespace tally
