#!/usr/bin/env bash
# usage: critest.sh [--update]
#
# Runs critest, Kubernetes' conformance tests of CRI, on a bed with containerd 2.1: with runc, with the shim, and with the shim
# that makes the pods' sandboxes, too. Each spec must end as cri/critest.list says: it names those that do not pass, and why;
# all others must pass. Five minutes; needs root.
#
#   --update  write the specs that did not pass to the list, keeping the reasons that are there
#
# Its images are made here (cri/images.py) and served by a registry on the loopback of the daemon's network namespace, which
# containerd asks for every name.
#
# Environment: CORACLE_BIN_DIR as for up.sh; CRITEST_REPORT, a folder that gets what critest said
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

readonly DAEMON=k21
readonly REGISTRY=127.0.0.1:5000
readonly PATIENCE=60
# In the order of the list's columns.
readonly HANDLERS=(runc wasm wasm-sandbox)

in_netns() { nsenter --net="/run/netns/$TESTBED_K21_NETNS" "$@"; }

# --- the registry ---------------------------------------------------------------------------------------------------------

start_registry() {
  local deadline=$((SECONDS + PATIENCE))
  cat >"$WORK/registry.yml" <<YAML
version: 0.1
log: { level: warn }
storage: { filesystem: { rootdirectory: $WORK/registry } }
http: { addr: "$REGISTRY", secret: bed }
YAML
  # With the bed's mark, by which it is found when nobody here is left to end it.
  # Not by the function, whose shell would be what $! names.
  nsenter --net="/run/netns/$TESTBED_K21_NETNS" env "$BED_MARK=$TESTBED_RUN" \
    "$(suite_dir bookworm)/usr/bin/docker-registry" serve "$WORK/registry.yml" >"$WORK/registry.log" 2>&1 &
  REGISTRY_PID=$!
  until in_netns python3 -c "import urllib.request as r; r.urlopen('http://$REGISTRY/v2/')" 2>/dev/null; do
    ((SECONDS <= deadline)) || die "the registry does not answer: $(tail -n 5 "$WORK/registry.log")"
    sleep 0.1
  done
}

fill_registry() {
  cc -static -Os -Wall -Wextra -Werror -s -o "$WORK/nonewprivs" "$TESTBED_SOURCE/cri/nonewprivs.c"
  in_netns python3 "$TESTBED_SOURCE/cri/images.py" "http://$REGISTRY" "$(command -v busybox)" "$WORK/nonewprivs"
  mkdir -p "$TESTBED_RUN/$DAEMON/certs.d/_default"
  printf 'server = "http://%s"\n[host."http://%s"]\ncapabilities = ["pull", "resolve"]\n' "$REGISTRY" "$REGISTRY" \
    >"$TESTBED_RUN/$DAEMON/certs.d/_default/hosts.toml"
}

# --- critest --------------------------------------------------------------------------------------------------------------

# Runs all specs with a handler; its own status says no more than that some spec failed.
run_specs() {
  local handler=$1 skip=benchmark
  # These crash containerd 2.1.9, and all specs after them would fail.
  [[ $handler != wasm-sandbox ]] || skip+='|HostNetwork is true|in host network'
  say "critest with the runtime handler $handler"
  mkdir -p "$WORK/$handler" "$WORK/tmp"
  TMPDIR=$WORK/tmp in_netns "$TESTBED_K21_TOOLS/critest" --runtime-endpoint "unix://$TESTBED_K21_SOCKET" --config /dev/null \
    --runtime-handler "$handler" --ginkgo.skip "$skip" --ginkgo.junit-report "$WORK/$handler/report.xml" --ginkgo.no-color >"$WORK/$handler/output" 2>&1 || true
}

# "spec<tab>outcome" of all specs: the outcomes under each handler, or the one that they share.
table() {
  local handler
  for handler in "${HANDLERS[@]}"; do
    [[ -s $WORK/$handler/report.xml ]] || die "critest made no report: $(tail -n 20 "$WORK/$handler/output")"
  done
  python3 - "$WORK" "${HANDLERS[@]}" <<'PYTHON'
import sys
import xml.etree.ElementTree as xml

work, *handlers = sys.argv[1:]
specs = {}
for column, handler in enumerate(handlers):
    for case in xml.parse(f"{work}/{handler}/report.xml").iter("testcase"):
        name = case.get("name")
        if name.startswith("[It] "):
            outcomes = specs.setdefault(name.removeprefix("[It] "), ["absent"] * len(handlers))
            outcomes[column] = case.get("status")
for name, outcomes in sorted(specs.items()):
    print(name, outcomes[0] if len(set(outcomes)) == 1 else " ".join(outcomes), sep="\t")
PYTHON
}

# --- the list -------------------------------------------------------------------------------------------------------------

# The list without comments and reasons: "spec<tab>outcomes" of what does not pass.
listed() { grep -v '^#' "$LIST" | cut -f 1,2; }

update_list() {
  local spec outcome reason
  {
    grep '^#' "$LIST" || true
    awk -F'\t' '$2 != "passed"' "$WORK/table" | while IFS=$'\t' read -r spec outcome; do
      reason=$(awk -F'\t' -v spec="$spec" '$1 == spec { print $3 }' "$LIST")
      printf '%s\t%s\t%s\n' "$spec" "$outcome" "${reason:-REASON MISSING}"
    done
  } >"$LIST.new"
  mv "$LIST.new" "$LIST"
}

check_list() {
  ! grep -v '^#' "$LIST" | awk -F'\t' 'NF != 3 || $3 ~ /^(REASON MISSING)?$/' | grep . ||
    die "these lines of $LIST have no reason"
  diff -u --label expected <(listed | sort) --label found <(awk -F'\t' '$2 != "passed"' "$WORK/table" | sort) ||
    die "critest does not end as $LIST says"
}

# --- the run --------------------------------------------------------------------------------------------------------------

# What specs leave on the machine: pods without a parent make /k8s.io, and segments of shared memory stay.
shared_memory() { ipcs -m | awk '$2 ~ /^[0-9]+$/ { print $2 }' | sort; }

clean_up() {
  local status=$?
  trap - EXIT
  # It has nothing to lose, and by SIGTERM it would wait for its clients.
  [[ -z ${REGISTRY_PID-} ]] || kill -KILL "$REGISTRY_PID" 2>/dev/null || true
  wait "${REGISTRY_PID-}" 2>/dev/null || true
  comm -13 <(echo "$MEMORY_BEFORE") <(shared_memory) | xargs -r -n 1 ipcrm -m || true
  find /sys/fs/cgroup -depth -type d -path '*/k8s.io*' -exec rmdir {} + 2>/dev/null || true
  [[ -z ${CRITEST_REPORT-} ]] || cp -r "${HANDLERS[@]/#/$WORK/}" "$WORK/table" "$CRITEST_REPORT" || true
  rm -rf -- "$WORK"
  exit "$status"
}

inside() {
  local handler
  WORK=$(mktemp -d "$TESTBED_RUN/critest.XXXXXX")
  MEMORY_BEFORE=$(shared_memory)
  trap clean_up EXIT
  start_registry
  fill_registry
  for handler in "${HANDLERS[@]}"; do run_specs "$handler"; done
  table >"$WORK/table"
  say "specs: $(cut -f 2 "$WORK/table" | sort | uniq -c | awk '{ $1 = $1; printf "%s%s", sep, $0; sep = ", " }') (${HANDLERS[*]})"
  [[ -z $UPDATE ]] || update_list
  check_list
}

main() {
  UPDATE='' LIST=$TESTBED_SOURCE/cri/critest.list
  case ${1-} in
    -h | --help)
      print_help "${BASH_SOURCE[0]}"
      return 0
      ;;
    --update) UPDATE=yes ;;
    '') ;;
    *) usage_error "unknown argument: $1" ;;
  esac
  require_root
  if [[ ${TESTBED_DAEMONS-} == "$DAEMON" ]]; then
    inside
  else
    exec "$TESTBED_SOURCE/with.sh" --daemons "$DAEMON" -- "${BASH_SOURCE[0]}" "$@"
  fi
}

main "$@"
