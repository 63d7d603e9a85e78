//! The same control groups on the running kernel: its files, its refusals, its timing.
//!
//! These tests make groups of their own beneath `/sys/fs/cgroup` and remove them, so they need
//! root.

#![allow(clippy::unwrap_used, reason = "a failing test should panic")]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};

use coracle_oci::cgroup::{Cgroup, CgroupPath, Host, Version};
use coracle_oci::spec::{CpuLimits, MemoryLimits, Resources};

/// A group that is removed also when a test fails, with the process in it.
struct Scratch {
    group: Cgroup,
    child: Option<Child>,
}

impl Scratch {
    fn new(name: &str) -> Self {
        Self::on(&Host::detect().unwrap(), name)
    }

    fn on(host: &Host, name: &str) -> Self {
        let path = format!("/coracle-test-{}/{name}", std::process::id());
        let group = Cgroup::new(host, &CgroupPath::parse(Some(&path), "id").unwrap());
        group.create().unwrap();
        Self { group, child: None }
    }

    fn sleeper(&mut self) -> u32 {
        let child = self.child.insert(Command::new("sleep").arg("60").spawn().unwrap());
        self.group.add(child.id()).unwrap();
        child.id()
    }

    /// The content of a file, in whichever hierarchy has it.
    fn read(&self, file: &str) -> Option<String> {
        let text = self.group.dirs().find_map(|dir| fs::read_to_string(dir.join(file)).ok());
        text.map(|text| text.trim().to_owned())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let dirs: Vec<PathBuf> = self.group.dirs().map(Into::into).collect();
        self.group.remove().unwrap();
        for dir in dirs {
            assert!(!dir.exists(), "{}", dir.display());
            // The parent is this test run's own; another test may still be in it.
            let _ = fs::remove_dir(dir.parent().unwrap());
        }
    }
}

#[test]
fn limits_are_taken_and_changed() {
    let scratch = Scratch::new("limits");
    let mut resources = Resources {
        memory: MemoryLimits {
            limit: Some(64 << 20),
            swap: Some(64 << 20),
            ..MemoryLimits::default()
        },
        cpu: CpuLimits {
            shares: Some(512),
            quota: Some(50_000),
            period: Some(100_000),
            cpus: Some("0".into()),
            ..CpuLimits::default()
        },
        pids: Some(10),
        ..Resources::default()
    };
    scratch.group.apply(&resources).unwrap();
    let check = |memory: u64, quota: &str, period: &str| match scratch.group.version() {
        Version::V1 => {
            let limit = Some(memory.to_string());
            assert_eq!(scratch.read("memory.limit_in_bytes"), limit);
            assert_eq!(scratch.read("cpu.cfs_quota_us").as_deref(), Some(quota));
            assert_eq!(scratch.read("cpu.cfs_period_us").as_deref(), Some(period));
            assert_eq!(scratch.read("cpu.shares").as_deref(), Some("512"));
            let swap = scratch.read("memory.memsw.limit_in_bytes");
            assert!(swap.is_none() || swap == limit, "{swap:?}");
        }
        Version::V2 => {
            assert_eq!(scratch.read("memory.max"), Some(memory.to_string()));
            assert_eq!(scratch.read("cpu.max"), Some(format!("{quota} {period}")));
            assert_eq!(scratch.read("cpu.weight").as_deref(), Some("59"));
        }
    };
    check(64 << 20, "50000", "100000");
    assert_eq!(scratch.read("pids.max").as_deref(), Some("10"));
    assert_eq!(scratch.read("cpuset.cpus").as_deref(), Some("0"));
    // On v1 the new limit lies above the old one of memory and swap, which the kernel refuses
    // until that is raised; so the second try of each write is needed here.
    resources.memory.limit = Some(128 << 20);
    resources.memory.swap = Some(128 << 20);
    resources.cpu.quota = Some(2_000);
    resources.cpu.period = Some(2_000);
    scratch.group.apply(&resources).unwrap();
    check(128 << 20, "2000", "2000");
    resources.memory.limit = Some(32 << 20);
    resources.memory.swap = Some(32 << 20);
    scratch.group.apply(&resources).unwrap();
    check(32 << 20, "2000", "2000");
}

#[test]
fn processes_are_seen_and_hold_the_group() {
    let mut scratch = Scratch::new("procs");
    let pid = scratch.sleeper();
    assert_eq!(scratch.group.procs().unwrap(), [pid]);
    let again = scratch.group.create().unwrap_err().to_string();
    assert!(again.contains(&format!("already has process {pid}")), "{again}");
    let busy = scratch.group.remove().unwrap_err().to_string();
    assert!(busy.contains("a process may still be in it"), "{busy}");
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let name = format!("/coracle-test-{}/procs", std::process::id());
    let joined = text.lines().filter(|line| line.ends_with(&name)).count();
    assert_eq!(joined, scratch.group.dirs().count());
}

#[test]
fn removal_waits_for_a_dying_process() {
    let mut scratch = Scratch::new("dying");
    scratch.sleeper();
    let mut child = scratch.child.take().unwrap();
    child.kill().unwrap();
    // Not yet reaped: the kernel lets the group go only a little later.
    scratch.group.remove().unwrap();
    child.wait().unwrap();
}

#[test]
fn unified_hierarchy_even_of_a_hybrid_host() {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let unified: Vec<&str> =
        mountinfo.lines().filter(|line| line.contains(" - cgroup2 ")).collect();
    let host = Host::parse(&unified.join("\n"), "0::/\n").unwrap();
    assert_eq!(host.version(), Version::V2);
    let mut scratch = Scratch::on(&host, "unified");
    let pid = scratch.sleeper();
    assert_eq!(scratch.group.procs().unwrap(), [pid]);
    assert!(scratch.group.unified_dir().unwrap().join("cgroup.events").exists());
    fs::write(scratch.group.kill_file().unwrap(), "1").unwrap();
    let status = scratch.child.take().unwrap().wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
}
