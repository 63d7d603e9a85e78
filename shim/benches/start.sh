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

BENCHES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPOSITORY=$(cd "$BENCHES/../.." && pwd)
# shellcheck source-path=SCRIPTDIR source=../../deploy/testbed/lib.sh
source "$REPOSITORY/deploy/testbed/lib.sh"
BUILT=$REPOSITORY/target/release
WORK=${CORACLE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/coracle}/bench/start

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
    (cd "$REPOSITORY" && cargo build -q --locked --release -p coracle-shim -p coracle-deploy)
    export BENCH_SHIM=$BUILT/containerd-shim-wasm-v1 BENCH_CORACLE=$BUILT/coracle
    BENCH_RUNC_SHIM=$(suite_dir sid)/usr/bin/containerd-shim-runc-v2
    export BENCH_RUNC_SHIM BENCH_NATIVE=$WORK/hello BENCH_PROGRAMS=$REPOSITORY/test-images/build
    cd "$REPOSITORY"
    # The driver only waits, so it need not be fast.
    exec cargo bench -q --locked --profile dev -p coracle-shim --bench start -- "$@"
}

main "$@"
