#!/usr/bin/env bash
# usage: bench.sh [OPTION...], or make bench-engine BENCH_ARGS="OPTION..."
#
# Builds the corpus, the peers and the benchmarks, and runs these. Everything that is measured is built in
# release mode. A first run takes about half an hour, most of it for wasmtime and for the code that
# WasmEdge's LLVM makes; what was built is kept.
#
#   --runs N         measured runs of each (5)
#   --quick          one run, one module compiled: shows that all works
#   --programs A,B   only these programs of the corpus
#   --peers A,B      only these of coracle, wasmtime, wasmtime-fastest, wasmedge, native
#   --measures A,B   only these of programs, compile, calls, start, servers, files
#   --out FOLDER     where the report goes (engine/benches/report)
set -euo pipefail

BENCHES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPOSITORY=$(cd "$BENCHES/../.." && pwd)
CACHE=${CORACLE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/coracle}

say() { echo "bench: $*" >&2; }

# Builds a benchmark in release mode and prints where its executable is.
executable() {
    (cd "$REPOSITORY" && cargo build -q --locked --release -p coracle-engine --bench "$1" --message-format json) |
        python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == sys.argv[1]:
        print(message["executable"])' "$1"
}

main() {
    if [[ ${1-} == --help ]]; then
        sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        return 0
    fi
    "$BENCHES/peers/wasmedge.sh"
    "$BENCHES/corpus/build.sh"
    say "building wasmtime"
    cargo build -q --locked --release --manifest-path "$BENCHES/peers/Cargo.toml"
    say "building our side"
    local harness
    harness=$(executable compare)
    BENCH_OUR_COMPILER=$(executable compare-compile)
    BENCH_OUR_RUNNER=$(executable compare-run)
    export BENCH_OUR_COMPILER BENCH_OUR_RUNNER
    export BENCH_CORPUS=$BENCHES/corpus/build BENCH_IMAGES=$CACHE/bench/images
    export BENCH_WASMTIME=$BENCHES/peers/target/release/wasmtime-peer BENCH_WASMEDGE=$CACHE/bench/wasmedge/wasmedge
    exec "$harness" "$@"
}

main "$@"
