// SPDX-License-Identifier: Apache-2.0
// What marks a file as a recording; docs/recording.md tells the rest.
#pragma once

#include <cstdint>

namespace tally::recording {

// "TTly": in the header of every recording, so that no other program's file is taken for one.
inline constexpr int64_t kApplicationId = 0x54546C79;
// SQLite's user_version. The reader understands all up to it.
inline constexpr int64_t kSchemaVersion = 5;

}  // namespace tally::recording
