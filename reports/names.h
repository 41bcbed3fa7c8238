// SPDX-License-Identifier: Apache-2.0
// Names come from the recorded program and may hold anything; these make them fit to be shown.
#pragma once

#include <string>
#include <string_view>

namespace tally::reports {

// Control characters, zero-width and bidirectional marks as "<U+202E>", broken UTF-8 as "<0xFF>":
// a name can neither steer a terminal nor pass for another one.
std::string clean(std::string_view name);
// In code points.
size_t length(std::string_view text);
// Exactly `width` code points: cut with an ellipsis, or padded behind (before, when `right`).
std::string fit(std::string_view text, size_t width, bool right = false);

}  // namespace tally::reports
