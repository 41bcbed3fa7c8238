// SPDX-License-Identifier: Apache-2.0
#include <sqlite3.h>

#include <memory>
#include <string>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "profiler/cli/output.h"
#include "profiler/cli/report_verbs.h"
#include "profiler/core/units.h"
#include "profiler/recording/format.h"
#include "profiler/recording/reader.h"
#include "reports/names.h"

namespace tally::cli {
namespace {

using Json = nlohmann::ordered_json;
using reports::clean;

struct InfoFlags {
  std::string recording;
  bool json = false;
};

Json program() {
  return {{"version", TORCHTALLY_VERSION},
          {"compiler", __VERSION__},
          {"build", TORCHTALLY_BUILD_TYPE},
          {"sqlite", sqlite3_libversion()},
          {"recording_schema", recording::kSchemaVersion},
          {"hooks_torch", TORCHTALLY_HOOKS_TORCH},
          {"hooks_cuda", TORCHTALLY_HOOKS_CUDA},
          {"hooks_cupti", TORCHTALLY_HOOKS_CUPTI}};
}

Json pairs(const std::vector<std::pair<std::string, std::string>>& values) {
  Json out = Json::object();
  for (const auto& [name, value] : values) out[name] = value;
  return out;
}

Json describe(const recording::Run& run) {
  Json devices = Json::array();
  for (const DeviceInfo& d : run.info.devices) {
    devices.push_back({{"id", d.id}, {"name", d.name}, {"memory_bytes", d.memory_bytes}});
  }
  Json sources = Json::array();
  for (const SourceInfo& s : run.info.sources) {
    sources.push_back({{"name", s.name}, {"available", s.available}, {"reason", s.reason}});
  }
  Json optimizers = Json::array();
  for (const OptimizerInfo& o : run.info.optimizers) optimizers.push_back(run.text(o.type));
  return {{"path", run.path},
          {"schema", run.schema},
          {"started", run.started},
          {"ended", run.end.ended},
          {"steps", run.step_count},
          {"command", run.info.command},
          {"versions", pairs(run.info.versions)},
          {"options", pairs(run.info.options)},
          {"devices", std::move(devices)},
          {"sources", std::move(sources)},
          {"modules", run.info.modules.size()},
          {"parameters", run.info.parameters.size()},
          {"optimizers", std::move(optimizers)}};
}

std::string row(const std::string& name, const std::string& value) {
  return fmt::format("  {}{}\n", reports::fit(clean(name), 22), clean(value));
}

std::string value_text(const Json& value) {
  return value.is_string() ? value.get<std::string>()
                           : value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string rows(const Json& values) {
  std::string out;
  for (const auto& [name, value] : values.items()) out += row(name, value_text(value));
  return out;
}

std::string as_text(const Json& program, const Json& run) {
  std::string out = "torchtally\n" + rows(program);
  if (run.is_null()) return out;
  out += "\n" + clean(value_text(run["path"])) + "\n";
  std::string command;
  for (const Json& argument : run["command"])
    command += (command.empty() ? "" : " ") + value_text(argument);
  out += row("command", command);
  for (const char* name : {"started", "ended", "steps", "modules", "parameters", "schema"}) {
    out += row(name, value_text(run[name]));
  }
  for (const Json& type : run["optimizers"]) out += row("optimizer", value_text(type));
  for (const Json& device : run["devices"]) {
    out += row("device " + value_text(device["id"]),
               fmt::format("{}, {}", value_text(device["name"]),
                           format_bytes(device["memory_bytes"].get<int64_t>())));
  }
  out += "Versions\n" + rows(run["versions"]);
  if (!run["options"].empty()) out += "Options\n" + rows(run["options"]);
  out += "Sources\n";
  for (const Json& source : run["sources"]) {
    std::string state = source["available"].get<bool>() ? "available" : "not available";
    if (const std::string reason = value_text(source["reason"]); !reason.empty())
      state += ": " + reason;
    out += row(value_text(source["name"]), state);
  }
  return out;
}

void info(const InfoFlags& flags) {
  Json run;
  if (!flags.recording.empty()) {
    run =
        describe(recording::read_run(flags.recording, {.load = recording::Load::kRun, .step = {}}));
  }
  if (!flags.json) {
    print(as_text(program(), run));
    return;
  }
  Json out{{"torchtally", program()}};
  if (!run.is_null()) out["run"] = std::move(run);
  print(out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace

void add_info_verb(CLI::App& app) {
  auto flags = std::make_shared<InfoFlags>();
  CLI::App* verb = app.add_subcommand(
      "info", "Versions of this program; of a recording also what it could see, and why not more");
  verb->add_option("recording", flags->recording, "A recording, such as run.tally")
      ->type_name("RUN.tally");
  verb->add_flag("--json", flags->json, "For programs");
  verb->footer(
      "Examples:\n"
      "  torchtally info\n"
      "  torchtally info run.tally\n"
      "  torchtally info run.tally --json");
  verb->callback([flags] { info(*flags); });
}

}  // namespace tally::cli
