#!/usr/bin/env bash
# usage: start.sh [OPTION...], or make bench-start BENCH_ARGS="OPTION..."
#
# Measures how long containers take to start: this shim with programs from the node's cache and from
# nothing, runwasi's with our engine and with wasmtime, and runc's with a native program, driven as
# containerd drives them, in one run; then `coracle run` beside wasmtime's command line. A first run builds
# the peers, which takes a quarter of an hour; what was built is kept.
#
#   --runs N       measured lives of each (20)
#   --quick        two of each: shows that all works
#   --out FOLDER   where the report goes (shim/benches/report)
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../../deploy/testbed/lib.sh
source "$REPOSITORY/deploy/testbed/lib.sh"
WORK=$BENCH_WORK
WASMTIME=$BENCH_CACHE/wasmtime-$(sha256sum "$BENCHES/wasmtime.txt" | cut -c1-12)

# A native hello that needs nothing of a root file system.
native() {
    mkdir -p "$WORK"
    [[ $WORK/hello -nt $REPOSITORY/test-images/hello/hello.c ]] ||
        cc -static -O2 -o "$WORK/hello" "$REPOSITORY/test-images/hello/hello.c"
}

# wasmtime's command line in a folder of its own, from a wheel.
wasmtime() {
    local new=$WASMTIME.new programs
    [[ ! -d $WASMTIME ]] || return 0
    say "fetching wasmtime into $WASMTIME"
    rm -rf "$new"
    python3 -m venv "$new/venv"
    "$new/venv/bin/python" -m pip --disable-pip-version-check -q install --require-hashes --no-deps \
        -r "$BENCHES/wasmtime.txt"
    programs=("$new"/venv/lib/python3*/site-packages/wasmtime_cli/wasmtime{,-min})
    # They come without the right to be run.
    chmod +x "${programs[@]}"
    mv "${programs[@]}" "$new"
    rm -r "$new/venv"
    mv -T "$new" "$WASMTIME"
}

main() {
    if [[ ${1-} == --help ]]; then
        print_help "${BASH_SOURCE[0]}"
        return 0
    fi
    "$TESTBED_SOURCE/fetch.sh"
    native
    wasmtime
    product release
    peers -p coracle-runwasi -p coracle-bench-runwasi-wasmtime
    local driver
    driver=$(driver)
    export BENCH_RUNWASI_SHIM=$ADAPTERS/target/release/containerd-shim-coracle-runwasi-v1
    export BENCH_RUNWASI_WASMTIME_SHIM=$ADAPTERS/target/release/containerd-shim-runwasi-wasmtime-v1
    BENCH_RUNC_SHIM=$(suite_dir sid)/usr/bin/containerd-shim-runc-v2
    export BENCH_RUNC_SHIM BENCH_WASMTIME=$WASMTIME BENCH_NATIVE=$WORK/hello
    # Of `coracle run`; shims get a new one in each run of this.
    export CORACLE_CACHE_DIR=$WORK/cache CORACLE_RUN_DIR=$WORK/run
    cd "$REPOSITORY"
    # A containerd that runs nothing, for the shims that ask it for images.
    CORACLE_BIN_DIR=$(dirname "$BENCH_SHIM") exec "$TESTBED_SOURCE/with.sh" --daemons c21 -- "$driver" "$@"
}

main "$@"
