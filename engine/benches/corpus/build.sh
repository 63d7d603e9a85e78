#!/usr/bin/env bash
# Builds the benchmark corpus: build/NAME.wasm, build/NAME.native from the same sources, build/data/.
#
# Toolchains and third-party modules are those of the test images, which are built first. What is there
# and has not changed is kept. Needs Go and Cargo.
set -euo pipefail

CORPUS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SRC=$(cd "$CORPUS/../../../test-images" && pwd)
BUILD=$CORPUS/build
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/coracle/test-images # as the test images have it
# shellcheck source-path=SCRIPTDIR source=../../../test-images/toolchain.sh
source "$SRC/toolchain.sh"

SOURCES_DIR=$CACHE/bench-sources-$(sha256sum "$CORPUS/sources/Cargo.lock" | cut -c1-12)

say() { echo "corpus: $*" >&2; }

zig() { ZIG_GLOBAL_CACHE_DIR=$CACHE/zig-cache ZIG_LOCAL_CACHE_DIR=$CACHE/zig-cache "$ZIG_DIR/bin/zig" "$@"; }

# Whether OUTPUT is missing or older than one of its SOURCES (folders count with all they hold).
stale() {
    local output=$1
    shift
    [[ ! -f $output ]] || [[ -n $(find "$@" -newer "$output" -print -quit) ]]
}

# c NAME WASM_FLAGS SOURCE-OR-FLAG...: one C program for WASI and for this machine by the same clang. The
# machine's build is for any x86-64, as Debian's programs are. Names of functions stay in the module,
# debugging information does not.
c() {
    local name=$1 wasm_flags=$2 out=$BUILD/$1
    shift 2
    say "building $name"
    # shellcheck disable=SC2086 # a list of flags
    zig cc -target wasm32-wasi -O3 -g0 $wasm_flags "$@" -o "$out.debug"
    python3 "$SRC/wasm.py" strip "$out.debug" "$out.new"
    zig cc -target "$(uname -m)-linux-gnu" -O3 -g0 -fno-sanitize=all "$@" -lm -o "$out.native"
    mv "$out.new" "$out.wasm"
    rm -f "$out.debug"
}

kernels() {
    local source name flags
    for source in "$CORPUS"/c/*.c; do
        name=$(basename "$source" .c) flags=''
        [[ $name != simd-* ]] || flags='-msimd128'
        stale "$BUILD/$name.wasm" "$CORPUS/c/corpus.h" "$source" || continue
        c "$name" "$flags" -Wall -Wextra -Werror "$source"
    done
    for source in "$CORPUS"/io/*.c; do
        name=$(basename "$source" .c)
        stale "$BUILD/$name.wasm" "$source" || continue
        c "$name" '' -Wall -Wextra -Werror "$source"
    done
    if stale "$BUILD/calls.wasm" "$CORPUS/calls/wasi.c"; then
        say "building calls"
        zig cc -target wasm32-wasi -O3 -g0 -Wall -Wextra -Werror "$CORPUS/calls/wasi.c" -o "$BUILD/calls.debug"
        python3 "$SRC/wasm.py" strip "$BUILD/calls.debug" "$BUILD/calls.wasm"
        rm "$BUILD/calls.debug"
    fi
}

# C sources that crates carry.
fill_sources() {
    cargo vendor -q --locked --manifest-path "$CORPUS/sources/Cargo.toml" "$1/vendor" >/dev/null &&
        mv "$1/vendor/sqlite3-src/source" "$1/sqlite" && mv "$1/vendor/rquickjs-sys/quickjs" "$1/quickjs" &&
        mv "$1/vendor/zstd-sys/zstd" "$1/zstd" && rm -r "$1/vendor"
}

carried() {
    if ! have "$SOURCES_DIR"; then
        say "fetching C sources into $SOURCES_DIR"
        unpack_dir "$SOURCES_DIR" fill_sources
    fi
    local sqlite=$SOURCES_DIR/sqlite quickjs=$SOURCES_DIR/quickjs zstd=$SOURCES_DIR/zstd/lib
    if stale "$BUILD/sqlite.wasm" "$CORPUS/sqlite/speed.c" "$SOURCES_DIR"; then
        c sqlite '' -w -DSQLITE_THREADSAFE=0 -DSQLITE_OMIT_LOAD_EXTENSION -I"$sqlite" "$CORPUS/sqlite/speed.c" "$sqlite/sqlite3.c"
    fi
    if stale "$BUILD/quickjs.wasm" "$CORPUS/quickjs/main.c" "$SOURCES_DIR"; then
        c quickjs '' -w -D_GNU_SOURCE -I"$quickjs" "$CORPUS/quickjs/main.c" "$quickjs"/{quickjs,libregexp,libunicode,dtoa}.c
    fi
    if stale "$BUILD/zstd.wasm" "$CORPUS/zstd/main.c" "$SOURCES_DIR"; then
        # Its assembly is for the machine only, so that both builds have the same sources.
        c zstd '' -w -DZSTD_DISABLE_ASM -I"$zstd" "$CORPUS/zstd/main.c" "$zstd"/{common,compress,decompress}/*.c
    fi
}

# Compilers under the names that cargo wants: for Rust, and Zig as the C compiler for WASI, whose name for the
# target is another one.
rust_tools() {
    local bin=$BUILD/.tools
    rustc_in "$bin"
    cat >"$bin/wasi-cc" <<SCRIPT
#!/bin/sh
export ZIG_GLOBAL_CACHE_DIR="$CACHE/zig-cache" ZIG_LOCAL_CACHE_DIR="$CACHE/zig-cache"
for arg; do
    shift
    case \$arg in --target=*) ;; *) set -- "\$@" "\$arg" ;; esac
done
exec "$ZIG_DIR/bin/zig" cc -target wasm32-wasi "\$@"
SCRIPT
    printf '#!/bin/sh\nexec "%s" ar "$@"\n' "$ZIG_DIR/bin/zig" >"$bin/wasi-ar"
    chmod +x "$bin"/*
    echo "$bin"
}

rust() {
    local bin program target=$CORPUS/rust/target
    stale "$BUILD/json.wasm" "$CORPUS/rust/Cargo.lock" "$CORPUS/rust/Cargo.toml" "$CORPUS/rust/src" || return 0
    bin=$(rust_tools)
    say "building the Rust programs"
    (
        cd "$CORPUS/rust"
        export RUSTC=$bin/rustc
        CC_wasm32_wasip1=$bin/wasi-cc AR_wasm32_wasip1=$bin/wasi-ar CARGO_TARGET_WASM32_WASIP1_LINKER=$RUST_DIR/bin/wasm-ld \
            CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS='-C linker-flavor=wasm-ld' \
            cargo build -q --release --locked --target wasm32-wasip1
        cargo build -q --release --locked
    )
    for program in "$CORPUS"/rust/src/bin/*.rs; do
        program=$(basename "$program" .rs)
        python3 "$SRC/wasm.py" strip "$target/wasm32-wasip1/release/$program.wasm" "$BUILD/$program.new"
        cp "$target/release/$program" "$BUILD/$program.native"
        mv "$BUILD/$program.new" "$BUILD/$program.wasm"
    done
}

go_build() { GOTOOLCHAIN=local GOWORK=off GOFLAGS='' GOCACHE=$CACHE/go go build -trimpath -buildvcs=false "$@"; }

go_programs() {
    if stale "$BUILD/go-trees.wasm" "$CORPUS/go"; then
        say "building go-trees"
        go_build -o "$BUILD/go-trees.native" "$CORPUS/go/trees.go"
        GOOS=wasip1 GOARCH=wasm go_build -o "$BUILD/go-trees.wasm" "$CORPUS/go/trees.go"
    fi
    # The same module as the test image's.
    [[ -f $BUILD/gofmt.native ]] || go_build -o "$BUILD/gofmt.native" cmd/gofmt
}

third_party() {
    local name
    "$SRC/build.sh" --wasm >&2
    for name in python gofmt usvg; do
        cp -u "$SRC/build/thirdparty-$name.wasm" "$BUILD/$name.wasm"
    done
    cp -u "$SRC/build/hello.wasm" "$BUILD/hello.wasm"
    [[ -f $BUILD/hello.native ]] || zig cc -target "$(uname -m)-linux-gnu" -O3 "$SRC/hello/hello.c" -o "$BUILD/hello.native"
    cp -u "$CORPUS/calls/nop.wat" "$BUILD/nop.wat"
}

data() {
    local root n=0 file
    cp "$CORPUS/quickjs/work.js" "$CORPUS/python/work.py" "$BUILD/data/"
    python3 "$CORPUS/usvg/drawing.py" >"$BUILD/data/drawing.svg"
    root=$(GOTOOLCHAIN=local go env GOROOT)
    # Large files that every Go of today has.
    for file in net/http/h2_bundle.go runtime/proc.go unicode/tables.go; do
        cp "$root/src/$file" "$BUILD/data/$((n += 1)).go"
    done
}

mkdir -p "$BUILD/data" "$CACHE"
third_party
kernels
carried
rust
go_programs
data
say "done in $SECONDS s: $BUILD"
