#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A sample's test.
#   run_and_check.sh BIN FOLDER check [--saved BYTES] -- PROGRAM [ARGUMENT...]
#     runs BIN/PROGRAM in FOLDER; it must succeed, write a page, and its books must close.
#   run_and_check.sh BIN FOLDER refuse TEXT -- PROGRAM [ARGUMENT...]
#     it must end with code 2, one line on stderr that begins with its name and has TEXT, and
#     leave nothing behind.
set -eu
bin=$1 folder=$2 mode=$3
shift 3
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder"
options=
while [ "$1" != -- ]; do
  options="$options $1"
  shift
done
shift
program=$1
shift

if [ "$mode" = check ]; then
  "$bin/$program" "$@"
  head -c 15 report.html | grep -qi '<!doctype html>'
  "$bin/torchtally" report run.tally --format json > run.json
  # shellcheck disable=SC2086
  "$bin/../tests/check_books" run.json $options
  exit
fi

code=0
"$bin/$program" "$@" > stdout 2> stderr || code=$?
cat stderr
[ "$code" -eq 2 ] || { echo "exit code $code, not 2"; exit 1; }
[ "$(wc -l < stderr)" -eq 1 ] || { echo "not one line"; exit 1; }
grep -q "^$program: .*${options# }" stderr || { echo "does not say '${options# }'"; exit 1; }
if [ -e run.tally ] || [ -e report.html ]; then
  echo "left something behind"
  exit 1
fi
