//! The sandbox's bundle: a `config.json` for its sleeper, and the files that its containers share.
//!
//! containerd makes the bundle's folder and leaves it empty. A spec is written into it, so that a
//! sandbox is built, found again and removed like every other container; its root is made here, too,
//! since containerd removes no bundle whose root file system holds anything.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use coracle_oci::spec::{Mount, Workload};
use serde_json::{Value, json};

use super::config::{NODE, PodSandboxConfig};
use crate::request::RootfsMount;

/// The node's own, for pods that bring no name servers.
const HOST_RESOLV_CONF: &str = "/etc/resolv.conf";
/// The name of systemd's unit begins with this, as for CRI's other sandboxes.
const UNIT_PREFIX: &str = "cri-containerd";

/// The root of a sandbox for which containerd mounts none: room for the folders that its mounts want.
pub(super) fn empty_root() -> RootfsMount {
    let options = ["nosuid", "nodev", "noexec", "mode=755", "size=64k"];
    RootfsMount {
        kind: "tmpfs".to_owned(),
        source: "tmpfs".to_owned(),
        options: options.map(str::to_owned).to_vec(),
    }
}

/// Files of a pod that its containers get when their spec mounts nothing there.
#[derive(Debug, Clone, Default)]
pub struct PodFiles(Vec<(PathBuf, &'static str)>);

impl PodFiles {
    /// Writes them into the bundle.
    pub(super) fn write(bundle: &Path, config: &PodSandboxConfig) -> io::Result<Self> {
        let resolv = match config.dns.as_ref().filter(|dns| !dns.servers.is_empty()) {
            Some(dns) => dns.text(),
            None => fs::read_to_string(HOST_RESOLV_CONF).unwrap_or_default(),
        };
        let files = [
            ("hostname", "/etc/hostname", format!("{}\n", hostname(config))),
            ("hosts", "/etc/hosts", hosts(&hostname(config))),
            ("resolv.conf", "/etc/resolv.conf", resolv),
        ];
        let mut all = Vec::new();
        for (name, destination, text) in files {
            let path = bundle.join(name);
            fs::write(&path, text)?;
            all.push((path, destination));
        }
        Ok(Self(all))
    }

    /// Adds them to a container of the pod.
    pub fn complete(&self, workload: &mut Workload) {
        for (source, destination) in &self.0 {
            let ours = Mount::bind(source.clone(), destination.into());
            let mut mounts = workload.mounts.iter_mut();
            match mounts.find(|mount| mount.destination == Path::new(destination)) {
                None => workload.mounts.push(ours),
                // containerd 1.7 mounts the files that it writes for sandboxes of its own, and where it
                // wrote none, because the sandbox is ours, a folder that it has made.
                Some(there) if there.source.as_deref().is_some_and(Path::is_dir) => *there = ours,
                Some(_) => {}
            }
        }
    }
}

/// The pod's name, or the node's.
fn hostname(config: &PodSandboxConfig) -> String {
    if !config.hostname.is_empty() {
        return config.hostname.clone();
    }
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn hosts(name: &str) -> String {
    format!("127.0.0.1 localhost {name}\n::1 localhost ip6-localhost ip6-loopback\n")
}

/// Writes the `config.json` of the sandbox `id`.
pub(super) fn write_spec(
    bundle: &Path,
    id: &str,
    config: &PodSandboxConfig,
    netns: Option<&Path>,
) -> io::Result<()> {
    fs::create_dir_all(bundle.join("rootfs"))?;
    fs::write(bundle.join("config.json"), spec(id, config, netns).to_string())
}

/// A container that sleeps in the pod's namespaces. What the pod shares with the node, it has not.
fn spec(id: &str, config: &PodSandboxConfig, netns: Option<&Path>) -> Value {
    let ours = config.namespaces();
    let mut namespaces = vec![json!({ "type": "mount" })];
    let mut own = |kind: &str, mode: i32| {
        if mode != NODE {
            namespaces.push(json!({ "type": kind }));
        }
    };
    own("ipc", ours.ipc);
    own("pid", ours.pid);
    // The node's network goes with the node's name.
    own("uts", ours.network);
    if let Some(netns) = netns {
        namespaces.push(json!({ "type": "network", "path": netns }));
    }
    let mut annotations = config.annotations.clone();
    annotations.insert("io.kubernetes.cri.container-type".to_owned(), "sandbox".to_owned());
    annotations.insert("io.kubernetes.cri.sandbox-id".to_owned(), id.to_owned());
    let linux = config.linux.clone().unwrap_or_default();
    json!({
        "ociVersion": "1.1.0",
        "hostname": if ours.network == NODE { "" } else { config.hostname.as_str() },
        "process": { "args": ["/pause"], "cwd": "/", "user": { "uid": 65535, "gid": 65535 } },
        "root": { "path": "rootfs", "readonly": true },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=64k"] },
        ],
        "annotations": annotations,
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": cgroup(&linux.cgroup_parent, id),
            "sysctl": linux.sysctls,
            "resources": { "cpu": { "shares": 2 } },
        },
    })
}

/// The sandbox's group within the pod's, in the form that its driver uses.
fn cgroup(parent: &str, id: &str) -> String {
    match parent.rsplit('/').next() {
        Some(slice) if slice.ends_with(".slice") => format!("{slice}:{UNIT_PREFIX}:{id}"),
        _ => Path::new("/").join(parent).join(id).to_string_lossy().into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::config::{LinuxPodSandboxConfig, NamespaceOption, SecurityContext};
    use coracle_oci::spec::{self, NamespaceKind};

    fn config(network: i32) -> PodSandboxConfig {
        let namespaces = Some(NamespaceOption { network, pid: 1, ipc: 0, users: None });
        PodSandboxConfig {
            hostname: "web".into(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: "/kubepods/pod1".into(),
                security_context: Some(SecurityContext { namespaces }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn its_spec_is_one_of_a_pause_container() {
        let dir = tempfile::tempdir().unwrap();
        write_spec(dir.path(), "s", &config(0), Some(Path::new("/run/netns/n"))).unwrap();
        let workload = spec::load(dir.path()).unwrap();
        assert!(workload.is_pause());
        assert_eq!(workload.hostname.as_deref(), Some("web"));
        assert_eq!(workload.cgroup.path.as_deref(), Some("/kubepods/pod1/s"));
        let network = workload.namespace(NamespaceKind::Network).unwrap();
        assert_eq!(network.path.as_deref(), Some(Path::new("/run/netns/n")));
        for kind in [NamespaceKind::Ipc, NamespaceKind::Pid, NamespaceKind::Uts] {
            assert!(workload.namespace(kind).is_some(), "{kind:?}");
        }
    }

    #[test]
    fn the_node_s_namespaces_stay_the_node_s() {
        let dir = tempfile::tempdir().unwrap();
        write_spec(dir.path(), "s", &config(NODE), None).unwrap();
        let workload = spec::load(dir.path()).unwrap();
        assert_eq!(workload.hostname, None);
        for kind in [NamespaceKind::Network, NamespaceKind::Uts] {
            assert!(workload.namespace(kind).is_none(), "{kind:?}");
        }
    }

    #[test]
    fn groups_of_both_drivers() {
        assert_eq!(cgroup("/kubepods/burstable/pod1", "s"), "/kubepods/burstable/pod1/s");
        assert_eq!(cgroup("", "s"), "/s");
        let slice = "/kubepods.slice/kubepods-pod1.slice";
        assert_eq!(cgroup(slice, "s"), "kubepods-pod1.slice:cri-containerd:s");
    }

    #[test]
    fn containers_get_what_their_spec_does_not_mount() {
        let dir = tempfile::tempdir().unwrap();
        let files = PodFiles::write(dir.path(), &config(0)).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("hostname")).unwrap(), "web\n");
        write_spec(dir.path(), "s", &config(0), None).unwrap();
        let mut workload = spec::load(dir.path()).unwrap();
        workload.mounts.push(Mount::bind("/other".into(), "/etc/hosts".into()));
        workload.mounts.push(Mount::bind(dir.path().into(), "/etc/resolv.conf".into()));
        files.complete(&mut workload);
        let sources = |at: &str| {
            let at = workload.mounts.iter().filter(|mount| mount.destination == Path::new(at));
            at.map(|mount| mount.source.clone().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(sources("/etc/hosts"), [Path::new("/other")]);
        assert_eq!(sources("/etc/resolv.conf"), [dir.path().join("resolv.conf")]);
    }
}
