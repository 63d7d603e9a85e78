//! Requests and limits: what ends a guest, and what changes while it runs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::cluster::{Namespace, ended, eventually};

/// Wants a table of some 70 MB at once, which nobody but the kernel refuses.
const GREEDY: &str = r#"(module (memory (export "memory") 1) (table $all 0 funcref)
    (elem declare func $self)
    (func $self (export "_start")
        (drop (table.grow $all (ref.func $self) (i32.const 9000000)))))"#;

/// A WebAssembly and a Linux program that want more than their limits end with the reason that dashboards look for.
pub(crate) fn memory_that_runs_out_is_the_reason(namespace: &Namespace) -> Result<()> {
    namespace.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "greedy" },
        "data": { "app.wat": GREEDY },
    }))?;
    let limit = json!({ "limits": { "memory": "32Mi" } });
    let mut wasm = namespace.container("wasm", "hello-wat:wat", &[]);
    wasm["resources"] = limit.clone();
    wasm["volumeMounts"] =
        json!([{ "name": "greedy", "mountPath": "/app.wat", "subPath": "app.wat" }]);
    let mut linux = namespace.container("linux", "busybox:rootfs", &[]);
    linux["command"] = json!(["/bin/busybox", "tail", "/dev/zero"]);
    linux["resources"] = limit;
    let mut pod = namespace.pod("greedy", &[wasm, linux]);
    pod["spec"]["volumes"] = json!([{ "name": "greedy", "configMap": { "name": "greedy" } }]);
    namespace.apply(&pod)?;
    let pod = namespace.phase("greedy", &["Failed"])?;
    for index in 0..2 {
        let (code, state) = ended(&pod, index)?;
        ensure!(code == 137 && state["reason"] == "OOMKilled", "{state}");
    }
    Ok(())
}

/// New limits reach a pod without another start of it.
pub(crate) fn limits_change_in_place(namespace: &Namespace) -> Result<()> {
    let mut container = namespace.container("main", "sleep:layer", &[]);
    container["resources"] = json!({
        "requests": { "cpu": "50m", "memory": "32Mi" }, "limits": { "cpu": "100m", "memory": "64Mi" },
    });
    namespace.apply(&namespace.pod("resized", &[container]))?;
    namespace.ready("resized")?;
    let patch = json!({ "spec": { "containers": [{ "name": "main", "resources": {
        "requests": { "cpu": "50m", "memory": "32Mi" }, "limits": { "cpu": "200m", "memory": "96Mi" },
    }}]}});
    let patch = patch.to_string();
    namespace.kubectl(&[
        "patch",
        "pod",
        "resized",
        "--subresource",
        "resize",
        "--patch",
        &patch,
    ])?;
    let pod = eventually("new limits of the pod that runs", || {
        let pod = namespace.get("pod/resized")?;
        let limits = &pod["status"]["containerStatuses"][0]["resources"]["limits"];
        Ok((limits["memory"] == "96Mi" && limits["cpu"] == "200m").then_some(pod))
    })?;
    let status = &pod["status"]["containerStatuses"][0];
    ensure!(status["restartCount"] == 0, "{status}");
    let memory = namespace.kubectl(&["exec", "resized", "--", "mem"])?;
    ensure!(memory.contains("96"), "the guest's own limit is not the new one: {memory:?}");
    Ok(())
}

/// SIGTERM, then the grace period and no longer: a guest that does not listen costs its pod just that.
pub(crate) fn ends_within_the_grace_period(namespace: &Namespace) -> Result<()> {
    let mut pod = namespace.pod("stubborn", &[namespace.container("main", "spin:rootfs", &[])]);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(20);
    namespace.apply(&pod)?;
    namespace.ready("stubborn")?;
    let begun = Instant::now();
    namespace.kubectl(&["delete", "pod", "stubborn", "--timeout=60s"])?;
    // WASI has no signals: a guest without a handler ends by SIGTERM like any program.
    let took = begun.elapsed();
    ensure!(took < Duration::from_secs(15), "it took {} s of its 20", took.as_secs());
    Ok(())
}

/// A pod that takes more of the node's disk than it may is evicted, and says so; one that is asked to go, goes.
pub(crate) fn evicted_pods_go(namespace: &Namespace) -> Result<()> {
    let mut writer = namespace.container("writer", "busybox:rootfs", &[]);
    let script = "dd if=/dev/zero of=/scratch/file bs=1M count=8; exec sleep 600";
    writer["command"] = json!(["/bin/busybox", "sh", "-c", script]);
    writer["volumeMounts"] = json!([{ "name": "scratch", "mountPath": "/scratch" }]);
    let guest = namespace.container("main", "sleep:layer", &[]);
    let mut pod = namespace.pod("greedy", &[guest, writer]);
    pod["spec"]["volumes"] = json!([{ "name": "scratch", "emptyDir": { "sizeLimit": "1Mi" } }]);
    namespace.apply(&pod)?;
    namespace.apply(&namespace.pod("asked", &[namespace.container("main", "sleep:layer", &[])]))?;
    namespace.ready("asked")?;
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": { "name": "asked", "namespace": namespace.name },
    });
    let path = format!("/api/v1/namespaces/{}/pods/asked/eviction", namespace.name);
    namespace.send(&["create", "--raw", &path, "--filename", "-"], &eviction)?;
    eventually("end of a pod that was asked to go", || {
        Ok(namespace
            .kubectl(&["get", "pods", "--output", "name"])?
            .lines()
            .all(|name| name != "pod/asked")
            .then_some(()))
    })?;
    let pod = namespace.phase("greedy", &["Failed"])?;
    let reason = pod["status"]["reason"].as_str().context("no reason")?;
    ensure!(reason == "Evicted", "{}", pod["status"]);
    Ok(())
}
