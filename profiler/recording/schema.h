// SPDX-License-Identifier: Apache-2.0
// The tables of a recording; docs/recording.md explains each. A change of any of them, or of the
// blobs in books_codec.cpp, is a new kSchemaVersion.
#pragma once

#include <string>

#include "profiler/recording/database.h"

namespace tally::recording {

// Into an empty database, one transaction. Sets application_id and user_version.
void create_schema(Database& database);

}  // namespace tally::recording
