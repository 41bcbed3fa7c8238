// SPDX-License-Identifier: Apache-2.0
// torchtally run: replaces itself by the program, so that its exit code, signals, standard input and
// output are its own. A Python script gets the profiler from the Python package, another program by
// LD_PRELOAD; both take their options from environment variables, which they remove again.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "profiler/cli/report_verbs.h"
#include "profiler/core/error.h"
#include "profiler/core/units.h"

namespace tally::cli {
namespace {

namespace fs = std::filesystem;

struct RunFlags {
  std::string recording = "run.tally";
  std::string report;
  std::string budget;
  bool budget_stops = false;
  std::string source_lines;
  std::string steps;
  int processes = 0;
};

void set(const char* name, const std::string& value) {
  if (!value.empty()) setenv(name, value.c_str(), 1);
}

// The folder of this program, links followed.
fs::path own_folder() {
  std::error_code error;
  return fs::read_symlink("/proc/self/exe", error).parent_path();
}

bool is_python(const std::string& program) {
  const std::string name = fs::path(program).filename().string();
  return name.starts_with("python") &&
         name.find_first_not_of("0123456789.", 6) == std::string::npos;
}

// A program of machine code, and not a script.
bool is_binary(const std::string& path) {
  char magic[4] = {};
  std::ifstream(path, std::ios::binary).read(magic, sizeof magic);
  return std::memcmp(magic, "\177ELF", 4) == 0;
}

std::string find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  const char* path = std::getenv("PATH");
  std::string folders = path ? path : "/usr/bin:/bin";
  for (size_t begin = 0; begin <= folders.size();) {
    const size_t end = std::min(folders.find(':', begin), folders.size());
    const fs::path candidate = fs::path(folders.substr(begin, end - begin)) / name;
    if (access(candidate.c_str(), X_OK) == 0 && !fs::is_directory(candidate)) return candidate;
    begin = end + 1;
  }
  return name;
}

[[noreturn]] void become(const std::vector<std::string>& command) {
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  execvp(words[0], words.data());
  throw Error("cannot start {}: {}", command[0], std::strerror(errno));
}

[[noreturn]] void run_python(const std::string& python, const RunFlags& flags,
                             const std::vector<std::string>& script) {
  std::vector<std::string> command{python, "-m"};
  if (flags.processes > 0) {
    command.insert(command.end(), {"torch.distributed.run", "--standalone", "--nproc-per-node",
                                   std::to_string(flags.processes), "-m"});
  }
  command.emplace_back("torchtally._run");
  command.insert(command.end(), script.begin(), script.end());
  become(command);
}

[[noreturn]] void run_program(const RunFlags& flags, const std::vector<std::string>& command) {
  if (flags.processes > 0) {
    throw Error("--nproc starts Python scripts; start {} by its own launcher, one 'torchtally run' "
                "a process", command[0]);
  }
  if (!flags.steps.empty()) throw Error("--steps works for Python scripts only");
  const std::string program = find_program(command[0]);
  if (access(program.c_str(), X_OK) != 0 || fs::is_directory(program)) {
    throw Error("cannot start {}: it is no program that can be run", command[0]);
  }
  if (!is_binary(program)) {
    throw Error("{} is a script of another language; name the program that it starts, for example: "
                "torchtally run -- ./train", command[0]);
  }
  const fs::path here = own_folder();
  for (const fs::path& folder : {here / "../lib", here / "../lib64", here}) {
    const fs::path library = folder / "libtorchtally_preload.so";
    if (!fs::exists(library)) continue;
    const char* others = std::getenv("LD_PRELOAD");
    const std::string own = fs::canonical(library).string();
    set("LD_PRELOAD", others && *others ? own + ":" + others : own);
    become(command);
  }
  throw Error("libtorchtally_preload.so was not found beside {}; build it with LibTorch "
              "(-DTORCHTALLY_WITH_TORCH=ON)", here.string());
}

void run(const RunFlags& flags, std::vector<std::string> command, bool is_program) {
  if (command.empty()) {
    throw Error("say what to run, for example: torchtally run train.py; see 'torchtally run --help'");
  }
  if (!flags.budget.empty()) parse_bytes(flags.budget, "--budget");  // refused before anything runs
  set("TORCHTALLY_RECORDING", flags.recording);
  set("TORCHTALLY_REPORT", flags.report);
  set("TORCHTALLY_BUDGET", flags.budget);
  if (flags.budget_stops) set("TORCHTALLY_BUDGET_ACTION", "stop");
  if (!flags.source_lines.empty() && flags.source_lines != "off") {
    parse_bytes(flags.source_lines, "--source-lines");
  }
  set("TORCHTALLY_SOURCE_LINES", flags.source_lines);
  set("TORCHTALLY_STEPS", flags.steps);
  const char* chosen = std::getenv("TORCHTALLY_PYTHON");
  if (is_python(command[0])) {
    const std::string python = command[0];
    command.erase(command.begin());
    if (command.empty()) throw Error("name the script that {} is to run", python);
    run_python(python, flags, command);
  }
  if (command[0] == "-m") {
    if (command.size() < 2) throw Error("-m needs the name of a Python module");
  } else if (command[0].starts_with('-')) {
    throw Error("{} is no option of torchtally run; see 'torchtally run --help'", command[0]);
  } else if (is_program || is_binary(command[0])) {
    run_program(flags, command);
  } else if (!fs::exists(command[0])) {
    throw Error("there is no script {}", command[0]);
  }
  run_python(chosen && *chosen ? chosen : "python3", flags, command);
}

}  // namespace

int add_run_verb(CLI::App& app, int argc, char** argv) {
  auto flags = std::make_shared<RunFlags>();
  CLI::App* verb = app.add_subcommand("run", "Run a training program and record it");
  verb->prefix_command();
  verb->add_option("-o,--out", flags->recording, "The recording; default: run.tally")
      ->type_name("RUN.tally");
  verb->add_option("--report", flags->report, "Write this page when the program ends")
      ->type_name("FILE.html");
  verb->add_option("--budget", flags->budget, "Mark the step that has more alive, such as 8GiB")
      ->type_name("BYTES");
  verb->add_flag("--budget-stops", flags->budget_stops,
                 "A CPU allocation past the budget fails, as on a machine of that size");
  verb->add_option("--source-lines", flags->source_lines,
                   "Say which line of Python made blocks of this size and more; default: 1MiB")
      ->type_name("BYTES|off");
  verb->add_option("--steps", flags->steps, "Record steps a to b-1 only, counted from 0; Python only")
      ->type_name("a:b");
  verb->add_option("--nproc", flags->processes,
                   "Start this many processes of torch.distributed, each with its own recording")
      ->check(CLI::Range(1, 4096))
      ->type_name("N");
  verb->footer(
      "What to run comes last, with its own arguments:\n"
      "  torchtally run [OPTIONS] SCRIPT.py [ARGUMENTS]\n"
      "  torchtally run [OPTIONS] -m MODULE [ARGUMENTS]\n"
      "  torchtally run [OPTIONS] -- PROGRAM [ARGUMENTS]\n"
      "Examples:\n"
      "  torchtally run train.py --epochs 1\n"
      "  torchtally run --steps 3:10 --report report.html train.py\n"
      "  torchtally run --nproc 2 train.py\n"
      "  torchtally run -- ./my_cpp_trainer\n"
      "The program's exit code, signals, input and output are its own. Recordings of several\n"
      "processes are named run.rank0.tally, run.rank1.tally and so on.");
  // CLI11 would look for arguments of its own behind a "--".
  int end = argc;
  if (argc > 1 && std::string_view(argv[1]) == "run") {
    end = static_cast<int>(std::find(argv, argv + argc, std::string_view("--")) - argv);
  }
  verb->callback([flags, verb, argc, argv, end] {
    std::vector<std::string> command = verb->remaining();
    const bool is_program = command.empty() && end < argc;
    command.insert(command.end(), argv + end + (is_program ? 1 : 0), argv + argc);
    run(*flags, std::move(command), is_program);
  });
  return end;
}

}  // namespace tally::cli
