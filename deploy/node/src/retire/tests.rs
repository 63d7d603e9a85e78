//! What is asked of a DaemonSet, and what its answers mean.

use super::*;
use serde_json::from_value;

fn args() -> RetireArgs {
    RetireArgs {
        namespace: "nodes".into(),
        daemonset: "coracle".into(),
        timeout: Duration::from_secs(1),
        force: false,
        node: vec!["--handler=wasm".into()],
        daemon: vec!["--node-label=coracle.dev/wasm".into()],
        service_account: "/nowhere".into(),
    }
}

fn daemonset(observed: i64, wanted: i64, updated: i64, ready: i64) -> DaemonSet {
    from_value(json!({
        "metadata": { "generation": 3 },
        "spec": { "selector": { "matchLabels": { "a": "b" } } },
        "status": {
            "observedGeneration": observed,
            "desiredNumberScheduled": wanted,
            "updatedNumberScheduled": updated,
            "numberReady": ready,
        },
    }))
    .unwrap()
}

#[test]
fn the_template_takes_back_and_stays() {
    let patch = patch(&args(), true, "7");
    let template = &patch["spec"]["template"];
    assert_eq!(
        template["spec"]["initContainers"][0]["args"],
        json!(["uninstall", "--node", "--handler=wasm", "--force"])
    );
    assert_eq!(
        template["spec"]["containers"][0]["args"],
        json!(["daemon", "--retired", "--kubernetes", "--node-label=coracle.dev/wasm"])
    );
    assert_eq!(template["metadata"]["annotations"]["coracle.dev/uninstall"], "7");
    assert_eq!(patch["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"], "100%");
}

#[test]
fn done_is_when_all_nodes_have_a_ready_pod_of_the_new_template() {
    assert_eq!(daemonset(3, 2, 2, 2).done(3), Some((2, 2)));
    assert_eq!(daemonset(3, 0, 0, 0).done(3), Some((0, 0)), "no node, nothing to do");
    assert_eq!(daemonset(2, 2, 2, 2).done(3), None, "the controller has not looked yet");
    assert_eq!(daemonset(3, 2, 1, 2).done(3), Some((1, 2)), "one pod is of the old template");
    assert_eq!(daemonset(3, 2, 2, 1).done(3), Some((1, 2)));
}

#[test]
fn an_annotation_forces_a_release_that_cannot_be_changed() {
    let mut daemonset = daemonset(3, 1, 1, 1);
    assert!(!daemonset.forces());
    daemonset.metadata.annotations.insert(ANNOTATION.into(), FORCE.into());
    assert!(daemonset.forces());
}

#[test]
fn a_node_s_own_words_are_told_but_not_those_of_an_earlier_attempt() {
    let pod = |attempt: &str, state: Value, last: Value| {
        json!({
            "metadata": { "annotations": { ANNOTATION: attempt } },
            "spec": { "nodeName": "n1" },
            "status": { "initContainerStatuses": [{ "state": state, "lastState": last }] },
        })
    };
    let ended = |code: i64| json!({ "terminated": { "exitCode": code, "message": "containers run: c1\n" } });
    let pods: Pods = from_value(json!({ "items": [
        pod("2", json!({ "waiting": {} }), ended(REFUSED)),
        pod("2", ended(0), json!({})),
        pod("1", ended(REFUSED), json!({})),
        pod("2", ended(11), json!({})),
        { "metadata": {}, "spec": {} },
    ]}))
    .unwrap();
    let refusals = complaints(&pods.items, "2", |ended| ended.exit_code == REFUSED);
    assert_eq!(refusals, "n1: containers run: c1\n");
    assert_eq!(complaints(&pods.items, "2", |_| true).lines().count(), 2);
}
