# SPDX-License-Identifier: Apache-2.0
# What scripts/setup, scripts/demo and scripts/test share. Sourced, never run.
# shellcheck shell=bash disable=SC2034
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=$ROOT/build
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/torchtally
PROGRAM=scripts/$(basename "$0")
export PYTHONDONTWRITEBYTECODE=1

# Something went wrong: what, why, what to do.
fail() {
  printf '%s: %s\n' "$PROGRAM" "$*" >&2
  exit 1
}

# Wrong use, or something that the user has to do first.
refuse() {
  printf '%s: %s\n' "$PROGRAM" "$*" >&2
  exit 2
}

now_ms() {
  local now=${EPOCHREALTIME/[.,]/}
  echo $((now / 1000))
}

# seconds_since <begin in ms>: "12.3 s"
seconds_since() {
  local ms=$(($(now_ms) - $1))
  printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
}

# step <what> <command...>: runs it, says how long it took. Its output goes to build/logs and is
# shown when it fails.
step() {
  local what=$1 begin log result=0
  shift
  begin=$(now_ms)
  mkdir -p "$BUILD/logs"
  log=$BUILD/logs/$(tr -cs '[:alnum:]' '-' <<<"${what%%(*}" | sed 's/-*$//').log
  printf '%s ... ' "$what"
  ("$@") >"$log" 2>&1 </dev/null || result=$?
  seconds_since "$begin"
  if ((result == 0)); then
    echo
    return 0
  fi
  printf ', failed with exit code %d. The end of %s:\n' "$result" "$log"
  tail -n 40 "$log" | sed 's/^/  | /'
  return "$result"
}

# step_shown <what> <command...>: the same with its output shown as it comes.
step_shown() {
  local what=$1 begin result=0
  shift
  begin=$(now_ms)
  printf '%s\n' "$what"
  "$@" || result=$?
  printf '%s: %s\n' "$what" "$(seconds_since "$begin")"
  return "$result"
}

# How many compilers at once: one a core, and about 1.5 GB for each (files that include LibTorch).
job_count() {
  local cores by_memory
  if [[ -n ${CMAKE_BUILD_PARALLEL_LEVEL:-} ]]; then
    echo "$CMAKE_BUILD_PARALLEL_LEVEL"
    return
  fi
  cores=$(nproc)
  by_memory=$(awk '/^MemAvailable:/ { print int($2 / 1500000) }' /proc/meminfo)
  ((by_memory < cores)) && cores=$by_memory
  ((cores < 1)) && cores=1
  echo "$cores"
}

# The Node of this machine if it is new enough and has npm, else that of build/venv, else nothing.
find_node() {
  local node version
  for node in "$(command -v node || true)" "$BUILD/venv/bin/node"; do
    [[ -n $node && -x $node && -x $(dirname "$node")/npm ]] || continue
    version=$("$node" --version 2>/dev/null) || continue
    version=${version#v}
    if ((${version%%.*} >= 20)); then
      echo "$node"
      return 0
    fi
  done
  return 1
}

# Chromium, or a browser made of it, that starts.
find_chromium() {
  local name path
  for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable; do
    path=$(command -v "${name:-none}") || continue
    if "$path" --version >/dev/null 2>&1; then
      echo "$path"
      return 0
    fi
  done
  return 1
}

# Configures build/ as scripts/demo and scripts/test both use it, so that neither undoes the other.
configure() {
  local node arguments=(
    -S "$ROOT" -B "$BUILD" -DCMAKE_BUILD_TYPE=Release
    -DTORCHTALLY_WITH_TORCH=ON -DTORCHTALLY_TESTS=ON -DTORCHTALLY_SAMPLES=ON
    -DTORCHTALLY_BENCHMARKS=ON
    "-DTORCHTALLY_TORCH=$BUILD/torch" "-DTORCHTALLY_PYTHON=$BUILD/venv/bin/python3"
    -U TORCHTALLY_TORCH_PYTHON)
  [[ -f $BUILD/CMakeCache.txt ]] || arguments+=(-G Ninja)
  if command -v ccache >/dev/null; then
    arguments+=(-DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  fi
  if [[ -x $BUILD/python-tests/bin/python3 ]]; then
    arguments+=("-DTORCHTALLY_TEST_PYTHON=$BUILD/python-tests/bin/python3")
  fi
  if node=$(find_node); then
    arguments+=("-DTORCHTALLY_NODE=$node" "-DTORCHTALLY_NPM=$(dirname "$node")/npm")
  fi
  cmake "${arguments[@]}"
}

# build [targets...]: all of it without targets.
build() {
  # The precompiled header of LibTorch is only cached with these.
  export CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
  export CCACHE_BASEDIR=${CCACHE_BASEDIR:-$ROOT}
  local targets=()
  (($# > 0)) && targets=(--target "$@")
  cmake --build "$BUILD" --parallel "$(job_count)" "${targets[@]}"
}
