#!/usr/bin/env bash
# usage: trace.sh [OPTION...]
#
# Lists the system calls of a start from the node's cache, from the exec of `start` to the first instruction of
# the guest: those of `start`, of the server that it leaves behind, and of the guest. A second run of hello under
# strace, after one that filled the cache.
#
# Runs in the test bed: deploy/testbed/with.sh --daemons c21 -- shim/benches/trace.sh
#
#   --profile NAME  what is traced: release, or dev, which is built sooner and checks descriptors by further calls (release)
#   --list          each call with its arguments instead of how often there was which
#   --keep FILE     keep what strace wrote
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The wrapper in the shim's place. The tracer detaches itself, so that the shim is its caller's child as ever; it
# would keep the caller's pipe open.
wrapper() {
    cat <<SCRIPT
#!/bin/sh
exec strace -DDD -f -ttt -y -s 48 -o '$WORK/strace' '$BENCH_SHIM' "\$@" 2>>'$WORK/stderr'
SCRIPT
}

# The tracer ends after its processes.
settle() {
    local deadline=$((SECONDS + 20))
    while ! python3 "$BENCHES/trace.py" --ended "$WORK/strace"; do
        ((SECONDS < deadline)) || {
            echo "trace: the tracer does not end" >&2
            exit 1
        }
        sleep 0.1
    done
}

main() {
    local profile=release keep='' how=()
    while (($#)); do
        case $1 in
            --help)
                sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
                return 0
                ;;
            --profile) profile=$2 && shift ;;
            --keep) keep=$2 && shift ;;
            --list) how=(--list) ;;
            *)
                echo "trace: unknown option $1: see trace.sh --help" >&2
                return 2
                ;;
        esac
        shift
    done
    [[ -n ${BENCH_SHIM-} ]] || product "$profile"
    local driver
    driver=$(driver)
    WORK=$(mktemp -d)
    trap 'rm -rf "$WORK"' EXIT
    wrapper >"$WORK/shim"
    chmod +x "$WORK/shim"
    "$driver" --trace "$WORK/shim" || {
        cat "$WORK/stderr" >&2
        return 1
    }
    settle
    [[ -z $keep ]] || cp "$WORK/strace" "$keep"
    python3 "$BENCHES/trace.py" "${how[@]}" "$WORK/strace"
}

main "$@"
