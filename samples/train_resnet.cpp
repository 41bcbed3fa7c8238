// SPDX-License-Identifier: Apache-2.0
// Trains ResNet-18 or ResNet-50 on small images for a few steps, with the profiler around it.
#include <torch/torch.h>
#include <torchtally/profiler.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <string>
#include <vector>

#include "image_data.h"
#include "resnet.h"
#include "sample.h"

namespace {

struct Flags : sample::TrainFlags {
  int64_t depth = 18;
  int64_t size = 32;
  std::vector<std::string> data = {SAMPLE_IMAGES};
};

void add_flags(CLI::App& app, Flags& flags) {
  app.add_option("--depth", flags.depth, "18 or 50")
      ->check(CLI::IsMember({18, 50}))
      ->capture_default_str();
  app.add_option("--size", flags.size, "Pixels of a side; images are scaled to it")
      ->check(CLI::Range(8, 1024))
      ->capture_default_str();
  app.add_option("--data", flags.data, "CSV files, plain or gzip: pixels of a square image, class")
      ->capture_default_str();
  flags.batch = 32;
  flags.sgd_rate = 0.01;
  sample::add_train_flags(app, flags);
  app.footer(
      "Examples:\n"
      "  train_resnet                                ResNet-18 on 8x8 digits, scaled to 32x32\n"
      "  train_resnet --depth 50 --size 64           ResNet-50\n"
      "  train_resnet --optimizer sgd-momentum --accumulate 2\n"
      "  train_resnet --data images.csv --steps 50 --recording images.tally");
}

sample::Losses train(const Flags& flags) {
  if (flags.batch < 2) throw sample::BadInput("--batch 1 leaves BatchNorm nothing to average");
  torch::manual_seed(flags.seed);
  if (flags.threads > 0) torch::set_num_threads(static_cast<int>(flags.threads));
  sample::ImageData data(flags.data, flags.size, flags.seed);
  sample::ResNet model(flags.depth, 1, data.classes());
  const auto optimizer = sample::make_optimizer(flags, model->parameters());
  std::printf("ResNet-%lld, %zu images of %lld classes\n", static_cast<long long>(flags.depth),
              data.images(), static_cast<long long>(data.classes()));

  sample::Losses losses;
  tally::Profiler profiler(sample::profiler_options(flags));
  profiler.watch(*model);
  profiler.watch(*optimizer);
  for (int64_t i = 0; i < flags.steps; ++i) {
    auto step = profiler.step();
    double total = 0;
    optimizer->zero_grad();
    for (int64_t micro = 0; micro < flags.accumulate; ++micro) {
      const auto [images, classes] = data.batch(flags.batch);
      auto loss =
          torch::cross_entropy_loss(model(images), classes) / static_cast<double>(flags.accumulate);
      loss.backward();
      total += loss.item<double>();
    }
    optimizer->step();
    losses.add(total);
  }
  profiler.stop();
  std::cout << profiler.summary();
  return losses;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Trains a ResNet on small images and says where every byte and FLOP went.",
               "train_resnet"};
  Flags flags;
  add_flags(app, flags);
  return sample::run("train_resnet", app, argc, argv, [&] { return train(flags); });
}
