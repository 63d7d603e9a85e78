//! What of the specification there is, in the form of the OCI runtime specification, "Features Structure".
//!
//! containerd offers to kubelet only what it finds here: read-only mounts of whole trees (`rro`) and
//! user namespaces (`idmap`), for example.

use serde_json::{Value, json};

use super::{mount, process};

/// The oldest and the newest version of a `config.json` that is understood.
const VERSIONS: (&str, &str) = ("1.0.0", "1.2.1");

/// The features document.
#[must_use]
pub fn features() -> Value {
    let hooks =
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    let actions = [
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_LOG",
        "SCMP_ACT_TRACE",
        "SCMP_ACT_TRAP",
    ];
    let operators = ["EQ", "GE", "GT", "LE", "LT", "MASKED_EQ", "NE"];
    let operators = operators.map(|operator| format!("SCMP_CMP_{operator}"));
    let flags = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"];
    json!({
        "ociVersionMin": VERSIONS.0,
        "ociVersionMax": VERSIONS.1,
        "hooks": hooks,
        "mountOptions": mount::option_names(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "capabilities": process::CAPABILITIES.as_slice(),
            "cgroup": {
                "v1": true, "v2": true, "systemd": true, "systemdUser": false, "rdma": true,
            },
            "seccomp": {
                "enabled": true,
                "actions": actions,
                "operators": operators,
                "archs": ["SCMP_ARCH_X86_64"],
                "knownFlags": flags,
                "supportedFlags": flags,
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": true } },
        },
    })
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime as json;

    use super::*;

    #[test]
    fn others_can_read_it() {
        let read: json::Features = serde_json::from_value(features()).unwrap();
        let linux = read.linux().clone().unwrap();
        assert_eq!(linux.capabilities().as_ref().unwrap().len(), 41);
        assert_eq!(linux.capabilities().as_ref().unwrap()[21], "CAP_SYS_ADMIN");
        let idmap = linux.mount_extensions().clone().unwrap().idmap().clone().unwrap();
        assert_eq!(*idmap.enabled(), Some(true));
        let options = read.mount_options().clone().unwrap();
        for option in ["rro", "rbind", "rslave", "ridmap", "tmpcopyup", "nosuid", "defaults"] {
            assert!(options.iter().any(|known| known == option), "{option}");
        }
        let mut sorted = options.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(options, sorted);
        for action in linux.seccomp().clone().unwrap().actions().clone().unwrap() {
            let profile = serde_json::json!({ "defaultAction": action });
            let profile: json::LinuxSeccomp = serde_json::from_value(profile).unwrap();
            super::super::Seccomp::parse(&profile).unwrap();
        }
    }
}
