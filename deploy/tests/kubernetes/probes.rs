//! Probes of all kinds, against guests that answer and guests that do not.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{Namespace, eventually};

fn restarts(pod: &Value) -> i64 {
    pod["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap_or_default()
}

/// Startup, readiness and liveness by HTTP, TCP and exec, all answered.
pub(crate) fn probes_are_answered(namespace: &Namespace) -> Result<()> {
    let probes = [
        ("http", json!({ "httpGet": { "path": "/", "port": 8080 } })),
        ("tcp", json!({ "tcpSocket": { "port": 8080 } })),
        ("exec", json!({ "exec": { "command": ["ls", "/"] } })),
    ];
    for (name, probe) in &probes {
        let mut probe = probe.clone();
        probe["periodSeconds"] = json!(1);
        let mut container =
            namespace.container("main", "sockets:layer", &["serve", "8080", "1000000"]);
        for kind in ["startupProbe", "readinessProbe", "livenessProbe"] {
            container[kind] = probe.clone();
        }
        let mut pod = namespace.pod(name, &[container]);
        pod["spec"]["restartPolicy"] = json!("Always");
        namespace.apply(&pod)?;
    }
    for (name, _) in &probes {
        namespace.ready(name)?;
    }
    // Long enough for a liveness probe to fail its three times.
    std::thread::sleep(std::time::Duration::from_secs(5));
    for (name, _) in &probes {
        let pod = namespace.ready(name)?;
        ensure!(restarts(&pod) == 0, "{name}: {}", pod["status"]);
    }
    Ok(())
}

/// A guest that does not answer is never ready, and is started again if it has to live.
pub(crate) fn failing_probes_have_their_effect(namespace: &Namespace) -> Result<()> {
    let quick = |probe: Value| {
        let mut probe = probe;
        (probe["periodSeconds"], probe["failureThreshold"]) = (json!(1), json!(2));
        probe
    };
    let mut dead = namespace.container("main", "sleep:layer", &[]);
    dead["livenessProbe"] = quick(json!({ "exec": { "command": ["cat", "/no/such/file"] } }));
    let mut dead = namespace.pod("dead", &[dead]);
    dead["spec"]["restartPolicy"] = json!("Always");
    let mut deaf = namespace.container("main", "sleep:layer", &[]);
    deaf["readinessProbe"] = quick(json!({ "tcpSocket": { "port": 9 } }));
    namespace.apply(&dead)?;
    namespace.apply(&namespace.pod("deaf", &[deaf]))?;
    eventually("restart of a pod whose liveness probe fails", || {
        Ok((restarts(&namespace.get("pod/dead")?) > 0).then_some(()))
    })?;
    let pod = namespace.get("pod/deaf")?;
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ready = conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
    ensure!(!ready && pod["status"]["phase"] == "Running", "{}", pod["status"]);
    Ok(())
}
