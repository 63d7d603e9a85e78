//! The node's services end and come back while pods run.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::cluster::{Namespace, ended, eventually};

pub(crate) fn pods_live_through_containerd(namespace: &Namespace) -> Result<()> {
    pods_live_through(namespace, "containerd")
}

pub(crate) fn pods_live_through_kubelet(namespace: &Namespace) -> Result<()> {
    pods_live_through(namespace, "kubelet")
}

/// A program that runs goes on as the same container, one that ends meanwhile is told of with its exit code, and both can be
/// used and removed as ever.
fn pods_live_through(namespace: &Namespace, unit: &str) -> Result<()> {
    namespace.apply(&namespace.pod("long", &[namespace.container("main", "sleep:layer", &[])]))?;
    namespace
        .apply(&namespace.pod("short", &[namespace.container("main", "sleep:layer", &["3"])]))?;
    let before = namespace.ready("long")?;
    namespace.ready("short")?;
    namespace.node(&["systemctl", "restart", unit])?;
    let words = eventually("an answer of exec", || {
        namespace.kubectl(&["exec", "long", "--", "cat", "/etc/hostname"]).map(Some)
    })?;
    ensure!(words == "long\n", "{words:?}");
    let short = namespace.phase("short", &["Succeeded", "Failed"])?;
    ensure!(ended(&short, 0)?.0 == 0, "{}", short["status"]);
    ensure!(
        namespace.logs("short", "main")? == "sleeping\nawake\n",
        "the words of a program are lost"
    );
    let after = namespace.ready("long")?;
    ensure!(
        container(&before) == container(&after),
        "{} became {}",
        before["status"],
        after["status"]
    );
    Ok(())
}

/// Which container a pod has, and how often it was started again.
fn container(pod: &Value) -> (&Value, &Value) {
    let status = &pod["status"]["containerStatuses"][0];
    (&status["containerID"], &status["restartCount"])
}
