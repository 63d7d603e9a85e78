//! Statistics from files as kernels write them: Linux 6.18 with cgroup v1, Linux 6.12 with v2.

#![allow(clippy::unwrap_used, reason = "a failing test should panic")]

use std::fs;
use std::path::Path;

use coracle_oci::cgroup::stats::{HugePages, IoEntry, Pids, RdmaEntry, Stats};
use coracle_oci::cgroup::{Cgroup, CgroupPath, Host};

const V1: &[(&str, &str)] = &[
    ("cpuacct/c/cpuacct.usage", "1273946032\n"),
    ("cpuacct/c/cpuacct.stat", "user 101\nsystem 23\n"),
    ("cpuacct/c/cpuacct.usage_percpu", "1000000000 273946032 \n"),
    (
        "cpu/c/cpu.stat",
        "nr_periods 12\nnr_throttled 3\nthrottled_time 4567890\nnr_bursts 0\nburst_time 0\n",
    ),
    (
        "memory/c/memory.stat",
        "cache 9674752\nrss 11526144\nrss_huge 0\ninactive_file 24576\n\
         hierarchical_memory_limit 67108864\nhierarchical_memsw_limit 134217728\n\
         total_cache 9674752\ntotal_rss 11526144\ntotal_inactive_file 24577\n",
    ),
    ("memory/c/memory.usage_in_bytes", "21368832\n"),
    ("memory/c/memory.limit_in_bytes", "67108864\n"),
    ("memory/c/memory.max_usage_in_bytes", "30000000\n"),
    ("memory/c/memory.failcnt", "7\n"),
    ("memory/c/memory.kmem.usage_in_bytes", "167936\n"),
    ("memory/c/memory.kmem.limit_in_bytes", "9223372036854771712\n"),
    ("memory/c/memory.kmem.max_usage_in_bytes", "200000\n"),
    ("memory/c/memory.kmem.failcnt", "0\n"),
    ("memory/c/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
    ("pids/c/pids.current", "4\n"),
    ("pids/c/pids.max", "max\n"),
    ("hugetlb/c/hugetlb.2MB.usage_in_bytes", "2097152\n"),
    ("hugetlb/c/hugetlb.2MB.max_usage_in_bytes", "4194304\n"),
    ("hugetlb/c/hugetlb.2MB.failcnt", "1\n"),
    ("hugetlb/c/hugetlb.2MB.rsvd.usage_in_bytes", "0\n"),
    ("hugetlb/c/hugetlb.1GB.usage_in_bytes", "0\n"),
    ("hugetlb/c/hugetlb.1GB.max_usage_in_bytes", "0\n"),
    ("hugetlb/c/hugetlb.1GB.failcnt", "0\n"),
    ("rdma/c/rdma.current", "mlx5_1 hca_handle=2 hca_object=2000\n"),
    ("rdma/c/rdma.max", "mlx5_1 hca_handle=3 hca_object=max\n"),
];

const V2: &[(&str, &str)] = &[
    (
        "c/cpu.stat",
        "usage_usec 1273946\nuser_usec 1010000\nsystem_usec 263946\nnr_periods 9\nnr_throttled 2\n\
         throttled_usec 345\nnr_bursts 1\nburst_usec 6\n",
    ),
    (
        "c/cpu.pressure",
        "some avg10=1.25 avg60=0.50 avg300=0.10 total=9000\n\
         full avg10=0.00 avg60=0.00 avg300=0.00 total=800\n",
    ),
    (
        "c/memory.stat",
        "anon 1048576\nfile 4096\nkernel 65536\nkernel_stack 16384\nslab 8192\nsock 0\nshmem 0\n\
         inactive_file 2048\nactive_file 2049\nworkingset_refault_anon 3\n\
         workingset_refault_file 4\npgfault 700\npgmajfault 1\n",
    ),
    ("c/memory.current", "1200000\n"),
    ("c/memory.max", "67108864\n"),
    ("c/memory.peak", "1300000\n"),
    ("c/memory.swap.current", "4096\n"),
    ("c/memory.swap.max", "max\n"),
    ("c/memory.events", "low 0\nhigh 1\nmax 20\noom 3\noom_kill 2\noom_group_kill 0\n"),
    ("c/pids.current", "4\n"),
    ("c/pids.max", "100\n"),
    (
        "c/io.stat",
        "254:0 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0\n7:0 \n",
    ),
    ("c/hugetlb.2MB.current", "2097152\n"),
    ("c/hugetlb.2MB.max", "4194304\n"),
    ("c/hugetlb.2MB.events", "max 5\n"),
    ("c/hugetlb.2MB.rsvd.current", "0\n"),
];

fn write(root: &Path, files: &[(&str, &str)]) {
    for (file, text) in files {
        let file = root.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
}

/// The group `/c` of a v1 host whose hierarchies lie in `root`.
fn v1(root: &Path) -> Cgroup {
    let (mut mounts, mut own) = (String::new(), String::new());
    for name in ["cpu", "cpuacct", "memory", "pids", "blkio", "hugetlb", "rdma", "freezer"] {
        let at = root.join(name).display().to_string();
        mounts += &format!("1 1 0:1 / {at} rw - cgroup cgroup rw,{name}\n");
        own += &format!("1:{name}:/\n");
    }
    let host = Host::parse(&mounts, &own).unwrap();
    Cgroup::new(&host, &CgroupPath::parse(Some("/c"), "c").unwrap())
}

fn v2(root: &Path) -> Cgroup {
    let mounts = format!("1 1 0:1 / {} rw - cgroup2 cgroup2 rw\n", root.display());
    let host = Host::parse(&mounts, "0::/\n").unwrap();
    Cgroup::new(&host, &CgroupPath::parse(Some("/c"), "c").unwrap())
}

#[test]
fn a_group_of_v1() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), V1);
    let group = v1(root.path());
    let Stats::V1(stats) = group.stats().unwrap() else { panic!("v1") };
    assert_eq!(
        (stats.cpu.total, stats.cpu.user, stats.cpu.kernel),
        (1_273_946_032, 1_010_000_000, 230_000_000)
    );
    assert_eq!(stats.cpu.per_cpu, [1_000_000_000, 273_946_032]);
    assert_eq!(stats.cpu.throttling.get("throttled_time"), 4_567_890);
    let memory = stats.memory.unwrap();
    assert_eq!(memory.stat.get("total_inactive_file"), 24577);
    assert_eq!((memory.memory.limit, memory.memory.usage), (64 << 20, 21_368_832));
    assert_eq!((memory.memory.max, memory.memory.failures), (30_000_000, 7));
    assert_eq!(memory.kernel.unwrap().usage, 167_936);
    assert_eq!((memory.swap, memory.kernel_tcp), (None, None), "not counted by this kernel");
    assert_eq!(memory.oom.get("oom_kill"), 2);
    assert_eq!(group.oom_kills().unwrap(), 2);
    assert_eq!(stats.pids, Some(Pids { current: 4, limit: None }));
    let large = HugePages { page_size: "1GB".into(), ..HugePages::default() };
    let small = HugePages { page_size: "2MB".into(), usage: 2 << 20, max: 4 << 20, failures: 1 };
    assert_eq!(stats.huge_pages, [large, small]);
    let device = |handles, objects| RdmaEntry { device: "mlx5_1".into(), handles, objects };
    assert_eq!(stats.rdma.current, [device(2, 2000)]);
    assert_eq!(stats.rdma.limit, [device(3, u32::MAX)]);
}

#[test]
fn a_group_of_v2() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), V2);
    let group = v2(root.path());
    let Stats::V2(stats) = group.stats().unwrap() else { panic!("v2") };
    assert_eq!(
        (stats.cpu.stat.get("usage_usec"), stats.cpu.stat.get("burst_usec")),
        (1_273_946, 6)
    );
    let pressure = stats.cpu.pressure.unwrap();
    assert_eq!((pressure.some.unwrap().avg10, pressure.full.unwrap().total), (1.25, 800));
    let memory = stats.memory.unwrap();
    assert_eq!((memory.usage, memory.limit, memory.peak), (1_200_000, 64 << 20, 1_300_000));
    assert_eq!((memory.swap_usage, memory.swap_limit, memory.swap_peak), (4096, u64::MAX, 0));
    assert_eq!((memory.stat.get("anon"), memory.stat.get("inactive_file")), (1 << 20, 2048));
    assert_eq!((memory.events.get("max"), memory.events.get("oom_kill")), (20, 2));
    assert_eq!(memory.pressure, None, "switched off");
    assert_eq!(group.oom_kills().unwrap(), 2);
    assert_eq!(stats.pids, Some(Pids { current: 4, limit: Some(100) }));
    let entry = IoEntry {
        major: 254,
        minor: 0,
        read_bytes: 1_459_200,
        written_bytes: 314_773_504,
        reads: 192,
        writes: 353,
    };
    // A device that did nothing yet has no numbers.
    assert_eq!(stats.io, [entry]);
    let pages = HugePages { page_size: "2MB".into(), usage: 2 << 20, max: 4 << 20, failures: 5 };
    assert_eq!(stats.huge_pages, [pages]);
}

#[test]
fn what_is_not_counted_is_absent_and_damage_is_named() {
    let root = tempfile::tempdir().unwrap();
    let Stats::V2(stats) = v2(root.path()).stats().unwrap() else { panic!("v2") };
    assert!(stats.memory.is_none() && stats.pids.is_none() && stats.io.is_empty());
    let Stats::V1(stats) = v1(root.path()).stats().unwrap() else { panic!("v1") };
    assert!(stats.memory.is_none() && stats.pids.is_none() && stats.huge_pages.is_empty());
    assert_eq!(v1(root.path()).oom_kills().unwrap(), 0);
    write(root.path(), &[("c/memory.current", "many\n")]);
    let error = v2(root.path()).stats().unwrap_err().to_string();
    assert!(error.contains("memory.current"), "{error}");
}

#[test]
fn the_freezers_files() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &[("freezer/c/freezer.state", "THAWED\n")]);
    let old = v1(root.path());
    let state = || fs::read_to_string(root.path().join("freezer/c/freezer.state")).unwrap();
    old.freeze(true).unwrap();
    assert_eq!(state(), "FROZEN");
    assert!(old.is_frozen().unwrap());
    fs::write(root.path().join("freezer/c/freezer.state"), "FREEZING\n").unwrap();
    assert!(!old.is_frozen().unwrap());
    // As `delete` knows the group after its shim was lost.
    let reopened = Cgroup::from_dirs(old.version(), old.dirs().map(Path::to_path_buf));
    reopened.thaw().unwrap();
    assert_eq!(state(), "THAWED");

    write(
        root.path(),
        &[("c/cgroup.freeze", "0\n"), ("c/cgroup.events", "populated 1\nfrozen 0\n")],
    );
    let new = v2(root.path());
    new.freeze(true).unwrap();
    assert_eq!(fs::read_to_string(root.path().join("c/cgroup.freeze")).unwrap(), "1");
    assert!(!new.is_frozen().unwrap());
    fs::write(root.path().join("c/cgroup.events"), "populated 1\nfrozen 1\n").unwrap();
    assert!(new.is_frozen().unwrap());

    fs::remove_file(root.path().join("c/cgroup.freeze")).unwrap();
    let error = new.freeze(true).unwrap_err().to_string();
    assert!(error.contains("no freezer") && error.contains("mount"), "{error}");
    new.thaw().unwrap();
}
