// SPDX-License-Identifier: Apache-2.0
// Text as byte-level tokens (vocabulary 256), and random batches of it.
#pragma once

#include <torch/torch.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "sample.h"

namespace sample {

class TextData {
 public:
  // Files, or folders that are searched for sources.
  TextData(const std::vector<std::string>& paths, int64_t sequence, uint64_t seed)
      : sequence_(sequence), random_(seed) {
    for (const std::string& path : paths) read(path);
    if (static_cast<int64_t>(text_.size()) <= sequence) {
      throw BadInput("the text has " + std::to_string(text_.size()) + " bytes, and --sequence " +
                     std::to_string(sequence) + " needs " + std::to_string(sequence + 1) +
                     " or more; name a longer file with --text");
    }
  }

  size_t bytes() const { return text_.size(); }

  // Tokens [batch, sequence] and, for each, the one that follows.
  std::pair<torch::Tensor, torch::Tensor> batch(int64_t size) {
    auto tokens = torch::empty({size, sequence_}, torch::kInt64);
    auto targets = torch::empty({size, sequence_}, torch::kInt64);
    std::uniform_int_distribution<size_t> start(0,
                                                text_.size() - static_cast<size_t>(sequence_) - 1);
    for (int64_t row = 0; row < size; ++row) {
      const unsigned char* from = text_.data() + start(random_);
      std::copy_n(from, sequence_, tokens.data_ptr<int64_t>() + row * sequence_);
      std::copy_n(from + 1, sequence_, targets.data_ptr<int64_t>() + row * sequence_);
    }
    return {tokens, targets};
  }

 private:
  static constexpr size_t kMostBytes = 64 << 20;

  void read(const std::string& path) {
    namespace fs = std::filesystem;
    std::error_code error;
    if (!fs::is_directory(path, error)) return append(path);
    std::vector<std::string> files;
    for (fs::recursive_directory_iterator entry(path, error), end; !error && entry != end;
         entry.increment(error)) {
      const std::string name = entry->path().filename().string();
      if (entry->is_directory()) {
        // Not what was built or downloaded, which differs from one checkout to the next.
        if (name[0] == '.' || name.starts_with("build") || name == "node_modules") {
          entry.disable_recursion_pending();
        }
        continue;
      }
      const std::string extension = entry->path().extension().string();
      for (const char* source : {".cpp", ".h", ".py", ".ts", ".tsx", ".cmake", ".md"}) {
        if (extension == source) files.push_back(entry->path().string());
      }
    }
    if (files.empty()) throw BadInput("no sources in the folder " + path);
    std::sort(files.begin(), files.end());  // the same text on every file system
    for (const std::string& file : files) append(file);
  }

  void append(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw BadInput("cannot read the text " + path);
    if (text_.size() >= kMostBytes) return;  // more text teaches ten steps nothing
    text_.insert(text_.end(), std::istreambuf_iterator<char>(file), {});
  }

  int64_t sequence_;
  std::mt19937_64 random_;
  std::vector<unsigned char> text_;
};

}  // namespace sample
