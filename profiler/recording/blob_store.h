// SPDX-License-Identifier: Apache-2.0
// The table `blob`, each content once: remembers the raw bytes of what it stored lately and hands
// out the same id for the same bytes. Bounded memory: what has not come for two generations is
// forgotten, and stored again if it returns. Used by Writer alone.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>

#include "profiler/recording/columns.h"
#include "profiler/recording/database.h"

namespace tally::recording {

class BlobStore {
 public:
  explicit BlobStore(Database& database) : insert_(database, "INSERT INTO blob VALUES(?1, ?2)") {}

  int64_t id_of(std::string raw) {
    if (const auto id = remembered(raw)) return *id;
    const std::string packed = pack(raw);
    insert_.run(next_, Blob{packed});
    remember(std::move(raw), next_);
    return next_++;
  }
  // How many bytes `raw` would add to the file now.
  size_t cost(const std::string& raw) { return remembered(raw) ? 0 : pack(raw).size(); }
  // After a rollback: the rows may be gone.
  void forget() {
    young_.clear();
    old_.clear();
    young_bytes_ = 0;
  }

 private:
  static constexpr size_t kGenerationBytes = size_t{1} << 20;

  std::optional<int64_t> remembered(const std::string& raw) {
    if (const auto found = young_.find(raw); found != young_.end()) return found->second;
    const auto found = old_.find(raw);
    if (found == old_.end()) return std::nullopt;
    const int64_t id = found->second;
    old_.erase(found);
    remember(raw, id);
    return id;
  }
  void remember(std::string raw, int64_t id) {
    young_bytes_ += raw.size();
    young_.emplace(std::move(raw), id);
    if (young_bytes_ > kGenerationBytes) {
      old_ = std::move(young_);
      young_.clear();
      young_bytes_ = 0;
    }
  }

  Statement insert_;
  int64_t next_ = 1;
  size_t young_bytes_ = 0;
  std::unordered_map<std::string, int64_t> young_, old_;
};

}  // namespace tally::recording
