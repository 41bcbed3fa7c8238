// SPDX-License-Identifier: Apache-2.0
// The switch of a thread's callbacks against LibTorch's own dispatcher.
#include "hooks/torch/operator_callbacks.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <functional>
#include <string>
#include <vector>

namespace tally::hooks {
namespace {

using Names = std::vector<std::string>;

OperatorCallbacks callbacks;
Names names;
bool turns_off = false;
bool adds_another = false;
size_t seen_by_another = 0;
at::CallbackHandle another = 0;

std::unique_ptr<at::ObserverContext> nothing(const at::RecordFunction&) {
  ++seen_by_another;
  return nullptr;
}
std::unique_ptr<at::ObserverContext> on_start(const at::RecordFunction& function) {
  names.emplace_back(function.name());
  if (turns_off && names.size() == 1) {
    callbacks.turn_off();
    if (adds_another) another = at::addGlobalCallback(at::RecordFunctionCallback(&nothing));
  }
  return nullptr;
}
void on_end(const at::RecordFunction&, at::ObserverContext*) {
  if (callbacks.are_off()) callbacks.turn_on();
}
std::unique_ptr<at::ObserverContext> on_first_start(const at::RecordFunction&) {
  callbacks.find({&on_first_start, &on_end});
  return nullptr;
}

class OperatorCallbacksTest : public testing::Test {
 protected:
  OperatorCallbacksTest() {
    turns_off = adds_another = false;
    seen_by_another = 0;
    handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(&on_start, &on_end));
    tensor_.mul(2);  // LibTorch builds the thread's list
    callbacks.find({&on_start, &on_end});
    names.clear();
  }
  ~OperatorCallbacksTest() override { at::removeCallback(handle_); }

  Names seen_in(const std::function<void()>& work) {
    names.clear();
    work();
    return names;
  }

  const at::Tensor tensor_ = at::ones({2, 2});
  const at::NoGradGuard no_grad_;
  at::CallbackHandle handle_ = 0;
};

TEST_F(OperatorCallbacksTest, PartsOfAnOperatorAreNotSeenWhileTheyAreOff) {
  const auto multiply = [&] { tensor_.mul(2); };
  const Names all = seen_in(multiply);
  ASSERT_GT(all.size(), 3u);
  turns_off = true;
  EXPECT_EQ(seen_in(multiply), Names{"aten::mul"});
  EXPECT_FALSE(callbacks.are_off());
  turns_off = false;
  EXPECT_EQ(seen_in(multiply), all);
}

TEST_F(OperatorCallbacksTest, AnExceptionTurnsThemOn) {
  turns_off = true;
  EXPECT_THROW(seen_in([&] { tensor_.mm(at::ones({3, 3})); }), c10::Error);
  EXPECT_FALSE(callbacks.are_off());
  turns_off = false;
  EXPECT_EQ(seen_in([&] { tensor_.relu(); }).front(), "aten::relu");
}

TEST_F(OperatorCallbacksTest, WhereThereAreOthersTheySeeEverything) {
  const auto multiply = [&] { tensor_.mul(2); };
  const size_t all = seen_in(multiply).size();
  const auto other = at::addThreadLocalCallback(at::RecordFunctionCallback(&nothing));
  turns_off = true;
  EXPECT_EQ(seen_in(multiply).size(), all);
  EXPECT_EQ(seen_by_another, all);
  at::removeCallback(other);
}

TEST_F(OperatorCallbacksTest, OneThatComesMeanwhileSeesTheRestAndTakesNothingAway) {
  const auto multiply = [&] { tensor_.mul(2); };
  const size_t all = seen_in(multiply).size();
  turns_off = adds_another = true;
  EXPECT_EQ(seen_in(multiply).size(), all);
  EXPECT_EQ(seen_by_another, all - 1);
  EXPECT_FALSE(callbacks.are_off());
  at::removeCallback(another);
  turns_off = adds_another = false;
  EXPECT_EQ(seen_in(multiply).size(), all);
}

TEST_F(OperatorCallbacksTest, OursThatGoesMeanwhileStaysAway) {
  callbacks.turn_off();
  at::removeCallback(handle_);
  EXPECT_TRUE(seen_in([&] { tensor_.mul(2); }).empty());
  callbacks.turn_on();
  EXPECT_TRUE(seen_in([&] { tensor_.mul(2); }).empty());
  handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(&on_start, &on_end));
}

TEST_F(OperatorCallbacksTest, AListThatIsNotOursIsLeftAlone) {
  OperatorCallbacks not_found;
  not_found.find({&on_first_start, &on_end});
  not_found.turn_off();
  EXPECT_FALSE(not_found.are_off());
  EXPECT_GT(seen_in([&] { tensor_.mul(2); }).size(), 3u);
}

TEST_F(OperatorCallbacksTest, ItIsFoundFromWithinACallback) {
  at::removeCallback(handle_);
  handle_ = at::addGlobalCallback(at::RecordFunctionCallback(&on_first_start, &on_end));
  tensor_.relu();
  callbacks.turn_off();
  EXPECT_TRUE(callbacks.are_off());
  callbacks.turn_on();
}

}  // namespace
}  // namespace tally::hooks
