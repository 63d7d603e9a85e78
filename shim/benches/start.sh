#!/usr/bin/env bash
# usage: start.sh [OPTION...], or make bench-start BENCH_ARGS="OPTION..."
#
# Measures how long containers take to start: this shim with programs from the node's cache and from
# nothing, and runc's shim with a native program, driven as containerd drives them, in one run.
#
#   --runs N       measured lives of each (20)
#   --quick        two of each: shows that all works
#   --out FOLDER   where the report goes (shim/benches/report)
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../../deploy/testbed/lib.sh
source "$REPOSITORY/deploy/testbed/lib.sh"
WORK=${CORACLE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/coracle}/bench/start
WASMTIME=$REPOSITORY/engine/benches/peers/target/release/wasmtime-peer

# A native hello that needs nothing of a root file system.
native() {
    mkdir -p "$WORK"
    [[ $WORK/hello -nt $REPOSITORY/test-images/hello/hello.c ]] ||
        cc -static -O2 -o "$WORK/hello" "$REPOSITORY/test-images/hello/hello.c"
}

main() {
    if [[ ${1-} == --help ]]; then
        sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        return 0
    fi
    "$TESTBED_SOURCE/fetch.sh"
    native
    product release
    local driver
    driver=$(driver)
    BENCH_RUNC_SHIM=$(suite_dir sid)/usr/bin/containerd-shim-runc-v2
    export BENCH_RUNC_SHIM BENCH_NATIVE=$WORK/hello
    # Of `coracle run`; shims get a new one in each run of this.
    export CORACLE_CACHE_DIR=$WORK/cache CORACLE_RUN_DIR=$WORK/run
    if [[ -x $WASMTIME ]]; then
        export BENCH_WASMTIME=$WASMTIME
    else
        echo "bench: wasmtime is not built: make bench builds it" >&2
    fi
    cd "$REPOSITORY"
    exec "$driver" "$@"
}

main "$@"
