// SPDX-License-Identifier: Apache-2.0
// The program itself, run as a user runs it: exit codes, sentences, and that nothing half-written
// stays behind. Long because every verb is run here, over one fixture.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "profiler/core/words.h"
#include "profiler/recording/format.h"
#include "tests/support/synthetic_run.h"
#include "tests/support/temporary_folder.h"

namespace tally {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::StartsWith;

struct Outcome {
  int code = -1;
  std::string out, err;
};

class Cli : public testing::Test {
 protected:
  void SetUp() override {
    run_.end.notes = {"A note."};
    test::write_recording(run_, good_);
    chmod(folder_.path().c_str(), 0755);
  }
  // `nobody`: as a user who may write nowhere, also when the tests run as root.
  Outcome torchtally(std::vector<std::string> arguments, const std::string& out_to = "",
                     bool nobody = false) {
    const std::string out = out_to.empty() ? folder_ / "stdout" : out_to;
    const std::string err = folder_ / "stderr";
    const pid_t child = fork();
    if (child == 0) {
      const int out_file = open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
      const int err_file = open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
      dup2(out_file, STDOUT_FILENO);
      dup2(err_file, STDERR_FILENO);
      if (nobody && geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) _exit(99);
      arguments.insert(arguments.begin(), "torchtally");
      std::vector<char*> argv;
      for (std::string& argument : arguments) argv.push_back(argument.data());
      argv.push_back(nullptr);
      execv(TORCHTALLY_PROGRAM, argv.data());
      _exit(98);
    }
    int status = 0;
    waitpid(child, &status, 0);
    Outcome outcome;
    if (WIFEXITED(status)) outcome.code = WEXITSTATUS(status);
    if (out_to.empty()) outcome.out = test::read_bytes(out);
    outcome.err = test::read_bytes(err);
    return outcome;
  }
  // Exit code 2, nothing on stdout, and exactly one line on stderr.
  void expect_sentence(const std::vector<std::string>& arguments, const std::string& sentence) {
    const Outcome outcome = torchtally(arguments);
    EXPECT_EQ(outcome.code, 2) << sentence;
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(outcome.err, "torchtally: " + sentence + "\n");
  }

  const test::TemporaryFolder folder_;
  const std::string good_ = folder_ / "run.tally";
  test::SyntheticRun run_ = test::make_synthetic_run();
};

TEST_F(Cli, ReportsAsTextByDefault) {
  const Outcome outcome = torchtally({"report", good_});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.err, "");
  EXPECT_THAT(outcome.out, StartsWith("Peak 9.6 MiB in step 1, backward, after lm_head;"));
  EXPECT_THAT(outcome.out, testing::Not(HasSubstr("\x1b"))) << "a file is no terminal";
  EXPECT_THAT(torchtally({"report", good_, "--color", "always"}).out, HasSubstr("\x1b[38;2;"));
  EXPECT_THAT(torchtally({"report", good_, "--step", "0"}).out, HasSubstr(" in step 0, optimizer"));
}

TEST_F(Cli, ReportsAsCsvWhoseRowsAddUp) {
  const Outcome outcome = torchtally({"report", good_, "--format", "csv"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.out, StartsWith("rank,step,device,mark,micro_step,role,module,operator,name,"
                                      "dtype,shape,phase,saved,count,bytes,source\n"));
  // No quoted cell of this run has a comma behind the bytes.
  int64_t bytes = 0;
  size_t rows = 0;
  std::istringstream lines(outcome.out);
  std::string line;
  std::getline(lines, line);
  for (; std::getline(lines, line); ++rows) {
    const size_t end = line.rfind(',');
    bytes += std::stoll(line.substr(line.rfind(',', end - 1) + 1));
  }
  EXPECT_GT(rows, 50u);
  EXPECT_EQ(bytes, 10022020) << "the peak";
  EXPECT_THAT(outcome.out, HasSubstr("\n,1,cpu,peak,0,input,,aten::stack,,float32,\"[2, 64]\",data,"
                                     "0,1,1024,train_gpt.cpp:42\n"));
  EXPECT_THAT(torchtally({"report", good_, "--at", "end", "--format", "csv"}).out,
              HasSubstr("\n,1,cpu,end,0,optimizer_state,"));
}

TEST_F(Cli, ExplainsTheMarkTheDeviceAndTheRankThatAreAskedFor) {
  EXPECT_THAT(torchtally({"report", good_, "--at", "forward-edge"}).out,
              HasSubstr("Alive at the forward edge: 9.0 MiB"));
  EXPECT_EQ(json::parse(torchtally({"report", good_, "--at", "forward_edge", "--format", "json"})
                            .out)["at"]["name"],
            "forward_edge");
  expect_sentence({"report", good_, "--at", "noon"},
                  "--at noon is no mark; the marks are peak, forward-edge, backward-end, start, "
                  "end, oom");
  expect_sentence({"report", good_, "--at", "oom"},
                  "step 1 of " + good_ +
                      " has no mark 'oom'; its marks are start, forward_edge, "
                      "peak, backward_end, end: no allocation failed in it, and the budget was not "
                      "crossed");
  EXPECT_EQ(torchtally({"report", good_, "--device", "cpu"}).code, 0);
  expect_sentence({"report", good_, "--device", "cuda:0"},
                  "step 1 of " + good_ + " has no device 'cuda:0'; it has cpu");
  expect_sentence({"report", good_, "--rank", "1"},
                  "no recording of rank 1 was given; there is only rank 0");
  expect_sentence({"report", good_, good_}, good_ + " was given twice");
}

TEST_F(Cli, ReportsTheRanksOfARun) {
  std::vector<std::string> arguments{"report"};
  for (int rank = 0; rank < 3; ++rank) {
    test::SyntheticOptions options;
    options.batch = rank == 1 ? 4 : 2;
    test::SyntheticRun run = test::make_synthetic_run(options);
    run.info.rank = rank;
    run.info.world_size = 3;
    arguments.push_back(folder_ / ("rank" + std::to_string(rank) + ".tally"));
    test::write_recording(run, arguments.back());
  }
  const Outcome text = torchtally(arguments);
  EXPECT_EQ(text.code, 0);
  EXPECT_THAT(text.out, HasSubstr("Run: clean (rank 1 of 3;"));
  EXPECT_THAT(text.out, HasSubstr("Peaks of 3 ranks\nrank 0  "));
  EXPECT_THAT(text.out, HasSubstr("- rank_imbalance: uneven: rank 1 peaks at "));
  arguments.insert(arguments.end(), {"--rank", "2", "--format", "json"});
  const json summary = json::parse(torchtally(arguments).out);
  EXPECT_EQ(summary["run"]["rank"], 2);
  EXPECT_EQ(summary["ranks"].size(), 3u);
  EXPECT_EQ(summary["ranks"][2]["peak"]["bytes"],
            summary["steps"][1]["devices"]["cpu"]["peak"]["bytes"]);
  arguments.back() = "html";
  const std::string page = torchtally(arguments).out;
  for (const char* id : {"id=\"tally-meta\"", "id=\"tally-meta-0\"", "id=\"tally-meta-1\""}) {
    EXPECT_THAT(page, HasSubstr(id));
  }
}

TEST_F(Cli, ComparesAndFailsOnWhatIsAsked) {
  test::SyntheticOptions options;
  options.batch = 4;
  const std::string larger = folder_ / "larger.tally";
  test::write_recording(test::make_synthetic_run(options), larger);
  const Outcome text = torchtally({"compare", good_, larger});
  EXPECT_EQ(text.code, 0);
  EXPECT_THAT(text.out, StartsWith("The peak grew by "));
  const Outcome failed = torchtally({"compare", good_, larger, "--fail-on", "peak>+2%", "--fail-on",
                                     "parameter>+0", "--fail-on", "activation>1MiB"});
  EXPECT_EQ(failed.code, 1);
  EXPECT_EQ(failed.out, text.out) << "the comparison is printed also when it fails";
  EXPECT_THAT(failed.err, StartsWith("torchtally: peak>+2%: peak is 9.6 MiB in "));
  EXPECT_THAT(failed.err, HasSubstr("\ntorchtally: activation>1MiB: activations is "));
  EXPECT_THAT(failed.err, testing::Not(HasSubstr("parameter")));
  EXPECT_EQ(torchtally({"compare", larger, good_, "--fail-on", "peak>+2%"}).code, 0);
  EXPECT_EQ(torchtally({"compare", good_, larger, "-o", folder_ / "c.html"}).code, 0);
  EXPECT_THAT(test::read_bytes(folder_ / "c.html"), StartsWith("<!doctype html>"));
  EXPECT_EQ(torchtally({"compare", good_, larger, "--fail-on", "peak>2%"}).code, 2);
  EXPECT_EQ(torchtally({"compare", good_}).code, 2);
  expect_sentence({"compare", good_, folder_ / "none.tally"},
                  folder_ / "none.tally" + " does not exist");
}

TEST_F(Cli, ExportsToOtherTools) {
  const Outcome trace = torchtally({"export", good_, "--format", "chrome-trace", "--step", "1"});
  EXPECT_EQ(trace.code, 0);
  const json parsed = json::parse(trace.out);
  EXPECT_GT(parsed["traceEvents"].size(), 100u);
  for (const json& e : parsed["traceEvents"]) EXPECT_NE(e["name"], "step 0");
  EXPECT_EQ(
      torchtally({"export", good_, "--format", "chrome-trace", "-o", folder_ / "t.json"}).code, 0);
  EXPECT_EQ(torchtally({"export", good_, "--format", "chrome-trace", "--beside", folder_ / "t.json",
                        "-o", folder_ / "both.json"})
                .code,
            0);
  EXPECT_GT(json::parse(test::read_bytes(folder_ / "both.json"))["traceEvents"].size(),
            json::parse(test::read_bytes(folder_ / "t.json"))["traceEvents"].size());
  expect_sentence({"export", good_, "--format", "snapshot", "-o", folder_ / "s.pickle"},
                  good_ +
                      " has no CUDA data in step 1: a snapshot is a picture of the CUDA "
                      "allocator; '--format chrome-trace' shows what was recorded");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "s.pickle"));
  expect_sentence({"export", good_, "--format", "chrome-trace", "--beside", good_},
                  "cannot put the trace beside " + good_ +
                      ": it is no trace: no JSON with a list of traceEvents");
  EXPECT_EQ(torchtally({"export", good_}).code, 2);
}

TEST_F(Cli, WritesTheFormatThatTheNameSays) {
  EXPECT_EQ(torchtally({"report", good_, "-o", folder_ / "r.json"}).code, 0);
  EXPECT_EQ(json::parse(test::read_bytes(folder_ / "r.json"))["run"]["ended"], "clean");
  EXPECT_EQ(torchtally({"report", good_, "-o", folder_ / "r.html"}).code, 0);
  EXPECT_THAT(test::read_bytes(folder_ / "r.html"), HasSubstr("<html"));
  EXPECT_EQ(torchtally({"report", good_, "-o", folder_ / "r.txt"}).code, 0);
  EXPECT_THAT(test::read_bytes(folder_ / "r.txt"), StartsWith("Peak"));
  EXPECT_EQ(torchtally({"report", good_, "-o", folder_ / "r.txt", "--format", "json"}).code, 0);
  EXPECT_TRUE(json::accept(test::read_bytes(folder_ / "r.txt")));
  EXPECT_EQ(json::parse(torchtally({"report", good_, "--format", "json"}).out)["shown"], 1);
}

TEST_F(Cli, WithoutArgumentsHelpGoesToStderr) {
  const Outcome outcome = torchtally({});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.out, "");
  EXPECT_THAT(outcome.err, HasSubstr("report"));
  EXPECT_THAT(outcome.err, HasSubstr("info"));
}

TEST_F(Cli, EveryVerbHasHelpWithExamples) {
  EXPECT_EQ(torchtally({"--help"}).code, 0);
  for (const char* verb : {"report", "info"}) {
    const Outcome outcome = torchtally({verb, "--help"});
    EXPECT_EQ(outcome.code, 0);
    EXPECT_EQ(outcome.err, "");
    EXPECT_THAT(outcome.out, HasSubstr("Examples:\n  torchtally " + std::string(verb)));
  }
  EXPECT_THAT(torchtally({"--version"}).out, StartsWith("torchtally 0."));
}

TEST_F(Cli, WrongUseIsOneSentence) {
  expect_sentence({"frobnicate"},
                  "the following argument was not expected: frobnicate; see 'torchtally --help'");
  expect_sentence({"report"}, "recordings is required; see 'torchtally report --help'");
  expect_sentence(
      {"report", good_, "--frob"},
      "the following argument was not expected: --frob; see 'torchtally report --help'");
  expect_sentence({"report", good_, "--step", "two"},
                  "--step: 'two' is no number of a step; see 'torchtally report --help'");
  expect_sentence({"report", good_, "--step", "-1"},
                  "--step: '-1' is no number of a step; see 'torchtally report --help'");
  expect_sentence({"report", good_, "--format", "pdf"},
                  "--format: pdf not in {text,json,csv,flops-csv,html}; see 'torchtally report --help'");
  expect_sentence({"report", good_, "--step", "9"},
                  good_ + " has no step 9: it holds 4 steps, 0 to 3");
}

// Each verb that reads a recording, each kind of bad one: the sentence that says which, exit code 2,
// nothing on stdout, no output file and no part of one, and a good neighbour makes no difference.
TEST_F(Cli, BadFilesAreOneSentence) {
  const std::string x = folder_ / "x.tally";
  const std::string whole = test::read_bytes(good_);
  std::string corrupt = whole;
  for (size_t i = 4096; i + 200 < corrupt.size(); i += 4096) corrupt.replace(i, 200, 200, '\x5a');
  std::string newer = whole;
  newer.replace(60, 4, std::string("\0\0\0\x63", 4));  // user_version, big-endian
  std::string foreign = whole;
  foreign.replace(68, 4, "Anki");  // application_id
  struct Bad {
    std::string bytes, sentence;
    bool is_start = false;
  };
  const std::vector<Bad> kinds{
      {"", " is empty: nothing was recorded in it"},
      {"no recording", " is not a recording: no SQLite file"},
      {std::string(1 << 16, '\xff'), " is not a recording: no SQLite file"},
      {foreign, " is not a recording: a SQLite file of another program"},
      {newer,
       " was written by a newer torchtally: schema version 99, this one reads up to " +
           std::to_string(recording::kSchemaVersion) + "; update torchtally"},
      {whole.substr(0, whole.size() / 2), " is damaged: database disk image is malformed"},
      {whole.substr(0, 100), " is damaged: ", true},
      {corrupt, " is damaged: ", true},
  };
  const std::string output = folder_ / "out";
  const std::vector<std::vector<std::string>> verbs{
      {"info", x},
      {"report", x, "-o", output},
      {"report", x, "--format", "html", "-o", output},
      {"report", good_, x, "--format", "json", "-o", output},
      {"export", x, "--format", "chrome-trace", "-o", output},
      {"export", x, "--format", "snapshot", "-o", output},
      {"compare", x, good_, "-o", output},
      {"compare", good_, x, "--format", "html", "-o", output},
  };
  for (const Bad& kind : kinds) {
    test::write_bytes(x, kind.bytes);
    for (const auto& verb : verbs) {
      SCOPED_TRACE(verb[0] + kind.sentence);
      const Outcome outcome = torchtally(verb);
      EXPECT_EQ(outcome.code, 2);
      EXPECT_EQ(outcome.out, "");
      const std::string start = "torchtally: " + x + kind.sentence;
      if (kind.is_start) {
        EXPECT_THAT(outcome.err, StartsWith(start));
        EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1);
      } else {
        EXPECT_EQ(outcome.err, start + "\n");
      }
      for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
        EXPECT_FALSE(entry.path().filename().string().starts_with("out")) << entry.path();
      }
    }
  }
  std::filesystem::remove(x);
  for (const char* verb : {"info", "report"}) expect_sentence({verb, x}, x + " does not exist");
  expect_sentence({"report", folder_.path()}, folder_.path() + " is a folder, not a recording");
}

// A recording of the CPU and a card, with an OOM: each format shows what was asked for.
TEST_F(Cli, EveryFormatExplainsWhatIsAskedFor) {
  test::SyntheticRun run = test::make_synthetic_run();
  run.info.rank = 3;
  run.info.devices.push_back({"cuda:0", "a card", int64_t{1} << 30});
  for (StepBooks& step : run.steps) {
    DeviceBooks card = step.devices[0];
    card.device = 1;
    for (MarkBook& mark : card.marks) {
      mark.roles[static_cast<size_t>(Role::kWorkspace)] += 8 << 20;
      mark.bytes = mark.allocator_bytes = mark.bytes + (8 << 20);
      mark.cells.push_back({Role::kWorkspace, run.strings->intern(""), 8 << 20, 1});
    }
    MarkBook oom = card.marks[2];
    oom.mark = Mark::kOom;
    oom.wanted_bytes = 1 << 20;
    oom.limit_bytes = 1 << 30;
    card.marks.push_back(oom);
    step.devices.push_back(std::move(card));
  }
  const std::string path = folder_ / "card.tally";
  test::write_recording(run, path);
  const std::vector<std::pair<std::string, Mark>> marks{{"peak", Mark::kPeak},
                                                        {"forward-edge", Mark::kForwardEdge},
                                                        {"end", Mark::kEnd},
                                                        {"oom", Mark::kOom}};
  for (const auto& [flag, mark] : marks) {
    const std::vector<std::string> asked{"report", path, "--at",   flag,  "--device",
                                         "cuda:0", "--rank", "3", "--step", "2", "--format"};
    const auto of_format = [&](const std::string& format) {
      std::vector<std::string> arguments = asked;
      arguments.push_back(format);
      const Outcome outcome = torchtally(arguments);
      EXPECT_EQ(outcome.code, 0) << outcome.err;
      return outcome.out;
    };
    SCOPED_TRACE(flag);
    const std::string title(tally::title(mark));
    const std::string text = of_format("text");
    EXPECT_THAT(text, HasSubstr("Alive at the " + title + ": "));
    EXPECT_THAT(text, HasSubstr("Books of step 2 on cuda:0"));
    EXPECT_THAT(text, HasSubstr("rank 3"));
    const json summary = json::parse(of_format("json"));
    EXPECT_EQ(summary["at"]["name"], key(mark));
    EXPECT_EQ(summary["device"], "cuda:0");
    EXPECT_EQ(summary["shown"], 2);
    EXPECT_EQ(summary["run"]["rank"], 3);
    const std::string csv = of_format("csv");
    EXPECT_THAT(csv, HasSubstr("\n3,2,cuda:0," + std::string(key(mark)) + ",0,workspace,"));
    EXPECT_THAT(csv, testing::Not(HasSubstr(",cpu,")));
    const std::string page = of_format("html");
    EXPECT_THAT(page, HasSubstr("\"at\":{\"kind\":\"" + std::string(key(mark)) + "\""));
    EXPECT_THAT(page, HasSubstr("\"device\":\"cuda:0\""));
    EXPECT_THAT(page, HasSubstr("\"shown\":2"));
  }
  // Where there is no such mark or device, no format writes anything.
  for (const char* format : {"text", "json", "csv", "flops-csv", "html"}) {
    expect_sentence({"report", path, "--device", "cpu", "--at", "oom", "--format", format, "-o",
                     folder_ / "out"},
                    "step 1 of " + path +
                        " has no mark 'oom'; its marks are start, forward_edge, peak, "
                        "backward_end, end: no allocation failed in it, and the budget was not "
                        "crossed");
    EXPECT_FALSE(std::filesystem::exists(folder_ / "out"));
  }
}

TEST_F(Cli, FullCutsNothing) {
  const std::string brief = torchtally({"report", good_}).out;
  const std::string full = torchtally({"report", good_, "--full"}).out;
  EXPECT_LE(std::count(brief.begin(), brief.end(), '\n'), 60);
  EXPECT_THAT(brief, testing::EndsWith(
                         "… and lists are shortened to 60 lines: --full shows all of it.\n"));
  EXPECT_THAT(full, testing::Not(HasSubstr("…")));
  EXPECT_GT(full.size(), brief.size());
}

TEST_F(Cli, NothingIsHalfWritten) {
  const std::string target = folder_ / "no/such/folder/report.html";
  expect_sentence({"report", good_, "-o", target},
                  "cannot write " + target + ": No such file or directory");
  expect_sentence({"report", good_, "-o", folder_.path()},
                  "cannot write " + folder_.path() + ": it is a folder");
  const std::string before = test::read_bytes(good_);
  expect_sentence({"report", good_, "-o", good_},
                  "cannot write " + good_ + ": it is the recording itself");
  EXPECT_EQ(test::read_bytes(good_), before);
  expect_sentence({"report", folder_ / "none.tally", "-o", folder_ / "report.html"},
                  folder_ / "none.tally does not exist");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "report.html"));

  const Outcome outcome = torchtally({"report", good_, "-o", folder_ / "report.html"}, "", true);
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.err,
            "torchtally: cannot write " + (folder_ / "report.html") + ": Permission denied\n");
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
    files += entry.path().extension() != ".tally";
  }
  EXPECT_EQ(files, 2u) << "stdout and stderr of this test";
}

TEST_F(Cli, AFullOutputIsAnError) {
  const Outcome outcome = torchtally({"report", good_}, "/dev/full");
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.err,
            "torchtally: cannot write to the standard output: No space left on device\n");
}

TEST_F(Cli, InfoOfTheProgramAndOfARecording) {
  const json program = json::parse(torchtally({"info", "--json"}).out);
  EXPECT_EQ(program["torchtally"]["recording_schema"], recording::kSchemaVersion);
  EXPECT_THAT(program["torchtally"]["sqlite"].get<std::string>(), StartsWith("3."));
  for (const char* hooks : {"hooks_torch", "hooks_cuda", "hooks_cupti"}) {
    EXPECT_THAT(program["torchtally"][hooks].get<std::string>(),
                testing::AnyOf(StartsWith("built"), StartsWith("not built: ")));
  }
  EXPECT_FALSE(program.contains("run"));
  const json run = json::parse(torchtally({"info", good_, "--json"}).out)["run"];
  EXPECT_EQ(run["steps"], 4);
  EXPECT_EQ(run["ended"], "clean");
  EXPECT_EQ(run["versions"]["torch"], "2.11.0");
  EXPECT_EQ(run["command"][4], "it's \"a\" <file>");
  const Outcome text = torchtally({"info", good_});
  EXPECT_EQ(text.code, 0);
  EXPECT_THAT(text.out, HasSubstr("\n  cuda                  not available: built without CUDA\n"));
  EXPECT_THAT(text.out, HasSubstr("\n  steps                 4\n"));
}

}  // namespace
}  // namespace tally
