// SPDX-License-Identifier: Apache-2.0
#include <torchtally/estimate.h>

#include <iostream>

int main() {
  const auto model = tally::estimate::find_model("gpt2");
  const auto count = tally::estimate::count_parameters(model);
  std::cout << model.name << ": " << tally::estimate::to_string(count.total) << " parameters\n";
  return count.total == 124'439'808 ? 0 : 1;
}
