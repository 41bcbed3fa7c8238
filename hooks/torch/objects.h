// SPDX-License-Identifier: Apache-2.0
// The source that knows names: walks the modules and optimizers that the program showed us, at the
// start and the end of each step, on the thread that steps. It keeps nothing of the program alive.
#pragma once

#include <memory>
#include <string>

#include "profiler/core/source.h"

namespace torch::nn {
class Module;
}
namespace torch::optim {
class Optimizer;
}

namespace tally::hooks {

class ObjectSource : public Source {
 public:
  static std::unique_ptr<ObjectSource> make();

  // Parameters and buffers under `prefix` ("": as the module names them). Module may end any time.
  virtual void watch(const torch::nn::Module& module, const std::string& prefix) = 0;
  // Its state is looked at when a step ends, until it is forgotten or none of its parameters lives.
  virtual void watch(torch::optim::Optimizer& optimizer) = 0;
  virtual void forget(const torch::optim::Optimizer& optimizer) = 0;
};

}  // namespace tally::hooks
