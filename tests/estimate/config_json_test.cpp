// SPDX-License-Identifier: Apache-2.0
#include <fstream>

#include <nlohmann/json.hpp>

#include "tests/estimate/helpers.h"

namespace tally::estimate {
namespace {
using ::testing::AllOf;
using testing::error_of;
using ::testing::HasSubstr;

nlohmann::json llama() {
  return {{"model_type", "llama"},    {"vocab_size", 1000},
          {"hidden_size", 64},        {"num_hidden_layers", 2},
          {"num_attention_heads", 4}, {"num_key_value_heads", 2},
          {"intermediate_size", 176}, {"max_position_embeddings", 128}};
}

TEST(ConfigJson, AMissingFieldIsNamedWithItsFile) {
  const nlohmann::json complete_config = llama();
  for (const auto& [key, value] : complete_config.items()) {
    if (key == "num_key_value_heads") continue;  // the first Llama configs have none
    nlohmann::json config = llama();
    config.erase(key);
    EXPECT_THAT(error_of([&] { model_from_config(config.dump(), "dir/config.json"); }),
                AllOf(HasSubstr("dir/config.json"), HasSubstr(key)));
  }
}

TEST(ConfigJson, AWrongTypeOrSignIsNamed) {
  for (const char* key :
       {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "intermediate_size", "max_position_embeddings", "head_dim"}) {
    for (const nlohmann::json& bad :
         {nlohmann::json(-1), nlohmann::json(0), nlohmann::json("64"), nlohmann::json(6.5),
          nlohmann::json(true), nlohmann::json::array(), nlohmann::json(18446744073709551615U)}) {
      nlohmann::json config = llama();
      config[key] = bad;
      EXPECT_THAT(error_of([&] { model_from_config(config.dump(), "c.json"); }),
                  AllOf(HasSubstr("c.json"), HasSubstr(key)))
          << bad;
    }
  }
  for (const char* key : {"tie_word_embeddings", "attention_bias", "mlp_bias"}) {
    nlohmann::json config = llama();
    config[key] = "yes";
    EXPECT_THAT(error_of([&] { model_from_config(config.dump(), "c.json"); }), HasSubstr(key));
  }
}

TEST(ConfigJson, DimensionsMustFit) {
  nlohmann::json config = llama();
  config["num_attention_heads"] = 5;
  EXPECT_THAT(error_of([&] { model_from_config(config.dump(), "c.json"); }), HasSubstr("heads"));
  config = llama();
  config["num_key_value_heads"] = 3;
  EXPECT_THAT(error_of([&] { model_from_config(config.dump(), "c.json"); }), HasSubstr("kv_heads"));
}

TEST(ConfigJson, WhatIsNoModelIsRefused) {
  for (const char* text :
       {"", "{", "[]", "3", "null", "\"x\"", "{}", "{\"model_type\": 3}", "{\"model_type\": null}",
        "{\"model_type\": \"bert\"}", "{\"model_type\": \"llama\"} trailing", "\xff\xfe"}) {
    EXPECT_THAT(error_of([&] { model_from_config(text, "c.json"); }), HasSubstr("c.json")) << text;
  }
  EXPECT_THAT(error_of([] { model_from_config_file("/nowhere/config.json"); }),
              HasSubstr("/nowhere/config.json"));
  EXPECT_THAT(error_of([] { model_from_config(R"({"model_type": "bert"})", "c.json"); }),
              HasSubstr("llama"));
  nlohmann::json moe = llama();
  moe["model_type"] = "mixtral";
  EXPECT_THAT(error_of([&] { model_from_config(moe.dump(), "c.json"); }),
              HasSubstr("num_local_experts"));
  moe["num_local_experts"] = 2;
  moe["num_experts_per_tok"] = 3;
  EXPECT_THAT(error_of([&] { model_from_config(moe.dump(), "c.json"); }), HasSubstr("top_k"));
}

TEST(ConfigJson, NullMeansDefault) {
  nlohmann::json config = llama();
  config["num_key_value_heads"] = nullptr;
  config["head_dim"] = nullptr;
  const ModelSpec m = model_from_config(config.dump(), "c.json");
  EXPECT_EQ(m.kv_heads, 4);
  EXPECT_EQ(m.head_dim, 16);
}

TEST(ConfigJson, WhatIsNotCoveredIsRefusedNotGuessed) {
  EXPECT_THAT(
      error_of([] {
        model_from_config(
            R"({"model_type":"gpt2","vocab_size":10,"n_embd":8,"n_layer":1,"n_head":2,"n_positions":8,"add_cross_attention":true})",
            "c.json");
      }),
      HasSubstr("add_cross_attention"));
  EXPECT_THAT(
      error_of([] {
        model_from_config(
            R"({"model_type":"gpt2","vocab_size":10,"n_embd":8,"n_layer":1,"n_head":2,"n_positions":8,"activation_function":"swiglu"})",
            "c.json");
      }),
      HasSubstr("activation_function"));
}

TEST(ConfigJson, ShapesAloneSayTheModelStateAndNothingElse) {
  // A convolution, its bias and a frozen matrix in 16 bits.
  const ModelSpec m = model_from_config(
      R"({"name": "net", "parameters": [{"shape": [8, 4, 3, 3], "element_bytes": 4},
          {"shape": [8], "element_bytes": 4},
          {"shape": [16, 32], "element_bytes": 2, "trainable": false}]})",
      "c.json");
  EXPECT_EQ(m.name, "net");
  TrainingConfig config;
  config.optimizer = "adamw";
  const Estimate e = estimate(m, config);
  EXPECT_EQ(e.parameters.total, 288 + 8 + 512);
  EXPECT_EQ(e.memory.group(Group::kParameters), 4 * 296 + 2 * 512);
  EXPECT_EQ(e.memory.group(Group::kGradients), 4 * 296);
  EXPECT_EQ(e.memory.group(Group::kOptimizerState), 8 * 296);
  EXPECT_EQ(e.memory.group(Group::kActivations), 0);
  EXPECT_EQ(e.flops.step, 0);
  std::vector<std::string> said;
  for (const auto& [key, why] : e.not_applicable) {
    EXPECT_THAT(why, ::testing::StartsWith("not applicable because only the shapes")) << key;
    said.emplace_back(key);
  }
  EXPECT_THAT(said, ::testing::ElementsAre("activations", "logits", "peak", "flops"));
  // W + O + G and two temporaries of the convolution.
  EXPECT_EQ(e.memory.peak, 4 * 296 + 2 * 512 + 8 * 296 + 4 * 296 + 2 * 4 * 288);
  EXPECT_TRUE(estimate(find_model("gpt2"), config).not_applicable.empty());

  // torch.optim.Adafactor: a row and a column of the last two dimensions, and the second moment of
  // vectors in full.
  config.optimizer = "adafactor";
  EXPECT_EQ(estimate(m, config).memory.group(Group::kOptimizerState),
            4 * (8 * 4 * 3 + 8 * 4 * 3) + 4 * 8);
  config.optimizer = "adamw";
  config.dp = 2;
  config.zero = 1;
  EXPECT_EQ(estimate(m, config).memory.group(Group::kOptimizerState), 4 * 296);
  config.recipe = "inference";
  EXPECT_EQ(estimate(m, config).memory.total, 4 * 296 + 2 * 512);
}

TEST(ConfigJson, AFamilyAndItsDimensions) {
  const ModelSpec m = model_from_config(
      R"({"family": "gpt", "name": "mine", "layers": 12, "d_model": 768, "heads": 12,
          "vocab": 50257, "context": 1024})",
      "c.json");
  EXPECT_EQ(m.name, "mine");
  EXPECT_EQ(count_parameters(m).total, 124'439'808);
  EXPECT_EQ(m.ffn, 3072);
  EXPECT_THAT(error_of([] { model_from_config(R"({"family": "gpt", "layers": 2})", "c.json"); }),
              HasSubstr("c.json: field 'd_model' is missing"));
  EXPECT_THAT(error_of([] { model_from_config(R"({"family": "resnet", "layers": 2})", "c.json"); }),
              HasSubstr("resnet"));
}

TEST(ConfigJson, ShapesWithoutSenseAreRefused) {
  const auto error = [](const std::string& parameters) {
    return error_of([&] {
      model_from_config("{\"parameters\": " + parameters + "}", "c.json");
    });
  };
  EXPECT_THAT(error("[]"), HasSubstr("c.json: field 'parameters' is empty"));
  EXPECT_THAT(error("[3]"), HasSubstr("c.json: parameter 0: an object"));
  EXPECT_THAT(error(R"([{"shape": [2]}, {"shape": [-1]}])"), HasSubstr("parameter 1: field 'shape'"));
  EXPECT_THAT(error(R"([{"shape": 3}])"), HasSubstr("field 'shape'"));
  EXPECT_THAT(error(R"([{"shape": [1000000000000, 1000000000000]}])"), HasSubstr("too many"));
  EXPECT_THAT(error(R"([{"shape": [2], "trainable": 1}])"), HasSubstr("'trainable'"));
  const ModelSpec m = model_from_config(R"({"parameters": [{"shape": [2]}]})", "c.json");
  TrainingConfig config;
  config.tp = 2;
  EXPECT_THAT(error_of([&] { estimate(m, config); }), HasSubstr("need a model's dimensions"));
  config.tp = 1;
  config.recipe = "lora";
  EXPECT_THAT(error_of([&] { estimate(m, config); }), HasSubstr("--recipe lora"));
}

TEST(FindModel, ListsTheNearestNames) {
  EXPECT_THAT(error_of([] { find_model("lama-65b"); }), HasSubstr("llama-65b"));
  EXPECT_THAT(error_of([] { find_model("gpt2xxl"); }), HasSubstr("gpt2-xl"));
  EXPECT_THAT(error_of([] { find_model(""); }), HasSubstr("torchtally models"));
  EXPECT_EQ(find_model("LLaMA 65B").name, "llama-65b");
  EXPECT_EQ(find_model("Mixtral_8x7B").name, "mixtral-8x7b");
}

TEST(FindDevice, ListsTheNearestNames) {
  EXPECT_THAT(error_of([] { find_device("H1000"); }),
              AllOf(HasSubstr("--device"), HasSubstr("H100")));
  EXPECT_EQ(find_device("rtx 6000 ada").memory_bytes, 50'865'307'648);
}

}  // namespace
}  // namespace tally::estimate
