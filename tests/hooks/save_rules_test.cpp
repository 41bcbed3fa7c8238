// SPDX-License-Identifier: Apache-2.0
// The theory of saved tensors against what the autograd graph of the same step really holds:
// whole storages, each once, parameters and wrapped numbers left out.
// Long because it is a list of models, each a few lines.
#include "hooks/torch/save_rules.h"

#include <ATen/record_function.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <functional>
#include <map>
#include <set>
#include <unordered_map>

#include "tests/support/graph_truth.h"

namespace tally::hooks {
namespace {

// A storage is held while it is compared: its address cannot be used again.
struct Kept {
  std::map<c10::StorageImpl*, std::set<std::string>> by;  // storage -> who keeps it
  std::vector<c10::Storage> held;
  int64_t copies = 0;  // bytes of clones that in-place operators made

  void add(const at::Tensor& tensor, const std::string& who) {
    if (!tensor.has_storage() || tensor.unsafeGetTensorImpl()->is_wrapped_number()) return;
    held.push_back(tensor.storage());
    by[tensor.storage().unsafeGetStorageImpl()].insert(who);
  }
  void leave_out(const std::vector<at::Tensor>& parameters) {
    for (const auto& parameter : parameters) by.erase(parameter.storage().unsafeGetStorageImpl());
  }
  int64_t bytes() const {
    int64_t sum = copies;
    for (const auto& [storage, who] : by) sum += static_cast<int64_t>(storage->nbytes());
    return sum;
  }
};

// Applies the rules to the operators of this thread while it lives, as the profiler does.
class SaveRecorder {
 public:
  SaveRecorder() {
    kept_ = {};
    unknown_.clear();
    handle_ = at::addThreadLocalCallback(
        at::RecordFunctionCallback(&start, &end)
            .needsInputs(true)
            .needsOutputs(true)
            .scopes(std::unordered_set<at::RecordScope>{at::RecordScope::FUNCTION}));
  }
  ~SaveRecorder() {
    if (handle_) stop();
  }
  Kept stop() {
    at::removeCallback(handle_);
    handle_ = 0;
    return std::move(kept_);
  }
  const std::set<std::string>& unknown() const { return unknown_; }

 private:
  struct Open : at::ObserverContext {
    SaveRule rule;
    const SaveRow* row = nullptr;
  };
  static void keep(const at::Tensor& tensor, SavedFrom from, const std::string& who) {
    if (from == SavedFrom::kCopy) kept_.copies += static_cast<int64_t>(tensor.nbytes());
    if (from != SavedFrom::kCopy) kept_.add(tensor, who);
  }
  static std::unique_ptr<at::ObserverContext> start(const at::RecordFunction& function) {
    auto open = std::make_unique<Open>();
    open->rule = find_save_rule(function.name());
    if (function.seqNr() < 0) return open;
    open->row = saving_overload(open->rule, function.inputs());
    visit_saved_inputs(open->row, function.inputs(), [&](const at::Tensor& tensor, SavedFrom from) {
      keep(tensor, from, function.name());
    });
    return open;
  }
  static void end(const at::RecordFunction& function, at::ObserverContext* context) {
    const auto* open = static_cast<Open*>(context);
    const std::vector<c10::IValue> results = function.outputs();
    const c10::ArrayRef<const c10::IValue> outputs(results.data(), results.size());
    visit_saved_outputs(open->row, outputs, [&](const at::Tensor& tensor, SavedFrom from) {
      keep(tensor, from, function.name());
    });
    for (const auto& result : results) {
      if (function.seqNr() >= 0 && !open->rule.known() && result.isTensor() &&
          result.toTensor().requires_grad()) {
        unknown_.insert(function.name());
      }
    }
  }
  static inline thread_local Kept kept_;
  static inline thread_local std::set<std::string> unknown_;
  at::CallbackHandle handle_ = 0;
};

std::string storages(const Kept& kept, const Kept& other) {
  std::string text;
  for (const auto& [storage, who] : kept.by) {
    if (other.by.count(storage)) continue;
    text += "  " + std::to_string(storage->nbytes()) + " bytes:";
    for (const auto& name : who) text += " " + name;
    text += "\n";
  }
  return text;
}

// Runs `forward`, and expects the rules to name the storages that the graph of its result holds.
template <typename Forward>
int64_t expect_theory_is_truth(const std::vector<at::Tensor>& parameters, Forward&& forward) {
  SaveRecorder recorder;
  const at::Tensor loss = forward();
  Kept theory = recorder.stop();
  EXPECT_TRUE(recorder.unknown().empty()) << *recorder.unknown().begin();
  Kept truth;
  for (const auto& [node, tensor] : testing::read_graph(loss).saved) truth.add(tensor, node);
  theory.leave_out(parameters);
  truth.leave_out(parameters);
  EXPECT_EQ(theory.bytes(), truth.bytes());
  EXPECT_EQ(storages(theory, truth), "") << "only in theory";
  if (theory.copies == 0) {
    EXPECT_EQ(storages(truth, theory), "") << "only in the graph";
  }
  return truth.bytes();
}

namespace nn = torch::nn;
namespace functional = torch::nn::functional;

TEST(SavedTensors, Perceptron) {
  nn::Sequential model(nn::Linear(64, 128), nn::ReLU(), nn::Linear(128, 128), nn::Tanh(),
                       nn::Linear(128, 10));
  const auto x = torch::randn({32, 64});
  const auto target = torch::randint(10, {32}, torch::kLong);
  const int64_t bytes = expect_theory_is_truth(
      model->parameters(), [&] { return functional::cross_entropy(model->forward(x), target); });
  // x, relu, tanh, log-probabilities; targets; the total weight.
  EXPECT_EQ(bytes, 4 * 32 * (64 + 128 + 128 + 10) + 8 * 32 + 4);
}

struct BlockImpl : nn::Module {
  BlockImpl(int64_t width, int64_t heads, bool fused, double dropout)
      : heads_(heads), fused_(fused), dropout_(dropout) {
    first = register_module("first", nn::LayerNorm(nn::LayerNormOptions({width})));
    second = register_module("second", nn::LayerNorm(nn::LayerNormOptions({width})));
    qkv = register_module("qkv", nn::Linear(width, 3 * width));
    projection = register_module("projection", nn::Linear(width, width));
    up = register_module("up", nn::Linear(width, 4 * width));
    down = register_module("down", nn::Linear(4 * width, width));
  }
  at::Tensor forward(at::Tensor x, const at::Tensor& mask) {
    const auto b = x.size(0), s = x.size(1), h = x.size(2);
    const auto parts = qkv(first(x)).split(h, 2);
    const auto split = [&](const at::Tensor& t) {
      return t.view({b, s, heads_, h / heads_}).transpose(1, 2);
    };
    const auto q = split(parts[0]), k = split(parts[1]), v = split(parts[2]);
    at::Tensor y;
    if (fused_) {
      y = at::scaled_dot_product_attention(q, k, v, {}, 0.0, true);
    } else {
      auto scores = q.matmul(k.transpose(-2, -1)) / std::sqrt(static_cast<double>(h / heads_));
      scores = scores.masked_fill(mask, -1e9).softmax(-1);
      y = torch::dropout(scores, dropout_, true).matmul(v);
    }
    y = projection(y.transpose(1, 2).contiguous().view({b, s, h}));
    x = x + torch::dropout(y, dropout_, true);
    return x + torch::dropout(down(at::gelu(up(second(x)))), dropout_, true);
  }
  nn::LayerNorm first{nullptr}, second{nullptr};
  nn::Linear qkv{nullptr}, projection{nullptr}, up{nullptr}, down{nullptr};
  int64_t heads_;
  bool fused_;
  double dropout_;
};
TORCH_MODULE(Block);

int64_t transformer_bytes(bool fused, double dropout) {
  const int64_t b = 2, s = 16, h = 32, v = 50;
  nn::Embedding tokens(v, h), positions(s, h);
  Block one(h, 4, fused, dropout), two(h, 4, fused, dropout);
  nn::LayerNorm last(nn::LayerNormOptions({h}));
  std::vector<at::Tensor> parameters;
  for (const nn::Module* module : std::initializer_list<const nn::Module*>{
           tokens.get(), positions.get(), one.get(), two.get(), last.get()}) {
    for (const auto& parameter : module->parameters()) parameters.push_back(parameter);
  }
  const auto x = torch::randint(v, {b, s}, torch::kLong), place = torch::arange(s);
  const auto mask = torch::ones({s, s}).triu(1).to(torch::kBool);
  return expect_theory_is_truth(parameters, [&] {
    auto y = two(one(tokens(x) + positions(place), mask), mask);
    y = at::linear(last(y), tokens->weight);  // tied head
    return functional::cross_entropy(y.view({-1, v}), x.view(-1));
  });
}

// Section 3 of the formulas: 64 + 4as/h bytes an element of [b,s,h] in a block, layer norm
// statistics, the mask once; then final norm, head input, log-probabilities, indices, targets.
TEST(SavedTensors, TransformerEager) {
  const int64_t b = 2, s = 16, h = 32, a = 4, v = 50;
  const int64_t blocks = 2 * (64 * s * b * h + 4 * a * b * s * s + 16 * b * s) + s * s;
  const int64_t rest = 8 * s * b * h + 8 * b * s + 4 * b * s * v + 8 * b * s + 8 * s + 4;
  EXPECT_EQ(transformer_bytes(false, 0), blocks + rest);
}
TEST(SavedTensors, TransformerEagerWithDropout) { transformer_bytes(false, 0.1); }
TEST(SavedTensors, TransformerFused) {
  const int64_t b = 2, s = 16, h = 32, a = 4, v = 50;
  const int64_t blocks = 2 * (64 * s * b * h + 4 * b * a * s + 16 * b * s);
  const int64_t rest = 8 * s * b * h + 8 * b * s + 4 * b * s * v + 8 * b * s + 8 * s + 4;
  EXPECT_EQ(transformer_bytes(true, 0), blocks + rest);
}

TEST(SavedTensors, ConvolutionNormPool) {
  nn::Sequential model(nn::Conv2d(nn::Conv2dOptions(3, 8, 3)), nn::BatchNorm2d(8), nn::ReLU(),
                       nn::MaxPool2d(2), nn::Conv2d(nn::Conv2dOptions(8, 8, 3).bias(false)),
                       nn::BatchNorm2d(8), nn::ReLU(nn::ReLUOptions(true)),
                       nn::AdaptiveAvgPool2d(1), nn::Flatten(), nn::Linear(8, 4));
  const auto x = torch::randn({4, 3, 16, 16});
  expect_theory_is_truth(model->parameters(), [&] { return model->forward(x).pow(2).sum(); });
}

TEST(SavedTensors, RecurrentLayers) {
  nn::LSTM lstm(nn::LSTMOptions(16, 32).num_layers(2));
  nn::GRU gru(32, 8);
  nn::LSTMCell cell(16, 8);
  auto parameters = lstm->parameters();
  for (const auto& p : gru->parameters()) parameters.push_back(p);
  for (const auto& p : cell->parameters()) parameters.push_back(p);
  const auto x = torch::randn({7, 4, 16});
  expect_theory_is_truth(parameters, [&] {
    const auto y = std::get<0>(lstm(x));
    return std::get<0>(gru(y)).pow(2).sum() + std::get<0>(cell(x[0])).sum();
  });
}

TEST(SavedTensors, TransformerModuleOfTheFrontEnd) {
  nn::TransformerEncoderLayer encoder(nn::TransformerEncoderLayerOptions(16, 4).dropout(0.1));
  nn::TransformerDecoderLayer decoder(nn::TransformerDecoderLayerOptions(16, 4).dropout(0.1));
  auto parameters = encoder->parameters();
  for (const auto& p : decoder->parameters()) parameters.push_back(p);
  const auto x = torch::randn({5, 2, 16});
  expect_theory_is_truth(parameters, [&] { return decoder(x, encoder(x)).sum(); });
}

// One operator a graph, so that a tensor kept for nothing is not hidden by another that keeps it.
TEST(SavedTensors, OneOperandRequiresGrad) {
  const auto w = torch::rand({6, 6}).requires_grad_(), f = torch::rand({6, 6});
  const auto w3 = torch::rand({2, 6, 6}).requires_grad_(), f3 = torch::rand({2, 6, 6});
  const auto image = torch::rand({2, 3, 8, 8}), kernel = torch::rand({4, 3, 3, 3});
  const auto kernel_w = torch::rand({4, 3, 3, 3}).requires_grad_();
  const auto row = torch::rand({6}).requires_grad_();
  using Operation = std::function<at::Tensor()>;
  const std::vector<std::pair<const char*, Operation>> operations{
      {"mm left", [&] { return w.mm(f); }},
      {"mm right", [&] { return f.mm(w); }},
      {"mm both", [&] { return w.mm(w.t()); }},
      {"addmm bias", [&] { return at::addmm(row, f, f); }},
      {"addmm matrix", [&] { return at::addmm(f, w, f); }},
      {"bmm left", [&] { return w3.bmm(f3); }},
      {"bmm right", [&] { return f3.bmm(w3); }},
      {"baddbmm", [&] { return at::baddbmm(w3, f3, f3); }},
      {"mv", [&] { return f.mv(row); }},
      {"dot", [&] { return row.dot(f[0]); }},
      {"mul left", [&] { return w * f; }},
      {"mul right", [&] { return f * w; }},
      {"mul number", [&] { return w * 3; }},
      {"div left", [&] { return w / f; }},
      {"div right", [&] { return f / w; }},
      {"add", [&] { return w + f; }},
      {"pow number", [&] { return w.pow(3); }},
      {"pow left", [&] { return w.pow(f); }},
      {"pow right", [&] { return f.pow(w); }},
      {"addcmul", [&] { return at::addcmul(f, w, f); }},
      {"addcdiv", [&] { return at::addcdiv(f, w, f); }},
      {"lerp", [&] { return at::lerp(w, f, 0.3); }},
      {"where", [&] { return at::where(f > 0.5, w, f); }},
      {"masked_fill", [&] { return w.masked_fill(f > 0.5, 0); }},
      {"maximum", [&] { return at::maximum(w, f); }},
      {"prelu weight", [&] { return at::prelu(f, row); }},
      {"layer_norm weight", [&] { return at::layer_norm(f, {6}, row); }},
      {"conv input", [&] { return at::conv2d(image * w[0][0], kernel); }},
      {"conv weight", [&] { return at::conv2d(image, kernel_w); }},
      {"cat",
       [&] {
         return at::cat({w, f});
       }},
      {"stack",
       [&] {
         return at::stack({w, f});
       }},
      {"sum", [&] { return w.sum(0); }},
      {"mean", [&] { return w.mean(); }},
      {"max", [&] { return w.max(); }},
      {"amax", [&] { return w.amax(1); }},
      {"norm", [&] { return w.norm(); }},
      {"var", [&] { return w.var(1); }},
      {"std", [&] { return w.std(); }},
      {"prod", [&] { return w.prod(); }},
      {"cumsum", [&] { return w.cumsum(0); }},
      {"logsumexp", [&] { return w.logsumexp(1); }},
      {"topk", [&] { return std::get<0>(w.topk(2)); }},
      {"sort", [&] { return std::get<0>(w.sort()); }},
      {"exp", [&] { return w.exp(); }},
      {"log", [&] { return w.log(); }},
      {"sqrt", [&] { return w.sqrt(); }},
      {"rsqrt", [&] { return w.rsqrt(); }},
      {"abs", [&] { return w.abs(); }},
      {"neg", [&] { return -w; }},
      {"clamp", [&] { return w.clamp(0.2, 0.8); }},
      {"relu", [&] { return w.relu(); }},
      {"leaky_relu", [&] { return at::leaky_relu(w); }},
      {"elu", [&] { return at::elu(w); }},
      {"gelu", [&] { return at::gelu(w); }},
      {"silu", [&] { return at::silu(w); }},
      {"mish", [&] { return at::mish(w); }},
      {"softplus", [&] { return at::softplus(w); }},
      {"hardswish", [&] { return at::hardswish(w); }},
      {"glu", [&] { return at::glu(w, 1); }},
      {"sigmoid", [&] { return w.sigmoid(); }},
      {"tanh", [&] { return w.tanh(); }},
      {"softmax", [&] { return w.softmax(1); }},
      {"log_softmax", [&] { return w.log_softmax(1); }},
      {"dropout", [&] { return at::dropout(w, 0.5, true); }},
      {"native_dropout", [&] { return std::get<0>(at::native_dropout(w, 0.5, true)); }},
      {"avg_pool2d",
       [&] {
         return at::avg_pool2d(w3.unsqueeze(0), {2, 2});
       }},
      {"max_pool2d", [&] { return at::max_pool2d(w3.unsqueeze(0), 2); }},
      {"adaptive_avg_pool2d",
       [&] {
         return at::adaptive_avg_pool2d(w3.unsqueeze(0), {2, 2});
       }},
      {"upsample",
       [&] {
         return at::upsample_bilinear2d(w3.unsqueeze(0), {9, 9}, false);
       }},
      {"group_norm", [&] { return at::group_norm(w3.unsqueeze(0), 2); }},
      {"einsum",
       [&] {
         return at::einsum("bij,bjk->bik", {w3, f3});
       }},
      {"triu", [&] { return w.triu(); }},
      {"views",
       [&] {
         return w.t().reshape({36}).unsqueeze(0).expand({3, 36}).clone();
       }},
      {"in-place mul", [&] { return w.clone().mul_(f); }},
      {"in-place add", [&] { return w.clone().add_(f, 2); }},
      {"in-place div", [&] { return w.clone().div_(f); }},
      {"in-place sigmoid", [&] { return w.clone().sigmoid_(); }},
      {"in-place masked_fill", [&] { return w.clone().masked_fill_(f > 0.5, 0); }},
      {"in-place clamp", [&] { return w.clone().clamp_(0.2, 0.8); }},
      {"in-place into data", [&] { return f.clone().mul_(w); }},
      {"embedding_bag",
       [&] {
         return std::get<0>(at::embedding_bag(w, torch::tensor({0, 1, 2}), torch::tensor({0, 2})));
       }},
      {"scatter_add",
       [&] {
         return at::scatter_add(f, 0, torch::zeros({2, 6}, torch::kLong), w.slice(0, 0, 2));
       }},
      {"index_put",
       [&] {
         return f.clone().index_put_({torch::tensor({0, 2})}, w.slice(0, 0, 2));
       }},
  };
  for (const auto& [name, operation] : operations) {
    SCOPED_TRACE(name);
    expect_theory_is_truth({}, operation);
  }
}

// In-place operators, indexing and the rest of what programs write, in one graph.
TEST(SavedTensors, LongerGraphs) {
  const auto w = torch::randn({6, 6}).requires_grad_(), frozen = torch::randn({6, 6});
  const auto rows = torch::tensor({0, 2, 4});
  expect_theory_is_truth({}, [&] {
    auto y = w.mm(frozen) * frozen + frozen.mm(w) / frozen;
    y = torch::where(frozen > 0, y, w);
    y = torch::cat({y, w.sigmoid(), w.exp(), y.square()}).index_select(0, rows);
    y = y.gather(1, torch::zeros({3, 2}, torch::kLong)) + y.index({rows.slice(0, 0, 1)}).sum();
    return y.pow(3).mean() + w.log_softmax(1).std() + w.norm() + w.cumsum(0).max();
  });
  expect_theory_is_truth({}, [&] {
    auto y = w * 2;
    y[0] = 1.0;
    y.slice(0, 1, 3).mul_(3);
    y.mul_(frozen);
    y.add_(w);
    return y.relu_().sum() + at::silu(w).sum() + at::rms_norm(w, {6}).sum();
  });
  expect_theory_is_truth({}, [&] {  // the clone that an in-place product keeps
    auto y = w.clone();
    return y.mul_(w.exp()).sum();
  });
}

TEST(SavedTensors, LossesAndAttentionMask) {
  const auto x = torch::randn({8, 5}).requires_grad_(), y = torch::rand({8, 5});
  const auto q = torch::randn({2, 3, 7, 4}).requires_grad_(), mask = torch::zeros({7, 7});
  expect_theory_is_truth({}, [&] {
    return at::mse_loss(x, y) + at::l1_loss(x, y) + at::smooth_l1_loss(x, y) +
           at::binary_cross_entropy_with_logits(x, y) + at::kl_div(x.log_softmax(1), y) +
           at::huber_loss(x, y) + at::binary_cross_entropy(x.sigmoid(), y) +
           at::scaled_dot_product_attention(q, q * 2, q * 3, mask).sum();
  });
}

TEST(SaveRules, InferenceKeepsNothingAndEveryNameIsSafe) {
  const at::NoGradGuard guard;
  SaveRecorder recorder;
  at::linear(torch::ones({2, 3}).requires_grad_(), torch::ones({3, 3}).requires_grad_()).relu();
  EXPECT_EQ(recorder.stop().bytes(), 0);
  EXPECT_FALSE(find_save_rule("").known());
  EXPECT_FALSE(find_save_rule("aten::").known());
  EXPECT_FALSE(find_save_rule("mine::mm").known());
  EXPECT_TRUE(find_save_rule("aten::linear").composite);
  EXPECT_TRUE(find_save_rule("aten::mm").known());
  const SaveRule rule = find_save_rule("aten::mm");
  EXPECT_EQ(saving_overload(rule, {}), nullptr);
  EXPECT_STREQ(rule.rows->node, "MmBackward0");
}

}  // namespace
}  // namespace tally::hooks
