// SPDX-License-Identifier: Apache-2.0
// Small grey images from CSV files, plain or gzip: a row is the pixels of a square image and its
// class, as in the digits that scikit-learn ships.
#pragma once

#include <torch/torch.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "sample.h"

namespace sample {

class ImageData {
 public:
  ImageData(const std::vector<std::string>& paths, int64_t size, uint64_t seed)
      : size_(size), random_(seed) {
    for (const std::string& path : paths) read(path);
    const float brightest = *std::max_element(pixels_.begin(), pixels_.end());
    for (float& pixel : pixels_) pixel = brightest > 0 ? 2 * pixel / brightest - 1 : 0;
  }

  size_t images() const { return classes_.size(); }
  int64_t classes() const { return 1 + *std::max_element(classes_.begin(), classes_.end()); }

  // Images [count, 1, size, size] and their classes, drawn at random.
  std::pair<torch::Tensor, torch::Tensor> batch(int64_t count) {
    auto images = torch::empty({count, 1, side_, side_});
    auto labels = torch::empty({count}, torch::kInt64);
    const int64_t pixels = side_ * side_;
    std::uniform_int_distribution<size_t> any(0, images_last());
    for (int64_t row = 0; row < count; ++row) {
      const size_t index = any(random_);
      std::copy_n(pixels_.data() + static_cast<int64_t>(index) * pixels, pixels,
                  images.data_ptr<float>() + row * pixels);
      labels.data_ptr<int64_t>()[row] = classes_[index];
    }
    if (size_ != side_) images = torch::upsample_bilinear2d(images, {size_, size_}, false);
    return {images, labels};
  }

 private:
  size_t images_last() const { return classes_.size() - 1; }

  void read(const std::string& path) {
    const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
    if (!file) {
      throw BadInput("cannot read the images " + path +
                     "; run scripts/setup, or name a CSV file with --data");
    }
    std::vector<char> line(1 << 16);
    for (size_t number = 1; gzgets(file.get(), line.data(), static_cast<int>(line.size()));
         ++number) {
      add_row(line.data(), path + ":" + std::to_string(number));
    }
    int status = Z_OK;
    gzerror(file.get(), &status);
    if (status != Z_OK || classes_.empty()) {
      throw BadInput("no images, or a damaged file: " + path);
    }
  }

  void add_row(const char* text, const std::string& where) {
    std::vector<float> values;
    for (char* end = nullptr;; text = end + 1) {
      values.push_back(std::strtof(text, &end));
      if (end == text) throw BadInput(where + ": not a row of numbers");
      if (*end != ',') break;
    }
    const float label = values.back();
    values.pop_back();
    const auto side = static_cast<int64_t>(std::lround(std::sqrt(values.size())));
    if (side_ == 0) side_ = side;
    if (side < 1 || side != side_ || side * side != static_cast<int64_t>(values.size())) {
      throw BadInput(where + ": not a square image and its class, of one size in every row");
    }
    if (label < 0 || label > 9999 || label != std::floor(label)) {
      throw BadInput(where + ": the class at the end of the row is not a number from 0 to 9999");
    }
    pixels_.insert(pixels_.end(), values.begin(), values.end());
    classes_.push_back(static_cast<int64_t>(label));
  }

  int64_t size_;
  int64_t side_ = 0;
  std::mt19937_64 random_;
  std::vector<float> pixels_;
  std::vector<int64_t> classes_;
};

}  // namespace sample
