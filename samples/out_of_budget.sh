#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The story of docs/verdicts.md, as a test: `out_of_budget.sh BIN FOLDER`. train_gpt within a budget
# that stops it ends with an error and a post-mortem; with the remedy that promises the most of what
# keeps the model as it is, it trains.
set -eu
bin=$1 folder=$2
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder"
gpt="$bin/train_gpt --layers 8 --width 128 --batch 4 --steps 3 --threads 1 --report "
export TORCHTALLY_BUDGET=52MiB TORCHTALLY_BUDGET_ACTION=stop
code=0
$gpt "" > failed.txt 2> failed.err || code=$?
cat failed.err
[ "$code" -eq 1 ] || { echo "exit code $code, not 1"; exit 1; }
grep -q "the budget of 54525952 bytes" failed.err || { echo "does not name the budget"; exit 1; }
"$bin/torchtally" report run.tally > failed.report
cat failed.report
grep -q "an allocation of .* failed in step 1" failed.report || { echo "no post-mortem"; exit 1; }
"$bin/torchtally" report run.tally --format json > failed.json
grep -q "checkpoint each of h.0 to h.7" failed.json || { echo "no remedy"; exit 1; }
$gpt "" --checkpoint > fits.txt
