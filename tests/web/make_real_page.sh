#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# make_real_page.sh BIN FOLDER NAME PROGRAM ARGUMENTS...: trains a sample under the profiler; NAME.html
# and NAME.json in FOLDER are the reports of what it recorded. FAILS=1: the program ends with an
# error, as a program without memory does.
set -euo pipefail
bin=$1
folder=$2
name=$3
program=$4
shift 4
mkdir -p "$folder"
rm -f "$folder/$name".*
code=0
if [[ $program == record_card ]]; then
  "$bin/$program" "$folder/$name.tally" "$@" || code=$?
else
  "$bin/$program" "$@" --recording "$folder/$name.tally" --report "" || code=$?
fi
if ((code != ${FAILS:-0})); then
  echo "$program ended with $code, not ${FAILS:-0}" >&2
  exit 1
fi
unset TORCHTALLY_BUDGET TORCHTALLY_BUDGET_ACTION
"$bin/torchtally" report "$folder/$name.tally" -o "$folder/$name.html"
"$bin/torchtally" report "$folder/$name.tally" -o "$folder/$name.json"
