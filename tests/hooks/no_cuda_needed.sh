#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# no_cuda_needed.sh <library> <program>: libtorchtally.so needs no library and no symbol of CUDA, and
# the program that links it runs where none can be found.
set -euo pipefail
library=$1 program=$2
needed=$(readelf -d "$library" | grep -iE 'NEEDED.*(cuda|cupti|nvidia|nvperf|nccl|cublas|cudnn)' || true)
[[ -z $needed ]] || { echo "$library needs: $needed"; exit 1; }
symbols=$(nm -DC --undefined-only "$library" | grep -E ' (cuda[A-Z_]|cu[A-Z]|cupti|nvperf|NVPW|at::cuda|c10::cuda)' || true)
[[ -z $symbols ]] || { echo "$library needs these symbols of CUDA:"; echo "$symbols"; exit 1; }
"$program" --gtest_filter='Autograd.SavedTensorsCountOnceAndWhole'
