#!/usr/bin/env bash
# usage: import.sh [--name NAME] [--into LIST] IMAGE...
#
# Loads images into the daemons of a running test bed. IMAGE is an OCI image layout, as a tar file or a folder, whose index
# names each image by the annotation io.containerd.image.name (a full name, with registry and tag).
# Prints one line for each daemon and image: the daemon, `loaded` or `skipped`, and the image's name, with tabs between.
#
# containerd gets the image through `ctr images import` into the bed's namespace, dockerd through `docker load`.
# The graph-driver store of Docker (d26g) knows nothing but Linux images; any other is skipped there.
#
#   --name NAME  the bed (default: that of the environment, else dev)
#   --into LIST  comma-separated daemons (default: all of the bed)
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

parse_arguments() {
  NAME=${TESTBED_NAME:-dev} INTO='' IMAGES=()
  while (($#)); do
    case $1 in
      -h | --help)
        print_help "${BASH_SOURCE[0]}"
        exit 0
        ;;
      --name)
        NAME=${2-}
        shift
        ;;
      --into)
        INTO=${2-}
        shift
        ;;
      -*) usage_error "unknown argument: $1" ;;
      *) IMAGES+=("$1") ;;
    esac
    shift
  done
  ((${#IMAGES[@]})) || usage_error "no image given"
}

# --- the layout -----------------------------------------------------------------------------------------------------------

# Unpacks an image to $WORK/layout and packs it again to $WORK/image.tar when it came as a folder.
open_layout() {
  rm -rf "$WORK"/{layout,image.tar,docker.tar}
  if [[ -d $1 ]]; then
    cp -r -- "$1" "$WORK/layout"
    tar -C "$WORK/layout" -cf "$WORK/image.tar" .
  elif [[ -f $1 ]]; then
    mkdir "$WORK/layout"
    tar -C "$WORK/layout" -xf "$1" || die "not a tar file: $1"
    ln -s -- "$(realpath -- "$1")" "$WORK/image.tar"
  else
    die "no such image: $1"
  fi
  [[ -f $WORK/layout/index.json ]] || die "not an OCI image layout (no index.json): $1"
}

image_names() { jq -r '.manifests[].annotations["io.containerd.image.name"] // empty' "$WORK/layout/index.json" | sort -u; }

# The file of a blob.
blob() { echo "$WORK/layout/blobs/${1/://}"; }

# "name manifest-digest" of each manifest, those behind a nested index included.
manifests() {
  local name digest
  jq -r '.manifests[] | [.annotations["io.containerd.image.name"] // "-", .digest] | @tsv' "$WORK/layout/index.json" |
    while IFS=$'\t' read -r name digest; do
      if jq -e .manifests >/dev/null "$(blob "$digest")"; then
        jq -r --arg name "$name" '.manifests[] | [$name, .digest] | @tsv' "$(blob "$digest")"
      else
        printf '%s\t%s\n' "$name" "$digest"
      fi
    done
}

# Docker's own manifest.json, which the graph-driver store needs beside the layout: one entry for each Linux image made for
# this machine. Prints nothing when there is none.
docker_manifest() {
  local name digest file config
  manifests | while IFS=$'\t' read -r name digest; do
    file=$(blob "$digest")
    [[ -f $file ]] || continue
    config=$(blob "$(jq -r .config.digest "$file")")
    jq -e --arg arch "$(dpkg --print-architecture)" '.os == "linux" and .architecture == $arch' "$config" >/dev/null 2>&1 || continue
    jq -c --arg name "$name" 'def path: "blobs/" + sub(":"; "/");
      { Config: .config.digest | path, RepoTags: [$name], Layers: [.layers[].digest | path] }' "$file"
  done | jq -s -c 'if length > 0 then . else empty end'
}

# --- the daemons ----------------------------------------------------------------------------------------------------------

client() {
  local daemon=$1
  shift
  "$BED_RUN/bin/$daemon" "$@"
}

# Unpacking is left to `ctr run`, which knows the platform to run: at import, containerd 1.7 fails on an index without the host's.
load_containerd() { client "$(ctr_of "$1")" images import --all-platforms --no-unpack "$WORK/image.tar"; }

load_docker() { client "$1" load --input "$WORK/image.tar"; }

load_graph() {
  if [[ ! -f $WORK/docker.tar ]]; then
    tar --exclude=./manifest.json -C "$WORK/layout" -cf "$WORK/docker.tar" .
    printf '%s\n' "$DOCKER_MANIFEST" >"$WORK/manifest.json"
    tar -C "$WORK" -rf "$WORK/docker.tar" manifest.json
  fi
  client "$1" load --input "$WORK/docker.tar"
}

# Loads the open layout into a daemon; the daemon's own words appear only when it fails.
load_into() {
  local daemon=$1 load=load_docker verb=loaded output name
  case $daemon in
    [ck]*) load=load_containerd ;;
    *g)
      load=load_graph
      DOCKER_MANIFEST=$(docker_manifest)
      [[ -n $DOCKER_MANIFEST ]] || verb=skipped
      ;;
  esac
  if [[ $verb == loaded ]]; then
    output=$("$load" "$daemon" 2>&1 </dev/null) || die "$daemon does not take ${NAMES[*]}: $output"
  fi
  for name in "${NAMES[@]}"; do printf '%s\t%s\t%s\n' "$daemon" "$verb" "$name"; done
}

main() {
  parse_arguments "$@"
  require_root
  select_bed "$NAME"
  [[ -f $BED_RUN/testbed.env ]] || die "bed $NAME is not up"
  local image daemon
  [[ -n $INTO ]] || INTO=$(sed -n "s/^TESTBED_DAEMONS='\(.*\)'/\1/p" "$BED_RUN/testbed.env")
  # On disk beside the stores, because image files may be larger than a machine's /tmp.
  WORK=$(mktemp -d "$BED_RUN/import.XXXXXX")
  trap 'rm -rf -- "$WORK"' EXIT
  for image in "${IMAGES[@]}"; do
    open_layout "$image"
    mapfile -t NAMES < <(image_names)
    ((${#NAMES[@]})) || die "the index of $image names no image (annotation io.containerd.image.name)"
    for daemon in ${INTO//,/ }; do
      [[ -x $BED_RUN/bin/$daemon ]] || usage_error "bed $NAME has no daemon $daemon"
      load_into "$daemon"
    done
  done
}

main "$@"
