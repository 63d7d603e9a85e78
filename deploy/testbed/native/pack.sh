#!/usr/bin/env bash
# usage: pack.sh [--program NAME | --binary FILE] [--image NAME] FILE.tar
#
# Builds a program of this folder (default hello) statically, or takes one that is built, and packs it, alone, as an image: an OCI
# image layout in a tar file, of the given name (default docker.io/library/testbed-PROGRAM:latest). Building needs a C compiler
# with a static C library (Debian: gcc libc6-dev).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../lib.sh"

# Puts a file into the layout as a blob, and prints its descriptor's media type, digest and size as JSON members.
blob() {
  local file=$1 media_type=$2 digest
  digest=$(sha256sum "$file" | cut -d' ' -f1)
  cp "$file" "$WORK/layout/blobs/sha256/$digest"
  printf '"mediaType":"%s","digest":"sha256:%s","size":%d' "$media_type" "$digest" "$(stat -c %s "$file")"
}

# The same bytes for the same program: no times, no owners.
plain_tar() { tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$1" -cf "$2" "${@:3}"; }

pack() {
  local layer config manifest
  mkdir -p "$WORK"/{layout/blobs/sha256,root}
  if [[ -n $BINARY ]]; then
    cp -- "$BINARY" "$WORK/root/$PROGRAM"
  else
    cc -static -Os -Wall -Wextra -Werror -s -o "$WORK/root/$PROGRAM" "$TESTBED_SOURCE/native/$PROGRAM.c"
  fi
  plain_tar "$WORK/root" "$WORK/layer.tar" "$PROGRAM"
  layer=$(blob "$WORK/layer.tar" application/vnd.oci.image.layer.v1.tar)
  printf '{"architecture":"%s","os":"linux","config":{"Entrypoint":["/%s"],"WorkingDir":"/"},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$(dpkg --print-architecture)" "$PROGRAM" "$(sha256sum "$WORK/layer.tar" | cut -d' ' -f1)" >"$WORK/config.json"
  config=$(blob "$WORK/config.json" application/vnd.oci.image.config.v1+json)
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{%s},"layers":[{%s}]}' \
    "$config" "$layer" >"$WORK/manifest.json"
  manifest=$(blob "$WORK/manifest.json" application/vnd.oci.image.manifest.v1+json)
  printf '{"schemaVersion":2,"manifests":[{%s,"annotations":{"io.containerd.image.name":"%s","org.opencontainers.image.ref.name":"latest"}}]}' \
    "$manifest" "$IMAGE" >"$WORK/layout/index.json"
  printf '{"imageLayoutVersion":"1.0.0"}' >"$WORK/layout/oci-layout"
  plain_tar "$WORK/layout" "$1" oci-layout index.json blobs
}

main() {
  PROGRAM=hello BINARY='' IMAGE=''
  while [[ ${1-} == -* ]]; do
    case $1 in
      -h | --help)
        print_help "${BASH_SOURCE[0]}"
        return 0
        ;;
      --program) PROGRAM=${2-} ;;
      --binary) BINARY=${2-} PROGRAM=$(basename -- "${2-}") ;;
      --image) IMAGE=${2-} ;;
      *) usage_error "unknown argument: $1" ;;
    esac
    (($# >= 2)) || usage_error "$1 needs a value"
    shift 2
  done
  [[ -n ${1-} ]] || usage_error "where to?"
  [[ -f ${BINARY:-$TESTBED_SOURCE/native/$PROGRAM.c} ]] || usage_error "no such program: '${BINARY:-$PROGRAM}'"
  IMAGE=${IMAGE:-docker.io/library/testbed-$PROGRAM:latest}
  WORK=$(mktemp -d)
  trap 'rm -rf -- "$WORK"' EXIT
  pack "$1"
}

main "$@"
