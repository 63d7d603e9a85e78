//! Control groups over fixture trees: paths, values, processes, removal.

#![allow(clippy::unwrap_used, reason = "a failing test should panic")]

use std::fs;
use std::path::{Path, PathBuf};

use coracle_oci::CgroupError;
use coracle_oci::cgroup::{Cgroup, CgroupPath, Host, Version};
use coracle_oci::spec::{CpuLimits, MemoryLimits, Resources};
use tempfile::TempDir;

const V1_FILES: &[(&str, &[&str])] = &[
    ("cpu", &["cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us"]),
    ("cpuset", &["cpuset.cpus", "cpuset.mems"]),
    (
        "memory",
        &["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes"],
    ),
    ("pids", &["pids.max"]),
    ("systemd", &[]),
];

const V2_FILES: &[&str] = &[
    "cpu.weight",
    "cpu.max",
    "cpuset.cpus",
    "cpuset.mems",
    "memory.max",
    "memory.low",
    "memory.swap.max",
    "memory.high",
    "pids.max",
];

/// A tree that looks like a v1 host to the code, at a scratch place.
fn v1_host(root: &Path) -> Host {
    let (mut mountinfo, mut own) = (String::new(), String::new());
    for (number, (controller, _)) in V1_FILES.iter().enumerate() {
        let mount = root.join(controller);
        fs::create_dir_all(&mount).unwrap();
        let option = if *controller == "systemd" { "name=systemd" } else { controller };
        mountinfo += &format!(
            "{number} 1 0:{number} / {} rw - cgroup cgroup rw,{option}\n",
            mount.display()
        );
        own += &format!("{number}:{option}:/own\n");
    }
    fs::write(root.join("cpuset/cpuset.cpus"), "0-3\n").unwrap();
    fs::write(root.join("cpuset/cpuset.mems"), "0\n").unwrap();
    Host::parse(&mountinfo, &own).unwrap()
}

fn v2_host(root: &Path) -> Host {
    let mountinfo = format!("1 1 0:1 / {} rw - cgroup2 cgroup2 rw\n", root.display());
    Host::parse(&mountinfo, "0::/own\n").unwrap()
}

/// What the kernel does by itself when a group is made.
fn populate(dir: &Path, files: &[&str]) {
    fs::create_dir_all(dir).unwrap();
    for file in files.iter().chain(&["cgroup.procs"]) {
        fs::write(dir.join(file), "").unwrap();
    }
}

/// And when it is removed.
fn depopulate(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

fn group(host: &Host, path: &str) -> Cgroup {
    Cgroup::new(host, &CgroupPath::parse(Some(path), "id").unwrap())
}

fn read(file: PathBuf) -> String {
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn limits() -> Resources {
    Resources {
        memory: MemoryLimits {
            limit: Some(64 << 20),
            reservation: Some(32 << 20),
            swap: Some(96 << 20),
            ..MemoryLimits::default()
        },
        cpu: CpuLimits {
            shares: Some(1024),
            quota: Some(50_000),
            period: Some(100_000),
            cpus: Some("0-1".into()),
            mems: Some("0".into()),
            ..CpuLimits::default()
        },
        pids: Some(10),
        ..Resources::default()
    }
}

fn v1_group(root: &TempDir) -> Cgroup {
    let group = group(&v1_host(root.path()), "/docker/abc");
    for (controller, files) in V1_FILES {
        populate(&root.path().join(controller).join("docker/abc"), files);
    }
    group
}

#[test]
fn v1_limits_go_to_their_hierarchies() {
    let root = tempfile::tempdir().unwrap();
    let group = v1_group(&root);
    assert_eq!(group.version(), Version::V1);
    assert_eq!(group.unified_dir(), None);
    group.apply(&limits()).unwrap();
    for (file, value) in [
        ("cpu/docker/abc/cpu.shares", "1024"),
        ("cpu/docker/abc/cpu.cfs_quota_us", "50000"),
        ("cpu/docker/abc/cpu.cfs_period_us", "100000"),
        ("cpuset/docker/abc/cpuset.cpus", "0-1"),
        ("cpuset/docker/abc/cpuset.mems", "0"),
        ("memory/docker/abc/memory.limit_in_bytes", "67108864"),
        ("memory/docker/abc/memory.memsw.limit_in_bytes", "100663296"),
        ("memory/docker/abc/memory.soft_limit_in_bytes", "33554432"),
        ("pids/docker/abc/pids.max", "10"),
    ] {
        assert_eq!(read(root.path().join(file)), value, "{file}");
    }
    let unlimited = Resources {
        memory: MemoryLimits { limit: Some(-1), swap: Some(-1), ..MemoryLimits::default() },
        cpu: CpuLimits { quota: Some(-1), ..CpuLimits::default() },
        pids: Some(-1),
        ..Resources::default()
    };
    group.apply(&unlimited).unwrap();
    assert_eq!(read(root.path().join("memory/docker/abc/memory.limit_in_bytes")), "-1");
    assert_eq!(read(root.path().join("cpu/docker/abc/cpu.cfs_quota_us")), "-1");
    assert_eq!(read(root.path().join("pids/docker/abc/pids.max")), "max");
}

#[test]
fn v1_joins_every_hierarchy_by_tasks() {
    let root = tempfile::tempdir().unwrap();
    let group = v1_group(&root);
    let files = group.join_files();
    assert_eq!(files.len(), V1_FILES.len());
    assert!(files.iter().all(|file| file.ends_with("docker/abc/tasks")));
    assert!(files.contains(&root.path().join("systemd/docker/abc/tasks")));
    group.add(42).unwrap();
    assert_eq!(read(root.path().join("systemd/docker/abc/cgroup.procs")), "42");
    assert_eq!(group.procs().unwrap(), [42]);
}

#[test]
fn v1_without_swap_accounting_keeps_the_rest() {
    let root = tempfile::tempdir().unwrap();
    let group = v1_group(&root);
    fs::remove_file(root.path().join("memory/docker/abc/memory.memsw.limit_in_bytes")).unwrap();
    group.apply(&limits()).unwrap();
    assert_eq!(read(root.path().join("memory/docker/abc/memory.limit_in_bytes")), "67108864");
}

#[test]
fn limits_that_cannot_be_kept_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let group = v1_group(&root);
    fs::remove_file(root.path().join("pids/docker/abc/pids.max")).unwrap();
    let message = group.apply(&limits()).unwrap_err().to_string();
    assert!(
        message.contains("cannot set pids.limit: the pids controller is not available"),
        "{message}"
    );
    // No limit is wanted, so none is missed.
    group.apply(&Resources { pids: Some(-1), ..Resources::default() }).unwrap();
    let below = Resources {
        memory: MemoryLimits { limit: Some(100), swap: Some(50), ..MemoryLimits::default() },
        ..Resources::default()
    };
    assert!(group.apply(&below).unwrap_err().to_string().contains("cannot be below memory.limit"));
    let unified = [("memory.high".to_owned(), "1".to_owned())].into();
    let unified = Resources { unified, ..Resources::default() };
    assert!(group.apply(&unified).unwrap_err().to_string().contains("this host uses cgroup v1"));
}

#[test]
fn v2_limits_are_translated() {
    let root = tempfile::tempdir().unwrap();
    let group = group(&v2_host(root.path()), "system.slice:docker:abc");
    let dir = root.path().join("system.slice/docker-abc.scope");
    populate(&dir, V2_FILES);
    assert_eq!(group.unified_dir(), Some(dir.as_path()));
    assert_eq!(group.join_files(), [dir.join("cgroup.procs")]);
    let mut resources = limits();
    resources.unified.insert("memory.high".into(), "50331648".into());
    group.apply(&resources).unwrap();
    for (file, value) in [
        ("cpu.weight", "100"),
        ("cpu.max", "50000 100000"),
        ("cpuset.cpus", "0-1"),
        ("memory.max", "67108864"),
        ("memory.low", "33554432"),
        // v1 counts memory and swap together, v2 swap alone.
        ("memory.swap.max", "33554432"),
        ("memory.high", "50331648"),
        ("pids.max", "10"),
    ] {
        assert_eq!(read(dir.join(file)), value, "{file}");
    }
    let unlimited = Resources {
        memory: MemoryLimits { limit: Some(-1), ..MemoryLimits::default() },
        cpu: CpuLimits { quota: Some(-1), ..CpuLimits::default() },
        ..Resources::default()
    };
    group.apply(&unlimited).unwrap();
    // The period stays as it is.
    assert_eq!(read(dir.join("cpu.max")), "max");
    assert_eq!(read(dir.join("memory.max")), "max");
    assert_eq!(read(dir.join("memory.swap.max")), "max");
    resources.unified.insert("rdma.max".into(), "x".into());
    let message = group.apply(&resources).unwrap_err().to_string();
    assert!(message.contains("the rdma controller is not available"), "{message}");
    let swap_only = Resources {
        memory: MemoryLimits { swap: Some(1), ..MemoryLimits::default() },
        ..Resources::default()
    };
    assert!(group.apply(&swap_only).unwrap_err().to_string().contains("needs a memory.limit"));
}

#[test]
fn v2_keeps_the_quota_when_only_the_period_changes() {
    let root = tempfile::tempdir().unwrap();
    let group = group(&v2_host(root.path()), "/a");
    populate(&root.path().join("a"), V2_FILES);
    let cpu = CpuLimits { period: Some(20_000), ..CpuLimits::default() };
    let period = Resources { cpu, ..Resources::default() };
    for (before, after) in [("50000 100000\n", "50000 20000"), ("max 100000\n", "max 20000")] {
        fs::write(root.path().join("a/cpu.max"), before).unwrap();
        group.apply(&period).unwrap();
        assert_eq!(read(root.path().join("a/cpu.max")), after);
    }
}

/// Limits on devices and pages, as an update brings them.
fn io_limits() -> Resources {
    Resources::from_json(
        br#"{"blockIO": {"weight": 500, "weightDevice": [{"major": 8, "minor": 16, "weight": 20}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 16, "rate": 600}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 0}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
            "rdma": {"mlx5_1": {"hcaHandles": 3}}}"#,
    )
    .unwrap()
}

#[test]
fn v2_limits_of_devices_and_pages() {
    let root = tempfile::tempdir().unwrap();
    let group = group(&v2_host(root.path()), "/a");
    let dir = root.path().join("a");
    populate(&dir, &["io.weight", "io.max", "hugetlb.2MB.max", "hugetlb.2MB.rsvd.max", "rdma.max"]);
    group.apply(&io_limits()).unwrap();
    for (file, value) in [
        // Each line is written on its own; the file of this test keeps the last.
        ("io.weight", "8:16 102"),
        ("io.max", "8:16 wiops=max"),
        ("hugetlb.2MB.max", "4194304"),
        ("hugetlb.2MB.rsvd.max", "4194304"),
        ("rdma.max", "mlx5_1 hca_handle=3 hca_object=max"),
    ] {
        assert_eq!(read(dir.join(file)), value, "{file}");
    }
    // Where BFQ weighs, by its own scale.
    populate(&dir, &["io.bfq.weight"]);
    group.apply(&io_limits()).unwrap();
    assert_eq!(read(dir.join("io.bfq.weight")), "8:16 20");
    for (text, field) in [
        (r#"{"blockIO": {"leafWeight": 10}}"#, "blockIO.leafWeight"),
        (r#"{"cpu": {"realtimeRuntime": 10}}"#, "cpu.realtimeRuntime"),
        (r#"{"memory": {"kernelTCP": 10}}"#, "memory.kernelTCP"),
        (r#"{"network": {"classID": 10}}"#, "network.classID"),
        (r#"{"hugepageLimits": [{"pageSize": "1GB", "limit": 1}]}"#, "hugepageLimits"),
    ] {
        let resources = Resources::from_json(text.as_bytes()).unwrap();
        let error = group.apply(&resources).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
}

#[test]
fn a_limit_below_the_usage_is_refused_when_asked_to() {
    let root = tempfile::tempdir().unwrap();
    let group = group(&v2_host(root.path()), "/a");
    populate(&root.path().join("a"), &["memory.max", "memory.current"]);
    fs::write(root.path().join("a/memory.current"), "2000\n").unwrap();
    let limit = |limit: i64, check: bool| {
        let text = format!(r#"{{"memory": {{"limit": {limit}, "checkBeforeUpdate": {check}}}}}"#);
        group.apply(&Resources::from_json(text.as_bytes()).unwrap())
    };
    let error = limit(1999, true).unwrap_err().to_string();
    assert!(error.contains("memory.limit is 1999") && error.contains("in use"), "{error}");
    assert_eq!(read(root.path().join("a/memory.max")), "");
    limit(2000, true).unwrap();
    limit(1999, false).unwrap();
    assert_eq!(read(root.path().join("a/memory.max")), "1999");
}

#[test]
fn v2_controllers_are_handed_down_on_the_way() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("cgroup.controllers"), "cpu memory misc\n").unwrap();
    fs::write(root.path().join("cgroup.subtree_control"), "cpu\n").unwrap();
    let group = group(&v2_host(root.path()), "/a/b");
    group.create().unwrap();
    assert!(root.path().join("a/b").is_dir());
    // cpu is on already, pids is not there, misc is not ours.
    assert_eq!(read(root.path().join("cgroup.subtree_control")), "+memory");
    group.remove().unwrap();
    assert!(!root.path().join("a/b").exists());
    assert!(root.path().join("a").exists(), "parents may be shared");
    group.remove().unwrap();
    assert_eq!(group.procs().unwrap(), [0_u32; 0]);
}

#[test]
fn paths_in_both_forms_and_relative_ones() {
    let root = tempfile::tempdir().unwrap();
    let host = v2_host(root.path());
    for (path, dir) in [
        ("/kubepods/burstable/pod1/c1", "kubepods/burstable/pod1/c1"),
        (
            "kubepods-burstable-pod1.slice:cri-containerd:c1",
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-c1.scope",
        ),
        ("c1", "own/c1"),
    ] {
        let group = group(&host, path);
        assert_eq!(group.dirs().collect::<Vec<_>>(), [root.path().join(dir)], "{path}");
    }
}

#[test]
fn a_group_with_processes_is_not_taken_over() {
    let root = tempfile::tempdir().unwrap();
    let group = group(&v2_host(root.path()), "/a");
    populate(&root.path().join("a/nested"), &[]);
    fs::write(root.path().join("a/cgroup.procs"), "").unwrap();
    fs::write(root.path().join("a/nested/cgroup.procs"), "7\n3\n").unwrap();
    assert_eq!(group.procs().unwrap(), [3, 7]);
    let error = group.create().unwrap_err();
    assert!(matches!(error, CgroupError::Busy { pid: 3, .. }), "{error}");
    assert!(error.to_string().contains("already has process 3"));
}

#[test]
fn on_the_way_to_a_busy_group_nothing_of_others_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let group = group(&v1_host(root.path()), "/a");
    // Another container's: an empty group in one hierarchy, one with processes in a later one.
    populate(&root.path().join("cpu/a"), &[]);
    depopulate(&root.path().join("cpu/a"));
    populate(&root.path().join("pids/a"), &[]);
    fs::write(root.path().join("pids/a/cgroup.procs"), "5\n").unwrap();
    populate(&root.path().join("cpuset/a"), &["cpuset.cpus", "cpuset.mems"]);
    let error = group.create().unwrap_err();
    assert!(matches!(error, CgroupError::Busy { pid: 5, .. }), "{error}");
    assert!(root.path().join("cpu/a").is_dir() && root.path().join("cpuset/a").is_dir());
    assert!(!root.path().join("memory/a").exists(), "made on the way");
}

#[test]
fn the_files_of_a_groups_memory() {
    let root = tempfile::tempdir().unwrap();
    let old = group(&v1_host(root.path()), "/a").memory_files().unwrap();
    assert_eq!(old[0], root.path().join("memory/a/memory.limit_in_bytes"));
    let new = group(&v2_host(root.path()), "/a").memory_files().unwrap();
    assert_eq!(new[1], root.path().join("a/memory.current"));
    let reopened = Cgroup::from_dirs(Version::V1, [root.path().join("cpu/a")]);
    assert_eq!(reopened.memory_files(), None);
}

#[test]
fn a_crashed_creators_group_is_read_and_removed_by_its_folders() {
    let root = tempfile::tempdir().unwrap();
    let group = v1_group(&root);
    let dirs: Vec<PathBuf> = group.dirs().map(Path::to_path_buf).collect();
    fs::write(root.path().join("pids/docker/abc/cgroup.procs"), "9\n").unwrap();
    let found = Cgroup::from_dirs(Version::V1, dirs.clone());
    assert_eq!(found.procs().unwrap(), [9]);
    for dir in &dirs {
        fs::create_dir(dir.join("child")).unwrap();
        depopulate(dir);
    }
    found.remove().unwrap();
    assert!(dirs.iter().all(|dir| !dir.exists()));
}

#[test]
fn what_cannot_be_removed_is_named_and_the_rest_goes() {
    let root = tempfile::tempdir().unwrap();
    let group = v1_group(&root);
    let kept = root.path().join("memory/docker/abc");
    let dirs: Vec<PathBuf> = group.dirs().map(Path::to_path_buf).collect();
    dirs.iter().filter(|dir| **dir != kept).for_each(|dir| depopulate(dir));
    let message = group.remove().unwrap_err().to_string();
    assert!(message.contains("memory/docker/abc"), "{message}");
    assert_eq!(dirs.iter().filter(|dir| dir.exists()).collect::<Vec<_>>(), [&kept]);
}
