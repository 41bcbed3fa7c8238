#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# make_real_page.sh BIN FOLDER NAME PROGRAM ARGUMENTS...: trains a sample under the profiler; NAME.html
# and NAME.json in FOLDER are the reports of what it recorded.
set -euo pipefail
bin=$1
folder=$2
name=$3
program=$4
shift 4
mkdir -p "$folder"
rm -f "$folder/$name".*
"$bin/$program" "$@" --recording "$folder/$name.tally" --report ""
"$bin/torchtally" report "$folder/$name.tally" -o "$folder/$name.html"
"$bin/torchtally" report "$folder/$name.tally" -o "$folder/$name.json"
