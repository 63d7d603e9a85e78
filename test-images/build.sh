#!/usr/bin/env bash
# Builds every test image from source: test-images/build/NAME.wasm, then NAME--FORM.tar.
#
#   test-images/build.sh            build what changed
#   test-images/build.sh --wasm     the modules only, no images
#
# Needs a Debian machine with Go, Rust and Python 3.11; installs the WASI toolchains by itself into
# ${XDG_CACHE_HOME:-~/.cache}/coracle/test-images. The first run takes a few minutes and 400 MB of
# download, later ones seconds.
set -euo pipefail

SRC=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
BUILD=$SRC/build
STAMPS=$BUILD/.stamps
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/coracle/test-images
LOGS=$BUILD/.logs
JOBS=$(nproc)

mkdir -p "$CACHE" "$STAMPS" "$LOGS"
# shellcheck source-path=SCRIPTDIR source=toolchain.sh
source "$SRC/toolchain.sh"
cd "$SRC" # relative source paths, so that no machine's path gets into a module

say() { echo "images: $*"; }

# in_background NAME COMMAND...: runs it with its output in a log; a failure is told by `join`.
declare -A running=()
in_background() {
    local name=$1
    shift
    ("$@") >"$LOGS/$name.log" 2>&1 &
    running[$!]=$name
}

# join [MOST]: waits until at most MOST (0) background jobs are left.
join() {
    local most=${1:-0} done_pid name
    while ((${#running[@]} > most)); do
        if ! wait -n -p done_pid "${!running[@]}"; then
            name=${running[$done_pid]}
            echo "images: $name failed:" >&2
            tail -n 30 "$LOGS/$name.log" >&2
            exit 1
        fi
        unset "running[$done_pid]"
    done
}

# However this script ends, its own jobs end with it.
stop_jobs() {
    local pid
    for pid in "${!running[@]}"; do kill "$pid" 2>/dev/null || true; done
}
trap stop_jobs EXIT

install_toolchains() {
    # One build at a time fills the cache; another work tree's waits and finds it filled.
    exec 9>"$CACHE/.lock"
    flock 9
    rm -rf "$CACHE"/.new.*
    local what dir
    for what in zig:"$ZIG_DIR" rust:"$RUST_DIR" wheels:"$WHEELS_DIR" npm:"$NPM_DIR" sqlite:"$SQLITE_DIR" crates:"$CRATES_DIR"; do
        dir=${what#*:} what=${what%%:*}
        have "$dir" && continue
        say "fetching $what into $dir"
        in_background "fetch-$what" unpack_dir "$dir" "fill_$what"
    done
    # Go is here already, and building its standard library is the longest single step.
    in_background go-std warm_go
    join
    flock -u 9
}

warm_go() { go_cc build -o /dev/null ./hello/hello.go; }

go_cc() { GOTOOLCHAIN=local GOWORK=off GOFLAGS='' GOCACHE=$CACHE/go GOOS=wasip1 GOARCH=wasm go "$@"; }

zig_cc() {
    ZIG_GLOBAL_CACHE_DIR=$CACHE/zig-cache ZIG_LOCAL_CACHE_DIR=$CACHE/zig-cache \
        "$ZIG_DIR/bin/zig" cc -target wasm32-wasi -O2 -g0 "$@"
}

rust_cc() {
    "$RUST_DIR/bin/rustc" --target wasm32-wasip1 --edition 2024 -D warnings -C opt-level=2 -C strip=debuginfo \
        -C linker="$RUST_DIR/bin/wasm-ld" -C linker-flavor=wasm-ld "$@"
}

# make_wasm NAME RECIPE SOURCE [FLAG...]: builds NAME.wasm unless its sources, its recipe, its flags
# and its toolchain are those of the file that is there. SOURCE may be several, split by spaces.
make_wasm() {
    local name=$1 recipe=$2 sources=$3
    shift 3
    local key
    # shellcheck disable=SC2086 # the list of sources is split on purpose
    key=$({
        echo "$TOOLCHAINS" "$@"
        declare -f "$recipe" zig_cc rust_cc go_cc cargo_build rust_crates rustc_in
        cat $sources wasm.py
    } | sha256sum)
    if [[ -f $BUILD/$name.wasm && -f $STAMPS/$name && $(<"$STAMPS/$name") == "$key" ]]; then
        return
    fi
    join $((JOBS - 1))
    say "building $name.wasm"
    in_background "$name" finish_wasm "$name" "$recipe" "$sources" "$key" "$@"
}

finish_wasm() {
    local name=$1 recipe=$2 sources=$3 key=$4 new=$BUILD/.$1.new
    shift 4
    "$recipe" "$new" "$sources" "$@"
    chmod 644 "$new"
    mv "$new" "$BUILD/$name.wasm"
    echo "$key" >"$STAMPS/$name"
}

# The recipes: OUTPUT SOURCES [FLAG...].
c() {
    local out=$1 sources=$2
    shift 2
    # shellcheck disable=SC2086 # the list of sources is split on purpose
    zig_cc -Wall -Wextra -Werror "$@" ${sources// *.h/} -o "$out.debug"
    # The C library comes with debug information, which is most of the file, and Zig's own way to
    # drop it drops the function names too.
    python3 wasm.py strip "$out.debug" "$out"
    rm "$out.debug"
}
go_() { go_cc build -trimpath -buildvcs=false -o "$1" "./$2"; }
go_tool() { go_cc build -trimpath -buildvcs=false -o "$1" "cmd/$3"; }
rust() { rust_cc -o "$1" "$2"; }
# cargo_build MANIFEST [FLAG...]: with crates that come from the cache.
cargo_build() {
    local manifest=$1
    shift
    cargo build -q --frozen --release --manifest-path "$manifest" --target-dir "$BUILD/.cargo" \
        --config 'source.crates-io.replace-with="vendored"' --config "source.vendored.directory=\"$CRATES_DIR/vendor\"" "$@"
}
# A program with crates; its manifest is the first source.
rust_crates() {
    local out=$1 manifest=${2%% *}
    # tokio has its network for WASI behind this flag.
    RUSTC=$BUILD/.tools/rustc CARGO_TARGET_WASM32_WASIP1_LINKER=$RUST_DIR/bin/wasm-ld \
        CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS="--cfg tokio_unstable -C linker-flavor=wasm-ld --remap-path-prefix=$CACHE=/cache --remap-path-prefix=$SRC=/src" \
        cargo_build "$manifest" --target wasm32-wasip1
    cp "$BUILD/.cargo/wasm32-wasip1/release/$3.wasm" "$out"
}
copy() { cp "$2" "$1"; }
cut_short() { head -c 1000 "$2" >"$1"; }
sqlite() {
    # -I after the sources is no matter; the shell has no processes, threads or plug-ins in WASI.
    local source=$SQLITE_DIR/source
    zig_cc -w -DSQLITE_THREADSAFE=0 -DSQLITE_OMIT_LOAD_EXTENSION -DSQLITE_NOHAVE_SYSTEM -DSQLITE_OMIT_POPEN \
        -D_WASI_EMULATED_SIGNAL -D_WASI_EMULATED_GETPID -D_WASI_EMULATED_PROCESS_CLOCKS -D_WASI_EMULATED_MMAN \
        "$source/sqlite3.c" "$source/shell.c" -o "$1.debug" \
        -lwasi-emulated-signal -lwasi-emulated-getpid -lwasi-emulated-process-clocks -lwasi-emulated-mman
    python3 wasm.py strip "$1.debug" "$1"
    rm "$1.debug"
}
# A library for JavaScript becomes a command by a tool of ours, which runs on this machine.
ruby() {
    cargo_build "${2%% *}"
    "$BUILD/.cargo/release/ruby-command" "$NPM_DIR/ruby+stdlib.wasm" "$1"
}

build_wasm() {
    TOOLCHAINS="${ZIG_DIR##*/} ${RUST_DIR##*/} $(GOTOOLCHAIN=local go env GOVERSION)"
    rustc_in "$BUILD/.tools"
    # The longest first.
    make_wasm thirdparty-ruby ruby 'thirdparty/ruby/Cargo.toml thirdparty/ruby/Cargo.lock thirdparty/ruby/src/main.rs thirdparty/npm.txt'
    make_wasm thirdparty-sqlite sqlite thirdparty/sqlite/Cargo.lock
    make_wasm thirdparty-gofmt go_tool thirdparty/gofmt/script.txt gofmt
    local name
    for name in hello exit-code trap files env-args stdin-echo; do
        make_wasm "$name-go" go_ "$name/$name.go"
        make_wasm "$name-rust" rust "$name/$name.rs"
        # The stack overflow of trap.c is meant.
        make_wasm "$name" c "$name/$name.c" -Wno-infinite-recursion
    done
    make_wasm spin-go go_ spin/spin.go
    make_wasm spin c spin/spin.c
    make_wasm sleep c sleep/sleep.c
    make_wasm sockets c 'sockets/sockets.c sockets/wamr_socket.h'
    make_wasm sockets-rust rust_crates 'sockets/wasmedge/Cargo.toml sockets/wasmedge/Cargo.lock sockets/wasmedge/src/main.rs' sockets-rust
    make_wasm listen-tokio rust_crates 'listen/tokio/Cargo.toml listen/tokio/Cargo.lock listen/tokio/src/main.rs' listen-tokio
    make_wasm listen-go go_ listen/listen.go
    make_wasm listen-rust rust listen/listen.rs
    make_wasm bad-imports c bad/imports.c
    make_wasm bad-signature c bad/signature.c
    make_wasm bad-no-start c bad/reactor.c -mexec-model=reactor
    make_wasm thirdparty-python copy "$WHEELS_DIR/python.wasm"
    make_wasm thirdparty-quickjs copy "$WHEELS_DIR/quickjs.wasm"
    make_wasm thirdparty-usvg copy "$WHEELS_DIR/usvg.wasm"
    join
    make_wasm bad-truncated cut_short "$BUILD/hello.wasm"
    join
}

# The one program that is not built here, for an image of a Linux program: Debian's, linked statically.
take_busybox() {
    local from
    from=$(command -v busybox) || die 'busybox is missing: install the Debian package busybox-static'
    cmp -s "$from" "$BUILD/busybox" || cp "$from" "$BUILD/busybox"
}

main() {
    case ${1:-} in
    '' | --wasm) ;;
    *) die "usage: build.sh [--wasm]" ;;
    esac
    check_machine
    install_toolchains
    build_wasm
    take_busybox
    [[ ${1:-} == --wasm ]] || python3 pack.py "$BUILD"
    say "done in ${SECONDS} s: $BUILD"
}

main "$@"
