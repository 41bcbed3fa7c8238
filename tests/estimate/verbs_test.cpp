// SPDX-License-Identifier: Apache-2.0
#include <fstream>
#include <iostream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "profiler/cli/estimate_flags.h"
#include "tests/estimate/run_verb.h"
#include "torchtally/estimate.h"

namespace tally::estimate {
namespace {
using ::testing::HasSubstr;
using testing::run_line;
using testing::run_verb;
using ::testing::StartsWith;
using testing::VerbResult;

size_t lines_of(const std::string& text) {
  return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
}

class TempFile {
 public:
  TempFile(const std::string& name, const std::string& content)
      : path_(::testing::TempDir() + "/" + name) {
    std::ofstream(path_) << content;
  }
  ~TempFile() { std::remove(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST(Estimate, JsonHasTheFixedKeys) {
  const VerbResult r =
      run_line("torchtally estimate llama-65b --device \"RTX 6000 Ada\" --tokens 1.4T --json");
  ASSERT_EQ(r.code, 0) << r.error;
  const auto json = nlohmann::json::parse(r.out);
  for (const char* key : {"name", "family", "parameters", "active_parameters"})
    EXPECT_TRUE(json["model"].contains(key)) << key;
  for (const char* key : {"parameters", "gradients", "optimizer_state", "activations", "logits",
                          "workspace", "total", "peak"}) {
    EXPECT_TRUE(json["memory"][key].is_number_integer()) << key;
  }
  for (const char* key : {"forward", "backward", "recompute", "optimizer", "step", "six_nd"})
    EXPECT_TRUE(json["flops"][key].is_number_integer()) << key;
  for (const char* key : {"name", "memory_bytes", "needed"})
    EXPECT_TRUE(json["device"].contains(key)) << key;
  for (const char* key : {"seconds_per_step", "days", "pf_days"})
    EXPECT_TRUE(json["time"][key].is_number()) << key;
  EXPECT_TRUE(json["assumptions"].is_array());
  EXPECT_EQ(json["model"]["parameters"], 65'285'660'672);
  EXPECT_EQ(json["flops"]["forward"], 277'326'038'302'720);
  EXPECT_EQ(json["device"]["needed"], 25);
  int64_t sum = 0;
  for (const char* key :
       {"parameters", "gradients", "optimizer_state", "activations", "logits", "workspace"})
    sum += json["memory"][key].get<int64_t>();
  EXPECT_EQ(json["memory"]["total"], sum);
}

TEST(Estimate, JsonIntegersAreExactBeyondSixtyFourBits) {
  const VerbResult r =
      run_line("torchtally estimate --parameters 1e13 --sequence 1000000 --batch 1000000 --json");
  ASSERT_EQ(r.code, 0) << r.error;
  EXPECT_THAT(r.out, HasSubstr("\"six_nd\": 60000000000000000000000000"));
  EXPECT_NO_THROW(nlohmann::json::parse(r.out));
}

TEST(Estimate, WithoutADeviceItsKeysAreNull) {
  const auto json = nlohmann::json::parse(run_line("torchtally estimate gpt2 --json").out);
  EXPECT_TRUE(json["device"]["needed"].is_null());
  EXPECT_TRUE(json["time"]["days"].is_null());
}

TEST(Estimate, ListsMakeATable) {
  const VerbResult table =
      run_line("torchtally estimate gpt2 gpt2-xl --batch 1,2,4,8 --dtype fp32,bf16");
  ASSERT_EQ(table.code, 0) << table.error;
  EXPECT_EQ(lines_of(table.out), 1 + 2 * 4 * 2U);
  const VerbResult csv =
      run_line("torchtally estimate gpt2 gpt2-xl --batch 1,2,4,8 --dtype fp32,bf16 --csv");
  EXPECT_EQ(lines_of(csv.out), 1 + 2 * 4 * 2U);
  EXPECT_THAT(csv.out, StartsWith("batch,dtype,model,parameters,"));
  const auto json = nlohmann::json::parse(
      run_line("torchtally estimate gpt2 gpt2-xl --batch 1,2,4,8 --dtype fp32,bf16 --json").out);
  ASSERT_EQ(json.size(), 16U);
  EXPECT_EQ(json[0]["config"]["batch"], 1);
  EXPECT_EQ(json[15]["model"]["name"], "gpt2-xl");
  EXPECT_EQ(json[15]["config"]["dtype"], "bf16");
  // A row of the sweep is what the single answer says.
  const auto single = nlohmann::json::parse(
      run_line("torchtally estimate gpt2-xl --batch 8 --dtype bf16 --json").out);
  EXPECT_EQ(json[15], single);
}

TEST(Estimate, ASingleConfigurationIsALineOfCsvToo) {
  EXPECT_EQ(lines_of(run_line("torchtally estimate gpt2 --csv").out), 2U);
}

TEST(Estimate, ReadsAConfigurationFromItsInput) {
  const auto estimate_of_input = [](const std::string& text) {
    std::istringstream input(text);
    std::streambuf* before = std::cin.rdbuf(input.rdbuf());
    const VerbResult r = run_line("torchtally estimate - --batch 2");
    std::cin.rdbuf(before);
    return r;
  };
  const VerbResult config = estimate_of_input(
      R"({"model_type":"gpt2","n_layer":2,"n_embd":64,"n_head":2,"vocab_size":256,"n_positions":64})");
  EXPECT_THAT(config.out, HasSubstr("the configuration  (gpt2)"));
  EXPECT_THAT(estimate_of_input("{}").error, HasSubstr("the configuration: field 'model_type'"));
  const VerbResult shapes =
      estimate_of_input(R"({"name": "net", "parameters": [{"shape": [1024, 1024]}]})");
  EXPECT_THAT(shapes.out, HasSubstr("net  (shapes of the parameters)\n1,048,576 parameters"));
  EXPECT_THAT(shapes.out, HasSubstr("activations: not applicable because only the shapes"));
  EXPECT_THAT(shapes.out, HasSubstr("total (every row at once)"));
  EXPECT_THAT(shapes.out, ::testing::Not(HasSubstr("FLOPs of one step")));
}

TEST(Estimate, ExplainHasFormulasSourcesAndTradeOffs) {
  const VerbResult r = run_line("torchtally estimate gpt2 --explain");
  for (const char* text :
       {"R sbh", "arXiv", "square-root optimum", "flop_counter", "Kaplan", "Chinchilla", "PaLM",
        "Megatron", "the lecture", "leaves out", "moments of the step", "reserved", "GiB", "GB"}) {
    EXPECT_THAT(r.out, HasSubstr(text));
  }
}

TEST(Estimate, DimensionsByFlagsGiveTheModel) {
  const auto by_flags = nlohmann::json::parse(
      run_line("torchtally estimate --family llama --layers 80 --d-model 8192 --heads 64 --ffn "
               "22016 --vocab 32000 --context 2048 --json")
          .out);
  const auto by_name = nlohmann::json::parse(run_line("torchtally estimate llama-65b --json").out);
  EXPECT_EQ(by_flags["model"]["parameters"], by_name["model"]["parameters"]);
  EXPECT_EQ(by_flags["memory"], by_name["memory"]);
  EXPECT_EQ(by_flags["flops"], by_name["flops"]);
}

TEST(Estimate, APresetCanBeChanged) {
  const auto json = nlohmann::json::parse(
      run_line("torchtally estimate gpt2 --layers 24 --d-model 1024 --heads 16 --json").out);
  EXPECT_EQ(json["model"]["parameters"], 354'823'168);  // GPT-2 medium
}

TEST(Estimate, TheUnpublishedModelTakesAParameterCount) {
  EXPECT_THAT(run_line("torchtally estimate gpt-4").error, HasSubstr("--parameters"));
  const auto json =
      nlohmann::json::parse(run_line("torchtally estimate gpt-4 --parameters 1700B --json").out);
  EXPECT_EQ(json["memory"]["parameters"], 6'800'000'000'000);
}

TEST(Estimate, ReadsAConfigFileOrItsFolder) {
  const TempFile file(
      "config.json",
      R"({"model_type":"gpt2","vocab_size":50257,"n_embd":768,"n_layer":12,"n_head":12,"n_positions":1024})");
  const auto json = nlohmann::json::parse(run_verb({"estimate", file.path(), "--json"}).out);
  EXPECT_EQ(json["model"]["parameters"], 124'439'808);
  EXPECT_EQ(nlohmann::json::parse(
                run_verb({"estimate", ::testing::TempDir(), "--json"}).out)["model"]["parameters"],
            124'439'808);
}

TEST(Estimate, AMalformedFileIsOneLineThatNamesIt) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "no JSON"},
      {"{", "no JSON"},
      {"[1]", "object"},
      {"{\"model_type\":\"llama\"}", "'vocab_size'"},
      {R"({"model_type":"gpt2","vocab_size":-1,"n_embd":768,"n_layer":12,"n_head":12,"n_positions":1024})",
       "'vocab_size'"},
      {R"({"model_type":"gpt2","vocab_size":9,"n_embd":"768","n_layer":12,"n_head":12,"n_positions":1024})",
       "'n_embd'"},
      {R"({"model_type":"gpt2","vocab_size":9,"n_embd":768,"n_layer":12,"n_head":11,"n_positions":1024})",
       "heads"}};
  for (const auto& [content, expected] : cases) {
    const TempFile file("bad.json", content);
    const VerbResult r = run_verb({"estimate", file.path()});
    EXPECT_EQ(r.code, 2) << content;
    EXPECT_THAT(r.error, HasSubstr(expected));
    EXPECT_THAT(r.error, HasSubstr("bad.json"));
    EXPECT_EQ(lines_of(r.error), 0U) << r.error;
    EXPECT_EQ(r.out, "");
  }
}

// Every flag with a value that makes no sense for it: exit code 2 and one line that names the flag.
TEST(Estimate, EveryFlagRefusesNonsenseByName) {
  for (const cli::EstimateFlag& flag : cli::estimate_flags()) {
    for (const char* bad :
         {"nonsense", "-7", "", "1,,2", "9999999999999999999999999999999999999999"}) {
      if (flag.is_switch() && std::string(bad).empty()) continue;  // alone it means yes
      if (flag.name == "--tokens-per-second" && std::string(bad).size() > 30)
        continue;  // a real number
      std::vector<std::string> arguments{"estimate", std::string(flag.name) + "=" + bad};
      if (flag.name != "--family") arguments.insert(arguments.begin() + 1, "gpt2");
      const VerbResult r = run_verb(arguments);
      EXPECT_EQ(r.code, 2) << flag.name << "=" << bad << "\n" << r.out;
      EXPECT_THAT(r.error, HasSubstr(std::string(flag.name))) << bad;
      EXPECT_LE(lines_of(r.error), 2U) << r.error;  // two where the parser adds its hint
      EXPECT_EQ(r.out, "") << flag.name;
    }
  }
}

TEST(Estimate, ValuesOutOfTheirRangeAreNamed) {
  for (const auto& [line, expected] : std::initializer_list<std::pair<const char*, const char*>>{
           {"estimate gpt2 --dropout 1", "--dropout"},
           {"estimate gpt2 --dropout nan", "--dropout"},
           {"estimate gpt2 --zero 4", "--zero"},
           {"estimate gpt2 --batch 0", "--batch"},
           {"estimate gpt2 --batch 1.5", "--batch"},
           {"estimate gpt2 --batch 1e3", "--batch"},
           {"estimate gpt2 --checkpoint every", "--checkpoint"},
           {"estimate gpt2 --checkpoint every:K", "--checkpoint"},
           {"estimate gpt2 --checkpoint every:0", "--checkpoint"},
           {"estimate gpt2 --mfu 1.5", "--mfu"},
           {"estimate gpt2 --tokens 1.5", "--tokens"},
           {"estimate gpt2 --device-memory 0", "--device-memory"},
           {"estimate gpt2 --device-memory 5parsecs", "--device-memory"},
           {"estimate gpt2 --tp 5", "--tp"},
           {"estimate gpt2 --weights nf4", "--weights"},
           {"estimate gpt2 --kv-heads 5", "kv_heads"},
           {"estimate gpt2 --heads 7", "heads"},
           {"estimate gpt2 --family llama", "--family"},
           {"estimate --family llama,gpt --layers 1", "--family"},
           {"estimate --layers 2 --d-model 64", "heads"},
           {"estimate", "--parameters"},
           {"estimate gpt2 --json --csv", "--csv"},
           {"estimate gpt2 --no-such-flag", "--no-such-flag"},
           {"estimate gpt2 --lecture", "--lecture"},
           {"estimate llama-65b --lecture --batch 2", "--lecture"},
           {"estimate gtp2", "gpt2"},
           {"estimate missing.json", "missing.json"},
           {"estimate gpt2 --device H1000", "H100"},
           {"scaling", "--compute"},
           {"scaling --compute x", "--compute"},
           {"scaling --compute -1", "--compute"},
           {"scaling --compute inf", "--compute"},
           {"scaling --parameters 0", "--parameters"},
           {"scaling --tokens nan", "--tokens"},
           {"scaling --loss 2 --tokens 1T", "--loss"},
           {"scaling --compute 1e20 --json --csv", "--csv"},
           {"models --value 3", "--value"},
           {"models --formats --value x", "--value"},
           {"models --formats --devices", "--devices"},
           {"models nothing-like-it", "nearest"}}) {
    const VerbResult r = run_line(line);
    EXPECT_EQ(r.code, 2) << line;
    EXPECT_THAT(r.error, HasSubstr(expected)) << line;
    EXPECT_EQ(r.out, "") << line;
  }
}

TEST(Estimate, LecturePrintsEveryLine) {
  const VerbResult r = run_line("torchtally estimate llama-65b --lecture");
  EXPECT_EQ(r.code, 0);
  EXPECT_EQ(lines_of(r.out), 1 + lecture_audit().size());
  EXPECT_EQ(nlohmann::json::parse(run_line("torchtally estimate --lecture --json").out).size(),
            lecture_audit().size());
}

TEST(Verbs, HelpHasExamplesThatRun) {
  for (const char* verb : {"estimate", "scaling", "models"}) {
    const VerbResult help = run_verb({verb, "--help"});
    EXPECT_EQ(help.code, 0);
    const size_t examples = help.out.find("Examples:");
    ASSERT_NE(examples, std::string::npos) << verb;
    size_t at = examples;
    int count = 0;
    while ((at = help.out.find("  torchtally ", at)) != std::string::npos) {
      const size_t end = help.out.find('\n', at);
      const std::string line = help.out.substr(at + 2, end - at - 2);
      at = end;
      ++count;
      if (line.find("config.json") != std::string::npos) continue;
      EXPECT_EQ(run_line(line).code, 0) << line;
    }
    EXPECT_GE(count, 3) << verb;
  }
}

TEST(Scaling, JsonAnswersWithEachLaw) {
  const auto json = nlohmann::json::parse(
      run_line("torchtally scaling --parameters 70B --tokens 1.4T --json").out);
  EXPECT_EQ(json.size(), scaling_law_names().size());
  for (const auto& answer : json) {
    EXPECT_NEAR(answer["tokens_per_parameter"].get<double>(), 20, 1e-9);
    EXPECT_NEAR(answer["compute"].get<double>(), 5.88e23, 1e12);
  }
  EXPECT_EQ(lines_of(run_line("torchtally scaling --compute 1e21 --csv").out),
            1 + scaling_law_names().size());
}

TEST(Models, TablesInTextAndJson) {
  EXPECT_EQ(nlohmann::json::parse(run_line("torchtally models --json").out).size(),
            model_presets().size());
  EXPECT_EQ(nlohmann::json::parse(run_line("torchtally models --devices --json").out).size(),
            devices().size());
  EXPECT_EQ(nlohmann::json::parse(run_line("torchtally models --optimizers --json").out).size(),
            optimizers().size());
  EXPECT_EQ(nlohmann::json::parse(run_line("torchtally models --recipes --json").out).size(),
            recipes().size());
  const auto formats =
      nlohmann::json::parse(run_line("torchtally models --formats --value 0.1 --json").out);
  EXPECT_EQ(formats.size(), number_formats().size());
  for (const char* flag : {"", "--formats", "--devices", "--optimizers", "--recipes", "mixtral"}) {
    EXPECT_EQ(run_line(std::string("torchtally models ") + flag).code, 0) << flag;
  }
  EXPECT_THAT(run_line("torchtally models --formats --value 124").out, HasSubstr("01111100"));
  const auto tensors = nlohmann::json::parse(run_line("torchtally models llama-65b --json").out);
  int64_t sum = 0;
  for (const auto& tensor : tensors["tensors"]) sum += tensor["elements"].get<int64_t>();
  EXPECT_EQ(sum, 65'285'660'672);
}

}  // namespace
}  // namespace tally::estimate
