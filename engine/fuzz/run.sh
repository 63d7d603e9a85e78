#!/usr/bin/env bash
# usage: run.sh [TARGET…]        fuzzes all targets, or those named
#        run.sh --minimise        makes corpus/ anew from it and what runs have found
#
# Takes FUZZ_SECONDS of time in all (900), on two cores: `execute` on one of them, the other targets
# after each other on the other. Prints what each target did; fails when one of them found something,
# and says how to reproduce it. What runs find goes to CORACLE_CACHE/fuzz, not into the work tree.
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")"

readonly SECONDS_IN_ALL=${FUZZ_SECONDS:-900}
readonly PLACE=${CORACLE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/coracle}/fuzz
readonly BUILD=$PLACE/coverage
# Bytes of an input, seconds and MiB for one: far above what sound ones take.
readonly LIMITS=(-max_len=8192 -len_control=0 -timeout=120 -rss_limit_mb=6000)
# Bytes that a target's corpus may have in the work tree.
readonly CORPUS_BYTES=$((400 << 10))

declare -rA SHARE=([execute]=100 [decode]=50 [image]=20 [wasi]=30)

build() {
  local bins=() target
  for target in "${!SHARE[@]}"; do bins+=(--bin "$target"); done
  RUSTC_WRAPPER=$PWD/rustc-coverage cargo build --locked --release --features fuzzer "${bins[@]}" \
    --target-dir "$BUILD"
}

# The work folder of a target: inputs found, findings, log.
folder() { printf '%s/%s' "$PLACE" "$1"; }

fuzz() {
  local target=$1 seconds=$2 folder
  folder=$(folder "$target")
  mkdir -p "$folder"/{found,findings} "corpus/$target"
  rm -f "$folder"/stats "$folder"/log
  CORACLE_FUZZ_STATS=$folder/stats "$BUILD/release/$target" "$folder/found" "corpus/$target" \
    "${LIMITS[@]}" -max_total_time="$seconds" -print_final_stats=1 \
    -artifact_prefix="$folder/findings/" >"$folder/log" 2>&1 ||
    touch "$folder/failed"
}

# Runs targets after each other, each with its share of the time.
lane() {
  local target
  for target in "$@"; do
    fuzz "$target" $((SECONDS_IN_ALL * SHARE[$target] / 100))
  done
}

# A number that a target counted itself.
counted() { sed -n "s/^$2 //p" "$(folder "$1")/stats" 2>/dev/null | grep . || echo 0; }

report() {
  local target folder log failed=0
  printf '\n%-8s %10s %10s %10s %9s %8s %7s %6s  %s\n' target executions modules calls disagree \
    edges corpus crash heap/MiB
  for target in "$@"; do
    folder=$(folder "$target") log=$(folder "$target")/log
    printf '%-8s %10s %10s %10s %9s %8s %7s %6s  %s\n' "$target" \
      "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | grep . || echo 0)" \
      "$(modules "$target")" "$(calls "$target")" "$(counted "$target" disagreements)" \
      "$(grep -oE 'cov: [0-9]+' "$log" | tail -1 | cut -d' ' -f2)" \
      "$(find "$folder/found" "corpus/$target" -type f | wc -l)" \
      "$([[ -e $folder/failed ]] && echo 1 || echo 0)" \
      "$(sed -n 's/^stat::peak_rss_mb: *//p' "$log")"
  done
  for target in "$@"; do
    folder=$(folder "$target") log=$(folder "$target")/log
    [[ -e $folder/failed ]] || continue
    failed=1
    printf '\nfuzz: %s found something:\n' "$target"
    grep -aE -A12 -m1 'panicked at|ERROR: libFuzzer' "$log" || tail -20 "$log"
    printf 'fuzz: reproduce with: cargo run --manifest-path engine/fuzz/Cargo.toml --bin replay -- %s %s\n' \
      "$target" "$(grep -aoE 'Test unit written to .*' "$log" | tail -1 | cut -d' ' -f5-)"
  done
  return "$failed"
}

# Modules (images) that a target looked at, and calls that it made.
modules() {
  case $1 in
    execute) counted "$1" 'modules compared' ;;
    decode) echo $(($(counted "$1" 'modules accepted') + $(counted "$1" 'modules refused'))) ;;
    image) echo $(($(counted "$1" 'images loaded') + $(counted "$1" 'images refused'))) ;;
    *) echo - ;;
  esac
}

calls() {
  case $1 in
    execute) counted "$1" 'calls compared' ;;
    wasi) counted "$1" calls ;;
    *) echo - ;;
  esac
}

minimise() {
  local target folder size file bytes
  for target in "${!SHARE[@]}"; do
    folder=$(folder "$target")
    mkdir -p "$folder/found" "corpus/$target"
    rm -rf "$folder/cover"
    mkdir "$folder/cover"
    "$BUILD/release/$target" "${LIMITS[@]}" -set_cover_merge=1 "$folder/cover" "corpus/$target" \
      "$folder/found" >"$folder/log" 2>&1
    rm -f "corpus/$target"/*
    bytes=0
    # The smallest inputs first: they are many, and the work tree stays small.
    while read -r size file; do
      bytes=$((bytes + size))
      ((bytes > CORPUS_BYTES)) && break
      cp "$file" "corpus/$target/"
    done < <(find "$folder/cover" -type f -printf '%s %p\n' | sort -n)
    printf 'fuzz: %s: %s of %s inputs, %s KiB\n' "$target" "$(find "corpus/$target" -type f | wc -l)" \
      "$(find "$folder/cover" -type f | wc -l)" "$((bytes >> 10))"
  done
}

main() {
  case ${1-} in
    --help) sed -n '2,7s/^# \{0,1\}//p' run.sh ;;
    --minimise)
      build
      minimise
      ;;
    *)
      local targets=("$@") others=() target
      ((${#targets[@]})) || targets=(execute decode image wasi)
      for target in "${targets[@]}"; do
        [[ -v SHARE[$target] ]] || { echo "fuzz: there is no target $target" >&2 && exit 2; }
        rm -f "$(folder "$target")/failed"
        [[ $target == execute ]] || others+=("$target")
      done
      build
      printf 'fuzz: %s for %s s; logs in %s\n' "${targets[*]}" "$SECONDS_IN_ALL" "$PLACE"
      if [[ " ${targets[*]} " == *' execute '* ]]; then lane execute & fi
      lane "${others[@]}"
      wait
      report "${targets[@]}"
      ;;
  esac
}

main "$@"
