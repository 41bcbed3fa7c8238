// SPDX-License-Identifier: Apache-2.0
// Activation checkpointing, which LibTorch has for Python only: the forward pass of a block keeps
// only the block's input; the backward pass runs the block again and goes on from there.
//
//   x = tally::checkpoint(block, x);   // in place of block.forward(x)
//
// Needs no profiler; header only, C++17.
#pragma once

#include <torch/torch.h>

namespace tally {

// Block: a module with `torch::Tensor forward(torch::Tensor)` that draws no random numbers (a
// dropout inside would draw others the second time). It must outlive the graph.
template <typename Block>
class Checkpoint : public torch::autograd::Function<Checkpoint<Block>> {
 public:
  using Context = torch::autograd::AutogradContext;

  // LibTorch runs this with gradients off: nothing inside the block is kept.
  static torch::Tensor forward(Context* context, const torch::Tensor& input, Block* block) {
    context->save_for_backward({input});
    context->saved_data["block"] = reinterpret_cast<int64_t>(block);
    return block->forward(input);
  }

  static torch::autograd::variable_list backward(Context* context,
                                                 torch::autograd::variable_list gradients) {
    auto* block = reinterpret_cast<Block*>(context->saved_data["block"].toInt());
    // A leaf of its own, so that the inner backward pass stops here and leaves its gradient.
    auto input = context->get_saved_variables()[0].detach().requires_grad_();
    torch::Tensor output;
    {
      torch::AutoGradMode gradients_on(true);
      output = block->forward(input);
    }
    // Parameters of the block get their gradients here, added to what is there.
    torch::autograd::backward({output}, {gradients[0]});
    return {input.grad(), torch::Tensor()};  // one for each argument of forward
  }
};

// The output of `block` for `input`. Throws c10::Error when the input does not require gradients, as
// it does behind an embedding: a graph that starts inside the block would be lost.
template <typename Block>
torch::Tensor checkpoint(Block& block, const torch::Tensor& input) {
  TORCH_CHECK(input.requires_grad(), "checkpoint() needs an input that requires gradients");
  return Checkpoint<Block>::apply(input, &block);
}

}  // namespace tally
