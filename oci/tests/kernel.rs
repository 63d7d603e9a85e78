//! The same control groups on the running kernel: its files, its refusals, its timing.
//!
//! These tests make groups of their own beneath `/sys/fs/cgroup` and remove them, so they need
//! root.

#![allow(clippy::unwrap_used, reason = "a failing test should panic")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coracle_oci::cgroup::stats::{Pids, Stats};
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
        let path = format!("/coracle-test-{}-{name}", std::process::id());
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
        }
    }
}

/// The unified hierarchy alone, also of a hybrid host.
fn unified_host() -> Option<Host> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let unified: Vec<&str> =
        mountinfo.lines().filter(|line| line.contains(" - cgroup2 ")).collect();
    Host::parse(&unified.join("\n"), "0::/\n").ok()
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
fn what_the_kernel_refuses_is_named_with_the_reason() {
    let mut scratch = Scratch::new("refused");
    let apply = |text: &str| scratch.group.apply(&Resources::from_json(text.as_bytes()).unwrap());
    let refused = |text: &str, words: &[&str]| {
        let error = apply(text).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
    };
    refused(r#"{"cpu": {"cpus": "4000"}}"#, &["cannot set cpu.cpus", "cpuset.cpus"]);
    // No disk has this number.
    refused(
        r#"{"blockIO": {"throttleReadBpsDevice": [{"major": 4000, "minor": 7, "rate": 1}]}}"#,
        &["blockIO.throttleReadBpsDevice", "4000:7"],
    );
    if scratch.group.version() == Version::V2 {
        return;
    }
    apply(r#"{"memory": {"limit": 33554432, "swap": 33554432}}"#).unwrap();
    let alone = r#"{"memory": {"limit": 67108864}}"#;
    refused(alone, &["cannot set memory.limit", "memory.swap counts memory too"]);
    // What is in use cannot be taken away.
    let script = "read go; a=$(head -c 8000000 /dev/zero | tr '\\0' a); echo $$ >&2; read end";
    let mut child = Command::new("sh");
    let child = child.args(["-c", script]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let child = scratch.child.insert(child.spawn().unwrap());
    scratch.group.add(child.id()).unwrap();
    // It ends when this is closed, if not before.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"go\n").unwrap();
    let mut said = [0];
    child.stderr.take().unwrap().read_exact(&mut said).unwrap();
    let apply = |text: &str| scratch.group.apply(&Resources::from_json(text.as_bytes()).unwrap());
    let error = apply(r#"{"memory": {"limit": 1048576}}"#).unwrap_err().to_string();
    assert!(error.contains("cannot set memory.limit") && error.contains("in use"), "{error}");
    assert!(apply(r#"{"memory": {"limit": 1048576, "checkBeforeUpdate": true}}"#).is_err());
    assert_eq!(scratch.read("memory.limit_in_bytes").as_deref(), Some("33554432"));
    // No limit at all, which means none for swap either.
    apply(r#"{"memory": {"limit": -1}}"#).unwrap();
    assert!(scratch.read("memory.limit_in_bytes").unwrap().len() > 18);
}

#[test]
fn limits_of_devices_are_kept_or_missed() {
    let scratch = Scratch::new("devices");
    let has = |file: &str| scratch.read(file).is_some();
    let apply = |text: &str| scratch.group.apply(&Resources::from_json(text.as_bytes()).unwrap());
    let weight = apply(r#"{"blockIO": {"weight": 250}}"#);
    let files = ["blkio.weight", "blkio.bfq.weight", "io.bfq.weight", "io.weight"];
    match files.into_iter().find(|file| has(file)) {
        Some(file) => {
            weight.unwrap();
            let wanted = if file == "io.weight" { "2425" } else { "250" };
            assert!(scratch.read(file).unwrap().ends_with(wanted), "{file}");
        }
        None => assert!(weight.unwrap_err().to_string().contains("blockIO.weight")),
    }
    // The first disk that is one.
    let disks = fs::read_to_string("/proc/partitions").unwrap();
    let line = disks.lines().skip(2).find(|line| line.ends_with("da")).unwrap();
    let number: Vec<&str> = line.split_whitespace().take(2).collect();
    let rate = |rate: u32| {
        format!(
            r#"{{"blockIO": {{"throttleWriteBpsDevice":
                [{{"major": {}, "minor": {}, "rate": {rate}}}]}}}}"#,
            number[0], number[1]
        )
    };
    let throttle = apply(&rate(1 << 20));
    let file = match scratch.group.version() {
        Version::V1 => "blkio.throttle.write_bps_device",
        Version::V2 => "io.max",
    };
    if has(file) {
        throttle.unwrap();
        let text = scratch.read(file).unwrap();
        assert!(text.contains("1048576") && text.starts_with(&number.join(":")), "{text}");
        apply(&rate(0)).unwrap();
        assert!(!scratch.read(file).unwrap().contains("1048576"), "0 is no limit");
    } else {
        assert!(throttle.unwrap_err().to_string().contains("throttleWriteBpsDevice"));
    }
    let pages = apply(r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#);
    match scratch.group.version() {
        Version::V1 if has("hugetlb.2MB.limit_in_bytes") => {
            assert_eq!(scratch.read("hugetlb.2MB.limit_in_bytes").as_deref(), Some("4194304"));
        }
        Version::V2 if has("hugetlb.2MB.max") => {
            assert_eq!(scratch.read("hugetlb.2MB.max").as_deref(), Some("4194304"));
        }
        _ => assert!(pages.unwrap_err().to_string().contains("hugepageLimits")),
    }
}

#[test]
fn huge_pages_of_the_unified_hierarchy() {
    let Some(host) = unified_host() else { return };
    let scratch = Scratch::on(&host, "pages");
    let limits = br#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#;
    let applied = scratch.group.apply(&Resources::from_json(limits).unwrap());
    let Stats::V2(stats) = scratch.group.stats().unwrap() else { panic!("v2") };
    let small = stats.huge_pages.iter().find(|pages| pages.page_size == "2MB");
    match small {
        Some(pages) => {
            applied.unwrap();
            assert_eq!((pages.usage, pages.max, pages.failures), (0, 4 << 20, 0));
        }
        None => assert!(applied.unwrap_err().to_string().contains("hugepageLimits")),
    }
    // Every group of v2 counts processor time.
    assert!(stats.cpu.stat.find("usage_usec").is_some());
}

#[test]
fn a_frozen_process_does_nothing_and_dies_when_it_may() {
    freeze_and_kill(Scratch::new("frozen"));
    // The freezer of v2 is there also on a host of v1.
    if let Some(host) = unified_host() {
        freeze_and_kill(Scratch::on(&host, "frozen"));
    }
}

fn freeze_and_kill(mut scratch: Scratch) {
    let child = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
    let child = scratch.child.insert(child);
    scratch.group.add(child.id()).unwrap();
    assert!(!scratch.group.is_frozen().unwrap());
    let freeze = |group: &Cgroup| {
        let start = Instant::now();
        loop {
            group.freeze(true).unwrap();
            if group.is_frozen().unwrap() {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    freeze(&scratch.group);
    let used = || match scratch.group.stats().unwrap() {
        Stats::V1(stats) => stats.cpu.total,
        Stats::V2(stats) => stats.cpu.stat.get("usage_usec"),
    };
    let before = used();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(used(), before);
    scratch.group.thaw().unwrap();
    let start = Instant::now();
    while used() == before {
        assert!(start.elapsed() < Duration::from_secs(10), "it works again");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!scratch.group.is_frozen().unwrap());
    freeze(&scratch.group);
    child.kill().unwrap();
    scratch.group.thaw().unwrap();
    child.wait().unwrap();
    scratch.child = None;
}

#[test]
fn what_a_group_uses_is_counted() {
    let mut scratch = Scratch::new("stats");
    scratch.sleeper();
    let limits = br#"{"memory": {"limit": 67108864}, "pids": {"limit": 9}}"#;
    scratch.group.apply(&Resources::from_json(limits).unwrap()).unwrap();
    let (pids, limit, stat) = match scratch.group.stats().unwrap() {
        Stats::V1(stats) => {
            let memory = stats.memory.unwrap();
            assert_eq!(stats.cpu.per_cpu.iter().sum::<u64>(), stats.cpu.total);
            assert_eq!(memory.stat.get("hierarchical_memory_limit"), 64 << 20);
            assert!(memory.kernel.is_some(), "the kernel's memory");
            (stats.pids, memory.memory.limit, memory.stat.find("total_inactive_file"))
        }
        Stats::V2(stats) => {
            let memory = stats.memory.unwrap();
            (stats.pids, memory.limit, memory.stat.find("inactive_file"))
        }
    };
    assert_eq!(pids, Some(Pids { current: 1, limit: Some(9) }));
    assert_eq!(limit, 64 << 20);
    assert!(stat.is_some(), "the working set needs it");
    assert_eq!(scratch.group.oom_kills().unwrap(), 0);
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
    let name = format!("/coracle-test-{}-procs", std::process::id());
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
    let host = unified_host().unwrap();
    assert_eq!(host.version(), Version::V2);
    let mut scratch = Scratch::on(&host, "unified");
    let pid = scratch.sleeper();
    assert_eq!(scratch.group.procs().unwrap(), [pid]);
    assert!(scratch.group.unified_dir().unwrap().join("cgroup.events").exists());
    fs::write(scratch.group.kill_file().unwrap(), "1").unwrap();
    let status = scratch.child.take().unwrap().wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
}
