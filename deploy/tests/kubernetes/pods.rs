//! Pods and jobs: how they start and end, and what is told of it.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::cluster::{Namespace, ended, eventually};

pub(crate) fn the_node_is_ready(namespace: &Namespace) -> Result<()> {
    let nodes = namespace.get("nodes")?;
    let nodes = nodes["items"].as_array().cloned().unwrap_or_default();
    ensure!(!nodes.is_empty(), "the cluster has no node");
    for node in nodes {
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
        ensure!(ready, "not ready: {}", node["status"]);
    }
    let class = namespace.get("runtimeclass/wasm")?;
    ensure!(class["handler"] == "wasm", "{class}");
    Ok(())
}

pub(crate) fn every_form_of_image_completes(namespace: &Namespace) -> Result<()> {
    let forms = [
        ("rootfs", "hello:rootfs", "hello from C\n"),
        ("layer", "hello:layer", "hello from C\n"),
        ("artifact", "hello:artifact", "hello from C\n"),
        ("rust", "hello-rust:rootfs", "hello from Rust\n"),
        ("go", "hello-go:rootfs", "hello from Go\n"),
    ];
    for (name, image, _) in forms {
        let mut container = namespace.container("main", image, &[]);
        if name == "artifact" {
            // It has no entry point, and CRI wants a command.
            container["command"] = json!(["/"]);
        }
        namespace.apply(&namespace.pod(name, &[container]))?;
    }
    for (name, image, words) in forms {
        let pod = namespace.phase(name, &["Succeeded", "Failed"])?;
        let (code, state) = ended(&pod, 0)?;
        let logs = namespace.logs(name, "main")?;
        ensure!(
            code == 0 && logs == words && state["reason"] == "Completed",
            "{image}: {state}, {logs:?}"
        );
    }
    Ok(())
}

pub(crate) fn jobs_end_with_exit_codes(namespace: &Namespace) -> Result<()> {
    for code in ["0", "42"] {
        let containers = [namespace.container("main", "exit-code:layer", &[code])];
        namespace.apply(&json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": { "name": format!("exit-{code}") },
            "spec": { "backoffLimit": 1, "template": { "spec": Namespace::pod_spec(&containers) } },
        }))?;
    }
    for (code, condition, pods) in [("0", "Complete", 1), ("42", "Failed", 2)] {
        eventually(&format!("job that is {condition}"), || {
            let job = namespace.get(&format!("job/exit-{code}"))?;
            let conditions = job["status"]["conditions"].as_array().cloned().unwrap_or_default();
            Ok(conditions
                .iter()
                .any(|one| one["type"] == condition && one["status"] == "True")
                .then_some(()))
        })?;
        let selector = format!("job-name=exit-{code}");
        let found =
            namespace.kubectl(&["get", "pods", "--selector", &selector, "--output", "json"])?;
        let found: serde_json::Value = serde_json::from_str(&found)?;
        let found = found["items"].as_array().cloned().unwrap_or_default();
        ensure!(found.len() == pods, "{} pods tried to exit with {code}, not {pods}", found.len());
        for pod in &found {
            ensure!(ended(pod, 0)?.0.to_string() == code, "{}", pod["status"]);
        }
    }
    Ok(())
}

pub(crate) fn a_trap_is_told(namespace: &Namespace) -> Result<()> {
    let mut container = namespace.container("main", "trap:layer", &[]);
    container["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    namespace.apply(&namespace.pod("trap", &[container]))?;
    let pod = namespace.phase("trap", &["Succeeded", "Failed"])?;
    let (code, state) = ended(&pod, 0)?;
    let message = state["message"].as_str().unwrap_or_default();
    ensure!(
        code == 134 && state["reason"] == "Error" && message.contains("unreachable"),
        "{state}"
    );
    Ok(())
}

pub(crate) fn a_linux_sidecar_shares_the_pod(namespace: &Namespace) -> Result<()> {
    let server = namespace.container("server", "sockets:layer", &["serve", "8080", "1"]);
    let script = "until wget -q -O - http://127.0.0.1:8080/; do sleep 0.2; done";
    let mut sidecar = namespace.container("sidecar", "busybox:rootfs", &[]);
    sidecar["command"] = json!(["/bin/busybox", "sh", "-c", script]);
    namespace.apply(&namespace.pod("both", &[server, sidecar]))?;
    let pod = namespace.phase("both", &["Succeeded", "Failed"])?;
    for index in 0..2 {
        let (code, state) = ended(&pod, index)?;
        ensure!(code == 0, "{state}");
    }
    let logs = namespace.logs("both", "sidecar")?;
    ensure!(logs.ends_with("hello from C\n"), "{logs:?}");
    Ok(())
}

/// A Linux program prepares what a WebAssembly program, also as an init container, and then the pod work on.
pub(crate) fn init_containers_come_first(namespace: &Namespace) -> Result<()> {
    let mount = json!([{ "name": "shared", "mountPath": "/shared" }]);
    let mut linux = namespace.container("linux", "busybox:rootfs", &[]);
    linux["command"] = json!(["/bin/busybox", "sh", "-c", "echo prepared >/shared/file"]);
    linux["volumeMounts"] = mount.clone();
    let wasm = namespace.container("wasm", "hello:layer", &[]);
    let mut main = namespace.container("main", "busybox:rootfs", &[]);
    main["command"] = json!(["/bin/busybox", "cat", "/shared/file"]);
    main["volumeMounts"] = mount;
    let mut pod = namespace.pod("init", &[main]);
    pod["spec"]["initContainers"] = json!([linux, wasm]);
    pod["spec"]["volumes"] = json!([{ "name": "shared", "emptyDir": {} }]);
    namespace.apply(&pod)?;
    let pod = namespace.phase("init", &["Succeeded", "Failed"])?;
    ensure!(pod["status"]["phase"] == "Succeeded", "{}", pod["status"]);
    let (first, last) = (namespace.logs("init", "wasm")?, namespace.logs("init", "main")?);
    ensure!(first == "hello from C\n" && last == "prepared\n", "{first:?}, {last:?}");
    Ok(())
}

pub(crate) fn a_bad_image_says_why(namespace: &Namespace) -> Result<()> {
    namespace
        .apply(&namespace.pod("bad", &[namespace.container("main", "bad-imports:rootfs", &[])]))?;
    let pod = namespace.phase("bad", &["Succeeded", "Failed"])?;
    let (code, state) = ended(&pod, 0)?;
    let message = state["message"].as_str().unwrap_or_default();
    let reason = state["reason"].as_str().unwrap_or_default();
    let told = ["StartError", "ContainerCannotRun"].contains(&reason)
        && message.contains("no_such_host_function");
    ensure!(code != 0 && told, "{state}");
    Ok(())
}
