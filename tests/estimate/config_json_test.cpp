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
