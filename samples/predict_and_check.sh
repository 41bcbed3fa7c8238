#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The test of a promise in a report.
#   predict_and_check.sh BIN FOLDER KIND TEXT PERCENT 'BEFORE' 'AFTER' PROGRAM [ARGUMENT...]
#     runs BIN/PROGRAM with the arguments and BEFORE, then with AFTER in its place; the remedy
#     TEXT... of the first run's verdict KIND must have promised the second one's peak.
set -eu
bin=$1 folder=$2 kind=$3 text=$4 percent=$5 before=$6 after=$7
program=$8
shift 8
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder"
# shellcheck disable=SC2086
for run in before after; do
  if [ $run = before ]; then more=$before; else more=$after; fi
  "$bin/$program" "$@" $more --recording $run.tally --report "" > $run.txt
  "$bin/torchtally" report $run.tally --format json > $run.json
done
"$bin/../tests/check_prediction" before.json after.json "$kind" "$text" "$percent"
