# shellcheck shell=bash
#
# A bed's Kubernetes: one node with containerd 2.1, and the control plane, in namespaces of their own (k8s/node.sh). Read by up.sh.
#
# On the node everything has the place that kubeadm gives it, so that what is to be installed on a node finds one; on the machine
# all of it lies below $BED_RUN/kube/root.

# shellcheck source-path=SCRIPTDIR source=certificates.sh
. "$TESTBED_SOURCE/k8s/certificates.sh"

readonly NODE_NAME=node NODE_ADDRESS=172.31.255.1
readonly POD_NETWORK=10.244.0.0/24 SERVICE_NETWORK=10.96.0.0/16 SERVICE_API=10.96.0.1 SERVICE_DNS=10.96.0.10
# Asked for all images whose names begin with coracle.test.
readonly KUBE_REGISTRY=127.0.0.1:5000 KUBE_IMAGES=coracle.test

# --- configuration --------------------------------------------------------------------------------------------------------

# The handler wasm is the bed's, unless something else is to install it.
kube_containerd_config() {
  local plugin='plugins."io.containerd.cri.v1.runtime"' images='plugins."io.containerd.cri.v1.images"'
  cat <<TOML
version = 3
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
[debug]
level = "$LOG_LEVEL"
[$images]
[$images.pinned_images]
sandbox = "$PAUSE_IMAGE"
[$images.registry]
config_path = "/etc/containerd/certs.d"
[$plugin]
restrict_oom_score_adj = true
[$plugin.cni]
bin_dirs = ["/opt/cni/bin"]
[$plugin.containerd]
default_runtime_name = "runc"
[$plugin.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
TOML
  if [[ ${TESTBED_KUBE_WASM:-yes} == yes ]]; then cri_handler "$plugin.containerd" wasm io.containerd.wasm.v1; fi
}

# Each pod has a link of its own to the node, which routes: services need no filter for bridged packets.
kube_network() {
  cat <<JSON
{ "cniVersion": "0.4.0", "name": "pods", "plugins": [
  { "type": "ptp",
    "ipam": { "type": "host-local", "ranges": [[{ "subnet": "$POD_NETWORK" }]], "routes": [{ "dst": "0.0.0.0/0" }] } },
  { "type": "portmap", "capabilities": { "portMappings": true } } ] }
JSON
}

kubelet_config() {
  cat <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: { anonymous: { enabled: false }, webhook: { enabled: true }, x509: { clientCAFile: /etc/kubernetes/pki/ca.crt } }
authorization: { mode: Webhook }
tlsCertFile: /etc/kubernetes/pki/kubelet-server.crt
tlsPrivateKeyFile: /etc/kubernetes/pki/kubelet-server.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
# The group of all pods bears the bed's name.
cgroupDriver: cgroupfs
cgroupRoot: /${BED_PREFIX}kube
failCgroupV1: false
# Without CAP_SYS_RESOURCE nobody may lower it.
oomScoreAdj: 0
# Else it would set the whole machine's; its unit shows it values that please it.
protectKernelDefaults: true
clusterDomain: cluster.local
clusterDNS: [$SERVICE_DNS]
staticPodPath: /etc/kubernetes/manifests
serializeImagePulls: false
# The machine's disk is not the bed's to judge.
evictionHard: { memory.available: 100Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1% }
imageGCHighThresholdPercent: 100
YAML
}

kube_proxy_config() {
  cat <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clusterCIDR: $POD_NETWORK
clientConnection: { kubeconfig: /etc/kubernetes/kube-proxy.conf }
# Limits of the whole machine's table stay as they are.
conntrack: { maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s }
oomScoreAdj: 0
YAML
}

write_node_files() {
  local etc=$1/etc component
  PKI=$etc/kubernetes/pki
  mkdir -p "$etc"/{containerd/certs.d/"$KUBE_IMAGES",cni/net.d,kubernetes/manifests,docker-registry} "$1"/{opt/cni,usr/local/bin}
  make_certificates
  for component in admin kubelet kube-controller-manager kube-scheduler kube-proxy; do
    make_kubeconfig "$component" "$etc/kubernetes/$component.conf"
  done
  # Where an installer looks for it; the whole suite lies in no PATH.
  ln -s "$(suite_dir "$(suite_of kube)")/usr/bin/containerd" "$1/usr/local/bin/containerd"
  kube_containerd_config >"$etc/containerd/config.toml"
  printf '[host."http://%s"]\ncapabilities = ["pull", "resolve"]\n' "$KUBE_REGISTRY" >"$etc/containerd/certs.d/$KUBE_IMAGES/hosts.toml"
  kube_network >"$etc/cni/net.d/10-pods.conflist"
  kubelet_config >"$etc/kubernetes/kubelet.yaml"
  kube_proxy_config >"$etc/kubernetes/kube-proxy.yaml"
  printf 'nameserver %s\n' "$SERVICE_DNS" >"$etc/resolv.conf"
  printf '127.0.0.1 localhost\n%s %s\n' "$NODE_ADDRESS" "$NODE_NAME" >"$etc/hosts"
  cat >"$etc/docker-registry/config.yml" <<YAML
version: 0.1
log: { level: warn }
storage: { filesystem: { rootdirectory: /var/lib/registry }, delete: { enabled: true } }
http: { addr: "$KUBE_REGISTRY", secret: bed }
YAML
  cp -r "$(cni_programs)" "$1/opt/cni/bin"
  sed "s#@FOLDER@#$BED_RUN/kube#" "$TESTBED_SOURCE/k8s/systemctl" >"$1/usr/local/bin/systemctl"
  chmod +x "$1/usr/local/bin/systemctl"
}

# --- units ----------------------------------------------------------------------------------------------------------------

# A unit: FOLDER NAME COMMAND...
write_unit() {
  {
    printf 'exec'
    printf ' %q' "${@:3}"
    echo
  } >"$BED_RUN/kube/$1/$2"
}

api_server() {
  local pki=/etc/kubernetes/pki
  write_unit units kube-apiserver "$TOOLS_DIR/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
    --advertise-address="$NODE_ADDRESS" --secure-port=6443 --service-cluster-ip-range="$SERVICE_NETWORK" \
    --tls-cert-file=$pki/apiserver.crt --tls-private-key-file=$pki/apiserver.key --client-ca-file=$pki/ca.crt \
    --kubelet-client-certificate=$pki/apiserver-kubelet-client.crt --kubelet-client-key=$pki/apiserver-kubelet-client.key \
    --kubelet-certificate-authority=$pki/ca.crt --kubelet-preferred-address-types=InternalIP \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file=$pki/sa.pub --service-account-signing-key-file=$pki/sa.key \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
    --requestheader-client-ca-file=$pki/front-proxy-ca.crt --requestheader-allowed-names=front-proxy-client \
    --requestheader-extra-headers-prefix=X-Remote-Extra- --requestheader-group-headers=X-Remote-Group \
    --requestheader-username-headers=X-Remote-User --enable-aggregator-routing=true \
    --proxy-client-cert-file=$pki/front-proxy-client.crt --proxy-client-key-file=$pki/front-proxy-client.key
}

controller_manager() {
  local pki=/etc/kubernetes/pki conf=/etc/kubernetes/kube-controller-manager.conf
  write_unit late kube-controller-manager "$TOOLS_DIR/kube-controller-manager" --leader-elect=false --bind-address=127.0.0.1 \
    --kubeconfig=$conf --authentication-kubeconfig=$conf --authorization-kubeconfig=$conf \
    --allocate-node-cidrs=true --cluster-cidr="$POD_NETWORK" --node-cidr-mask-size="${POD_NETWORK#*/}" \
    --service-cluster-ip-range="$SERVICE_NETWORK" --use-service-account-credentials=true \
    --cluster-signing-cert-file=$pki/ca.crt --cluster-signing-key-file=$pki/ca.key \
    --root-ca-file=$pki/ca.crt --service-account-private-key-file=$pki/sa.key \
    --requestheader-client-ca-file=$pki/front-proxy-ca.crt \
    --horizontal-pod-autoscaler-sync-period=5s --horizontal-pod-autoscaler-initial-readiness-delay=5s
}

# kubelet sets these for the whole machine or, told not to, wants to find them as it would set them. It alone is shown files that
# say so.
kubelet_unit() {
  cat >"$BED_RUN/kube/late/kubelet" <<SCRIPT
[[ -n \${INSIDE-} ]] || INSIDE=yes exec unshare --mount --propagation unchanged bash "\$0"
mount --make-private /proc
show() {
  mkdir -p /run/node/sysctl
  echo "\$2" >"/run/node/sysctl/\$1"
  mount --bind "/run/node/sysctl/\$1" "/proc/sys/\${1//.//}"
}
show vm.overcommit_memory 1
show vm.panic_on_oom 0
show kernel.panic 10
show kernel.panic_on_oops 1
show kernel.keys.root_maxkeys 1000000
show kernel.keys.root_maxbytes 25000000
exec $TOOLS_DIR/kubelet --config=/etc/kubernetes/kubelet.yaml --kubeconfig=/etc/kubernetes/kubelet.conf --node-ip=$NODE_ADDRESS
SCRIPT
}

write_units() {
  local conf=/etc/kubernetes
  mkdir -p "$BED_RUN"/kube/{units,late,ready}
  # What a crash of the machine would lose, the bed loses anyway.
  write_unit units etcd "$(suite_dir trixie-etcd)/usr/bin/etcd" --data-dir /var/lib/etcd --unsafe-no-fsync --log-level warn
  write_unit units containerd "$(suite_dir "$(suite_of kube)")/usr/bin/containerd"
  write_unit units registry "$(suite_dir bookworm)/usr/bin/docker-registry" serve /etc/docker-registry/config.yml
  api_server
  controller_manager
  write_unit late kube-scheduler "$TOOLS_DIR/kube-scheduler" --leader-elect=false --bind-address=127.0.0.1 \
    --kubeconfig=$conf/kube-scheduler.conf --authentication-kubeconfig=$conf/kube-scheduler.conf \
    --authorization-kubeconfig=$conf/kube-scheduler.conf
  write_unit late kube-proxy "$TOOLS_DIR/kube-proxy" --config=$conf/kube-proxy.yaml --hostname-override="$NODE_NAME"
  kubelet_unit
  echo "$(suite_dir "$(suite_of kube)")/usr/bin/ctr version" >"$BED_RUN/kube/ready/containerd"
  echo "$TOOLS_DIR/kubectl --kubeconfig $conf/admin.conf get --raw /readyz" >"$BED_RUN/kube/ready/kube-apiserver"
}

# --- start ----------------------------------------------------------------------------------------------------------------

# The node's address lies on a bridge without ports. Whatever has no other way goes there, for services to be found on the way out.
make_node_network() {
  local netns=${BED_PREFIX}kube
  ip netns add "$netns"
  nsenter --net="/run/netns/$netns" bash -euc "
    ip link set lo up
    ip link add node0 type bridge
    ip address add $NODE_ADDRESS/30 dev node0
    ip link set node0 up
    ip route add default dev node0
    echo 1 >/proc/sys/net/ipv4/ip_forward"
}

# kubelet wants to find the group that it is to make those of pods in.
make_pods_group() {
  local hierarchy group file
  for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*/; do
    hierarchy=${hierarchy%/}
    # That of cgroup v2 which others have the controllers of is none to it.
    [[ -f $hierarchy/tasks || $hierarchy == /sys/fs/cgroup && -f $hierarchy/cgroup.controllers ]] || continue
    group=$hierarchy/${BED_PREFIX}kube
    mkdir -p "$group"
    [[ ! -f $group/tasks || ! -f $group/cpuset.cpus ]] || for file in cpuset.cpus cpuset.mems; do cat "$hierarchy/$file" >"$group/$file"; done
  done
}

# A node that is to know nothing of WebAssembly is told nothing of it either.
without_our_variables() {
  local variable
  [[ ${TESTBED_KUBE_WASM:-yes} != yes ]] || return 0
  printf '%s\n' env -u CORACLE_CACHE_DIR -u CORACLE_RUN_DIR
  while read -r variable; do printf '%s\n' -u "$variable"; done < <(compgen -e | grep '^CORACLE_' | grep -vx "$BED_MARK" || true)
}

start_kube() {
  local prefix keep=("$BED_RUN" "$TESTBED_CACHE" "$BIN_DIR" "$TESTBED_SOURCE")
  TOOLS_DIR=$(k8s_tools_dir)
  mkdir -p "$BED_RUN/kube"
  write_node_files "$BED_RUN/kube/root"
  write_units
  make_node_network
  make_pods_group
  mapfile -t prefix < <(without_our_variables)
  launch kube "${prefix[@]}" nsenter --net="/run/netns/${BED_PREFIX}kube" \
    unshare --mount --propagation private --pid --fork --kill-child --uts --ipc "$TESTBED_SOURCE/k8s/node.sh" "$BED_RUN/kube" "$NODE_NAME" "${keep[@]}"
  write_kube_clients
}

# --- clients --------------------------------------------------------------------------------------------------------------

# A script that runs a program with the node's namespaces: NAME COMMAND...
write_kube_client() {
  local file=$BED_RUN/kube/bin/$1
  printf '#!/bin/bash\nexec %s "$@"\n' "${*:2}" >"$file"
  chmod +x "$file"
}

write_kube_clients() {
  local netns="nsenter --net=/run/netns/${BED_PREFIX}kube" node deadline=$((SECONDS + PATIENCE))
  mkdir -p "$BED_RUN/kube/bin"
  until node=$(node_pids | head -n 1) && [[ -n $node ]]; do
    ((SECONDS <= deadline)) || die "the node does not start; its log is $BED_RUN/log/kube"
    sleep 0.05
  done
  node="nsenter --target $node --mount --net --pid --uts --ipc"
  write_kube_client node "$node"
  write_kube_client in-kube "$netns"
  write_kube_client kubectl "env KUBECONFIG=$BED_RUN/kube/kubeconfig $netns $TOOLS_DIR/kubectl"
  write_kube_client helm "env KUBECONFIG=$BED_RUN/kube/kubeconfig $netns $TOOLS_DIR/helm"
  write_kube_client push-image "$netns python3 $TESTBED_SOURCE/cri/push.py http://$KUBE_REGISTRY"
  cp "$BED_RUN/kube/root/etc/kubernetes/admin.conf" "$BED_RUN/kube/kubeconfig"
}

# What up.sh writes for every containerd: its crictl and its ctr.
kube_daemon_client() {
  local node="exec \"\${limit[@]}\" $BED_RUN/kube/bin/node"
  if [[ $1 == crictl ]]; then
    echo "$node $(cri_tools_dir)/crictl --config /dev/null --timeout 240s --runtime-endpoint unix:///run/containerd/containerd.sock \"\$@\""
  else
    echo "$node $(suite_dir "$(suite_of kube)")/usr/bin/ctr -n \"\${TESTBED_NAMESPACE:-k8s.io}\" \"\$@\""
  fi
}

# --- until it is ready ----------------------------------------------------------------------------------------------------

kubectl() { timeout -s KILL "$PATIENCE" "$BED_RUN/kube/bin/kubectl" "$@"; }

# Tries a command until it succeeds: WHAT-IS-AWAITED COMMAND...
await() {
  local what=$1 deadline=$((SECONDS + PATIENCE * 2))
  shift
  until "$@" >/dev/null 2>&1; do
    if ! recorded_alive "$BED_RUN/pid/kube" || ((SECONDS > deadline)); then
      tail -n 3 "$BED_RUN"/log/kube* >&2
      die "$what is not there; the logs' ends are above"
    fi
    sleep 0.1
  done
}

dns_answers() { [[ $(kubectl get deployment coredns -n kube-system -o 'jsonpath={.status.readyReplicas}') == 1 ]]; }
node_ready() { [[ $(kubectl get node "$NODE_NAME" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}') == True ]]; }

finish_kube() {
  local unit
  await "the registry" "$BED_RUN/kube/bin/push-image" "$(pause_image)" "$TOOLS_DIR"/{coredns,metrics-server}.tar
  await "the API server" kubectl get --raw /readyz
  for unit in "$BED_RUN"/kube/late/*; do "$BED_RUN/kube/bin/node" systemctl start --no-block "${unit##*/}"; done
  await "the namespace kube-system" kubectl get namespace kube-system
  kubectl apply --server-side --validate=false -f "$TESTBED_SOURCE/k8s/manifests" >/dev/null
  [[ ${TESTBED_KUBE_WASM:-yes} != yes ]] || kubectl apply --server-side -f "$TESTBED_SOURCE/k8s/runtimeclass.yaml" >/dev/null
  await "the node" node_ready
  await "the cluster's DNS" dns_answers
}

describe_kube() {
  local key=TESTBED_KUBE
  printf '%s=%s\n' KUBECONFIG "$BED_RUN/kube/kubeconfig" "${key}_REGISTRY" "$KUBE_REGISTRY" "${key}_IMAGES" "$KUBE_IMAGES" \
    "${key}_NODE" "$BED_RUN/kube/bin/node" "${key}_NODE_NAME" "$NODE_NAME" "${key}_NODE_ROOT" "$BED_RUN/kube/root"
  # shellcheck disable=SC2016 # for the reader to expand
  printf 'PATH=%s:$PATH\n' "$BED_RUN/kube/bin"
}
