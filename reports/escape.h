// SPDX-License-Identifier: Apache-2.0
// Text for HTML.
#pragma once

#include <string>
#include <string_view>

namespace tally::reports {

// As text or as an attribute in quotes; what would steer a reader's display is shown (names.h).
std::string escaped(std::string_view text);

}  // namespace tally::reports
