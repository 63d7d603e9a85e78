//! `config.json` documents of real engines, and documents that must be refused.

#![allow(clippy::unwrap_used, reason = "a failing test should panic")]

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{config, load};
use coracle_oci::cgroup::CgroupPath;
use coracle_oci::spec::{
    self, CONFIG_LIMIT, ContainerType, DeviceKind, MountFlags, NamespaceKind, Resources,
    RlimitKind, Workload,
};
use serde_json::{Value, json};

fn fixture(name: &str) -> Workload {
    let file = format!("{}/tests/fixtures/config/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let bundle = tempfile::tempdir().unwrap();
    std::fs::copy(file, bundle.path().join("config.json")).unwrap();
    let mut workload = spec::load(bundle.path()).unwrap();
    // Bundles are temporary, so that a relative root reads the same each time.
    if let Ok(rest) = workload.rootfs.path.strip_prefix(bundle.path()) {
        workload.rootfs.path = Path::new("/bundle").join(rest);
    }
    workload
}

fn kinds(workload: &Workload) -> Vec<NamespaceKind> {
    workload.namespaces.iter().map(|namespace| namespace.kind).collect()
}

fn mount<'a>(workload: &'a Workload, destination: &str) -> &'a spec::Mount {
    workload.mounts.iter().find(|mount| mount.destination == Path::new(destination)).unwrap()
}

#[test]
fn ctr_run() {
    for name in ["containerd-1.7-ctr", "containerd-2.1-ctr"] {
        let workload = fixture(name);
        assert_eq!(workload.process.args, ["/hello", "a", "b"]);
        assert_eq!(workload.process.cwd, Path::new("/"));
        assert!(workload.process.no_new_privileges);
        assert_eq!(workload.rootfs.path, Path::new("/bundle/rootfs"));
        assert!(!workload.rootfs.readonly);
        use NamespaceKind as N;
        assert_eq!(kinds(&workload), [N::Pid, N::Ipc, N::Uts, N::Mount, N::Network]);
        assert!(workload.namespaces.iter().all(|namespace| namespace.path.is_none()));
        assert_eq!(workload.process.rlimits.len(), 1);
        assert_eq!(workload.process.rlimits[0].kind, RlimitKind::Nofile);
        assert_eq!(workload.process.rlimits[0].soft, 1024);
        assert_eq!(workload.process.capabilities.bounding.iter().count(), 14);
        assert!(workload.process.capabilities.effective.contains(10), "CAP_NET_BIND_SERVICE");
        assert!(!workload.process.capabilities.effective.contains(21), "CAP_SYS_ADMIN");
        assert_eq!(workload.process.capabilities.inheritable.bits(), 0);
        assert_eq!(workload.cgroup.path.as_deref(), Some("/default/c1"));
        let cpu = spec::CpuLimits { shares: Some(1024), ..spec::CpuLimits::default() };
        assert_eq!(workload.cgroup.resources, Resources { cpu, ..Resources::default() });
        assert!(workload.hooks.is_empty());
        assert_eq!(workload.container_type(), ContainerType::Container);
        assert_eq!(workload.masked_paths.len(), 11);
        assert_eq!(workload.readonly_paths.len(), 5);
        assert_eq!(workload.devices.len(), 6);
        let dev = mount(&workload, "/dev");
        assert_eq!(dev.kind, "tmpfs");
        assert_eq!(dev.flags, MountFlags::NO_SUID.union(MountFlags::STRICT_ATIME));
        assert_eq!(dev.data, "mode=755,size=65536k");
    }
}

#[test]
fn ctr_run_with_options() {
    let workload = fixture("containerd-1.7-ctr-options");
    assert_eq!((workload.process.user.uid, workload.process.user.gid), (1000, 1000));
    assert_eq!(workload.process.cwd, Path::new("/tmp"));
    assert!(workload.rootfs.readonly);
    assert!(workload.namespace(NamespaceKind::Network).is_none());
    assert_eq!(workload.id_annotations.handler(), Some("wasm"));
    let resources = &workload.cgroup.resources;
    assert_eq!(resources.memory.limit, Some(64 << 20));
    assert_eq!(resources.cpu.shares, Some(512));
    assert_eq!((resources.cpu.quota, resources.cpu.period), (Some(50_000), Some(100_000)));
    let data = mount(&workload, "/data");
    assert!(data.is_bind() && data.is_read_only());
    assert!(data.flags.contains(MountFlags::RECURSIVE));
    assert_eq!(data.source.as_deref(), Some(Path::new("/home/user/data")));
}

#[test]
fn docker_26_brings_its_network_hook() {
    for name in ["docker-26", "docker-26-graph-driver"] {
        let workload = fixture(name);
        let [hook] = workload.hooks.prestart.as_slice() else { panic!("one prestart hook") };
        assert!(hook.path.starts_with("/proc") && hook.path.ends_with("exe"));
        assert_eq!(hook.args[0], "libnetwork-setkey");
        assert_eq!(hook.args.len(), 4);
        assert_eq!(hook.timeout, None::<Duration>);
        assert!(workload.hooks.create_runtime.is_empty());
        assert!(workload.rootfs.path.starts_with("/var/lib/docker"));
        assert_eq!(workload.process.args, ["/hello", "a", "b"]);
        assert!(workload.namespace(NamespaceKind::Network).is_some());
        assert!(workload.seccomp.is_some());
        // Docker says 0 or nothing where it means "no limit".
        assert_eq!(workload.cgroup.resources.memory, spec::MemoryLimits::default());
        assert_eq!(workload.cgroup.resources.pids, None);
        assert_eq!(mount(&workload, "/etc/hosts").propagation.unwrap().bits(), 1 << 18 | 1 << 14);
    }
}

#[test]
fn docker_26_with_options() {
    let workload = fixture("docker-26-options");
    let process = &workload.process;
    assert_eq!((process.user.uid, process.user.gid), (1000, 1001));
    assert_eq!(process.user.additional_gids, [1001, 7]);
    assert_eq!(process.oom_score_adj, Some(500));
    assert_eq!((process.rlimits[0].soft, process.rlimits[0].hard), (100, 200));
    assert_eq!(process.capabilities.bounding.iter().collect::<Vec<_>>(), [10]);
    assert!(process.env.contains(&"A=b".to_owned()));
    assert_eq!(workload.hostname.as_deref(), Some("wasmhost"));
    assert!(workload.rootfs.readonly);
    let memory = workload.cgroup.resources.memory;
    assert_eq!((memory.limit, memory.swap), (Some(64 << 20), Some(128 << 20)));
    assert!(!memory.disable_oom_killer);
    assert_eq!(workload.cgroup.resources.cpu.cpus.as_deref(), Some("0-1"));
    assert_eq!(workload.cgroup.resources.pids, Some(10));
    let setting = ("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
    assert!(workload.sysctl.contains(&setting));
    assert_eq!(mount(&workload, "/scratch").data, "size=1m");
    assert!(mount(&workload, "/data").is_read_only());
    assert!(!mount(&workload, "/named").is_read_only());
}

#[test]
fn docker_28_has_no_hook_and_may_want_a_terminal() {
    let workload = fixture("docker-28");
    assert!(workload.hooks.is_empty());
    assert!(!workload.process.terminal);
    let workload = fixture("docker-28-options");
    assert!(workload.process.terminal);
    assert!(workload.process.env.contains(&"TERM=xterm".to_owned()));
}

#[test]
fn privileged_docker_lists_its_devices() {
    let workload = fixture("docker-28-privileged");
    use NamespaceKind as N;
    assert_eq!(kinds(&workload), [N::Mount, N::Uts, N::Ipc]);
    assert!(workload.devices.len() > 90);
    let count =
        |path: &str| workload.devices.iter().filter(|one| one.path == Path::new(path)).count();
    for path in ["/dev/null", "/dev/full", "/dev/tty"] {
        assert_eq!(count(path), 1, "{path}");
    }
    let null = workload.devices.iter().find(|one| one.path == Path::new("/dev/null")).unwrap();
    assert_eq!((null.kind, null.major, null.minor), (DeviceKind::Char, 1, 3));
    // Docker writes the file type into the mode; only permissions stay.
    assert!(workload.devices.iter().all(|device| device.mode <= 0o7777));
    assert!(workload.devices.iter().any(|device| device.kind == DeviceKind::Block));
    assert!(workload.masked_paths.is_empty());
    assert!(workload.seccomp.is_none());
}

#[test]
fn cri_sandbox_and_container() {
    let sandbox = fixture("containerd-1.7-cri-sandbox");
    assert!(sandbox.is_pause());
    assert_eq!(sandbox.container_type(), ContainerType::Sandbox);
    assert!(sandbox.id_annotations.sandbox_id().unwrap().starts_with("2d37b13b16d0"));
    assert_eq!(sandbox.cgroup.resources.cpu.shares, Some(2));
    assert!(sandbox.process.env.is_empty());

    let container = fixture("containerd-1.7-cri-container");
    assert!(!container.is_pause());
    assert_eq!(container.container_type(), ContainerType::Container);
    assert_eq!(container.id_annotations.container_name(), Some("app"));
    assert_eq!(container.id_annotations.sandbox_namespace(), Some("shop"));
    assert_eq!(container.id_annotations.sandbox_name(), Some("web-0"));
    assert_eq!(
        container.id_annotations.image_name(),
        Some("registry.example/library/demo-hello:latest")
    );
    let network = container.namespace(NamespaceKind::Network).unwrap();
    assert!(network.path.as_ref().unwrap().ends_with("ns/net"));
    assert!(container.namespace(NamespaceKind::Mount).unwrap().path.is_none());
    let memory = container.cgroup.resources.memory;
    assert_eq!(memory.limit, Some(128 << 20));
    assert_eq!(memory.swap, memory.limit);
    assert_eq!(container.process.oom_score_adj, Some(968));
}

#[test]
fn cri_under_systemd() {
    let sandbox = fixture("containerd-2.1-cri-sandbox-systemd");
    let container = fixture("containerd-2.1-cri-container-systemd");
    assert!(sandbox.is_pause());
    for workload in [sandbox, container] {
        let path = CgroupPath::parse(workload.cgroup.path.as_deref(), "id").unwrap();
        let within = path.within(Path::new("")).display().to_string();
        let slices = "kubepods.slice/kubepods-burstable.slice/\
                      kubepods-burstable-pod0b1c2d3e_1111.slice/cri-containerd-";
        assert!(within.starts_with(slices) && within.ends_with(".scope"), "{within}");
    }
}

/// The message for a document that differs from a good one at `pointer`.
fn refusal(pointer: &str, value: Value) -> String {
    let mut document = config(&["/app"]);
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    document.pointer_mut(parent).unwrap()[key] = value;
    let bundle = tempfile::tempdir().unwrap();
    let message = load(bundle.path(), &document).unwrap_err().to_string();
    assert!(!message.contains('\n'), "one sentence: {message}");
    message
}

#[test]
fn ids_that_would_become_root_are_refused() {
    // (uid_t)-1 means "leave as it is"; greater numbers once wrapped around to 0.
    for id in [json!(4_294_967_295_u64), json!(4_294_967_296_u64), json!(-1), json!(u64::MAX)] {
        for field in ["uid", "gid"] {
            let message = refusal(&format!("/process/user/{field}"), id.clone());
            let wanted = format!("`process.user.{field}` is {id}, which is no user or group id");
            assert!(message.contains(&wanted), "{message}");
        }
        let message = refusal("/process/user/additionalGids", json!([5, id]));
        assert!(message.contains("`process.user.additionalGids` is"), "{message}");
    }
    let message = refusal("/process/user/umask", json!(0o1000));
    assert!(message.contains("umask"), "{message}");
}

#[test]
fn values_that_cannot_be_carried_out_are_named() {
    let cases = [
        (
            "/process/cwd",
            json!("relative"),
            "`process.cwd` is \"relative\": the path must be absolute",
        ),
        ("/process/args", json!(["/app", "a\u{0}b"]), "contains a NUL byte"),
        ("/process/env", json!(["A=\u{0}"]), "contains a NUL byte"),
        ("/process/oomScoreAdj", json!(1001), "between -1000 and 1000"),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}]),
            "soft limit is above",
        ),
        (
            "/process/rlimits",
            json!([
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            ]),
            "given twice",
        ),
        ("/process/capabilities", json!({"bounding": ["CAP_NONSENSE"]}), "CAP_NONSENSE"),
        ("/root/path", json!(""), "`root.path`"),
        ("/hostname", json!("x".repeat(65)), "at most 64 bytes"),
        ("/annotations", json!({"a": "b\u{0}"}), "`annotations`"),
        (
            "/hooks",
            json!({"prestart": [{"path": "bin/hook"}]}),
            "`hooks.prestart` is \"bin/hook\": the path must be absolute",
        ),
        ("/hooks", json!({"poststop": [{"path": "/hook", "timeout": 0}]}), "more than 0 seconds"),
        ("/linux/namespaces", json!([{"type": "pid"}, {"type": "pid"}]), "given twice"),
        ("/linux/namespaces", json!([{"type": "pid", "path": "ns"}]), "the path must be absolute"),
        ("/linux/namespaces", json!([{"type": "dream"}]), "unknown variant `dream`"),
        (
            "/linux/uidMappings",
            json!([{"containerID": 0, "hostID": 0, "size": 0}]),
            "at least one id",
        ),
        (
            "/linux/gidMappings",
            json!([{"containerID": 0, "hostID": 4_294_967_295_u64, "size": 1}]),
            "end below",
        ),
        ("/linux/devices", json!([{"path": "/dev/x", "type": "a"}]), "c, u, b or p"),
        ("/linux/devices", json!([{"path": "/dev/x", "type": "c", "major": -1}]), "device number"),
        ("/linux/maskedPaths", json!(["proc"]), "`linux.maskedPaths`"),
        ("/linux/sysctl", json!({"net/../../x": "1"}), "named like net.ipv4"),
        ("/linux/rootfsPropagation", json!("sideways"), "private, shared, slave or unbindable"),
        ("/linux/resources", json!({"unified": {"../x.y": "1"}}), "file of cgroup v2"),
        ("/linux/resources", json!({"cpu": {"cpus": "0;reboot"}}), "numbers and ranges"),
        ("/linux/cgroupsPath", json!("/a\u{0}b"), "NUL"),
    ];
    for (pointer, value, wanted) in cases {
        let message = refusal(pointer, value);
        assert!(message.contains(wanted), "{pointer}: {message}");
    }
}

#[test]
fn missing_parts_are_named() {
    for field in ["process", "root", "linux"] {
        let message = refusal(&format!("/{field}"), Value::Null);
        assert!(message.contains(&format!("has no `{field}`")), "{message}");
        assert!(message.contains("config.json"), "{message}");
    }
}

#[test]
fn files_that_are_no_document() {
    let bundle = tempfile::tempdir().unwrap();
    let path = bundle.path().join("config.json");
    let fails = |wanted: &str| {
        let message = spec::load(bundle.path()).unwrap_err().to_string();
        assert!(message.contains(wanted) && message.contains("config.json"), "{message}");
    };
    fails("cannot read");
    std::fs::write(&path, "{\"ociVersion\":").unwrap();
    fails("cannot parse");
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    fails("cannot parse");
    // Nesting without end must not exhaust the stack.
    std::fs::write(&path, "[".repeat(1_000_000)).unwrap();
    fails("cannot parse");
    let mut document = config(&["/app"]).to_string();
    document.push_str(&" ".repeat(usize::try_from(CONFIG_LIMIT).unwrap() - document.len()));
    std::fs::write(&path, &document).unwrap();
    assert_eq!(spec::load(bundle.path()).unwrap().process.args, ["/app"]);
    document.push(' ');
    std::fs::write(&path, &document).unwrap();
    fails("larger than 10485760 bytes");
}

#[test]
fn lenient_where_engines_differ() {
    let mut document = config(&["/app"]);
    document["process"]["args"] = Value::Null;
    document["process"]["capabilities"] = json!({"bounding": null});
    document["mounts"] = json!([{"destination": "relative/../x", "type": "tmpfs"}]);
    document["linux"]["resources"] = json!({"pids": {}, "memory": {"limit": 0, "swap": -1}});
    document["somethingNew"] = json!(1);
    let bundle = tempfile::tempdir().unwrap();
    let workload = load(bundle.path(), &document).unwrap();
    assert!(workload.process.args.is_empty());
    assert_eq!(workload.mounts[0].destination, PathBuf::from("/x"));
    assert_eq!(workload.cgroup.resources.pids, Some(-1));
    assert_eq!(workload.cgroup.resources.memory.limit, None);
    assert_eq!(workload.cgroup.resources.memory.swap, Some(-1));
}

#[test]
fn a_process_to_execute_is_checked_like_a_containers() {
    let good = json!({
        "args": ["/x"], "env": ["A=b"], "cwd": "/srv", "terminal": true,
        "consoleSize": {"width": 80, "height": 70_000}, "user": {"uid": 7, "gid": 8},
    });
    let process = spec::process(good.to_string().as_bytes()).unwrap();
    assert_eq!((process.args, process.user.uid), (vec!["/x".to_owned()], 7));
    assert_eq!(process.console_size, Some((80, u16::MAX)));
    for (field, value, words) in [
        ("args", json!([]), "at least one argument"),
        ("args", json!(["a\0b"]), "NUL"),
        ("cwd", json!("srv"), "must be absolute"),
        ("user", json!({"uid": 4_294_967_295_u32, "gid": 0}), "4294967295"),
        ("user", json!({"uid": 4_294_967_296_u64, "gid": 0}), "4294967296"),
        ("user", json!("root"), "the process to execute"),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        let error = spec::process(bad.to_string().as_bytes()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert!(spec::process(b"").is_err());
}
