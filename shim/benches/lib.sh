#!/usr/bin/env bash
# What the scripts of this folder share; sourced by them.

BENCHES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPOSITORY=$(cd "$BENCHES/../.." && pwd)
ADAPTERS=$REPOSITORY/shim/adapters/runwasi
# What is kept from one run to the next, of all benchmarks.
BENCH_CACHE=${CORACLE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/coracle}/bench
# shellcheck disable=SC2034 # of the scripts that source this
BENCH_WORK=$BENCH_CACHE/start

# Builds what is measured and says where it is. $1 is the profile.
product() {
    (cd "$REPOSITORY" && cargo build -q --locked --profile "$1" -p coracle-shim -p coracle-deploy)
    local built=$REPOSITORY/target/${1/#dev/debug}
    export BENCH_SHIM=$built/containerd-shim-wasm-v1 BENCH_CORACLE=$built/coracle
    export BENCH_PROGRAMS=$REPOSITORY/test-images/build
}

# Builds the driver and prints where it is. It only waits, so it need not be fast. Cargo does not start it:
# what it starts would look for libraries in Cargo's folders first.
driver() {
    (cd "$REPOSITORY" && cargo build -q --locked -p coracle-shim --bench start --message-format json) |
        python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == "start":
        print(message["executable"])'
}

# The peers that are shims, given as `-p PACKAGE`, each built alone, so that none changes the features that another is
# built with.
peers() {
    while (($#)); do
        cargo build -q --locked --release --manifest-path "$ADAPTERS/Cargo.toml" "$1" "$2"
        shift 2
    done
}
