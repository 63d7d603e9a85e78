//! Pods with a user namespace (`hostUsers: false`): root in them is nobody on the node.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};

use crate::cri::{Container, Pod, on_each_handler};

/// First id of the node that the pod has.
const FIRST: u32 = 200_000;

/// As the kubelet writes it, into the pod's and each container's configuration.
fn users() -> Value {
    let ids = json!([{ "host_id": FIRST, "container_id": 0, "length": 65536 }]);
    let options = json!({ "mode": 0, "uids": ids, "gids": ids });
    json!({ "linux": { "security_context": { "namespace_options": { "userns_options": options } } } })
}

fn pid(container: &Container<'_>) -> Result<u64, String> {
    let inspected = container.inspect()?;
    inspected["info"]["pid"].as_u64().ok_or_else(|| format!("no pid in {inspected}"))
}

#[test]
fn a_pod_of_its_own_users_runs_and_owns_its_files() {
    on_each_handler(|cri, handler| {
        // 1.6 knows none, 1.7 maps files for none, and the sandbox of the shim has none.
        if ["k16", "k17", "k17s"].contains(&cri.name.as_str()) || handler == "wasm-sandbox" {
            return Ok(());
        }
        let pod = Pod::with(cri, handler, &users())?;
        let volume = tempfile::tempdir().map_err(|error| error.to_string())?;
        fs::write(volume.path().join("mine"), "x").map_err(|error| error.to_string())?;
        let ids = json!([{ "host_id": FIRST, "container_id": 0, "length": 65536 }]);
        let mut more = users();
        more["mounts"] = json!([{
            "host_path": volume.path(), "container_path": "/volume",
            "uidMappings": ids, "gidMappings": ids,
        }]);
        let spin = pod.run_with("spin:rootfs", &[], &more)?;
        let process = format!("/proc/{}", pid(&spin)?);
        let owner = |path: &str| {
            let found = fs::metadata(format!("{process}{path}"));
            found.map(|found| found.uid()).map_err(|error| format!("{path}: {error}"))
        };
        let map = fs::read_to_string(format!("{process}/uid_map")).unwrap_or_default();
        let map: Vec<_> = map.split_whitespace().collect();
        let owners = (owner("")?, owner("/root/app.wasm")?, owner("/root/volume/mine")?);
        if map != ["0", "200000", "65536"] || owners != (FIRST, FIRST, FIRST) {
            return Err(format!("ids {map:?}, owners {owners:?}"));
        }
        let listed = spin.exec_sync(&["ls", "-l", "/volume"]);
        listed.expect("a file of root", listed.stdout.contains("mine"))?;
        let script = "id -u; echo y > /volume/made && cat /volume/made; ls -ln /volume/mine";
        let sh = pod.run_with("busybox:rootfs", &["sh", "-c", script], &more)?;
        let (code, _) = sh.ended()?;
        let logs = sh.logs()?;
        logs.expect("root and its file", code == 0 && logs.stdout.starts_with("0\ny\n"))?;
        let made = fs::metadata(volume.path().join("made")).map_err(|error| error.to_string())?;
        if made.uid() != 0 {
            return Err(format!("on the node the new file belongs to {}", made.uid()));
        }
        pod.remove()
    });
}
