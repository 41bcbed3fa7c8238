// SPDX-License-Identifier: Apache-2.0
// The LibTorch that is loaded against the one this library was built for: their classes must agree.
#pragma once

#include <string>

namespace tally {

std::string torch_version();  // of the headers: "2.11.0"
// Throws Error with the way out when the loaded LibTorch is of another minor version.
void check_torch_version();

}  // namespace tally
