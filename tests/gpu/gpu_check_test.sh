#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# scripts/gpu_check over programs that say what a GPU might: gpu_check_test.sh <scripts/gpu_check>.
# Each question is answered in its output; where one is not, or books are open, it fails.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT

program() {
  printf '#!/bin/sh\ncat <<"END"\n%s\nEND\nexit %d\n' "$2" "${3:-0}" >"$folder/$1"
  chmod +x "$folder/$1"
}
program nvidia-smi 'GPU 0: a card of the test'
program card_figures '[{"program": "gpt", "peak_bytes": 300, "books_close": true}]'
program card_figures_virtual '[{"program": "other", "peak_bytes": 1}, {"program": "gpt", "peak_bytes": 260}]'
program counters_check '{"answers": 1, "asked": "x", "path": "libcupti.so.13"}
{"answers": 2, "asked": "x", "counted": 5}
{"answers": 3, "asked": "x", "passes": 1}
{"answers": 4, "asked": "x", "starts": true}
{"answers": 5, "asked": "x", "counted": 7}'
six_to_nine='{"answers": 6, "asked": "x"}
{"answers": 7, "asked": "x"}
{"answers": 8, "asked": "x"}
{"answers": 9, "asked": "x", "ratio": 1.04}'
program neighbours_check "$six_to_nine
{\"answers\": 10, \"asked\": \"x\", \"image_bytes\": 4096}"

check() {
  PATH=$folder:$PATH "$script" --programs "$folder" --without-python
}
script=$1
text=$(check)
grep -q '^10\. Which images' <<<"$text"
grep -q '"image_bytes": 4096' <<<"$text"
grep -q '"ratio": 1.04' <<<"$text"
if grep -q 'no answer' <<<"$text"; then exit 1; fi
grep -Eq 'gpt +peak_bytes +300 +260 +40$' <<<"$text"
[[ -s $folder/gpu_check.json ]]

# One question without an answer.
program neighbours_check "$six_to_nine"
result=0
text=$(check) || result=$?
[[ $result == 1 ]]
grep -A1 '^10\.' <<<"$text" | grep -q 'no answer'

# Refused: its own code.
program neighbours_check "$six_to_nine
{\"refused\": \"no counters\"}" 3
result=0
check >/dev/null || result=$?
[[ $result == 3 ]]

# Books that do not close weigh more.
program card_figures '[{"program": "gpt", "peak_bytes": 300, "books_close": false}]' 1
result=0
check >/dev/null || result=$?
[[ $result == 1 ]]
echo "gpu_check answers its questions"
