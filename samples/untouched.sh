#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `untouched.sh BIN FOLDER`: `torchtally run` on a program that knows nothing of the profiler. It
# prints and ends as it does alone, and the books of every step close with each byte attributed.
set -eu
bin=$1 folder=$2
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder"
gpt="$bin/train_gpt --small --no-profile --threads 1"
$gpt > alone.txt
"$bin/torchtally" run --out run.tally --report report.html -- $gpt > recorded.txt
cmp alone.txt recorded.txt
head -c 15 report.html | grep -qi '<!doctype html>'
"$bin/torchtally" report run.tally --format json > run.json
"$bin/../tests/check_books" run.json
code=0
"$bin/torchtally" run --out bad.tally -- "$bin/train_gpt" --heads 3 > bad.txt 2> bad.err || code=$?
[ "$code" -eq 2 ] || { echo "the program's exit code 2 became $code"; exit 1; }
