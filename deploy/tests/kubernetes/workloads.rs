//! What controllers do with pods: deployments, schedules, scaling.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::{Namespace, eventually};

fn deployment(name: &str, replicas: u32, container: &Value) -> Value {
    let mut spec = Namespace::pod_spec(std::slice::from_ref(container));
    spec["restartPolicy"] = json!("Always");
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": name } },
            "template": { "metadata": { "labels": { "app": name } }, "spec": spec },
        },
    })
}

fn rolled_out(namespace: &Namespace, name: &str) -> Result<()> {
    let object = format!("deployment/{name}");
    namespace.kubectl(&["rollout", "status", &object, "--timeout=180s"]).map(drop)
}

fn pods(namespace: &Namespace, name: &str) -> Result<Vec<Value>> {
    let selector = format!("app={name}");
    let found = namespace.kubectl(&["get", "pods", "--selector", &selector, "--output", "json"])?;
    let found: Value = serde_json::from_str(&found)?;
    Ok(found["items"].as_array().cloned().unwrap_or_default())
}

/// Twenty, all of them replaced without ever falling short, none, and twenty again.
pub(crate) fn twenty_roll_and_scale(namespace: &Namespace) -> Result<()> {
    let mut server = namespace.container("server", "sockets:layer", &["serve", "8080", "1000000"]);
    server["readinessProbe"] = json!({ "tcpSocket": { "port": 8080 }, "periodSeconds": 1 });
    namespace.apply(&deployment("many", 20, &server))?;
    rolled_out(namespace, "many")?;
    let before = pods(namespace, "many")?;
    server["image"] = json!(namespace.image("sockets-rust:layer"));
    namespace.apply(&deployment("many", 20, &server))?;
    rolled_out(namespace, "many")?;
    let uid = |pod: &Value| pod["metadata"]["uid"].clone();
    let old: Vec<_> = before.iter().map(uid).collect();
    eventually("end of the old pods", || {
        let now = pods(namespace, "many")?;
        Ok((now.len() == 20 && now.iter().all(|pod| !old.contains(&uid(pod)))).then_some(()))
    })?;
    for replicas in ["0", "20", "0"] {
        namespace.kubectl(&["scale", "deployment/many", &format!("--replicas={replicas}")])?;
        rolled_out(namespace, "many")?;
        eventually(&format!("{replicas} pods"), || {
            Ok((pods(namespace, "many")?.len().to_string() == replicas).then_some(()))
        })?;
    }
    Ok(())
}

/// A job each minute runs when it is due.
pub(crate) fn schedules_are_kept(namespace: &Namespace) -> Result<()> {
    let template = Namespace::pod_spec(&[namespace.container("main", "hello:layer", &[])]);
    namespace.apply(&json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": "each-minute" },
        "spec": {
            "schedule": "* * * * *", "concurrencyPolicy": "Forbid",
            "jobTemplate": { "spec": { "backoffLimit": 0, "template": { "spec": template } } },
        },
    }))?;
    eventually("success of a job of the schedule", || {
        let job = namespace.get("cronjob/each-minute")?;
        Ok(job["status"]["lastSuccessfulTime"].is_string().then_some(()))
    })
}

/// A guest that takes a processor is joined by others, by what metrics-server tells.
pub(crate) fn load_brings_more_pods(namespace: &Namespace) -> Result<()> {
    let mut spin = namespace.container("main", "spin:rootfs", &[]);
    spin["resources"] = json!({ "requests": { "cpu": "50m" }, "limits": { "cpu": "100m" } });
    namespace.apply(&deployment("busy", 1, &spin))?;
    rolled_out(namespace, "busy")?;
    namespace.kubectl(&["autoscale", "deployment/busy", "--min=1", "--max=2", "--cpu=50%"])?;
    eventually("second pod for the load", || {
        Ok((pods(namespace, "busy")?.len() == 2).then_some(()))
    })?;
    let scaler = namespace.get("hpa/busy")?;
    let used = scaler["status"]["currentMetrics"][0]["resource"]["current"]["averageUtilization"]
        .as_i64()
        .context("the autoscaler knows no utilization")?;
    ensure!(used > 50, "{used} %");
    Ok(())
}
