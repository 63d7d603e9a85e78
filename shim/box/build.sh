#!/usr/bin/env bash
# Builds coracle-box.wasm from its source.
#
#   shim/box/build.sh            write shim/box/coracle-box.wasm, which belongs into the repository
#   shim/box/build.sh --check    build anew and compare: fails when source and module differ
#
# The compiler is Debian's Rust for WASI, as for the test images, which is kept in
# ${XDG_CACHE_HOME:-~/.cache}/coracle/test-images. The same source gives the same bytes on every machine.
set -euo pipefail

BOX=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SRC=$(cd "$BOX/../../test-images" && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/coracle/test-images
MODULE=$BOX/coracle-box.wasm

mkdir -p "$CACHE"
# shellcheck source-path=SCRIPTDIR/../../test-images source=toolchain.sh
source "$SRC/toolchain.sh"

if ! have "$RUST_DIR"; then
    exec 9>"$CACHE/.lock"
    flock 9
    have "$RUST_DIR" || unpack_dir "$RUST_DIR" fill_rust
    flock -u 9
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$BOX" # relative source paths, so that no machine's path gets into the module
"$RUST_DIR/bin/rustc" --target wasm32-wasip1 --edition 2024 --crate-name coracle_box --crate-type bin -D warnings \
    -C opt-level=z -C lto=fat -C codegen-units=1 -C panic=abort -C strip=symbols \
    -C linker="$RUST_DIR/bin/wasm-ld" -C linker-flavor=wasm-ld \
    --remap-path-prefix="$CACHE=/cache" -o "$work/coracle-box.wasm" src/main.rs

case ${1:-} in
--check)
    if ! cmp "$work/coracle-box.wasm" "$MODULE"; then
        echo "box: $MODULE is not what its source gives; run shim/box/build.sh and commit it" >&2
        exit 1
    fi
    echo "box: $(stat -c %s "$MODULE") bytes, as built from source"
    ;;
'')
    install -m 644 "$work/coracle-box.wasm" "$MODULE"
    echo "box: $(stat -c %s "$MODULE") bytes: $MODULE"
    ;;
*)
    echo "usage: build.sh [--check]" >&2
    exit 2
    ;;
esac
