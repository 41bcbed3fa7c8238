// SPDX-License-Identifier: Apache-2.0
// ResNet-18 and ResNet-50 with BatchNorm in LibTorch; layers and names as in torchvision.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <string>
#include <vector>

namespace sample {

inline torch::nn::Conv2d convolution(int64_t in, int64_t out, int64_t kernel, int64_t stride = 1) {
  return torch::nn::Conv2d(
      torch::nn::Conv2dOptions(in, out, kernel).stride(stride).padding(kernel / 2).bias(false));
}

// Two 3x3 convolutions (ResNet-18), or 1x1, 3x3, 1x1 with four times the channels at the end
// (ResNet-50), beside a shortcut.
class ResidualImpl : public torch::nn::Module {
 public:
  ResidualImpl(int64_t in, int64_t channels, int64_t stride, bool bottleneck) {
    const int64_t out = bottleneck ? 4 * channels : channels;
    if (bottleneck) {
      add(convolution(in, channels, 1), channels);
      add(convolution(channels, channels, 3, stride), channels);
      add(convolution(channels, out, 1), out);
    } else {
      add(convolution(in, channels, 3, stride), channels);
      add(convolution(channels, out, 3), out);
    }
    // A deep net learns from the first steps on when each block begins as its shortcut.
    if (bottleneck) torch::nn::init::zeros_(norms_.back()->weight);
    if (stride != 1 || in != out) {
      downsample = register_module(
          "downsample",
          torch::nn::Sequential(convolution(in, out, 1, stride), torch::nn::BatchNorm2d(out)));
    }
  }

  torch::Tensor forward(const torch::Tensor& x) {
    auto y = x;
    for (size_t i = 0; i < convolutions_.size(); ++i) {
      y = norms_[i](convolutions_[i](y));
      if (i + 1 < convolutions_.size()) y = torch::relu_(y);
    }
    y += downsample.is_empty() ? x : downsample->forward(x);
    return torch::relu_(y);
  }

 private:
  void add(torch::nn::Conv2d convolution, int64_t channels) {
    const std::string number = std::to_string(convolutions_.size() + 1);
    convolutions_.push_back(register_module("conv" + number, convolution));
    norms_.push_back(register_module("bn" + number, torch::nn::BatchNorm2d(channels)));
  }

  std::vector<torch::nn::Conv2d> convolutions_;
  std::vector<torch::nn::BatchNorm2d> norms_;
  torch::nn::Sequential downsample{nullptr};
};
TORCH_MODULE(Residual);

class ResNetImpl : public torch::nn::Module {
 public:
  // depth: 18 or 50.
  ResNetImpl(int64_t depth, int64_t image_channels, int64_t classes) {
    const bool bottleneck = depth == 50;
    const std::vector<int64_t> blocks =
        bottleneck ? std::vector<int64_t>{3, 4, 6, 3} : std::vector<int64_t>{2, 2, 2, 2};
    conv1 = register_module("conv1", convolution(image_channels, 64, 7, 2));
    bn1 = register_module("bn1", torch::nn::BatchNorm2d(64));
    int64_t in = 64, channels = 64;
    for (size_t stage = 0; stage < blocks.size(); ++stage) {
      torch::nn::Sequential layer;
      for (int64_t i = 0; i < blocks[stage]; ++i) {
        layer->push_back(Residual(in, channels, i == 0 && stage > 0 ? 2 : 1, bottleneck));
        in = bottleneck ? 4 * channels : channels;
      }
      layers_.push_back(register_module("layer" + std::to_string(stage + 1), layer));
      channels *= 2;
    }
    fc = register_module("fc", torch::nn::Linear(in, classes));
    for (const auto& module : modules(/*include_self=*/false)) {
      if (auto* conv = module->as<torch::nn::Conv2d>()) {
        torch::nn::init::kaiming_normal_(conv->weight, 0, torch::kFanOut, torch::kReLU);
      }
    }
  }

  // Images [n, channels, height, width] to logits [n, classes].
  torch::Tensor forward(const torch::Tensor& images) {
    auto x = bn1(conv1(images));
    x = torch::max_pool2d(torch::relu_(x), 3, 2, 1);
    for (auto& layer : layers_) x = layer->forward(x);
    return fc(torch::adaptive_avg_pool2d(x, {1, 1}).flatten(1));
  }

 private:
  torch::nn::Conv2d conv1{nullptr};
  torch::nn::BatchNorm2d bn1{nullptr};
  std::vector<torch::nn::Sequential> layers_;
  torch::nn::Linear fc{nullptr};
};
TORCH_MODULE(ResNet);

}  // namespace sample
