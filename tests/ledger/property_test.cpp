// SPDX-License-Identifier: Apache-2.0
// Random streams of events: whatever a program does, the books close. Every step is checked by
// EventScript against its own count: at every mark the sum of roles, of cells, the ledger's and the
// allocator's bytes agree, each kept moment of the timeline is true, the peak is the maximum.
#include <random>

#include "tests/support/event_script.h"

namespace tally::test {
namespace {

class RandomProgram {
 public:
  RandomProgram(EventScript& script, uint32_t seed) : script_(script), random_(seed) {
    for (int i = 0; i < 6; ++i) {
      const Pointer weight = script_.adopt(size());
      weights_.push_back(weight);
      if (chance(2)) {
        script_.watch(weight, script_.name_parameter("m" + std::to_string(i), "weight", chance(5)));
      }
    }
  }

  void step_body() {
    const int actions = 50 + below(300);
    for (int i = 0; i < actions; ++i) act();
  }
  // Between two steps: memory comes and goes as well.
  void between() {
    for (int i = below(5); i > 0; --i) chance(2) ? make() : drop();
  }

 private:
  int below(int limit) { return static_cast<int>(random_() % static_cast<uint32_t>(limit)); }
  bool chance(int one_in) { return below(one_in) == 0; }
  int64_t size() { return 1 + static_cast<int64_t>(random_() % 100'000); }
  Pointer any() {
    if (blocks_.empty() || chance(6)) return weights_[static_cast<size_t>(below(6))];
    return blocks_[static_cast<size_t>(below(static_cast<int>(blocks_.size())))];
  }
  std::vector<Pointer> some() {
    std::vector<Pointer> pointers;
    for (int i = below(4); i > 0; --i) pointers.push_back(any());
    return pointers;
  }
  void make() {
    if (!freed_.empty() && chance(2)) {  // allocators give addresses out again
      blocks_.push_back(freed_.back());
      freed_.pop_back();
      script_.alloc_at(blocks_.back(), size(), chance(10) ? event_flags::kAdopted : 0);
    } else {
      blocks_.push_back(script_.alloc(size(), chance(10) ? event_flags::kAdopted : 0));
    }
  }
  void drop() {
    if (blocks_.empty()) return;
    std::swap(blocks_[static_cast<size_t>(below(static_cast<int>(blocks_.size())))],
              blocks_.back());
    freed_.push_back(blocks_.back());
    script_.free(blocks_.back());
    blocks_.pop_back();
  }
  void inside() {
    for (int i = below(4); i > 0; --i) chance(3) ? drop() : make();
  }
  void act() {
    script_.on_thread(static_cast<uint16_t>(below(3)));
    switch (below(14)) {
      case 0:
        return make();
      case 1:
        return drop();
      case 2:
        return script_.see(EventKind::kInput, any());
      case 3:
        return script_.see(EventKind::kGradientFlow, any());
      case 4:
        return script_.gradient(any(), weights_[static_cast<size_t>(below(6))]);
      case 5:
        if (chance(3)) script_.state(any(), any(), "exp_avg");
        return;
      case 6:
        return script_.see_foreign(EventKind::kRead, 1 + random_() % 10, 100);
      case 7:
        if (chance(5)) script_.micro_step();
        return;
      case 8:
        return script_.scope("scope", [&] { inside(); });
      case 9: {
        const Graph graph{.saved = some(), .leaves = some(), .nested = false};
        return script_.backward(graph, [&] {
          inside();
          if (chance(3)) {
            script_.op("aten::linear", {.mode = kRecompute, .reads = some()}, [&] { inside(); });
            script_.node("Inner", [&] {
              script_.edge({.saved = some(), .leaves = some(), .nested = true});
              inside();
            });
            script_.end_backward(true);
          }
        });
      }
      case 10:  // an exception: the pass has no end
        return script_.node("Throws", [&] {
          script_.edge({.saved = some()});
          inside();
        });
      default: {
        const uint8_t modes[] = {kData, kForward, kNoGrad, kForward};
        return script_.op(
            "aten::op",
            {.mode = modes[below(4)], .reads = some(), .flops = 3, .sequence_number = below(100)},
            [&] { inside(); });
      }
    }
  }

  EventScript& script_;
  std::mt19937 random_;
  std::vector<Pointer> weights_;
  std::vector<Pointer> blocks_;
  std::vector<Pointer> freed_;
};

class AnyProgram : public testing::TestWithParam<uint32_t> {};

TEST_P(AnyProgram, HasBooksThatCloseAtEveryMarkOfEveryStep) {
  EventScript script({.detailed_steps = 100, .timeline_points = 16, .budget_bytes = 1'000'000});
  RandomProgram program(script, GetParam());
  int64_t last_bytes = -1;
  for (int i = 0; i < 12; ++i) {
    const bool quiet = i % 3 == 0;
    if (!quiet) program.between();
    script.on_thread(0).step_begin();
    program.step_body();
    const StepBooks books = script.on_thread(0).step_end();
    if (HasFailure()) FAIL() << "seed " << GetParam() << ", step " << i;
    if (quiet && last_bytes >= 0) {
      EXPECT_EQ(mark_of(books, Mark::kStart).bytes, last_bytes);
    }
    last_bytes = mark_of(books, Mark::kEnd).bytes;
    EXPECT_EQ(script.ledger().live_bytes(), script.bytes());
    EXPECT_EQ(books.unmatched_frees, 0u);
  }
  // Nothing happens in it: the start is the end of the step before, role by role.
  const StepBooks still = script.step(kNothing);
  EXPECT_EQ(mark_of(still, Mark::kStart).roles, mark_of(still, Mark::kEnd).roles);
  EXPECT_EQ(mark_of(still, Mark::kStart).bytes, last_bytes);
}

INSTANTIATE_TEST_SUITE_P(Seeds, AnyProgram, testing::Range(1u, 41u));

}  // namespace
}  // namespace tally::test
