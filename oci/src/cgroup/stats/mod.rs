//! What a group uses and has used, read from its files.
//!
//! The two versions count different things in different units, and who asks wants them as they are,
//! so there is a type for each. A file that this kernel does not have is no error: what it counts is
//! absent.

mod text;
mod v1;
mod v2;

use std::path::Path;

pub use text::{Flat, Pressure, Stall};
pub use v1::{BlkIo, BlkIoEntry, Counter, V1Cpu, V1Memory, V1Stats};
pub use v2::{IoEntry, V2Cpu, V2Memory, V2Stats};

use super::{Cgroup, CgroupError, Version};

/// Statistics of a group.
#[derive(Debug, Clone, PartialEq)]
pub enum Stats {
    /// Of a group of cgroup v1.
    V1(Box<V1Stats>),
    /// Of a group of cgroup v2.
    V2(Box<V2Stats>),
}

/// Number of tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pids {
    /// Tasks now.
    pub current: u64,
    /// Most tasks; `None` is no limit.
    pub limit: Option<u64>,
}

/// Huge pages of one size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HugePages {
    /// The size, like `2MB`.
    pub page_size: String,
    /// Bytes in use.
    pub usage: u64,
    /// v1: the most that was in use, in bytes; v2: the limit, [`u64::MAX`] without one.
    pub max: u64,
    /// How often a page was refused.
    pub failures: u64,
}

/// Handles and objects of an RDMA device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RdmaEntry {
    /// The device, like `mlx5_1`.
    pub device: String,
    /// Handles; [`u32::MAX`] for no limit.
    pub handles: u32,
    /// Objects; [`u32::MAX`] for no limit.
    pub objects: u32,
}

/// Use and limits of RDMA devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rdma {
    /// What is in use.
    pub current: Vec<RdmaEntry>,
    /// What may be.
    pub limit: Vec<RdmaEntry>,
}

impl Cgroup {
    /// Reads what the group uses.
    ///
    /// # Errors
    /// [`CgroupError::Read`] if a file is there and cannot be read or makes no sense.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        match self.version() {
            Version::V1 => Ok(Stats::V1(Box::new(v1::read(self)?))),
            Version::V2 => Ok(Stats::V2(Box::new(v2::read(self)?))),
        }
    }
}

/// The same files in both versions.
fn pids(dir: &Path) -> Result<Option<Pids>, CgroupError> {
    let Some(current) = text::number(&dir.join("pids.current"))? else { return Ok(None) };
    let limit = text::number(&dir.join("pids.max"))?.filter(|limit| *limit != u64::MAX);
    Ok(Some(Pids { current, limit }))
}

/// The same files in both versions: `mlx5_1 hca_handle=2 hca_object=max`.
fn rdma(dir: &Path) -> Result<Rdma, CgroupError> {
    let entries = |file: &str| -> Result<Vec<RdmaEntry>, CgroupError> {
        let text = text::read(&dir.join(file))?.unwrap_or_default();
        let entry = |line: &str| {
            let (device, values) = line.split_once(' ')?;
            let value = |key: &str| {
                let number = text::value_of(values, key)?;
                Some(if number == "max" { u32::MAX } else { number.parse().ok()? })
            };
            let (handles, objects) = (value("hca_handle")?, value("hca_object")?);
            Some(RdmaEntry { device: device.to_owned(), handles, objects })
        };
        Ok(text.lines().filter_map(entry).collect())
    };
    Ok(Rdma { current: entries("rdma.current")?, limit: entries("rdma.max")? })
}

/// The sizes of huge pages that have files ending in `suffix`, sorted.
fn page_sizes(dir: &Path, suffix: &str) -> Vec<String> {
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?.strip_suffix('.')?;
        // Reservations have files of the same names, with one part more.
        (!size.contains('.')).then(|| size.to_owned())
    };
    let mut sizes: Vec<String> = names.filter_map(size).collect();
    sizes.sort();
    sizes
}
