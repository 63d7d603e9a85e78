//! The `linux` object without its cgroup part: namespaces, id mappings, devices, sysctls.
//!
//! Source: OCI runtime spec, `config-linux.md`.

use std::path::{Path, PathBuf};

use oci_spec::runtime as json;

use super::check;
use crate::error::SpecError;

/// One namespace: a new one, or an existing one to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Which kind.
    pub kind: NamespaceKind,
    /// File of the namespace to join; a new one is made when absent.
    pub path: Option<PathBuf>,
}

/// Kinds of namespaces, valued by their `CLONE_NEW*` bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum NamespaceKind {
    /// Clocks.
    Time = 0x80,
    /// Mount points.
    Mount = 0x0002_0000,
    /// View of the control groups.
    Cgroup = 0x0200_0000,
    /// Host and domain name.
    Uts = 0x0400_0000,
    /// System V and POSIX queues.
    Ipc = 0x0800_0000,
    /// User and group ids.
    User = 0x1000_0000,
    /// Process ids.
    Pid = 0x2000_0000,
    /// Network devices, addresses and ports.
    Network = 0x4000_0000,
}

impl NamespaceKind {
    /// The `CLONE_NEW*` bit for `clone3(2)`, `unshare(2)` and `setns(2)`.
    #[must_use]
    pub const fn clone_flag(self) -> u64 {
        self as u64
    }

    /// Name of the file in `/proc/PID/ns`.
    #[must_use]
    pub const fn proc_name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Mount => "mnt",
            Self::Cgroup => "cgroup",
            Self::Uts => "uts",
            Self::Ipc => "ipc",
            Self::User => "user",
            Self::Pid => "pid",
            Self::Network => "net",
        }
    }
}

/// A range of ids of a user namespace, one line of `uid_map` or `gid_map`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMapping {
    /// First id inside.
    pub container_id: u32,
    /// First id outside.
    pub host_id: u32,
    /// How many, at least 1.
    pub size: u32,
}

/// A device node to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Where, inside the container; absolute.
    pub path: PathBuf,
    /// Which kind of node.
    pub kind: DeviceKind,
    /// Major number; 0 for a FIFO.
    pub major: u32,
    /// Minor number; 0 for a FIFO.
    pub minor: u32,
    /// Permission bits, at most 0o7777.
    pub mode: u32,
    /// Owner, as an id inside the container.
    pub uid: u32,
    /// Group, as an id inside the container.
    pub gid: u32,
}

/// Kinds of device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// Character device (`c` and `u`).
    Char,
    /// Block device (`b`).
    Block,
    /// Named pipe (`p`).
    Fifo,
}

/// Devices that every container has, with major and minor number; config-linux.md, "Default
/// Devices". `/dev/console` and `/dev/ptmx` are a mount and a link and so not listed.
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Permissions of a device node whose mode the spec leaves out.
const DEFAULT_MODE: u32 = 0o666;

pub(super) fn namespaces(
    list: Option<&[json::LinuxNamespace]>,
) -> Result<Vec<Namespace>, SpecError> {
    let mut parsed: Vec<Namespace> = Vec::new();
    for namespace in list.unwrap_or_default() {
        let kind = namespace_kind(namespace.typ());
        if parsed.iter().any(|earlier| earlier.kind == kind) {
            let problem = "the namespace is given twice; keep one";
            return Err(check::value("linux.namespaces", kind.proc_name(), problem));
        }
        let path = namespace.path().clone().filter(|path| !path.as_os_str().is_empty());
        if let Some(path) = &path {
            check::absolute("linux.namespaces.path", path)?;
        }
        parsed.push(Namespace { kind, path });
    }
    Ok(parsed)
}

fn namespace_kind(kind: json::LinuxNamespaceType) -> NamespaceKind {
    use json::LinuxNamespaceType as J;
    match kind {
        J::Mount => NamespaceKind::Mount,
        J::Cgroup => NamespaceKind::Cgroup,
        J::Uts => NamespaceKind::Uts,
        J::Ipc => NamespaceKind::Ipc,
        J::User => NamespaceKind::User,
        J::Pid => NamespaceKind::Pid,
        J::Network => NamespaceKind::Network,
        J::Time => NamespaceKind::Time,
    }
}

/// Ranges that neither are empty nor run over the end of the id space.
pub(super) fn id_mappings(
    field: &'static str,
    list: Option<&[json::LinuxIdMapping]>,
) -> Result<Vec<IdMapping>, SpecError> {
    let parse = |mapping: &json::LinuxIdMapping| {
        let (container_id, host_id) = (mapping.container_id(), mapping.host_id());
        let size = mapping.size();
        let fits = |first: u32| first.checked_add(size).is_some();
        if size == 0 || !fits(container_id) || !fits(host_id) {
            let text = format!("{container_id}:{host_id}:{size}");
            let problem = "a range must hold at least one id and end below 4294967295";
            return Err(check::value(field, text, problem));
        }
        Ok(IdMapping { container_id, host_id, size })
    };
    list.unwrap_or_default().iter().map(parse).collect()
}

/// The spec's devices, and the default ones that it does not name itself.
pub(super) fn devices(list: Option<&[json::LinuxDevice]>) -> Result<Vec<Device>, SpecError> {
    let given: Vec<Device> =
        list.unwrap_or_default().iter().map(device).collect::<Result<_, _>>()?;
    let missing = DEFAULT_DEVICES
        .iter()
        .filter(|(path, ..)| given.iter().all(|device| device.path != Path::new(path)))
        .map(|(path, major, minor)| Device {
            path: PathBuf::from(path),
            kind: DeviceKind::Char,
            major: *major,
            minor: *minor,
            mode: DEFAULT_MODE,
            uid: 0,
            gid: 0,
        });
    let mut devices: Vec<Device> = missing.collect();
    devices.extend(given);
    Ok(devices)
}

fn device(device: &json::LinuxDevice) -> Result<Device, SpecError> {
    use json::LinuxDeviceType as J;
    let path = check::clean(check::absolute("linux.devices.path", device.path())?);
    let kind = match device.typ() {
        J::C | J::U => DeviceKind::Char,
        J::B => DeviceKind::Block,
        J::P => DeviceKind::Fifo,
        J::A => {
            let problem = "a device node must be of type c, u, b or p";
            return Err(check::value("linux.devices.type", "a", problem));
        }
    };
    let number = |value: i64| {
        u32::try_from(value).map_err(|_| {
            let problem = "a device number must lie between 0 and 4294967295";
            check::value("linux.devices", value, problem)
        })
    };
    Ok(Device {
        kind,
        major: number(device.major())?,
        minor: number(device.minor())?,
        // Engines also write the file type into the mode; the node's kind says that already.
        mode: device.file_mode().unwrap_or(DEFAULT_MODE) & 0o7777,
        uid: check::id("linux.devices.uid", device.uid().unwrap_or(0))?,
        gid: check::id("linux.devices.gid", device.gid().unwrap_or(0))?,
        path,
    })
}

/// Paths to hide or protect; each must be absolute.
pub(super) fn paths(
    field: &'static str,
    list: Option<&[String]>,
) -> Result<Vec<PathBuf>, SpecError> {
    let parse = |path: &String| Ok(check::absolute(field, Path::new(path))?.to_path_buf());
    list.unwrap_or_default().iter().map(parse).collect()
}

/// Kernel settings as `(name, value)`, sorted; a name may not climb out of `/proc/sys`.
pub(super) fn sysctl<'a>(
    pairs: impl Iterator<Item = (&'a String, &'a String)>,
) -> Result<Vec<(String, String)>, SpecError> {
    let mut parsed = Vec::new();
    for (name, value) in pairs {
        check::string("linux.sysctl", name)?;
        check::string("linux.sysctl", value)?;
        let climbs = name.split('/').any(|part| matches!(part, "" | "." | ".."));
        if climbs || name.split('.').any(str::is_empty) {
            let problem = "a setting is named like net.ipv4.ip_forward";
            return Err(check::value("linux.sysctl", name, problem));
        }
        parsed.push((name.clone(), value.clone()));
    }
    parsed.sort();
    Ok(parsed)
}
