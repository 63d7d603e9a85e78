#!/usr/bin/env bash
# Cargo starts every compilation of this workspace by this: RUSTC ARGUMENT...
#
# The product's executables are linked statically: exec then maps one file and looks for no library, which
# is a quarter of what the three processes of a start would else ask of the kernel, and they run on any Linux. They
# ask glibc for nothing that a static one lacks: names are resolved by the engine itself, or, for the receiver of the
# node daemon's traces, by what glibc has built in (files and DNS); no user is looked up, nothing is loaded at run time.
# By a setting of Cargo's that would apply to procedural macros too, which cannot be static, or move all that is built
# to another folder.
#
# Not by sh: that of Debian drops variables like CARGO_BIN_EXE_containerd-shim-wasm-v1 from the environment.
set -euo pipefail

rustc=$1
shift
case " $* " in
*' --crate-name containerd_shim_wasm_v1 '*' --crate-type bin '* | *' --crate-name coracle '*' --crate-type bin '* | \
    *' --crate-name coracle_node '*' --crate-type bin '*)
    set -- "$@" -C target-feature=+crt-static
    ;;
esac
exec "$rustc" "$@"
