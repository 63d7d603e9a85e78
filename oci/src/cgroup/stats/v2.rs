//! Statistics of cgroup v2. Source: Linux `cgroup-v2.rst`.

use std::path::Path;

use super::text::{self, Flat, Pressure};
use super::{HugePages, Pids, Rdma};
use crate::cgroup::Cgroup;
use crate::error::CgroupError;

/// What a group of v2 uses and has used.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct V2Stats {
    /// Processor time.
    pub cpu: V2Cpu,
    /// Memory; `None` if the controller is not on.
    pub memory: Option<V2Memory>,
    /// Tasks.
    pub pids: Option<Pids>,
    /// Block devices, one entry each.
    pub io: Vec<IoEntry>,
    /// Waiting for block devices.
    pub io_pressure: Option<Pressure>,
    /// Huge pages, one for each size.
    pub huge_pages: Vec<HugePages>,
    /// RDMA devices.
    pub rdma: Rdma,
}

/// Processor time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct V2Cpu {
    /// `cpu.stat`: `usage_usec`, `user_usec`, `system_usec`, and with a limit `nr_periods`,
    /// `nr_throttled`, `throttled_usec`, `nr_bursts`, `burst_usec`.
    pub stat: Flat,
    /// Waiting for a processor.
    pub pressure: Option<Pressure>,
}

/// Memory, in bytes; limits are [`u64::MAX`] where there is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct V2Memory {
    /// `memory.stat`.
    pub stat: Flat,
    /// In use now.
    pub usage: u64,
    /// The limit.
    pub limit: u64,
    /// The most that was in use; 0 before Linux 5.19.
    pub peak: u64,
    /// Swap in use.
    pub swap_usage: u64,
    /// The limit of swap.
    pub swap_limit: u64,
    /// The most swap that was in use; 0 before Linux 6.5.
    pub swap_peak: u64,
    /// Waiting for memory.
    pub pressure: Option<Pressure>,
    /// `memory.events`: `low`, `high`, `max`, `oom`, `oom_kill`, `oom_group_kill`.
    pub events: Flat,
}

/// What went to and from a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoEntry {
    /// The device's number.
    pub major: u64,
    /// The device's number.
    pub minor: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Read operations.
    pub reads: u64,
    /// Write operations.
    pub writes: u64,
}

pub(super) fn read(group: &Cgroup) -> Result<V2Stats, CgroupError> {
    let Some(dir) = group.unified_dir() else { return Ok(V2Stats::default()) };
    let io = text::read(&dir.join("io.stat"))?.unwrap_or_default();
    Ok(V2Stats {
        cpu: V2Cpu {
            stat: Flat::read(&dir.join("cpu.stat"))?.unwrap_or_default(),
            pressure: Pressure::read(&dir.join("cpu.pressure"))?,
        },
        memory: memory(dir)?,
        pids: super::pids(dir)?,
        io: io.lines().filter_map(entry).collect(),
        io_pressure: Pressure::read(&dir.join("io.pressure"))?,
        huge_pages: huge_pages(dir)?,
        rdma: super::rdma(dir)?,
    })
}

fn memory(dir: &Path) -> Result<Option<V2Memory>, CgroupError> {
    let number = |name: &str| text::number(&dir.join(name));
    let Some(usage) = number("memory.current")? else { return Ok(None) };
    Ok(Some(V2Memory {
        stat: Flat::read(&dir.join("memory.stat"))?.unwrap_or_default(),
        usage,
        limit: number("memory.max")?.unwrap_or(u64::MAX),
        peak: number("memory.peak")?.unwrap_or(0),
        swap_usage: number("memory.swap.current")?.unwrap_or(0),
        swap_limit: number("memory.swap.max")?.unwrap_or(0),
        swap_peak: number("memory.swap.peak")?.unwrap_or(0),
        pressure: Pressure::read(&dir.join("memory.pressure"))?,
        events: Flat::read(&dir.join("memory.events"))?.unwrap_or_default(),
    }))
}

/// `8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0`.
fn entry(line: &str) -> Option<IoEntry> {
    let (device, values) = line.split_once(' ')?;
    let (major, minor) = device.split_once(':')?;
    let value = |key: &str| text::value_of(values, key).and_then(|text| text.parse().ok());
    Some(IoEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        read_bytes: value("rbytes")?,
        written_bytes: value("wbytes")?,
        reads: value("rios")?,
        writes: value("wios")?,
    })
}

fn huge_pages(dir: &Path) -> Result<Vec<HugePages>, CgroupError> {
    let pages = |page_size: String| {
        let file = |name: &str| dir.join(format!("hugetlb.{page_size}.{name}"));
        let usage = text::number(&file("current"))?.unwrap_or(0);
        let max = text::number(&file("max"))?.unwrap_or(u64::MAX);
        let failures = Flat::read(&file("events"))?.map_or(0, |events| events.get("max"));
        Ok(HugePages { page_size, usage, max, failures })
    };
    super::page_sizes(dir, "current").into_iter().map(pages).collect()
}
