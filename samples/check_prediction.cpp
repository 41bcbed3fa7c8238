// SPDX-License-Identifier: Apache-2.0
// What the report of one run promised against what another run measured: `check_prediction BEFORE
// AFTER KIND TEXT PERCENT` reads two JSON reports; the remedy of BEFORE's verdict KIND whose text
// begins with TEXT must have promised AFTER's peak, to PERCENT of it (0: to the byte). KIND
// trade_off is the table of other settings: TEXT is a row, "none, 1/2" or "none, 1/2, accumulated".
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

namespace {

using Json = nlohmann::json;

Json read(const char* path) {
  std::ifstream file(path);
  return Json::parse(file);
}

int64_t peak(const Json& report) {
  int64_t bytes = 0;
  for (const auto& step : report.at("steps")) {
    bytes = std::max(bytes, step.at("devices").at("cpu").at("peak").at("bytes").get<int64_t>());
  }
  return bytes;
}

int compare(const std::string& text, int64_t promised, int64_t measured, double percent) {
  const double off =
      100.0 * static_cast<double>(measured - promised) / static_cast<double>(measured);
  std::printf("%s: promised %lld bytes, measured %lld (%+.3f %%)\n", text.c_str(),
              static_cast<long long>(promised), static_cast<long long>(measured), off);
  return std::abs(off) <= percent ? 0 : 1;
}

std::string name_of(const Json& setting) {
  const auto parts = static_cast<int>(1 / setting.at("micro_batch").get<double>());
  return setting.at("checkpointing").get<std::string>() + ", 1/" + std::to_string(parts) +
         (setting.at("accumulated").get<bool>() ? ", accumulated" : "");
}

int check(const Json& before, const Json& after, const std::string& kind, const std::string& text, double percent) {
  for (const auto& setting : before.at("trade_off")) {
    if (kind != "trade_off" || name_of(setting) != text) continue;
    return compare(text, setting.at("peak_bytes").get<int64_t>(), peak(after), percent);
  }
  for (const auto& verdict : before.at("verdicts")) {
    if (verdict.at("kind") != kind) continue;
    for (const auto& remedy : verdict.at("remedies")) {
      if (!remedy.at("text").get<std::string>().starts_with(text)) continue;
      return compare(text, peak(before) - remedy.at("bytes").get<int64_t>(), peak(after), percent);
    }
  }
  std::fprintf(stderr, "check_prediction: no remedy '%s' under '%s'\n", text.c_str(), kind.c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: check_prediction BEFORE AFTER KIND TEXT PERCENT\n");
    return 2;
  }
  try {
    return check(read(argv[1]), read(argv[2]), argv[3], argv[4], std::atof(argv[5]));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "check_prediction: %s\n", error.what());
    return 1;
  }
}
