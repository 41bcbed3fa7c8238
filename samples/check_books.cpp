// SPDX-License-Identifier: Apache-2.0
// What a sample's test asserts: in `torchtally report RECORDING --format json`, read from a file,
// the run ended clean, every mark's difference is 0 and no byte is unattributed. `--saved N` asks
// for what autograd holds at every forward edge.
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

namespace {

int failures = 0;

void expect(bool good, const std::string& what) {
  if (good) return;
  ++failures;
  std::fprintf(stderr, "check_books: %s\n", what.c_str());
}

void check(const nlohmann::json& report, int64_t saved) {
  expect(report.at("run").at("ended") == "clean", "the run did not end clean");
  expect(report.at("unknown").at("unattributed_bytes") == 0, "unknown: unattributed bytes");
  expect(!report.at("steps").empty(), "no steps");
  int64_t edges = 0;
  for (const auto& step : report.at("steps")) {
    for (const auto& [device, books] : step.at("devices").items()) {
      for (const auto& mark : books.at("marks")) {
        const auto name = mark.at("name").get<std::string>();
        const std::string where = "step " + step.at("index").dump() + ", " + device + ", " + name;
        int64_t sum = 0;
        for (const auto& [role, bytes] : mark.at("roles").items()) sum += bytes.get<int64_t>();
        expect(sum == mark.at("bytes"), where + ": the roles add up to " + std::to_string(sum) +
                                            ", not to " + mark.at("bytes").dump());
        expect(mark.at("bytes") == mark.at("allocator_bytes"),
               where + ": the allocator counts " + mark.at("allocator_bytes").dump());
        expect(mark.at("difference") == 0, where + ": difference " + mark.at("difference").dump());
        expect(mark.at("roles").value("unattributed", int64_t{0}) == 0,
               where + ": unattributed bytes");
        if (name != "forward_edge") continue;
        ++edges;
        expect(
            saved < 0 || mark.at("saved_bytes") == saved,
            where + ": saved " + mark.at("saved_bytes").dump() + ", not " + std::to_string(saved));
      }
    }
  }
  expect(edges > 0, "no forward edge in the recording");
}

}  // namespace

int main(int argc, char** argv) {
  const bool wants_saved = argc == 4 && std::strcmp(argv[2], "--saved") == 0;
  if (argc != 2 && !wants_saved) {
    std::fprintf(stderr, "use: check_books REPORT.json [--saved BYTES]\n");
    return 2;
  }
  try {
    std::ifstream file(argv[1]);
    check(nlohmann::json::parse(file), wants_saved ? std::stoll(argv[3]) : -1);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "check_books: %s\n", error.what());
    return 2;
  }
  return failures == 0 ? 0 : 1;
}
