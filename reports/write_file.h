// SPDX-License-Identifier: Apache-2.0
// Writes a report so that nobody ever finds half of one: under a temporary name beside it, then
// renamed. A device or a pipe is written to as it is.
#pragma once

#include <string>
#include <string_view>

namespace tally::reports {

// Throws Error that names the path and the reason; the old file then stands as before.
void write_file(const std::string& path, std::string_view text);

}  // namespace tally::reports
