//! The control group of the spec: where, and which limits.
//!
//! Source: OCI runtime spec, `config-linux.md`, section "Control groups". Values are as written;
//! their meaning in files is known by [`crate::cgroup`].

use std::collections::BTreeMap;

use oci_spec::runtime as json;

use super::check;
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
    /// Whether the group pauses instead of being killed; cgroup v1 only.
    pub disable_oom_killer: Option<bool>,
}

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
        Ok(Self {
            memory: resources.memory().as_ref().map(memory).unwrap_or_default(),
            cpu: resources.cpu().as_ref().map(cpu).transpose()?.unwrap_or_default(),
            pids: resources.pids().map(|pids| if pids.limit() > 0 { pids.limit() } else { -1 }),
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
        disable_oom_killer: memory.disable_oom_killer(),
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
        cpus: list("linux.resources.cpu.cpus", cpu.cpus())?,
        mems: list("linux.resources.cpu.mems", cpu.mems())?,
    })
}
