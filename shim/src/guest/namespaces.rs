//! Which namespaces a guest creates and which it joins.

use std::fs::File;
use std::io::Write;

use coracle_oci::spec::{IdMapping, NamespaceKind, Workload};
use rustix::fs::{Mode, OFlags};

use super::GuestError;
use super::spawn::high;
use super::sys::Join;

/// The namespaces of one container.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    /// `CLONE_NEW*` flags for clone3(2).
    pub(super) new: u64,
    /// Existing ones, opened.
    pub(super) joins: Vec<Join>,
    /// Whether joining takes an intermediate process.
    pub(super) intermediate: bool,
    /// Whether a cgroup namespace is to be made, which must wait until the cgroup is entered:
    /// clone3(2) would take the group of the shim as its root.
    pub(super) new_cgroup: bool,
    /// Whether the guest is in another user namespace than the shim.
    pub(super) user: bool,
}

impl Namespaces {
    /// Reads the spec's list and opens those to join.
    pub(super) fn of(workload: &Workload) -> Result<Self, GuestError> {
        let mut all = Self::default();
        for namespace in &workload.namespaces {
            let kind = namespace.kind;
            all.user |= kind == NamespaceKind::User;
            let Some(path) = &namespace.path else {
                match kind {
                    NamespaceKind::Cgroup => all.new_cgroup = true,
                    _ => all.new |= kind.clone_flag(),
                }
                continue;
            };
            if kind == NamespaceKind::Mount {
                return Err(refuse(
                    format!("the existing mount namespace {}", path.display()),
                    "cannot hold a root of its own; leave out the path",
                ));
            }
            let act = format!("open the {} namespace {}", kind.proc_name(), path.display());
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let file = rustix::fs::open(path, flags, Mode::empty()).map_err(std::io::Error::from);
            let file = file.and_then(high).map_err(GuestError::os(act))?;
            all.joins.push(Join { file, kind: kind.clone_flag() as libc::c_int });
            all.intermediate |=
                matches!(kind, NamespaceKind::Pid | NamespaceKind::User | NamespaceKind::Time);
        }
        all.check(workload)?;
        Ok(all)
    }

    fn check(&self, workload: &Workload) -> Result<(), GuestError> {
        if self.new & NamespaceKind::Mount.clone_flag() == 0 {
            let why = "would change the host's mounts; add a namespace of type mount";
            return Err(refuse("no mount namespace of its own".to_owned(), why));
        }
        let new_user = self.new & NamespaceKind::User.clone_flag() != 0;
        if new_user && (workload.uid_mappings.is_empty() || workload.gid_mappings.is_empty()) {
            let why = "could own nothing; add linux.uidMappings and linux.gidMappings";
            return Err(refuse("a user namespace without id mappings".to_owned(), why));
        }
        let has = |kind| workload.namespace(kind).is_some();
        let names = [("hostname", &workload.hostname), ("domainname", &workload.domainname)];
        for (name, value) in names {
            if let (Some(value), false) = (value, has(NamespaceKind::Uts)) {
                let why = "would rename the host; add a namespace of type uts";
                return Err(refuse(format!("{name} {value}"), why));
            }
        }
        Ok(())
    }

    /// Whether the shim has to write the id mappings.
    pub(super) fn needs_mappings(&self) -> bool {
        self.new & NamespaceKind::User.clone_flag() != 0
    }
}

fn refuse(what: String, why: &str) -> GuestError {
    GuestError::Spec { what, why: why.to_owned() }
}

/// Whether this process is in another user namespace than the host's first one, so that root here is not
/// root there.
pub(super) fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Writes the id mappings of a fresh process; see user_namespaces(7).
pub(super) fn write_mappings(
    pid: i32,
    uids: &[IdMapping],
    gids: &[IdMapping],
) -> Result<(), GuestError> {
    for (file, mappings) in [("gid_map", gids), ("uid_map", uids)] {
        let path = format!("/proc/{pid}/{file}");
        let text: String = mappings.iter().map(line).collect();
        // The kernel takes a whole map in one write or not at all.
        let written = File::options().write(true).open(&path);
        written
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(GuestError::os(format!("write the id mappings to {path}")))?;
    }
    Ok(())
}

fn line(mapping: &IdMapping) -> String {
    format!("{} {} {}\n", mapping.container_id, mapping.host_id, mapping.size)
}
