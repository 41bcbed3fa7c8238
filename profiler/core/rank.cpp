// SPDX-License-Identifier: Apache-2.0
#include "profiler/core/rank.h"

#include <array>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <utility>

namespace tally {
namespace {

std::optional<int64_t> number(const char* text) {
  if (!text || !std::isdigit(static_cast<unsigned char>(*text))) return std::nullopt;
  char* end = nullptr;
  const long long value = std::strtoll(text, &end, 10);
  if (*end != '\0') return std::nullopt;
  return value;
}

}  // namespace

Rank rank_of_environment(const std::function<const char*(const char*)>& variable) {
  static constexpr std::array<std::pair<const char*, const char*>, 4> kLaunchers{{
      {"RANK", "WORLD_SIZE"},
      {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
      {"PMI_RANK", "PMI_SIZE"},
      {"SLURM_PROCID", "SLURM_NTASKS"},
  }};
  for (const auto& [rank_name, size_name] : kLaunchers) {
    const auto rank = number(variable(rank_name));
    const auto size = number(variable(size_name));
    if (rank && size && *size > 1 && *rank < *size) return {*rank, *size};
  }
  return {};
}

std::string with_rank(const std::string& path, const Rank& rank) {
  if (path.empty() || rank.world_size < 2) return path;
  const std::filesystem::path whole(path);
  return whole.parent_path() /
         (whole.stem().string() + ".rank" + std::to_string(rank.rank) + whole.extension().string());
}

}  // namespace tally
