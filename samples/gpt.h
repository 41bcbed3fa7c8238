// SPDX-License-Identifier: Apache-2.0
// GPT-2 in LibTorch, as a user would write it; names as in Hugging Face's checkpoints. No dropout.
//
// What autograd keeps of one block with eager attention, in fp32, for s tokens, b sequences, width
// h and a heads: 64 sbh + 4 a b s^2 + 16 bs + s^2 bytes.
#pragma once

#include <torch/torch.h>
#include <torchtally/checkpoint.h>
#include <torchtally/profiler.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace sample {

struct GptConfig {
  int64_t vocabulary = 256;
  int64_t context = 128;  // positions
  int64_t layers = 4;
  int64_t width = 128;
  int64_t heads = 4;
  bool untied = false;      // the head has a weight of its own
  bool sdpa = false;        // attention as one fused operator
  bool checkpoint = false;  // keep only the input of each block
};

class AttentionImpl : public torch::nn::Module {
 public:
  AttentionImpl(const GptConfig& config, const std::string& path)
      : heads_(config.heads), sdpa_(config.sdpa), core_(path + ".core") {
    c_attn = register_module("c_attn", torch::nn::Linear(config.width, 3 * config.width));
    c_proj = register_module("c_proj", torch::nn::Linear(config.width, config.width));
  }

  torch::Tensor forward(const torch::Tensor& x) {
    const auto b = x.size(0), s = x.size(1), h = x.size(2);
    auto heads = [&](const torch::Tensor& t) { return t.view({b, s, heads_, -1}).transpose(1, 2); };
    auto qkv = c_attn(x).split(h, 2);
    // Reads no parameter: the scope tells whose work it is.
    const tally::Scope scope(core_.c_str());
    auto context = core(heads(qkv[0]), heads(qkv[1]), heads(qkv[2]));
    return c_proj(context.transpose(1, 2).reshape({b, s, h}));
  }

 private:
  torch::Tensor core(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v) const {
    if (sdpa_) return torch::scaled_dot_product_attention(q, k, v, {}, 0.0, /*is_causal=*/true);
    const auto s = q.size(2), d = q.size(3);
    // A mask of each call, not a buffer: autograd keeps s^2 bytes of it for each layer.
    auto future = torch::ones({s, s}, q.options().dtype(torch::kBool)).triu(1);
    auto scores = torch::matmul(q, k.transpose(-2, -1)) / std::sqrt(static_cast<double>(d));
    scores = scores.masked_fill(future, -std::numeric_limits<float>::infinity());
    return torch::matmul(torch::softmax(scores, -1), v);
  }

  int64_t heads_;
  bool sdpa_;
  std::string core_;
  torch::nn::Linear c_attn{nullptr}, c_proj{nullptr};
};
TORCH_MODULE(Attention);

class MlpImpl : public torch::nn::Module {
 public:
  MlpImpl(const GptConfig& config, const std::string& path) : path_(path) {
    c_fc = register_module("c_fc", torch::nn::Linear(config.width, 4 * config.width));
    c_proj = register_module("c_proj", torch::nn::Linear(4 * config.width, config.width));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    const tally::Scope scope(path_.c_str());
    return c_proj(torch::gelu(c_fc(x), "tanh"));
  }

 private:
  std::string path_;
  torch::nn::Linear c_fc{nullptr}, c_proj{nullptr};
};
TORCH_MODULE(Mlp);

class BlockImpl : public torch::nn::Module {
 public:
  BlockImpl(const GptConfig& config, const std::string& path) : path_(path) {
    const torch::nn::LayerNormOptions norm({config.width});
    ln_1 = register_module("ln_1", torch::nn::LayerNorm(norm));
    attn = register_module("attn", Attention(config, path + ".attn"));
    ln_2 = register_module("ln_2", torch::nn::LayerNorm(norm));
    mlp = register_module("mlp", Mlp(config, path + ".mlp"));
  }
  torch::Tensor forward(torch::Tensor x) {
    const tally::Scope scope(path_.c_str());  // of the two additions
    x = x + attn(ln_1(x));
    return x + mlp(ln_2(x));
  }

 private:
  std::string path_;
  torch::nn::LayerNorm ln_1{nullptr}, ln_2{nullptr};
  Attention attn{nullptr};
  Mlp mlp{nullptr};
};
TORCH_MODULE(Block);

class GptImpl : public torch::nn::Module {
 public:
  explicit GptImpl(const GptConfig& config) : config_(config) {
    wte = register_module("wte", torch::nn::Embedding(config.vocabulary, config.width));
    wpe = register_module("wpe", torch::nn::Embedding(config.context, config.width));
    h = register_module("h", torch::nn::ModuleList());
    for (int64_t layer = 0; layer < config.layers; ++layer) {
      h->push_back(Block(config, "h." + std::to_string(layer)));
    }
    ln_f =
        register_module("ln_f", torch::nn::LayerNorm(torch::nn::LayerNormOptions({config.width})));
    if (config.untied) {
      lm_head = register_module(
          "lm_head",
          torch::nn::Linear(torch::nn::LinearOptions(config.width, config.vocabulary).bias(false)));
    }
    initialize();
  }

  // Tokens [b, s] to logits [b, s, vocabulary].
  torch::Tensor forward(const torch::Tensor& tokens) {
    auto x = embed(tokens);
    for (const auto& module : *h) {
      auto& block = *module->as<Block>();
      x = config_.checkpoint ? tally::checkpoint(block, x) : block.forward(x);
    }
    x = ln_f(x);
    return config_.untied ? lm_head(x) : torch::linear(x, wte->weight);
  }

 private:
  torch::Tensor embed(const torch::Tensor& tokens) {
    const tally::Scope scope("embeddings");
    return wte(tokens) + wpe(torch::arange(tokens.size(1), tokens.options()));
  }

  // GPT-2's: small normal weights, smaller where a branch ends in the residual stream.
  void initialize() {
    const torch::NoGradGuard no_gradients;
    const double residual = 0.02 / std::sqrt(2.0 * static_cast<double>(config_.layers));
    for (const auto& parameter : named_parameters()) {
      const std::string& name = parameter.key();
      if (name.ends_with("bias")) {
        parameter.value().zero_();
      } else if (name.find("ln_") == std::string::npos) {
        parameter.value().normal_(0, name.ends_with("c_proj.weight") ? residual : 0.02);
      }
    }
  }

  GptConfig config_;
  torch::nn::Embedding wte{nullptr}, wpe{nullptr};
  torch::nn::ModuleList h;
  torch::nn::LayerNorm ln_f{nullptr};
  torch::nn::Linear lm_head{nullptr};
};
TORCH_MODULE(Gpt);

}  // namespace sample
