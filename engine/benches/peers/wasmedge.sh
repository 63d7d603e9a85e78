#!/usr/bin/env bash
# Brings WasmEdge with its LLVM compiler, as Debian packages it, into the cache: unpacked, not installed.
#
# The packages are of a newer suite than the machine's, so they run on their own C library. The machine's
# apt never sees that suite: the download has a configuration, lists and a cache of its own; apt checks
# signatures and hashes as ever. Prints nothing when there is nothing to do.
set -euo pipefail

SUITE=sid
VERSION=0.17
PACKAGES=(wasmedge libwasmedge0 libllvm21 libfmt11 libspdlog1.15 libstdc++6 libgcc-s1 libc6 zlib1g libzstd1
    libxml2-16 libedit2 libbsd0 libmd0 libtinfo6 libffi8 libz3-4)

CACHE=${CORACLE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/coracle}/bench
TARGET=$CACHE/wasmedge
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

say() { echo "wasmedge: $*" >&2; }

working() { [[ -x $TARGET/wasmedge && $("$TARGET/wasmedge" --version 2>/dev/null) == *"version $VERSION."* ]]; }

# The mirror of the machine's Debian, by what its package lists say.
mirror() {
    # shellcheck disable=SC2016 # names for apt to expand
    apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)' 'Created-By: Packages' |
        awk -F'|' '$1 == "Debian" && $2 == "Debian" && $3 == "main" && !found { print $4; found = 1 }'
}

configure() {
    local apt=$1 base
    base=$(mirror)
    if [[ -z $base ]]; then
        # A fresh machine has no package lists yet.
        apt-get -qq update && base=$(mirror)
    fi
    [[ -n $base ]] || { say "this machine's apt sources name no Debian mirror"; exit 1; }
    mkdir -p "$apt"/{state/lists/partial,cache/archives/partial,debs}
    : >"$apt/status"
    # A mirror's copy of sid may be older than its own date allows; signatures still hold.
    echo "deb [signed-by=$KEYRING check-valid-until=no] $base $SUITE main" >"$apt/sources.list"
    cat >"$apt/apt.conf" <<CONF
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State "$apt/state";
Dir::State::Status "$apt/status";
Dir::Cache "$apt/cache";
APT::Sandbox::User "root";
Acquire::Languages "none";
CONF
}

fetch() {
    local new=$CACHE/.new-wasmedge deb libraries
    say "fetching $SUITE's WasmEdge into $TARGET"
    rm -rf "$new"
    mkdir -p "$new/apt" "$new/root"
    configure "$new/apt"
    export APT_CONFIG=$new/apt/apt.conf
    apt-get -qq update
    (cd "$new/apt/debs" && apt-get -qq download "${PACKAGES[@]}")
    unset APT_CONFIG
    for deb in "$new"/apt/debs/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$new/root" --exclude=./usr/share
    done
    rm -r "$new/apt"
    libraries=usr/lib/$(uname -m)-linux-gnu
    cat >"$new/wasmedge" <<SCRIPT
#!/bin/sh
exec "$TARGET/root/$libraries"/ld-linux-*.so.* --library-path "$TARGET/root/$libraries" "$TARGET/root/usr/bin/wasmedge" "\$@"
SCRIPT
    chmod +x "$new/wasmedge"
    rm -rf "$TARGET"
    mv -T "$new" "$TARGET"
    working || { say "$("$TARGET/wasmedge" --version 2>&1 | head -n1) does not run here or is not $VERSION"; exit 1; }
}

working || fetch
