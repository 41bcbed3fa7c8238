// SPDX-License-Identifier: Apache-2.0
// The FLOP rules against torch.utils.flop_counter's own numbers (flop_counter_truth.py writes them)
// and against sums done by hand, all with LibTorch really running the operators.
// Long because it is a list of cases; a second Torch file would cost more than it orders.
#include "hooks/torch/work_rules.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/record_function.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>

namespace tally::hooks {
namespace {

using nlohmann::json;

// Counts the operators of this thread while it lives, as the profiler's callback does.
class WorkRecorder {
 public:
  WorkRecorder() {
    total_ = {};
    stack_ = {};
    using Scope = at::RecordScope;
    handle_ = at::addThreadLocalCallback(
        at::RecordFunctionCallback(&start, &end)
            .needsInputs(true)
            .scopes(std::unordered_set<Scope>{Scope::FUNCTION, Scope::BACKWARD_FUNCTION}));
  }
  ~WorkRecorder() {
    if (handle_) stop();
  }
  Work stop() {
    at::removeCallback(handle_);
    handle_ = 0;
    EXPECT_EQ(stack_.any, 0u);
    EXPECT_EQ(stack_.products, 0u);
    EXPECT_EQ(stack_.leaves, 0u);
    return total_;
  }

 private:
  struct Open : at::ObserverContext {
    WorkRule rule;
  };
  static WorkRule rule_of(const char* name) {
    static std::unordered_map<std::string, WorkRule> rules;
    const auto [place, is_new] = rules.try_emplace(name);
    if (is_new) place->second = find_work_rule(name);
    return place->second;
  }
  static std::unique_ptr<at::ObserverContext> start(const at::RecordFunction& function) {
    auto open = std::make_unique<Open>();
    open->rule = rule_of(function.name());
    total_ += stack_.enter(open->rule, function.inputs());
    return open;
  }
  static void end(const at::RecordFunction&, at::ObserverContext* context) {
    stack_.exit(static_cast<Open*>(context)->rule);
  }

  static inline thread_local WorkStack stack_;
  static inline thread_local Work total_;
  at::CallbackHandle handle_ = 0;
};

template <typename Function>
Work count(Function&& function) {
  WorkRecorder recorder;
  function();
  return recorder.stop();
}

// --- Calls written as JSON ----------------------------------------------------------------------

at::Tensor tensor_of(const json& argument, c10::Device device) {
  const auto shape = argument.at("tensor").get<std::vector<int64_t>>();
  const auto type = argument.at("dtype").get<std::string>();
  const auto options = at::TensorOptions().device(device);
  if (type == "long") return at::zeros(shape, options.dtype(at::kLong));
  const auto real = type == "double"     ? at::kDouble
                    : type == "bfloat16" ? at::kBFloat16
                                         : at::kFloat;
  auto tensor =
      device.is_meta() ? at::empty(shape, options.dtype(real)) : at::rand(shape, options).to(real);
  return tensor.set_requires_grad(argument.at("grad").get<bool>());
}

c10::IValue value_of(const json& argument, c10::Device device) {
  if (argument.is_null()) return {};
  if (argument.is_boolean()) return argument.get<bool>();
  if (argument.is_number_integer()) return argument.get<int64_t>();
  if (argument.is_number()) return argument.get<double>();
  if (argument.is_string()) return argument.get<std::string>();
  if (argument.is_object() && argument.contains("tensor")) return tensor_of(argument, device);
  if (argument.is_object()) {
    c10::List<at::Tensor> list;
    for (const json& element : argument.at("list")) list.push_back(tensor_of(element, device));
    return list;
  }
  if (!argument.empty() && argument[0].is_boolean()) {
    c10::List<bool> list;
    for (const json& element : argument) list.push_back(element.get<bool>());
    return list;
  }
  return argument.get<std::vector<int64_t>>();
}

c10::ArrayRef<const c10::IValue> view(const std::vector<c10::IValue>& values) {
  return c10::ArrayRef<const c10::IValue>(values.data(), values.size());
}

std::vector<c10::IValue> values_of(const json& arguments, c10::Device device) {
  std::vector<c10::IValue> values;
  for (const json& argument : arguments) values.push_back(value_of(argument, device));
  return values;
}

void add_differentiable(const c10::IValue& value, at::Tensor& sum) {
  if (value.isTensor() && value.toTensor().requires_grad()) {
    sum = sum.defined() ? sum + value.toTensor().sum() : value.toTensor().sum();
  } else if (value.isTensorList()) {
    for (const auto& element : value.toTensorVector()) add_differentiable(element, sum);
  }
}

struct Counted {
  Work forward, total;
};

Counted run(const json& example) {
  const auto full_name = example.at("operator").get<std::string>();
  const auto dot = full_name.find('.');
  const auto name = full_name.substr(0, dot);
  const auto overload = dot == std::string::npos ? "" : full_name.substr(dot + 1);
  const auto handle =
      c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(), overload.c_str());
  std::vector<c10::IValue> stack = values_of(example.at("arguments"), at::kCPU);
  const auto& declared = handle.schema().arguments();
  for (size_t i = stack.size(); i < declared.size(); ++i) {
    stack.push_back(declared[i].default_value().value_or(c10::IValue()));
  }
  Counted counted;
  counted.forward = counted.total = count([&] { handle.callBoxed(&stack); });
  at::Tensor sum;
  for (const auto& value : stack) add_differentiable(value, sum);
  if (sum.defined()) counted.total += count([&] { sum.backward(); });
  return counted;
}

TEST(FlopCounter, SameNumberForEveryCall) {
  const char* path = std::getenv("TALLY_FLOP_COUNTER_TRUTH");
  if (!path) GTEST_SKIP() << "LibTorch here is no Python package: no flop_counter to compare with";
  std::ifstream file(path);
  const json truth = json::parse(file);
  const auto registry = truth.at("registry").get<std::set<std::string>>();
  // flop_counter has this one in its registry, but its formula stops with a TypeError.
  std::set<std::string> compared{"aten::_slow_conv2d_forward"};
  for (const json& example : truth.at("cases")) {
    SCOPED_TRACE(example.dump());
    const auto name = example.at("operator").get<std::string>();
    compared.insert(name);
    if (example.at("mode") == "formula") {
      const auto inputs = values_of(example.at("arguments"), at::kMeta);
      EXPECT_EQ(count_work(find_work_rule(name), view(inputs)).torch_flops, example.at("total"));
    } else {
      const Counted counted = run(example);
      EXPECT_EQ(counted.forward.torch_flops, example.at("forward"));
      EXPECT_EQ(counted.total.torch_flops, example.at("total"));
      // What flop_counter sees we see too, but it forgets the groups of a weight's gradient.
      if (name != "aten::convolution_backward") {
        EXPECT_GE(counted.forward.flops, counted.forward.torch_flops);
      }
    }
  }
  for (const std::string& name : registry) {
    EXPECT_TRUE(find_work_rule(name).flags & WorkRule::kRegistry) << name;
    EXPECT_TRUE(compared.count(name)) << name << " is in the registry and in no case";
  }
  for (const auto& name : c10::Dispatcher::singleton().getAllOpNames()) {
    if (find_work_rule(name.name).flags & WorkRule::kRegistry) {
      EXPECT_TRUE(registry.count(name.name)) << name.name;
    }
  }
}

// --- Ours, by hand ------------------------------------------------------------------------------

at::Tensor real(at::IntArrayRef shape) { return at::rand(shape).set_requires_grad(true); }

TEST(Flops, ScalarExamplesOfTheField) {
  const auto a = at::rand({7}), b = at::rand({7});
  EXPECT_EQ(count([&] { a.add(b); }), (Work{0, 0, 7, 0}));
  EXPECT_EQ(count([&] { a.dot(b); }), (Work{14, 0, 0, 0}));
  EXPECT_EQ(count([&] { at::rand({3, 4}).mm(at::rand({4, 5})); }), (Work{120, 120, 0, 0}));
  EXPECT_EQ(count([&] { at::rand({3, 4}).mv(at::rand({4})); }).flops, 24);
  EXPECT_EQ(count([&] {
              at::zeros({3, 5}).addmm_(at::rand({3, 4}), at::rand({4, 5}));
            }),
            (Work{120, 0, 15, 0}));
}

TEST(Flops, BackwardOfLinearIsTwiceForward) {
  const auto x = real({6, 5}), w = real({3, 5});
  at::Tensor y;
  EXPECT_EQ(count([&] { y = at::linear(x, w); }).flops, 2 * 6 * 5 * 3);
  EXPECT_EQ(count([&] { y.sum().backward(); }).flops, 4 * 6 * 5 * 3);
}

TEST(Flops, GroupedConvolutionCountsItsOwnChannels) {
  const auto x = real({2, 4, 8, 8}), w = real({4, 1, 3, 3});
  at::Tensor y;
  const double forward = 2.0 * 2 * 4 * 36 * 9;
  const Work seen = count([&] {
    y = at::conv2d(x, w, {}, at::IntArrayRef{1, 1}, at::IntArrayRef{0, 0}, 1, 4);
  });
  EXPECT_EQ(seen, (Work{forward, forward, 0, 0}));  // once, though five operators are nested
  const Work back = count([&] { y.sum().backward(); });
  EXPECT_EQ(back.flops, 2 * forward);
  EXPECT_GT(back.torch_flops, back.flops);
}

TEST(Flops, AttentionOnTheCpu) {
  const auto q = real({2, 4, 16, 8}), k = real({2, 2, 24, 8}), v = real({2, 2, 24, 8});
  at::Tensor y;
  const double product = 2.0 * 2 * 4 * 16 * 24 * 8;
  Work work = count(
      [&] { y = at::scaled_dot_product_attention(q, k, v, {}, 0.0, false, std::nullopt, true); });
  EXPECT_EQ(work.flops, 2 * product);
  EXPECT_EQ(work.torch_flops, 0);
  EXPECT_EQ(work.elementwise, 6 * 2 * 4 * 16 * 24);
  EXPECT_EQ(count([&] { y.sum().backward(); }).flops, 5 * product);
}

TEST(Flops, RecurrentLayers) {
  torch::nn::LSTM lstm(torch::nn::LSTMOptions(4, 6).num_layers(2).bidirectional(true));
  const auto x = at::rand({3, 2, 4});
  at::Tensor y;
  const double weights = 2 * (24 * 4 + 24 * 6) + 2 * (24 * 12 + 24 * 6);
  EXPECT_EQ(count([&] { y = std::get<0>(lstm(x)); }).flops, 2 * 6 * weights);
  EXPECT_EQ(count([&] { y.sum().backward(); }).flops, 4 * 6 * weights);
  lstm->to(at::kDouble);  // no oneDNN: the same layer as addmm
  EXPECT_EQ(count([&] { y = std::get<0>(lstm(x.to(at::kDouble))); }).flops, 2 * 6 * weights);
}

TEST(Flops, EncoderFastPathIsSeenInside) {
  const at::NoGradGuard guard;
  torch::nn::TransformerEncoderLayer layer(
      torch::nn::TransformerEncoderLayerOptions(8, 2).dim_feedforward(16));
  layer->eval();
  const auto p = [&](const char* name) { return layer->named_parameters()[name]; };
  const double expected = 2.0 * 6 * (24 * 8 + 8 * 8 + 2 * 16 * 8) + 2 * 2.0 * 2 * 2 * 3 * 3 * 4;
  const Work work = count([&] {
    at::_transformer_encoder_layer_fwd(
        at::rand({2, 3, 8}), 8, 2, p("self_attn.in_proj_weight"), p("self_attn.in_proj_bias"),
        p("self_attn.out_proj.weight"), p("self_attn.out_proj.bias"), false, false, 1e-5,
        p("norm1.weight"), p("norm1.bias"), p("norm2.weight"), p("norm2.bias"), p("linear1.weight"),
        p("linear1.bias"), p("linear2.weight"), p("linear2.bias"));
  });
  EXPECT_EQ(work.flops, expected);
  EXPECT_EQ(work.torch_flops, 0);
}

TEST(Flops, DenseLinearAlgebra) {
  const at::NoGradGuard guard;
  const auto a = at::eye(6).expand({2, 6, 6}).contiguous(), b = at::rand({2, 6, 3});
  const double cube = 2 * 6.0 * 6 * 6;
  const auto near = [](double seen, double expected) { EXPECT_NEAR(seen, expected, 1e-6); };
  near(count([&] { at::linalg_cholesky(a); }).flops, cube / 3);
  near(count([&] { at::linalg_lu_factor(a); }).flops, cube * 2 / 3);
  near(count([&] { at::linalg_solve(a, b); }).flops, cube * 2 / 3 + 2 * 2 * 36 * 3);
  near(count([&] { at::linalg_inv(a); }).flops, cube * 2);
  near(count([&] { at::linalg_qr(b); }).flops, 2 * 2 * (2 * 6 * 9 - 2.0 / 3 * 27));
  near(count([&] { at::linalg_solve_triangular(a, b, true); }).flops, 2 * 36 * 3);
  near(count([&] { at::linalg_eigh(a); }).flops, 9 * cube);
  near(count([&] { at::linalg_svd(b); }).flops, 2 * (14 * 6 * 9 + 8 * 27));
}

TEST(Elementwise, CountsAtTheKernelOnce) {
  const auto x = real({4, 10});
  const auto target = at::zeros({4}, at::kLong);
  const auto of = [](auto&& function) { return count(function).elementwise; };
  EXPECT_EQ(of([&] { at::softmax(x, 1); }), 5 * 40);
  EXPECT_EQ(of([&] { at::layer_norm(x, {10}); }), 8 * 40);
  EXPECT_EQ(of([&] { at::cross_entropy_loss(x, target); }), 5 * 40 + 2 * 4);
  EXPECT_EQ(of([&] { at::gelu(x); }), 5 * 40);
  EXPECT_EQ(of([&] { at::gelu(x, "tanh"); }), 9 * 40);
  EXPECT_EQ(of([&] { at::relu(x); }), 40);
  EXPECT_EQ(of([&] { x.mean(); }), 40);
  EXPECT_EQ(of([&] { x.var(); }), 4 * 40);
  EXPECT_EQ(of([&] { x.add(x, 0.5); }), 2 * 40);
  EXPECT_EQ(of([&] { x.mul(at::rand({3, 1, 10})); }), 120);
  EXPECT_EQ(of([&] { target.add(target); }), 0) << "integers are no floating-point work";
  EXPECT_EQ(of([&] { at::linear(x, at::rand({3, 10}), at::rand({3})); }), 12) << "the bias";
  const auto image = at::rand({2, 3, 8, 8});
  EXPECT_EQ(of([&] { at::max_pool2d(image, 2); }), 2 * 3 * 16 * 4);
  EXPECT_EQ(of([&] { at::avg_pool2d(image, {2, 2}, {1, 1}); }), 2 * 3 * 49 * 5);
  EXPECT_EQ(of([&] { at::adaptive_avg_pool2d(image, {1, 1}); }), image.numel());
  EXPECT_EQ(of([&] { at::batch_norm(image, {}, {}, {}, {}, true, .1, 1e-5, false); }), 8 * 384);
  const auto twice = [&](auto... size) { return at::upsample_bilinear2d(image, size...); };
  EXPECT_EQ(of([&] { twice(at::IntArrayRef{16, 16}, false); }), 7 * 2 * 3 * 256);
  EXPECT_EQ(of([&] {
              twice(std::nullopt, false, at::ArrayRef<double>{2.0, 2.0});
            }),
            7 * 2 * 3 * 256);
  const auto three = at::rand({3});
  EXPECT_EQ(of([&] { at::batch_norm(image, {}, {}, three, three, false, .1, 1e-5, false); }),
            2 * 384);
  EXPECT_EQ(of([&] { at::rms_norm(x, {10}, at::rand({10})); }), 4 * 40);
  EXPECT_EQ(of([&] { at::conv2d(image, at::rand({4, 3, 3, 3}), at::rand({4})); }), 2 * 4 * 36);
}

TEST(Elementwise, OptimizersOneByOneAndInLists) {
  const at::NoGradGuard guard;
  auto p = at::rand({10}), m = at::rand({10}), g = at::rand({10});
  EXPECT_EQ(count([&] { p.add_(g, -0.1); }).elementwise, 20);
  EXPECT_EQ(count([&] { m.mul_(0.9).addcmul_(g, g, 0.1); }).elementwise, 40);
  EXPECT_EQ(count([&] { p.addcdiv_(m, g, -0.1); }).elementwise, 30);
  std::vector<at::Tensor> ps{p, m}, gs{g, g};
  EXPECT_EQ(count([&] { at::_foreach_add_(ps, gs, -0.1); }).elementwise, 40);
  EXPECT_EQ(count([&] { at::_foreach_addcdiv_(ps, gs, gs, 1); }).elementwise, 40);
}

TEST(Elementwise, EmbeddingCountsItsRows) {
  const auto table = real({10, 4});
  at::Tensor y;
  const auto rows = at::zeros({3, 5}, at::kLong);
  EXPECT_EQ(count([&] { y = at::embedding(table, rows); }), (Work{0, 0, 0, 15}));
  EXPECT_EQ(count([&] { y.sum().backward(); }).elementwise, 15 * 4 + 60);
}

TEST(WorkRules, CompositionsAreTransparentAndNamesThatAreNoOperatorsDoNothing) {
  EXPECT_EQ(find_work_rule("aten::linear").flags, 0);
  EXPECT_EQ(find_work_rule("aten::softmax").flags, 0);
  EXPECT_EQ(find_work_rule("AddmmBackward0").flags, 0);
  EXPECT_EQ(find_work_rule("torch::autograd::AccumulateGrad").flags, 0);
  EXPECT_EQ(find_work_rule("autograd::engine::evaluate_function: MmBackward0").flags, 0);
  EXPECT_EQ(find_work_rule("").flags, 0);
  EXPECT_FALSE(find_work_rule("aten::view").counts());
  EXPECT_TRUE(find_work_rule("aten::_cdist_forward").flags & WorkRule::kLeaf);
  static_assert(std::is_trivially_copyable_v<WorkRule> && sizeof(WorkRule) == 8);
  static_assert(std::is_trivially_copyable_v<WorkStack>);
}

// A size that is a symbol: nothing can be asked of it.
struct UnknownSize : c10::SymNodeImpl {
  bool is_int() override { return true; }
  bool is_float() override { return false; }
  bool is_bool() override { return false; }
  c10::SymNode clone() override { return c10::make_intrusive<UnknownSize>(); }
};
at::Tensor symbolic_tensor() {
  at::Tensor tensor = at::empty({3}, at::kMeta);
  const c10::SymInt size(c10::SymNode(c10::make_intrusive<UnknownSize>()));
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(c10::SymIntArrayRef{size},
                                                      c10::SymIntArrayRef{1});
  return tensor;
}

// Whatever inputs an operator of another version may have: no throw, no read past the end.
TEST(WorkRules, StrangeInputsAreSafe) {
  const auto nested =
      at::_nested_tensor_from_mask(at::rand({2, 3, 4}), at::ones({2, 3}, at::kBool));
  const auto sparse = at::eye(4).to_sparse();
  const std::vector<c10::IValue> strange{{},
                                         at::Tensor(),
                                         nested,
                                         sparse,
                                         symbolic_tensor(),
                                         at::rand({}),
                                         at::rand({3}),
                                         3,
                                         2.5,
                                         true,
                                         std::string("tanh"),
                                         std::vector<int64_t>{},
                                         std::vector<int64_t>{1, 2, 3},
                                         std::vector<int64_t>{-7, 9},
                                         c10::List<at::Tensor>(),
                                         at::empty({0, 4}),
                                         at::empty({2, 0, 3, 4})};
  std::set<std::string> names;
  for (const auto& name : c10::Dispatcher::singleton().getAllOpNames()) names.insert(name.name);
  for (const std::string& name : names) {
    const WorkRule rule = find_work_rule(name);
    if (!rule.counts()) continue;
    for (size_t first = 0; first < strange.size(); ++first) {
      for (size_t step = 0; step < 5; ++step) {
        std::vector<c10::IValue> inputs;
        for (size_t length = 0; length < 12; ++length) {
          const Work work = count_work(rule, view(inputs));
          for (const double number : {work.flops, work.torch_flops, work.elementwise}) {
            ASSERT_TRUE(std::isfinite(number) && number >= 0) << name;
          }
          inputs.push_back(strange[(first + length * step) % strange.size()]);
        }
      }
    }
  }
  const auto mm = find_work_rule("aten::mm");
  const std::vector<c10::IValue> with_sparse{sparse, at::rand({4, 4})};
  EXPECT_EQ(count_work(mm, view(with_sparse)), (Work{0, 128, 0, 0}));
  const std::vector<c10::IValue> with_nested{nested, nested};
  EXPECT_EQ(count_work(find_work_rule("aten::bmm"), view(with_nested)), Work{});
}

TEST(WorkRules, StackUnwindsThroughExceptions) {
  WorkRecorder recorder;
  EXPECT_ANY_THROW(at::rand({3, 4}).mm(at::rand({5, 6})));
  recorder.stop();
}

}  // namespace
}  // namespace tally::hooks
