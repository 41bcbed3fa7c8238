// SPDX-License-Identifier: Apache-2.0
// The source that knows names: walks the modules and optimizers that the program showed us, at the
// start and the end of each step, on the thread that steps. It keeps nothing of the program alive.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "profiler/core/source.h"

namespace torch::nn {
class Module;
}
namespace torch::optim {
class Optimizer;
}

namespace tally::hooks {

struct NamedModule {
  std::string name;
  std::string type;
};
struct NamedTensor {
  at::Tensor tensor;
  std::string name;    // "h.0.mlp.weight"
  std::string module;  // "h.0.mlp"
  bool is_buffer = false;
};

class ObjectSource : public Source {
 public:
  static std::unique_ptr<ObjectSource> make();

  // Parameters and buffers under `prefix` ("": as the module names them). Module may end any time.
  virtual void watch(const torch::nn::Module& module, const std::string& prefix) = 0;
  // The same from somebody who walked the modules himself. A tensor that is watched already is not
  // added again.
  virtual void watch(const std::vector<NamedModule>& modules,
                     const std::vector<NamedTensor>& tensors) = 0;
  // Only what it is and what it updates; its state is pushed by who calls this.
  virtual void describe_optimizer(const std::string& type, const std::string& recipe,
                                  const std::vector<at::Tensor>& parameters) = 0;
  // Its state is looked at when a step ends, until it is forgotten or none of its parameters lives.
  virtual void watch(torch::optim::Optimizer& optimizer) = 0;
  virtual void forget(const torch::optim::Optimizer& optimizer) = 0;
};

}  // namespace tally::hooks
