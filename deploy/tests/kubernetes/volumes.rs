//! What pods get from the cluster: files of volumes, variables, the downward API.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::cluster::{Namespace, ended, eventually};

/// A ConfigMap, a Secret and the pod's own labels as variables and as files, an empty folder to write into, and what may only
/// be read. A change of the ConfigMap reaches a pod that runs.
pub(crate) fn configuration_reaches_the_guest(namespace: &Namespace) -> Result<()> {
    namespace.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "settings" },
        "data": { "colour": "blue" },
    }))?;
    namespace.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "secret" },
        "stringData": { "word": "xyzzy" },
    }))?;
    let mut container = namespace.container("main", "sleep:layer", &[]);
    container["env"] = json!([
        { "name": "COLOUR", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "colour" } } },
        { "name": "WORD", "valueFrom": { "secretKeyRef": { "name": "secret", "key": "word" } } },
        { "name": "POD", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
        { "name": "LIMIT", "valueFrom": { "resourceFieldRef": { "resource": "limits.memory" } } },
    ]);
    container["resources"] = json!({ "limits": { "memory": "64Mi" } });
    container["volumeMounts"] = json!([
        { "name": "settings", "mountPath": "/settings" },
        { "name": "secret", "mountPath": "/secret", "readOnly": true },
        { "name": "about", "mountPath": "/about" },
    ]);
    let mut pod = namespace.pod("configured", &[container]);
    pod["spec"]["volumes"] = json!([
        { "name": "settings", "configMap": { "name": "settings" } },
        { "name": "secret", "secret": { "secretName": "secret" } },
        { "name": "about", "downwardAPI": { "items": [
            { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
        ]}},
    ]);
    namespace.apply(&pod)?;
    namespace.ready("configured")?;
    let read = |path: &str| namespace.kubectl(&["exec", "configured", "--", "cat", path]);
    let variables = namespace.kubectl(&["exec", "configured", "--", "env"])?;
    for wanted in ["COLOUR=blue", "WORD=xyzzy", "POD=configured", "LIMIT=67108864"] {
        ensure!(variables.lines().any(|line| line == wanted), "no {wanted} in {variables:?}");
    }
    for (path, wanted) in [
        ("/settings/colour", "blue"),
        ("/secret/word", "xyzzy"),
        ("/about/labels", "app=\"configured\""),
    ] {
        let found = read(path)?;
        ensure!(found == wanted, "{path} holds {found:?}");
    }
    let change = r#"{"data":{"colour":"green"}}"#;
    namespace.kubectl(&["patch", "configmap", "settings", "--type", "merge", "--patch", change])?;
    eventually("the change of a ConfigMap", || {
        Ok((read("/settings/colour")? == "green").then_some(()))
    })
}

/// The program that works through files does so in a folder of the pod, and finds a read-only one to be just that.
pub(crate) fn volumes_are_what_they_say(namespace: &Namespace) -> Result<()> {
    let mut writes = namespace.container("writes", "files:rootfs", &["/data"]);
    writes["volumeMounts"] = json!([{ "name": "empty", "mountPath": "/data" }]);
    let mut pod = namespace.pod("files", &[writes]);
    pod["spec"]["volumes"] = json!([{ "name": "empty", "emptyDir": {} }]);
    namespace.apply(&pod)?;
    let pod = namespace.phase("files", &["Succeeded", "Failed"])?;
    let (code, state) = ended(&pod, 0)?;
    let logs = namespace.logs("files", "writes")?;
    ensure!(
        code == 0 && logs == include_str!("../../../test-images/files/expected.txt"),
        "{state}: {logs}"
    );
    let mut reads = namespace.container("reads", "files:rootfs", &["--read-only", "/seed"]);
    let mut linux = namespace.container("prepare", "busybox:rootfs", &[]);
    linux["command"] = json!(["/bin/busybox", "sh", "-c", "echo seed >/seed/seed.txt"]);
    linux["volumeMounts"] = json!([{ "name": "seed", "mountPath": "/seed" }]);
    reads["volumeMounts"] = json!([{ "name": "seed", "mountPath": "/seed", "readOnly": true }]);
    let mut pod = namespace.pod("read-only", &[reads]);
    pod["spec"]["initContainers"] = json!([linux]);
    pod["spec"]["volumes"] = json!([{ "name": "seed", "emptyDir": {} }]);
    namespace.apply(&pod)?;
    let pod = namespace.phase("read-only", &["Succeeded", "Failed"])?;
    let (code, state) = ended(&pod, 0)?;
    let logs = namespace.logs("read-only", "reads")?;
    let wanted = include_str!("../../../test-images/files/expected-read-only.txt");
    ensure!(code == 0 && logs == wanted, "{state}: {logs}");
    Ok(())
}
