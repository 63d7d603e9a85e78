//! A bundle's `config.json`, parsed once at the edge into a [`Workload`].
//!
//! Everything that can be wrong with the document is found here and named; the rest of the house
//! works with values that are known to be usable: no NUL bytes, no id that means "unchanged",
//! absolute paths, option strings turned into bits.

mod annotation;
mod check;
mod device_rule;
mod features;
mod hook;
mod io;
mod linux;
mod mount;
mod process;
mod resources;
mod seccomp;

use std::path::{Path, PathBuf};

use oci_spec::runtime as json;

pub use annotation::{Annotations, ContainerType, ImageVariant};
pub(crate) use check::clean;
pub use device_rule::{DeviceAccess, DeviceClass, DeviceRule};
pub use features::features;
pub use hook::{Hook, Hooks};
pub use io::{
    BlockIoLimits, DeviceNumber, DeviceRate, DeviceWeight, HugePageLimit, NetworkClass, RdmaLimit,
};
pub use linux::{Device, DeviceKind, IdMapping, Namespace, NamespaceKind};
pub use mount::{IdMap, Mount, MountFlags, Propagation, PropagationKind, RecursiveAttrs};
pub use process::{Capabilities, CapabilitySet, Process, Rlimit, RlimitKind, User};
pub(crate) use resources::DEFAULT_SHARES;
pub use resources::{CgroupSpec, CpuLimits, MemoryLimits, Resources};
pub use seccomp::{Seccomp, SeccompAction, SeccompCompare, SeccompCondition, SeccompRule};

pub use crate::error::SpecError;

/// Largest `config.json` that is read, in bytes.
pub const CONFIG_LIMIT: u64 = 10 * 1024 * 1024;

/// One container, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Annotations, raw and by name.
    pub id_annotations: Annotations,
    /// What to run and as whom.
    pub process: Process,
    /// The root file system.
    pub rootfs: Rootfs,
    /// Mounts, in the order in which they must be made.
    pub mounts: Vec<Mount>,
    /// Host name to set in a new UTS namespace.
    pub hostname: Option<String>,
    /// Domain name to set in a new UTS namespace.
    pub domainname: Option<String>,
    /// Namespaces to make or join.
    pub namespaces: Vec<Namespace>,
    /// User ids of a new user namespace.
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids of a new user namespace.
    pub gid_mappings: Vec<IdMapping>,
    /// Device nodes to make, the default ones included.
    pub devices: Vec<Device>,
    /// Which devices its processes may use.
    pub device_rules: Vec<DeviceRule>,
    /// Paths to hide from the container.
    pub masked_paths: Vec<PathBuf>,
    /// Paths to make read-only.
    pub readonly_paths: Vec<PathBuf>,
    /// Kernel settings, sorted by name.
    pub sysctl: Vec<(String, String)>,
    /// Propagation of the root mount.
    pub rootfs_propagation: Option<Propagation>,
    /// Control group and limits.
    pub cgroup: CgroupSpec,
    /// Programs of the host to run at points of the container's life.
    pub hooks: Hooks,
    /// System call filter, if the spec has one.
    pub seccomp: Option<Seccomp>,
}

/// The root file system of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// Folder on the host; absolute.
    pub path: PathBuf,
    /// Whether it is to be mounted read-only.
    pub readonly: bool,
}

impl Workload {
    /// Sandbox or container, as CRI says.
    #[must_use]
    pub fn container_type(&self) -> ContainerType {
        self.id_annotations.container_type()
    }

    /// Whether this is a pod's pause container: the sandbox of a pod whose program is `pause`.
    #[must_use]
    pub fn is_pause(&self) -> bool {
        let program = self.process.args.first().map(Path::new).and_then(Path::file_name);
        self.container_type() == ContainerType::Sandbox
            && program.is_some_and(|name| name == "pause")
    }

    /// The namespace of `kind`, if the spec asks for one.
    #[must_use]
    pub fn namespace(&self, kind: NamespaceKind) -> Option<&Namespace> {
        self.namespaces.iter().find(|namespace| namespace.kind == kind)
    }
}

/// Reads and parses `bundle/config.json`.
///
/// # Errors
/// [`SpecError`], which names the file or the field and what would be right.
pub fn load(bundle: &Path) -> Result<Workload, SpecError> {
    let path = bundle.join("config.json");
    let failed = |source| SpecError::Read { path: path.clone(), source };
    let bundle = std::path::absolute(bundle).map_err(failed)?;
    // One byte more than allowed tells "exactly at the limit" from "beyond".
    let text = crate::file::read(&path, CONFIG_LIMIT + 1).map_err(failed)?;
    if text.len() as u64 > CONFIG_LIMIT {
        return Err(SpecError::TooLarge { path, limit: CONFIG_LIMIT });
    }
    parse(&text, &bundle, &path)
}

/// Parses the process that is to run beside a container's own: the JSON of a spec's `process`.
///
/// # Errors
/// [`SpecError`], which names the field and what would be right; also for a process without arguments.
pub fn process(text: &[u8]) -> Result<Process, SpecError> {
    let parsed: json::Process = serde_json::from_slice(text).map_err(|source| {
        let fields = serde_json::from_slice(text).ok();
        fields.as_ref().and_then(overflow_in).unwrap_or(SpecError::Process { source })
    })?;
    let process = Process::parse(&parsed)?;
    if process.args.is_empty() {
        let problem = "there must be at least one argument, the program";
        return Err(check::value("process.args", "[]", problem));
    }
    Ok(process)
}

/// Parses the text of a `config.json`; `bundle` is absolute and `path` serves messages.
fn parse(text: &[u8], bundle: &Path, path: &Path) -> Result<Workload, SpecError> {
    let spec: json::Spec = serde_json::from_slice(text).map_err(|source| {
        user_overflow(text).unwrap_or_else(|| SpecError::Parse { path: path.to_path_buf(), source })
    })?;
    let missing = |field| SpecError::Missing { path: path.to_path_buf(), field };
    let process = spec.process().as_ref().ok_or_else(|| missing("process"))?;
    let root = spec.root().as_ref().ok_or_else(|| missing("root"))?;
    let linux = spec.linux().as_ref().ok_or_else(|| missing("linux"))?;
    let mounts = spec.mounts().iter().flatten();
    let mut parsed = Process::parse(process)?;
    if linux.personality().as_ref().is_some_and(|one| !is_plain(one)) {
        parsed.unsupported.push("linux.personality");
    }
    Ok(Workload {
        id_annotations: annotations(&spec)?,
        process: parsed,
        rootfs: rootfs(root, bundle)?,
        mounts: mounts.map(|mount| Mount::parse(mount, bundle)).collect::<Result<_, _>>()?,
        hostname: name("hostname", spec.hostname())?,
        domainname: name("domainname", spec.domainname())?,
        namespaces: linux::namespaces(linux.namespaces().as_deref())?,
        uid_mappings: linux::id_mappings("linux.uidMappings", linux.uid_mappings().as_deref())?,
        gid_mappings: linux::id_mappings("linux.gidMappings", linux.gid_mappings().as_deref())?,
        devices: linux::devices(linux.devices().as_deref())?,
        device_rules: device_rule::parse(device_rules(linux))?,
        masked_paths: linux::paths("linux.maskedPaths", linux.masked_paths().as_deref())?,
        readonly_paths: linux::paths("linux.readonlyPaths", linux.readonly_paths().as_deref())?,
        sysctl: linux::sysctl(linux.sysctl().iter().flatten())?,
        rootfs_propagation: rootfs_propagation(linux.rootfs_propagation().as_deref())?,
        cgroup: CgroupSpec::parse(linux)?,
        hooks: Hooks::parse(spec.hooks().as_ref())?,
        seccomp: linux.seccomp().as_ref().map(Seccomp::parse).transpose()?,
    })
}

/// Whether a personality is what every process has.
fn is_plain(personality: &json::LinuxPersonality) -> bool {
    personality.domain() == json::LinuxPersonalityDomain::PerLinux
        && personality.flags().as_ref().is_none_or(Vec::is_empty)
}

fn device_rules(linux: &json::Linux) -> Option<&[json::LinuxDeviceCgroup]> {
    linux.resources().as_ref()?.devices().as_deref()
}

/// Finds a user or group id that does not fit 32 bits, which the JSON layer would only call "an
/// invalid value". Engines once let such numbers wrap around to root.
fn user_overflow(text: &[u8]) -> Option<SpecError> {
    let spec: serde_json::Value = serde_json::from_slice(text).ok()?;
    overflow_in(spec.get("process")?)
}

/// The same in a process.
fn overflow_in(process: &serde_json::Value) -> Option<SpecError> {
    let user = process.get("user")?;
    let bad = |field: &'static str, id: &serde_json::Value| {
        let fits = id.is_null() || id.as_u64().is_some_and(|id| id < u64::from(u32::MAX));
        (!fits).then(|| SpecError::Id { field, value: id.to_string() })
    };
    let groups = user.get("additionalGids").and_then(serde_json::Value::as_array);
    let ids = [("process.user.uid", user.get("uid")), ("process.user.gid", user.get("gid"))]
        .into_iter()
        .filter_map(|(field, id)| Some((field, id?)))
        .chain(groups.into_iter().flatten().map(|id| ("process.user.additionalGids", id)));
    ids.into_iter().find_map(|(field, id)| bad(field, id))
}

fn annotations(spec: &json::Spec) -> Result<Annotations, SpecError> {
    let pairs = spec.annotations().iter().flatten();
    for (key, value) in pairs.clone() {
        check::string("annotations", key)?;
        check::string("annotations", value)?;
    }
    Ok(Annotations::new(pairs.map(|(key, value)| (key.clone(), value.clone()))))
}

fn rootfs(root: &json::Root, bundle: &Path) -> Result<Rootfs, SpecError> {
    check::path("root.path", root.path())?;
    if root.path().as_os_str().is_empty() {
        return Err(check::value("root.path", "", "it must name the root file system's folder"));
    }
    Ok(Rootfs { path: bundle.join(root.path()), readonly: root.readonly().unwrap_or(false) })
}

/// A host or domain name; the kernel takes at most 64 bytes.
fn name(field: &'static str, name: &Option<String>) -> Result<Option<String>, SpecError> {
    let name = name.clone().filter(|name| !name.is_empty());
    if let Some(name) = &name {
        check::string(field, name)?;
        if name.len() > 64 {
            return Err(check::value(field, name, "it must have at most 64 bytes"));
        }
    }
    Ok(name)
}

fn rootfs_propagation(text: Option<&str>) -> Result<Option<Propagation>, SpecError> {
    match text {
        None | Some("") => Ok(None),
        Some(text) => Propagation::parse(text).map(Some).ok_or_else(|| {
            let problem = "use private, shared, slave or unbindable, or one with an r in front";
            check::value("linux.rootfsPropagation", text, problem)
        }),
    }
}
