#!/usr/bin/env bash
# usage: dist.sh [--out FOLDER] [--bin FOLDER] [--programs-only]
#
# Makes what is released, in FOLDER (target/dist): the programs as an archive, the chart, the context of the container
# image, the bills of materials (CycloneDX) and SHA256SUMS. Two runs on the same commit give the same bytes.
#
#   --out FOLDER     where all goes; its content is replaced
#   --bin FOLDER     packs the programs of this folder instead of building them
#   --programs-only  neither chart nor bills of materials
#
# Environment:
#   SOURCE_DATE_EPOCH  the time of all files, in seconds (default: that of the last commit)
set -euo pipefail

REPOSITORY=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
readonly REPOSITORY
readonly CYCLONEDX=0.5.9
readonly PROGRAMS=(containerd-shim-wasm-v1 coracle coracle-node)

say() { printf 'dist: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}

version() { sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' "$REPOSITORY/Cargo.toml"; }

# No path of this machine gets into the programs, so that they are the same wherever they are built.
build() {
  local target=$REPOSITORY/target/dist-build
  say "building the programs; this takes some minutes"
  RUSTFLAGS="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$REPOSITORY=/coracle" \
    cargo build --locked --release --workspace --bins --manifest-path "$REPOSITORY/Cargo.toml" --target-dir "$target"
  BIN=$target/release
}

# The same bytes for the same content: ARCHIVE FOLDER ENTRY...
archive() {
  tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -C "$2" -cf - "${@:3}" | gzip -9n >"$1"
}

pack_programs() {
  local name=coracle-$VERSION-linux-amd64
  mkdir -p "$WORK/$name" "$OUT/image"
  install -m 0755 "${PROGRAMS[@]/#/$BIN/}" "$WORK/$name"
  install -m 0755 "${PROGRAMS[@]/#/$BIN/}" "$OUT/image"
  install -m 0644 "$REPOSITORY/LICENSE" "$REPOSITORY/README.md" "$WORK/$name"
  archive "$OUT/$name.tar.gz" "$WORK" "$name"
  install -m 0644 "$REPOSITORY/deploy/package/Dockerfile" "$OUT/image"
  find "$OUT/image" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
}

# As `helm package` would, but for the times.
pack_chart() {
  local chart=$REPOSITORY/charts/coracle
  [[ $(grep -cxE "(appVersion|version): $VERSION" "$chart/Chart.yaml") == 2 ]] ||
    die "charts/coracle/Chart.yaml is not of version $VERSION"
  archive "$OUT/coracle-chart-$VERSION.tgz" "$REPOSITORY/charts" coracle
}

# What each program is made of, by the lock file. The tool writes beside the manifests: those of a copy.
bills() {
  local tools=${CORACLE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/coracle}/tools copy=$WORK/copy room
  if [[ $("$tools/bin/cargo-cyclonedx" cyclonedx --version 2>/dev/null) != *" $CYCLONEDX" ]]; then
    say "installing cargo-cyclonedx $CYCLONEDX"
    cargo install -q --locked --root "$tools" "cargo-cyclonedx@$CYCLONEDX"
  fi
  mkdir "$copy"
  git -C "$REPOSITORY" archive HEAD | tar -C "$copy" -xf -
  "$tools/bin/cargo-cyclonedx" cyclonedx -q --format json --target x86_64-unknown-linux-gnu --no-build-deps \
    --override-filename bill --manifest-path "$copy/Cargo.toml"
  for room in shim deploy deploy/node; do
    install -m 0644 "$copy/$room/bill.json" "$OUT/coracle-${room//\//-}-$VERSION.cdx.json"
  done
}

main() {
  OUT=$REPOSITORY/target/dist BIN='' PART=''
  while (($#)); do
    case $1 in
      -h | --help)
        sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        return 0
        ;;
      --out) OUT=${2:?--out needs a folder} && shift ;;
      --bin) BIN=${2:?--bin needs a folder} && shift ;;
      --programs-only) PART=1 ;;
      *) die "unknown argument: $1" ;;
    esac
    shift
  done
  : "${SOURCE_DATE_EPOCH:=$(git -C "$REPOSITORY" log -1 --format=%ct)}"
  export SOURCE_DATE_EPOCH
  VERSION=$(version)
  [[ -n $BIN ]] || build
  WORK=$(mktemp -d)
  trap 'rm -rf -- "$WORK"' EXIT
  rm -rf -- "$OUT"
  mkdir -p "$OUT"
  echo "$VERSION" >"$OUT/VERSION"
  pack_programs
  if [[ -z $PART ]]; then
    pack_chart
    bills
  fi
  (cd "$OUT" && find . -maxdepth 1 -name 'coracle-*' -printf '%P\0' | sort -z | xargs -0 sha256sum -- >SHA256SUMS)
  say "made $OUT; its SHA256SUMS:"
  cat "$OUT/SHA256SUMS" >&2
  say "the image: docker buildx build --build-arg VERSION=$VERSION --build-arg SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" \
    "--output type=image,name=NAME,push=true,rewrite-timestamp=true $OUT/image"
}

main "$@"
