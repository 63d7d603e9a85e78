//! Limits of the spec on block devices, huge pages, RDMA and network classes.
//!
//! Source: OCI runtime spec, `config-linux.md`, sections "Block IO", "Huge page limits", "RDMA" and
//! "Network". Values are as written; their meaning in files is known by [`crate::cgroup`].

use oci_spec::runtime as json;

use super::check;
use crate::error::SpecError;

/// Smallest and largest weight of the spec.
const WEIGHTS: std::ops::RangeInclusive<u16> = 10..=1000;

/// Limits on block devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockIoLimits {
    /// Relative share, 10 to 1000.
    pub weight: Option<u16>,
    /// The same against groups beneath, 10 to 1000; kernels before 5.0 with cgroup v1 only.
    pub leaf_weight: Option<u16>,
    /// Relative shares of single devices.
    pub weight_devices: Vec<DeviceWeight>,
    /// Most bytes read in a second.
    pub read_bps: Vec<DeviceRate>,
    /// Most bytes written in a second.
    pub write_bps: Vec<DeviceRate>,
    /// Most read operations in a second.
    pub read_iops: Vec<DeviceRate>,
    /// Most write operations in a second.
    pub write_iops: Vec<DeviceRate>,
}

/// A device's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceWeight {
    /// Which device.
    pub device: DeviceNumber,
    /// 10 to 1000.
    pub weight: Option<u16>,
    /// 10 to 1000; see [`BlockIoLimits::leaf_weight`].
    pub leaf_weight: Option<u16>,
}

/// A device's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRate {
    /// Which device.
    pub device: DeviceNumber,
    /// Bytes or operations a second; 0 is no limit.
    pub rate: u64,
}

/// The number of a block device; control files name devices like this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceNumber {
    /// The driver.
    pub major: u32,
    /// The device of that driver.
    pub minor: u32,
}

impl std::fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// A limit on huge pages of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HugePageLimit {
    /// The size as control files are named, like `2MB` or `1GB`.
    pub page_size: String,
    /// Bytes; -1 is no limit.
    pub limit: i64,
}

/// A limit on one RDMA device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RdmaLimit {
    /// The device, like `mlx5_1`.
    pub device: String,
    /// Most handles; `None` is no limit.
    pub handles: Option<u32>,
    /// Most objects; `None` is no limit.
    pub objects: Option<u32>,
}

/// How packets of the container are marked; cgroup v1 only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkClass {
    /// The class of its packets.
    pub class_id: Option<u32>,
    /// Priorities by network interface.
    pub priorities: Vec<(String, u32)>,
}

impl BlockIoLimits {
    pub(super) fn parse(limits: &json::LinuxBlockIo) -> Result<Self, SpecError> {
        const FIELD: &str = "linux.resources.blockIO.weightDevice";
        let weight_device = |one: &json::LinuxWeightDevice| {
            Ok(DeviceWeight {
                device: device(FIELD, one.major(), one.minor())?,
                weight: weight(FIELD, one.weight())?,
                leaf_weight: weight(FIELD, one.leaf_weight())?,
            })
        };
        let devices = limits.weight_device().iter().flatten();
        Ok(Self {
            weight: weight("linux.resources.blockIO.weight", limits.weight())?,
            leaf_weight: weight("linux.resources.blockIO.leafWeight", limits.leaf_weight())?,
            weight_devices: devices.map(weight_device).collect::<Result<_, SpecError>>()?,
            read_bps: rates("throttleReadBpsDevice", limits.throttle_read_bps_device())?,
            write_bps: rates("throttleWriteBpsDevice", limits.throttle_write_bps_device())?,
            read_iops: rates("throttleReadIOPSDevice", limits.throttle_read_iops_device())?,
            write_iops: rates("throttleWriteIOPSDevice", limits.throttle_write_iops_device())?,
        })
    }
}

/// Engines write 0 where they mean "not set".
fn weight(field: &'static str, weight: Option<u16>) -> Result<Option<u16>, SpecError> {
    match weight.filter(|weight| *weight != 0) {
        Some(weight) if !WEIGHTS.contains(&weight) => {
            Err(check::value(field, weight, "a weight is a number from 10 to 1000"))
        }
        weight => Ok(weight),
    }
}

fn device(field: &'static str, major: i64, minor: i64) -> Result<DeviceNumber, SpecError> {
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(DeviceNumber { major, minor }),
        _ => Err(check::value(field, format!("{major}:{minor}"), "this is no device number")),
    }
}

fn rates(
    field: &'static str,
    devices: &Option<Vec<json::LinuxThrottleDevice>>,
) -> Result<Vec<DeviceRate>, SpecError> {
    let rate = |one: &json::LinuxThrottleDevice| {
        Ok(DeviceRate { device: device(field, one.major(), one.minor())?, rate: one.rate() })
    };
    devices.iter().flatten().map(rate).collect()
}

pub(super) fn huge_pages(limit: &json::LinuxHugepageLimit) -> Result<HugePageLimit, SpecError> {
    let size = limit.page_size();
    let number = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit));
    let digits = |text: &&str| {
        !text.is_empty() && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit())
    };
    if number.filter(digits).is_none() {
        let field = "linux.resources.hugepageLimits.pageSize";
        return Err(check::value(field, size, "write a size like 64KB, 2MB or 1GB"));
    }
    Ok(HugePageLimit { page_size: size.clone(), limit: limit.limit().max(-1) })
}

pub(super) fn rdma(device: &str, limit: &json::LinuxRdma) -> Result<RdmaLimit, SpecError> {
    if device.is_empty() || device.contains(|c: char| c.is_whitespace() || c == '\0' || c == '=') {
        let problem = "a device has a name without spaces, like mlx5_1";
        return Err(check::value("linux.resources.rdma", device, problem));
    }
    let (handles, objects) = (limit.hca_handles(), limit.hca_objects());
    Ok(RdmaLimit { device: device.to_owned(), handles, objects })
}

pub(super) fn network(network: &json::LinuxNetwork) -> Result<NetworkClass, SpecError> {
    let priority = |one: &json::LinuxInterfacePriority| {
        let (name, field) = (one.name(), "linux.resources.network.priorities");
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '\0') {
            return Err(check::value(field, name, "name a network interface, like eth0"));
        }
        Ok((name.clone(), one.priority()))
    };
    let priorities = network.priorities().iter().flatten().map(priority);
    Ok(NetworkClass {
        class_id: network.class_id().filter(|id| *id != 0),
        priorities: priorities.collect::<Result<_, _>>()?,
    })
}
