// SPDX-License-Identifier: Apache-2.0
// make_synthetic_recording OUT.tally [STEPS [LAYERS]]: a recording to try the reports on, without
// Torch.
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "tests/support/synthetic_run.h"

int main(int argc, char** argv) {
  if (argc < 2 || argc > 4) {
    std::fputs("usage: make_synthetic_recording OUT.tally [STEPS [LAYERS]]\n", stderr);
    return 2;
  }
  try {
    tally::test::SyntheticOptions options;
    if (argc > 2) options.steps = std::atoi(argv[2]);
    if (argc > 3) options.layers = std::atoi(argv[3]);
    tally::test::write_recording(tally::test::make_synthetic_run(options), argv[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "make_synthetic_recording: %s\n", error.what());
    return 2;
  }
}
