# shellcheck shell=bash
#
# What a containerd with CRI has besides a plain one: its part of the configuration, its pods' network, the image of their pause
# containers, and crictl. Read by up.sh.
#
# Such a daemon lives in a network namespace of its own, as dockerd does, so that the pods' bridge, addresses and packet filter
# rules are not the machine's. Its streaming server listens on that namespace's loopback; the client script enters it.

# What pods may name as their runtime handler: runc, ours, and ours with the pod's sandbox left to the shim.
readonly PAUSE_IMAGE=coracle.test/pause:bed

# One runtime handler: PREFIX HANDLER TYPE.
cri_handler() {
  printf '[%s.runtimes.%s]\nruntime_type = "%s"\npod_annotations = ["*"]\ncontainer_annotations = ["*"]\n' "$1" "$2" "$3"
}

# The handlers: PREFIX, the name of the key that says who makes sandboxes (empty where there is no choice), FOLDER.
cri_handlers() {
  local prefix=$1 sandboxer=$2 dir=$3
  printf '[%s]\ndefault_runtime_name = "runc"\n' "$prefix"
  cri_handler "$prefix" runc io.containerd.runc.v2
  # Elsewhere runc would keep its state beside that of the machine's pods.
  printf '[%s.runtimes.runc.options]\nRoot = "%s/runc"\n' "$prefix" "$dir"
  cri_handler "$prefix" wasm io.containerd.wasm.v1
  [[ -n $sandboxer ]] || return 0
  cri_handler "$prefix" wasm-sandbox io.containerd.wasm.v1
  echo "$sandboxer = \"shim\""
}

# What all releases call the same. Without CAP_SYS_RESOURCE, lowering oom_score_adj is refused.
cri_common() { printf 'restrict_oom_score_adj = true\nnetns_mounts_under_state_dir = true\n'; }

# Configuration of version 2: containerd 1.6 and 1.7.
cri_config_v2() {
  local daemon=$1 dir=$BED_RUN/$1 plugin='plugins."io.containerd.grpc.v1.cri"' sandboxer=''
  [[ $daemon != *s ]] || sandboxer=sandbox_mode
  printf '[%s]\nsandbox_image = "%s"\n' "$plugin" "$PAUSE_IMAGE"
  cri_common
  printf '[%s.cni]\nbin_dir = "%s"\nconf_dir = "%s/cni"\n' "$plugin" "$(cni_programs)" "$dir"
  printf '[%s.registry]\nconfig_path = "%s/certs.d"\n' "$plugin" "$dir"
  cri_handlers "$plugin.containerd" "$sandboxer" "$dir"
}

# Configuration of version 3: containerd 2.
cri_config_v3() {
  local dir=$BED_RUN/$1 plugin='plugins."io.containerd.cri.v1.runtime"' images='plugins."io.containerd.cri.v1.images"'
  printf '[%s]\n[%s.pinned_images]\nsandbox = "%s"\n' "$images" "$images" "$PAUSE_IMAGE"
  printf '[%s.registry]\nconfig_path = "%s/certs.d"\n' "$images" "$dir"
  printf '[%s]\n' "$plugin"
  cri_common
  printf '[%s.cni]\nbin_dirs = ["%s"]\nconf_dir = "%s/cni"\n' "$plugin" "$(cni_programs)" "$dir"
  cri_handlers "$plugin.containerd" sandboxer "$dir"
}

# A bridge for the pods, with addresses that no other machine need know: nothing routes to them but their namespace.
cri_network() {
  cat <<JSON
{ "cniVersion": "0.4.0", "name": "pods", "plugins": [
  { "type": "bridge", "bridge": "pods0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
    "ipam": { "type": "host-local", "dataDir": "$BED_RUN/$1/cni-addresses",
              "ranges": [[{ "subnet": "10.88.0.0/16" }]], "routes": [{ "dst": "0.0.0.0/0" }] } },
  { "type": "portmap", "capabilities": { "portMappings": true } } ] }
JSON
}

# Files that a containerd with CRI wants to find when it starts.
prepare_cri() {
  local dir=$BED_RUN/$1 netns=$BED_PREFIX$1
  mkdir -p "$dir"/{cni,certs.d,cni-addresses,runc}
  cri_network "$1" >"$dir/cni/10-pods.conflist"
  ip netns add "$netns"
  nsenter --net="/run/netns/$netns" ip link set lo up
}

# The pause image, made once in the cache. Our shim has a sleeper of its own; runc runs this one.
pause_image() {
  local file=$TESTBED_CACHE/pause.tar source=$TESTBED_SOURCE/native/pause.c
  if [[ ! $file -nt $source ]]; then
    "$TESTBED_SOURCE/native/pack.sh" --program pause --image "$PAUSE_IMAGE" "$file.$$"
    mv "$file.$$" "$file"
  fi
  echo "$file"
}

# Gives a running CRI its pause image, and waits until it knows it: pods would try to pull it.
load_pause_image() {
  local daemon=$1 deadline=$((SECONDS + PATIENCE))
  "$BED_RUN/bin/$daemon-ctr" images import --no-unpack "$(pause_image)" >/dev/null
  until "$BED_RUN/bin/$daemon" inspecti --quiet "$PAUSE_IMAGE" >/dev/null 2>&1; do
    ((SECONDS <= deadline)) || die "$daemon does not see the image $PAUSE_IMAGE; its log is $BED_RUN/log/$daemon"
    sleep 0.05
  done
}

# crictl, in the daemon's network namespace: exec, attach and port-forward go through the streaming server there.
cri_client() {
  echo "exec \"\${limit[@]}\" nsenter --net=/run/netns/$BED_PREFIX$1 $(cri_tools_dir)/crictl --config /dev/null --timeout 240s" \
    "--runtime-endpoint unix://$BED_RUN/$1/sock \"\$@\""
}
