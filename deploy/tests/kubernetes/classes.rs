//! RuntimeClasses that are wrong: what a user is told.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::cluster::{Namespace, eventually};

/// A class that does not exist is refused with the pod; one whose handler no node has is told as an event; one that is deleted
/// leaves its pods running.
pub(crate) fn wrong_classes_are_told(namespace: &Namespace) -> Result<()> {
    let sleeper = |name: &str, class: &str| {
        let mut pod = namespace.pod(name, &[namespace.container("main", "sleep:layer", &[])]);
        pod["spec"]["runtimeClassName"] = json!(class);
        pod
    };
    let refused = namespace.apply(&sleeper("missing", "no-such-class"));
    let words = format!("{:#}", refused.err().unwrap_or_else(|| anyhow::anyhow!("it was taken")));
    ensure!(words.contains("no-such-class") && words.contains("not found"), "{words}");

    let class = |name: &str, handler: &str| json!({ "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": { "name": name }, "handler": handler });
    // Of no namespace: named for this test, and removed by it.
    let (wrong, fleeting) =
        (format!("{}-wrong", namespace.name), format!("{}-fleeting", namespace.name));
    namespace.apply(&class(&wrong, "no-such-handler"))?;
    namespace.apply(&class(&fleeting, "wasm"))?;
    let result = with_classes(
        namespace,
        &sleeper("wrong", &wrong),
        &sleeper("fleeting", &fleeting),
        &fleeting,
    );
    for name in [&wrong, &fleeting] {
        namespace.cluster(&["delete", "runtimeclass", name, "--ignore-not-found"])?;
    }
    result
}

fn with_classes(
    namespace: &Namespace,
    wrong: &serde_json::Value,
    fleeting: &serde_json::Value,
    class: &str,
) -> Result<()> {
    namespace.apply(wrong)?;
    namespace.apply(fleeting)?;
    eventually("event about a handler that no node has", || {
        let events = namespace.kubectl(&[
            "get",
            "events",
            "--field-selector",
            "involvedObject.name=wrong",
        ])?;
        Ok(events.contains("no-such-handler").then_some(()))
    })?;
    namespace.ready("fleeting")?;
    namespace.cluster(&["delete", "runtimeclass", class])?;
    let words = namespace.kubectl(&["exec", "fleeting", "--", "cat", "/etc/hostname"])?;
    ensure!(words == "fleeting\n", "{words:?}");
    // And ends like any other.
    namespace.kubectl(&["delete", "pod", "fleeting", "--timeout=60s"])?;
    Ok(())
}
