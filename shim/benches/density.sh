#!/usr/bin/env bash
# usage: density.sh [OPTION...], or make bench-density BENCH_ARGS="OPTION..."
#
# Measures what idle containers take of a node: processes, threads, memory, wake-ups, and how long `ctr run -d` of each
# takes, for this shim, runwasi's with wasmtime and runc's in one run under a real containerd; then starts many of this
# shim's and stops them.
#
#   --containers N  at the same time, of each runtime (100)
#   --rounds N      rounds, the runtimes in another order each time (3)
#   --many N        containers of this shim in the last part (1000)
#   --quick         5, 1 and 10: shows that all works
#   --out FOLDER    where the report goes (shim/benches/report)
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../../deploy/testbed/lib.sh
source "$REPOSITORY/deploy/testbed/lib.sh"

main() {
    if [[ ${1-} == --help ]]; then
        print_help "${BASH_SOURCE[0]}"
        return 0
    fi
    "$TESTBED_SOURCE/fetch.sh"
    product release
    peers -p coracle-bench-runwasi-wasmtime
    mkdir -p "$BENCH_WORK"
    BENCH_NATIVE_IMAGE=$BENCH_WORK/native.tar
    "$TESTBED_SOURCE/native/pack.sh" "$BENCH_NATIVE_IMAGE"
    export BENCH_NATIVE_IMAGE
    # containerd finds shims in its PATH, which begins with this folder.
    local programs=$BENCH_WORK/bin
    mkdir -p "$programs"
    install "$BENCH_SHIM" "$BENCH_CORACLE" "$ADAPTERS/target/release/containerd-shim-runwasi-wasmtime-v1" "$programs"
    cd "$REPOSITORY"
    CORACLE_BIN_DIR=$programs exec "$TESTBED_SOURCE/with.sh" --daemons c21 -- python3 "$BENCHES/density.py" "$@"
}

main "$@"
