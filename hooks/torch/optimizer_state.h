// SPDX-License-Identifier: Apache-2.0
// What a torch::optim optimizer keeps: which recipe it follows, and each tensor of its state with
// its name and the parameter it belongs to. Reads only.
#pragma once

#include <torch/optim/optimizer.h>

#include <functional>
#include <string>

namespace tally::hooks {

// "AdamW", "SGD"; the class's own name for others.
std::string optimizer_type(const torch::optim::Optimizer& optimizer);
// "adamw", "adamw-amsgrad", "sgd", "sgd-momentum", "rmsprop-momentum-centered", "adagrad", "lbfgs";
// "" for others.
std::string optimizer_recipe(torch::optim::Optimizer& optimizer);

using StateVisitor =
    std::function<void(const char* name, const at::Tensor& state, const at::Tensor& parameter)>;
void for_each_state(torch::optim::Optimizer& optimizer, const StateVisitor& visit);

}  // namespace tally::hooks
