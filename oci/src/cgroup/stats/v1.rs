//! Statistics of cgroup v1. Source: Linux `cgroup-v1/`, a page a controller.

use std::path::Path;

use super::text::{self, Flat};
use super::{HugePages, Pids, Rdma};
use crate::cgroup::Cgroup;
use crate::error::CgroupError;

/// Nanoseconds of a tick of `cpuacct.stat`: `USER_HZ` is 100 on every architecture we run on.
const TICK: u64 = 10_000_000;
/// Names of block devices by number.
const DISKS: &str = "/proc/diskstats";

/// What a group of v1 uses and has used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct V1Stats {
    /// Processor time.
    pub cpu: V1Cpu,
    /// Memory.
    pub memory: Option<V1Memory>,
    /// Tasks.
    pub pids: Option<Pids>,
    /// Block devices.
    pub blkio: BlkIo,
    /// Huge pages, one for each size.
    pub huge_pages: Vec<HugePages>,
    /// RDMA devices.
    pub rdma: Rdma,
}

/// Processor time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct V1Cpu {
    /// Nanoseconds in all.
    pub total: u64,
    /// Nanoseconds in programs.
    pub user: u64,
    /// Nanoseconds in the kernel.
    pub kernel: u64,
    /// Nanoseconds on each processor.
    pub per_cpu: Vec<u64>,
    /// `cpu.stat`: `nr_periods`, `nr_throttled`, and `throttled_time` in nanoseconds.
    pub throttling: Flat,
}

/// Memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct V1Memory {
    /// `memory.stat`.
    pub stat: Flat,
    /// Memory.
    pub memory: Counter,
    /// Memory and swap together; `None` if swap is not counted.
    pub swap: Option<Counter>,
    /// Memory of the kernel.
    pub kernel: Option<Counter>,
    /// Buffers of TCP.
    pub kernel_tcp: Option<Counter>,
    /// `memory.oom_control`: `oom_kill_disable`, `under_oom`, `oom_kill`.
    pub oom: Flat,
}

/// One kind of memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counter {
    /// The limit.
    pub limit: u64,
    /// In use now.
    pub usage: u64,
    /// The most that was in use.
    pub max: u64,
    /// How often the limit was met.
    pub failures: u64,
}

/// Block devices: totals with those of groups beneath. Kinds that the device's scheduler does not count
/// are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlkIo {
    /// Bytes.
    pub service_bytes: Vec<BlkIoEntry>,
    /// Operations.
    pub serviced: Vec<BlkIoEntry>,
    /// Operations that wait now.
    pub queued: Vec<BlkIoEntry>,
    /// Nanoseconds of the device.
    pub service_time: Vec<BlkIoEntry>,
    /// Nanoseconds of waiting.
    pub wait_time: Vec<BlkIoEntry>,
    /// Operations that were merged.
    pub merged: Vec<BlkIoEntry>,
    /// Milliseconds that the device was the group's.
    pub time: Vec<BlkIoEntry>,
    /// Sectors.
    pub sectors: Vec<BlkIoEntry>,
}

/// One number of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlkIoEntry {
    /// The device's number.
    pub major: u64,
    /// The device's number.
    pub minor: u64,
    /// The device's file, like `/dev/sda`; empty if it has no name.
    pub device: String,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard` or `Total`; empty where kinds are not told apart.
    pub op: String,
    /// The number.
    pub value: u64,
}

pub(super) fn read(group: &Cgroup) -> Result<V1Stats, CgroupError> {
    let mut stats = V1Stats::default();
    if let Some(dir) = group.folder("cpuacct") {
        stats.cpu = processor_time(dir)?;
    }
    if let Some(dir) = group.folder("cpu") {
        stats.cpu.throttling = Flat::read(&dir.join("cpu.stat"))?.unwrap_or_default();
    }
    if let Some(dir) = group.folder("memory") {
        stats.memory = memory(dir)?;
    }
    if let Some(dir) = group.folder("pids") {
        stats.pids = super::pids(dir)?;
    }
    if let Some(dir) = group.folder("blkio") {
        stats.blkio = block_devices(dir, Path::new(DISKS))?;
    }
    if let Some(dir) = group.folder("hugetlb") {
        stats.huge_pages = huge_pages(dir)?;
    }
    if let Some(dir) = group.folder("rdma") {
        stats.rdma = super::rdma(dir)?;
    }
    Ok(stats)
}

fn processor_time(dir: &Path) -> Result<V1Cpu, CgroupError> {
    let split = Flat::read(&dir.join("cpuacct.stat"))?.unwrap_or_default();
    let per_cpu = text::read(&dir.join("cpuacct.usage_percpu"))?.unwrap_or_default();
    Ok(V1Cpu {
        total: text::number(&dir.join("cpuacct.usage"))?.unwrap_or(0),
        user: split.get("user").saturating_mul(TICK),
        kernel: split.get("system").saturating_mul(TICK),
        per_cpu: per_cpu.split_whitespace().filter_map(|number| number.parse().ok()).collect(),
        throttling: Flat::default(),
    })
}

fn memory(dir: &Path) -> Result<Option<V1Memory>, CgroupError> {
    let counter = |kind: &str| -> Result<Option<Counter>, CgroupError> {
        let number = |name: &str| text::number(&dir.join(format!("memory.{kind}{name}")));
        let Some(usage) = number("usage_in_bytes")? else { return Ok(None) };
        Ok(Some(Counter {
            limit: number("limit_in_bytes")?.unwrap_or(0),
            usage,
            max: number("max_usage_in_bytes")?.unwrap_or(0),
            failures: number("failcnt")?.unwrap_or(0),
        }))
    };
    let Some(memory) = counter("")? else { return Ok(None) };
    Ok(Some(V1Memory {
        stat: Flat::read(&dir.join("memory.stat"))?.unwrap_or_default(),
        memory,
        swap: counter("memsw.")?,
        kernel: counter("kmem.")?,
        kernel_tcp: counter("kmem.tcp.")?,
        oom: Flat::read(&dir.join("memory.oom_control"))?.unwrap_or_default(),
    }))
}

fn block_devices(dir: &Path, disks: &Path) -> Result<BlkIo, CgroupError> {
    // Which of them counts depends on the device's scheduler; the throttle's files count always.
    const SCHEDULERS: [&str; 2] = ["blkio.", "blkio.bfq."];
    let entries = |file: String| -> Result<Vec<BlkIoEntry>, CgroupError> {
        Ok(text::read(&dir.join(file))?.unwrap_or_default().lines().filter_map(entry).collect())
    };
    let scheduler = |name: &str| -> Result<Vec<BlkIoEntry>, CgroupError> {
        for prefix in SCHEDULERS {
            let found = entries(format!("{prefix}{name}_recursive"))?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    };
    let throttle = |name: &str| -> Result<Vec<BlkIoEntry>, CgroupError> {
        let found = scheduler(name)?;
        if !found.is_empty() {
            return Ok(found);
        }
        let recursive = entries(format!("blkio.throttle.{name}_recursive"))?;
        // Linux before 4.13 has only those of the group itself.
        if recursive.is_empty() { entries(format!("blkio.throttle.{name}")) } else { Ok(recursive) }
    };
    let mut blkio = BlkIo {
        service_bytes: throttle("io_service_bytes")?,
        serviced: throttle("io_serviced")?,
        queued: scheduler("io_queued")?,
        service_time: scheduler("io_service_time")?,
        wait_time: scheduler("io_wait_time")?,
        merged: scheduler("io_merged")?,
        time: scheduler("time")?,
        sectors: scheduler("sectors")?,
    };
    name_devices(&mut blkio, disks);
    Ok(blkio)
}

/// `8:0 Read 4096`, or `8:0 4096` where kinds are not told apart. The last line, `Total 4096`, is of all
/// devices and left out.
fn entry(line: &str) -> Option<BlkIoEntry> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (number, op, value) = match words.as_slice() {
        [number, op, value] => (number, *op, value),
        [number, value] => (number, "", value),
        _ => return None,
    };
    let (major, minor) = number.split_once(':')?;
    Some(BlkIoEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        device: String::new(),
        op: op.to_owned(),
        value: value.parse().ok()?,
    })
}

/// Looks up the files of devices; `8 0 sda 1 2 3 …`.
fn name_devices(blkio: &mut BlkIo, disks: &Path) {
    let BlkIo { service_bytes, serviced, queued, service_time, wait_time, merged, time, sectors } =
        blkio;
    let all = [service_bytes, serviced, queued, service_time, wait_time, merged, time, sectors];
    if all.iter().all(|entries| entries.is_empty()) {
        return;
    }
    // Without it the numbers are still right.
    let disks = crate::file::read_text(disks).unwrap_or_default();
    let name = |entry: &BlkIoEntry| {
        let number = [entry.major.to_string(), entry.minor.to_string()];
        disks.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == number[0] && words.next()? == number[1]).then_some(())?;
            words.next().map(|name| format!("/dev/{name}"))
        })
    };
    for entry in all.into_iter().flatten() {
        entry.device = name(entry).unwrap_or_default();
    }
}

fn huge_pages(dir: &Path) -> Result<Vec<HugePages>, CgroupError> {
    let pages = |page_size: String| {
        let number = |name: &str| {
            Ok(text::number(&dir.join(format!("hugetlb.{page_size}.{name}")))?.unwrap_or(0))
        };
        let (usage, max, failures) =
            (number("usage_in_bytes")?, number("max_usage_in_bytes")?, number("failcnt")?);
        Ok(HugePages { page_size, usage, max, failures })
    };
    super::page_sizes(dir, "usage_in_bytes").into_iter().map(pages).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_apart_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).unwrap();
        // BFQ has counted nothing: no device uses it.
        write("blkio.bfq.io_service_bytes_recursive", "Total 0\n");
        write(
            "blkio.throttle.io_service_bytes_recursive",
            "254:0 Read 8192\n254:0 Write 0\n254:0 Total 8192\nTotal 8192\n",
        );
        write("blkio.throttle.io_serviced", "254:0 Read 2\n7:3 Read 1\nTotal 3\n");
        write("blkio.bfq.sectors_recursive", "254:0 16\n");
        write("diskstats", " 254       0 vda 1 2 3\n   7       0 loop0 0\n");
        let blkio = block_devices(dir.path(), &dir.path().join("diskstats")).unwrap();
        let read = BlkIoEntry {
            major: 254,
            minor: 0,
            device: "/dev/vda".into(),
            op: "Read".into(),
            value: 8192,
        };
        assert_eq!(blkio.service_bytes[0], read);
        assert_eq!(blkio.service_bytes.len(), 3);
        assert_eq!((blkio.serviced[1].major, blkio.serviced[1].device.as_str()), (7, ""));
        assert_eq!((blkio.sectors[0].op.as_str(), blkio.sectors[0].value), ("", 16));
        assert!(blkio.merged.is_empty());
    }
}
