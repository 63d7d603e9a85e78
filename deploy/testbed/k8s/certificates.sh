# shellcheck shell=bash
#
# The keys, certificates and kubeconfig files of a cluster, as kubeadm makes them, by openssl. Read by up.sh.

# Makes a key and an authority of its own: NAME SUBJECT.
make_authority() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=$2" \
    -addext keyUsage=critical,digitalSignature,keyCertSign -keyout "$PKI/$1.key" -out "$PKI/$1.crt" 2>/dev/null
}

# Makes a key and a certificate: NAME AUTHORITY SUBJECT USE [ALTERNATIVE-NAMES].
make_certificate() {
  local name=$1 authority=$2 subject=$3 use=$4 names=${5-}
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$subject" \
    -keyout "$PKI/$name.key" -out "$PKI/$name.csr" 2>/dev/null
  {
    echo "keyUsage=critical,digitalSignature"
    echo "extendedKeyUsage=$use"
    [[ -z $names ]] || echo "subjectAltName=$names"
  } >"$PKI/$name.ext"
  openssl x509 -req -in "$PKI/$name.csr" -CA "$PKI/$authority.crt" -CAkey "$PKI/$authority.key" -CAcreateserial \
    -days 30 -extfile "$PKI/$name.ext" -out "$PKI/$name.crt" 2>/dev/null
  rm -- "$PKI/$name".{csr,ext}
}

# A kubeconfig file for one who shows a certificate: NAME of the certificate, FILE.
make_kubeconfig() {
  cat >"$2" <<YAML
apiVersion: v1
kind: Config
current-context: bed
contexts: [{ name: bed, context: { cluster: bed, user: $1 } }]
clusters:
- name: bed
  cluster:
    server: https://127.0.0.1:6443
    certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w0 "$PKI/$1.crt")
    client-key-data: $(base64 -w0 "$PKI/$1.key")
YAML
  chmod 600 "$2"
}

# All of them, into PKI: those that Kubernetes' own roles know by these names.
make_certificates() {
  local component names
  mkdir -p "$PKI"
  make_authority ca kubernetes
  make_authority front-proxy-ca front-proxy
  names=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local
  make_certificate apiserver ca /CN=kube-apiserver serverAuth \
    "$names,DNS:localhost,IP:127.0.0.1,IP:$SERVICE_API,IP:$NODE_ADDRESS"
  make_certificate apiserver-kubelet-client ca /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
  make_certificate front-proxy-client front-proxy-ca /CN=front-proxy-client clientAuth
  make_certificate admin ca /O=system:masters/CN=admin clientAuth
  make_certificate kubelet ca "/O=system:nodes/CN=system:node:$NODE_NAME" clientAuth
  make_certificate kubelet-server ca "/O=system:nodes/CN=system:node:$NODE_NAME" serverAuth "DNS:$NODE_NAME,IP:$NODE_ADDRESS"
  for component in kube-controller-manager kube-scheduler kube-proxy; do
    make_certificate "$component" ca "/CN=system:$component" clientAuth
  done
  openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$PKI/sa.key" 2>/dev/null
  openssl pkey -in "$PKI/sa.key" -pubout -out "$PKI/sa.pub"
}
