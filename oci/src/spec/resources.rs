//! The control group of the spec: where, and which limits.
//!
//! Source: OCI runtime spec, `config-linux.md`, section "Control groups". Values are as written;
//! their meaning in files is known by [`crate::cgroup`].

use std::collections::BTreeMap;

use oci_spec::runtime as json;

use super::check;
use super::io::{self, BlockIoLimits, HugePageLimit, NetworkClass, RdmaLimit};
use crate::error::SpecError;

/// Where the container's control group lies and what it may use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CgroupSpec {
    /// `linux.cgroupsPath` as written: `/a/b`, or `slice:prefix:name` for systemd. See
    /// [`crate::cgroup::CgroupPath`].
    pub path: Option<String>,
    /// The limits.
    pub resources: Resources,
}

/// Limits; absent means "leave as it is".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Memory and swap.
    pub memory: MemoryLimits,
    /// Processor time and placement.
    pub cpu: CpuLimits,
    /// Number of tasks; -1 is no limit. A 0 in the spec is read as no limit, as engines mean it.
    pub pids: Option<i64>,
    /// Block devices.
    pub block_io: BlockIoLimits,
    /// Huge pages, one for each size.
    pub huge_pages: Vec<HugePageLimit>,
    /// RDMA, one for each device, sorted by its name.
    pub rdma: Vec<RdmaLimit>,
    /// Marks of network packets.
    pub network: NetworkClass,
    /// Raw cgroup v2 files and their values, applied last.
    pub unified: BTreeMap<String, String>,
}

/// Memory limits in bytes; -1 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Hard limit.
    pub limit: Option<i64>,
    /// Soft limit.
    pub reservation: Option<i64>,
    /// Memory and swap together, as in cgroup v1.
    pub swap: Option<i64>,
    /// Eagerness to swap, 0 to 100; cgroup v1 only.
    pub swappiness: Option<u64>,
    /// TCP buffers; cgroup v1 only.
    pub kernel_tcp: Option<i64>,
    /// Whether the group pauses instead of being killed; cgroup v1 only.
    pub disable_oom_killer: bool,
    /// Whether a limit below what is used now is refused. Without it cgroup v2 takes such a limit and
    /// kills; cgroup v1 always refuses what it cannot reach.
    pub check_before_update: bool,
}

/// Shares of a group that nobody set.
pub(crate) const DEFAULT_SHARES: u64 = 1024;

/// Processor limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuLimits {
    /// Relative share, 2 to 262144; 1024 is the default.
    pub shares: Option<u64>,
    /// Time per period in microseconds; not above 0 is no limit.
    pub quota: Option<i64>,
    /// Period in microseconds, 1000 to 1000000.
    pub period: Option<u64>,
    /// Saved-up time that may be spent at once, in microseconds.
    pub burst: Option<u64>,
    /// 1 makes the group run only when nobody else wants to.
    pub idle: Option<i64>,
    /// Time of real-time tasks per period in microseconds; cgroup v1 only.
    pub realtime_runtime: Option<i64>,
    /// Period of real-time tasks in microseconds; cgroup v1 only.
    pub realtime_period: Option<u64>,
    /// Processors, as a list such as `0-3,5`.
    pub cpus: Option<String>,
    /// Memory nodes, as a list such as `0`.
    pub mems: Option<String>,
}

impl CgroupSpec {
    pub(super) fn parse(linux: &json::Linux) -> Result<Self, SpecError> {
        let path = match linux.cgroups_path() {
            Some(path) if !path.as_os_str().is_empty() => {
                check::path("linux.cgroupsPath", path)?;
                Some(path.to_string_lossy().into_owned())
            }
            _ => None,
        };
        let resources = linux.resources().as_ref().map(Resources::parse).transpose()?;
        Ok(Self { path, resources: resources.unwrap_or_default() })
    }
}

impl Resources {
    /// Limits from the JSON text of the spec's `linux.resources` alone, as an update brings it.
    ///
    /// # Errors
    /// [`SpecError::Resources`] for a text that is something else, [`SpecError::Value`] for a value
    /// that cannot be carried out.
    pub fn from_json(text: &[u8]) -> Result<Self, SpecError> {
        Self::parse(&serde_json::from_slice(text).map_err(SpecError::Resources)?)
    }

    fn parse(resources: &json::LinuxResources) -> Result<Self, SpecError> {
        let mut unified = BTreeMap::new();
        for (file, value) in resources.unified().iter().flatten() {
            check::string("linux.resources.unified", value)?;
            if file.is_empty() || file.contains(['/', '\0']) || !file.contains('.') {
                let problem = "a key must be a file of cgroup v2, like memory.high";
                return Err(check::value("linux.resources.unified", file, problem));
            }
            unified.insert(file.clone(), value.clone());
        }
        let block_io = resources.block_io().as_ref().map(BlockIoLimits::parse).transpose()?;
        let huge_pages = resources.hugepage_limits().iter().flatten().map(io::huge_pages);
        let rdma = resources.rdma().iter().flatten().map(|(name, limit)| io::rdma(name, limit));
        let mut rdma = rdma.collect::<Result<Vec<_>, _>>()?;
        rdma.sort_by(|one, other| one.device.cmp(&other.device));
        let network = resources.network().as_ref().map(io::network).transpose()?;
        Ok(Self {
            memory: resources.memory().as_ref().map(memory).unwrap_or_default(),
            cpu: resources.cpu().as_ref().map(cpu).transpose()?.unwrap_or_default(),
            pids: resources.pids().map(|pids| if pids.limit() > 0 { pids.limit() } else { -1 }),
            block_io: block_io.unwrap_or_default(),
            huge_pages: huge_pages.collect::<Result<_, _>>()?,
            rdma,
            network: network.unwrap_or_default(),
            unified,
        })
    }
}

fn memory(memory: &json::LinuxMemory) -> MemoryLimits {
    // Engines write 0 where they mean "not set"; a limit of nothing could start nothing.
    let set = |value: Option<i64>| value.filter(|value| *value != 0);
    MemoryLimits {
        limit: set(memory.limit()),
        reservation: set(memory.reservation()),
        swap: set(memory.swap()),
        swappiness: memory.swappiness(),
        kernel_tcp: set(memory.kernel_tcp()),
        disable_oom_killer: memory.disable_oom_killer().unwrap_or(false),
        check_before_update: memory.check_before_update().unwrap_or(false),
    }
}

fn cpu(cpu: &json::LinuxCpu) -> Result<CpuLimits, SpecError> {
    let list = |field: &'static str, text: &Option<String>| {
        let text = text.clone().filter(|text| !text.is_empty());
        let known = |c: char| c.is_ascii_digit() || matches!(c, ',' | '-' | ':' | '/' | ' ');
        match text {
            Some(text) if !text.chars().all(known) => {
                Err(check::value(field, text, "write numbers and ranges, like 0-3,5"))
            }
            text => Ok(text),
        }
    };
    let set = |value: Option<u64>| value.filter(|value| *value != 0);
    Ok(CpuLimits {
        shares: set(cpu.shares()),
        quota: cpu.quota().filter(|quota| *quota != 0),
        period: set(cpu.period()),
        burst: cpu.burst(),
        idle: cpu.idle(),
        realtime_runtime: cpu.realtime_runtime().filter(|time| *time != 0),
        realtime_period: set(cpu.realtime_period()),
        cpus: list("linux.resources.cpu.cpus", cpu.cpus())?,
        mems: list("linux.resources.cpu.mems", cpu.mems())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{DeviceNumber, DeviceRate};

    fn parse(text: &str) -> Result<Resources, SpecError> {
        Resources::from_json(text.as_bytes())
    }

    #[test]
    fn every_limit_of_an_update() {
        let all = parse(
            r#"{"memory": {"limit": 64, "swap": 128, "checkBeforeUpdate": true, "kernelTCP": 5},
                "cpu": {"shares": 2, "burst": 0, "idle": 1, "realtimeRuntime": 7, "cpus": "0-1"},
                "pids": {"limit": 9},
                "blockIO": {"weight": 20, "leafWeight": 0,
                    "weightDevice": [{"major": 8, "minor": 0, "weight": 30}],
                    "throttleReadBpsDevice": [{"major": 8, "minor": 16, "rate": 600}],
                    "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 3}]},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
                "rdma": {"mlx5_1": {"hcaHandles": 3}, "a": {"hcaObjects": 4}},
                "network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 5}]},
                "unified": {"memory.high": "1"}}"#,
        )
        .unwrap();
        assert_eq!(
            (all.memory.limit, all.memory.swap, all.memory.kernel_tcp),
            (Some(64), Some(128), Some(5))
        );
        assert!(all.memory.check_before_update);
        assert_eq!(
            (all.cpu.burst, all.cpu.idle, all.cpu.realtime_runtime),
            (Some(0), Some(1), Some(7))
        );
        assert_eq!((all.block_io.weight, all.block_io.leaf_weight), (Some(20), None));
        assert_eq!(all.block_io.weight_devices[0].weight, Some(30));
        let device = DeviceNumber { major: 8, minor: 16 };
        assert_eq!(all.block_io.read_bps, [DeviceRate { device, rate: 600 }]);
        assert_eq!(all.block_io.write_iops, [DeviceRate { device, rate: 3 }]);
        assert_eq!(
            (all.huge_pages[0].page_size.as_str(), all.huge_pages[0].limit),
            ("2MB", 4 << 20)
        );
        assert_eq!((all.rdma[0].device.as_str(), all.rdma[0].objects), ("a", Some(4)));
        assert_eq!((all.rdma[1].handles, all.rdma[1].objects), (Some(3), None));
        assert_eq!(all.network.class_id, Some(0x10_0001));
        assert_eq!(all.network.priorities, [("eth0".to_owned(), 5)]);
        assert_eq!(parse("{}").unwrap(), Resources::default());
    }

    #[test]
    fn what_cannot_be_a_limit_is_named() {
        for (text, field) in [
            (r#"{"blockIO": {"weight": 9}}"#, "blockIO.weight"),
            (r#"{"blockIO": {"weightDevice": [{"major": -1, "minor": 0}]}}"#, "weightDevice"),
            (
                r#"{"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 4294967296}]}}"#,
                "throttleReadBpsDevice",
            ),
            (r#"{"hugepageLimits": [{"pageSize": "2MiB", "limit": 1}]}"#, "pageSize"),
            (r#"{"hugepageLimits": [{"pageSize": "/../MB", "limit": 1}]}"#, "pageSize"),
            (r#"{"rdma": {"a b": {}}}"#, "rdma"),
            (r#"{"network": {"priorities": [{"name": "e t", "priority": 1}]}}"#, "priorities"),
            (r#"{"unified": {"../x.y": "1"}}"#, "unified"),
            (r#"{"cpu": {"cpus": "all"}}"#, "cpu.cpus"),
            ("7", "resources"),
            ("", "resources"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(field), "{text}: {error}");
        }
    }
}
