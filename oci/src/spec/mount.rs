//! Mounts: the option strings of `mount(8)` and of runc, turned into the kernel's bits.
//!
//! Sources: OCI runtime spec, `config.md`, section "Mounts" (with its table of options);
//! `mount(2)`, `mount_setattr(2)` and `mount(8)`.

use std::path::{Path, PathBuf};

use oci_spec::runtime as json;

use super::check;
use super::linux::{IdMapping, id_mappings};
use crate::error::SpecError;

/// Longest data string, in bytes: the kernel copies one page and cuts the rest silently.
const DATA_LIMIT: usize = 4095;

/// One mount, to be made in the listed order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where, inside the container; absolute, without `.` and `..`.
    pub destination: PathBuf,
    /// File system type; `bind` for every bind mount.
    pub kind: String,
    /// What, on the host; absolute for bind mounts. A device or a plain word for others.
    pub source: Option<PathBuf>,
    /// `MS_*` bits to set.
    pub flags: MountFlags,
    /// `MS_*` bits that an option such as `rw` or `suid` asks to be off.
    pub cleared: MountFlags,
    /// Propagation to set afterwards by a call of its own.
    pub propagation: Option<Propagation>,
    /// `MOUNT_ATTR_*` bits for the whole subtree (`rro` and its kin), if any.
    pub recursive: RecursiveAttrs,
    /// `tmpcopyup`: fill a new tmpfs with what the image has at the destination.
    pub copy_up: bool,
    /// Id mapping of the mount (`idmap`, `ridmap`), if any.
    pub id_map: Option<IdMap>,
    /// What is left for the file system itself, joined by commas.
    pub data: String,
}

/// `MS_*` bits as `mount(2)` takes them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct MountFlags(u64);

impl MountFlags {
    /// `MS_RDONLY`.
    pub const READ_ONLY: Self = Self(1);
    /// `MS_NOSUID`.
    pub const NO_SUID: Self = Self(1 << 1);
    /// `MS_NODEV`.
    pub const NO_DEV: Self = Self(1 << 2);
    /// `MS_NOEXEC`.
    pub const NO_EXEC: Self = Self(1 << 3);
    /// `MS_SYNCHRONOUS`.
    pub const SYNCHRONOUS: Self = Self(1 << 4);
    /// `MS_REMOUNT`.
    pub const REMOUNT: Self = Self(1 << 5);
    /// `MS_MANDLOCK`.
    pub const MAND_LOCK: Self = Self(1 << 6);
    /// `MS_DIRSYNC`.
    pub const DIR_SYNC: Self = Self(1 << 7);
    /// `MS_NOSYMFOLLOW`.
    pub const NO_SYMFOLLOW: Self = Self(1 << 8);
    /// `MS_NOATIME`.
    pub const NO_ATIME: Self = Self(1 << 10);
    /// `MS_NODIRATIME`.
    pub const NO_DIR_ATIME: Self = Self(1 << 11);
    /// `MS_BIND`.
    pub const BIND: Self = Self(1 << 12);
    /// `MS_REC`.
    pub const RECURSIVE: Self = Self(1 << 14);
    /// `MS_SILENT`.
    pub const SILENT: Self = Self(1 << 15);
    /// `MS_POSIXACL`.
    pub const POSIX_ACL: Self = Self(1 << 16);
    /// `MS_RELATIME`.
    pub const REL_ATIME: Self = Self(1 << 21);
    /// `MS_I_VERSION`.
    pub const I_VERSION: Self = Self(1 << 23);
    /// `MS_STRICTATIME`.
    pub const STRICT_ATIME: Self = Self(1 << 24);
    /// `MS_LAZYTIME`.
    pub const LAZY_TIME: Self = Self(1 << 25);

    /// The bits for `mount(2)`.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether all of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// How mounts travel between namespaces; see `mount_namespaces(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// The kind.
    pub kind: PropagationKind,
    /// For the whole subtree (`rprivate` and its kin).
    pub recursive: bool,
}

/// Kinds of propagation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PropagationKind {
    /// Nothing travels.
    Private,
    /// Mounts travel both ways.
    Shared,
    /// Mounts of the host travel in, none travel out.
    Slave,
    /// Private, and not to be bind-mounted again.
    Unbindable,
}

impl Propagation {
    /// The bits for `mount(2)`: one of `MS_PRIVATE` and its kin, with `MS_REC` if recursive.
    #[must_use]
    pub const fn bits(self) -> u64 {
        let kind = match self.kind {
            PropagationKind::Unbindable => 1 << 17,
            PropagationKind::Private => 1 << 18,
            PropagationKind::Slave => 1 << 19,
            PropagationKind::Shared => 1 << 20,
        };
        if self.recursive { kind | MountFlags::RECURSIVE.0 } else { kind }
    }

    pub(super) fn parse(option: &str) -> Option<Self> {
        let (_, kind, recursive) = PROPAGATIONS.iter().find(|(name, ..)| *name == option)?;
        Some(Self { kind: *kind, recursive: *recursive })
    }
}

/// Options of propagation: name, kind, whether for the whole subtree.
const PROPAGATIONS: [(&str, PropagationKind, bool); 8] = [
    ("private", PropagationKind::Private, false),
    ("rprivate", PropagationKind::Private, true),
    ("rshared", PropagationKind::Shared, true),
    ("rslave", PropagationKind::Slave, true),
    ("runbindable", PropagationKind::Unbindable, true),
    ("shared", PropagationKind::Shared, false),
    ("slave", PropagationKind::Slave, false),
    ("unbindable", PropagationKind::Unbindable, false),
];

/// `MOUNT_ATTR_*` bits for `mount_setattr(2)` with `AT_RECURSIVE`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecursiveAttrs {
    /// Attributes to set.
    pub set: u64,
    /// Attributes to clear.
    pub clear: u64,
}

impl RecursiveAttrs {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Id mapping of one mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap {
    /// For the whole subtree (`ridmap`).
    pub recursive: bool,
    /// User ids; empty means those of the container's user namespace.
    pub uids: Vec<IdMapping>,
    /// Group ids; empty means those of the container's user namespace.
    pub gids: Vec<IdMapping>,
}

/// Options that set `MS_*` bits (true) or clear them (false).
const FLAG_OPTIONS: &[(&str, bool, MountFlags)] = &[
    ("acl", true, MountFlags::POSIX_ACL),
    ("async", false, MountFlags::SYNCHRONOUS),
    ("atime", false, MountFlags::NO_ATIME),
    ("bind", true, MountFlags::BIND),
    ("dev", false, MountFlags::NO_DEV),
    ("diratime", false, MountFlags::NO_DIR_ATIME),
    ("dirsync", true, MountFlags::DIR_SYNC),
    ("exec", false, MountFlags::NO_EXEC),
    ("group", true, MountFlags::NO_SUID.union(MountFlags::NO_DEV)),
    ("iversion", true, MountFlags::I_VERSION),
    ("lazytime", true, MountFlags::LAZY_TIME),
    ("loud", false, MountFlags::SILENT),
    ("mand", true, MountFlags::MAND_LOCK),
    ("noacl", false, MountFlags::POSIX_ACL),
    ("noatime", true, MountFlags::NO_ATIME),
    ("nodev", true, MountFlags::NO_DEV),
    ("nodiratime", true, MountFlags::NO_DIR_ATIME),
    ("noexec", true, MountFlags::NO_EXEC),
    ("noiversion", false, MountFlags::I_VERSION),
    ("nolazytime", false, MountFlags::LAZY_TIME),
    ("nomand", false, MountFlags::MAND_LOCK),
    ("norelatime", false, MountFlags::REL_ATIME),
    ("nostrictatime", false, MountFlags::STRICT_ATIME),
    ("nosuid", true, MountFlags::NO_SUID),
    ("nosymfollow", true, MountFlags::NO_SYMFOLLOW),
    ("owner", true, MountFlags::NO_SUID.union(MountFlags::NO_DEV)),
    ("rbind", true, MountFlags::BIND.union(MountFlags::RECURSIVE)),
    ("relatime", true, MountFlags::REL_ATIME),
    ("remount", true, MountFlags::REMOUNT),
    ("ro", true, MountFlags::READ_ONLY),
    ("rw", false, MountFlags::READ_ONLY),
    ("silent", true, MountFlags::SILENT),
    ("strictatime", true, MountFlags::STRICT_ATIME),
    ("suid", false, MountFlags::NO_SUID),
    ("symfollow", false, MountFlags::NO_SYMFOLLOW),
    ("sync", true, MountFlags::SYNCHRONOUS),
    ("user", true, USER_MOUNT),
    ("users", true, USER_MOUNT),
];

/// What `mount(8)` implies when a plain user may mount.
const USER_MOUNT: MountFlags =
    MountFlags::NO_EXEC.union(MountFlags::NO_SUID).union(MountFlags::NO_DEV);

/// Words of fstab that concern `mount(8)` itself and never reach a file system.
const IGNORED_OPTIONS: &[&str] =
    &["_netdev", "auto", "defaults", "noauto", "nofail", "nogroup", "noowner", "nouser", "nousers"];

/// All options that are not left to the file system, sorted.
pub(super) fn option_names() -> Vec<&'static str> {
    let flags = FLAG_OPTIONS.iter().map(|(name, ..)| *name);
    let recursive = RECURSIVE_OPTIONS.iter().map(|(name, ..)| *name);
    let propagation = PROPAGATIONS.iter().map(|(name, ..)| *name);
    let others = IGNORED_OPTIONS.iter().copied().chain(["idmap", "ridmap", "tmpcopyup"]);
    let mut all: Vec<_> = flags.chain(recursive).chain(propagation).chain(others).collect();
    all.sort_unstable();
    all
}

const ATTR_RDONLY: u64 = 0x1;
const ATTR_NOSUID: u64 = 0x2;
const ATTR_NODEV: u64 = 0x4;
const ATTR_NOEXEC: u64 = 0x8;
/// `MOUNT_ATTR__ATIME`: a field, not a bit, so that it must be cleared before it is set.
const ATTR_ATIME_FIELD: u64 = 0x70;
const ATTR_RELATIME: u64 = 0x00;
const ATTR_NOATIME: u64 = 0x10;
const ATTR_STRICTATIME: u64 = 0x20;
const ATTR_NODIRATIME: u64 = 0x80;
const ATTR_NOSYMFOLLOW: u64 = 0x0020_0000;

/// Options for the whole subtree: name, bits to set, bits to clear.
const RECURSIVE_OPTIONS: &[(&str, u64, u64)] = &[
    ("ratime", 0, ATTR_ATIME_FIELD),
    ("rdev", 0, ATTR_NODEV),
    ("rdiratime", 0, ATTR_NODIRATIME),
    ("rexec", 0, ATTR_NOEXEC),
    ("rnoatime", ATTR_NOATIME, ATTR_ATIME_FIELD),
    ("rnodev", ATTR_NODEV, 0),
    ("rnodiratime", ATTR_NODIRATIME, 0),
    ("rnoexec", ATTR_NOEXEC, 0),
    ("rnorelatime", 0, ATTR_ATIME_FIELD),
    ("rnostrictatime", 0, ATTR_ATIME_FIELD),
    ("rnosuid", ATTR_NOSUID, 0),
    ("rnosymfollow", ATTR_NOSYMFOLLOW, 0),
    ("rrelatime", ATTR_RELATIME, ATTR_ATIME_FIELD),
    ("rro", ATTR_RDONLY, 0),
    ("rrw", 0, ATTR_RDONLY),
    ("rstrictatime", ATTR_STRICTATIME, ATTR_ATIME_FIELD),
    ("rsuid", 0, ATTR_NOSUID),
    ("rsymfollow", 0, ATTR_NOSYMFOLLOW),
];

impl Mount {
    /// A bind mount of what the host has at `source`, both absolute; writable, without set-user-ID
    /// programs and device nodes.
    #[must_use]
    pub fn bind(source: PathBuf, destination: PathBuf) -> Self {
        let flags = MountFlags::BIND.union(MountFlags::NO_SUID).union(MountFlags::NO_DEV);
        Self { source: Some(source), flags, ..Self::empty(destination, "bind".to_owned()) }
    }

    fn empty(destination: PathBuf, kind: String) -> Self {
        Self {
            destination,
            kind,
            source: None,
            flags: MountFlags::default(),
            cleared: MountFlags::default(),
            propagation: None,
            recursive: RecursiveAttrs::default(),
            copy_up: false,
            id_map: None,
            data: String::new(),
        }
    }

    /// Whether a folder or file of the host is mounted.
    #[must_use]
    pub fn is_bind(&self) -> bool {
        self.flags.contains(MountFlags::BIND)
    }

    /// Whether the guest may not write through this mount.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.flags.contains(MountFlags::READ_ONLY) || self.recursive.set & ATTR_RDONLY != 0
    }

    pub(super) fn parse(mount: &json::Mount, bundle: &Path) -> Result<Self, SpecError> {
        check::path("mounts.destination", mount.destination())?;
        let kind = mount.typ().clone().unwrap_or_default();
        let mut parsed = Self::empty(check::clean(mount.destination()), kind);
        parsed.source = mount.source().clone().filter(|source| !source.as_os_str().is_empty());
        check::string("mounts.type", &parsed.kind)?;
        for option in mount.options().iter().flatten() {
            check::string("mounts.options", option)?;
            parsed.option(option);
        }
        if parsed.data.len() > DATA_LIMIT {
            let problem = "options of one mount must fit in 4095 bytes; shorten them";
            return Err(check::value("mounts.options", &parsed.data, problem));
        }
        parsed.id_mappings(mount)?;
        parsed.bind_source(bundle)?;
        Ok(parsed)
    }

    /// Files one option where it belongs; what nobody knows is for the file system.
    fn option(&mut self, option: &str) {
        if let Some((_, on, bits)) = FLAG_OPTIONS.iter().find(|(name, ..)| *name == option) {
            let (add, remove) = if *on {
                (&mut self.flags, &mut self.cleared)
            } else {
                (&mut self.cleared, &mut self.flags)
            };
            *add = add.union(*bits);
            *remove = remove.without(*bits);
        } else if let Some((_, set, clear)) =
            RECURSIVE_OPTIONS.iter().find(|(name, ..)| *name == option)
        {
            // The last word wins: what this option decides is taken out of both sides first.
            let decided = set | clear;
            self.recursive.set = self.recursive.set & !decided | set;
            self.recursive.clear = self.recursive.clear & !decided | clear;
        } else if let Some(propagation) = Propagation::parse(option) {
            self.propagation = Some(propagation);
        } else {
            self.other_option(option);
        }
    }

    fn other_option(&mut self, option: &str) {
        match option {
            "tmpcopyup" => self.copy_up = true,
            "idmap" | "ridmap" => {
                let recursive = option == "ridmap";
                self.id_map = Some(IdMap { recursive, uids: Vec::new(), gids: Vec::new() });
            }
            "" => {}
            known if IGNORED_OPTIONS.contains(&known) => {}
            comment
                if comment.starts_with("x-")
                    || comment.starts_with("X-")
                    || comment.starts_with("comment=") => {}
            data => {
                if !self.data.is_empty() {
                    self.data.push(',');
                }
                self.data.push_str(data);
            }
        }
    }

    fn id_mappings(&mut self, mount: &json::Mount) -> Result<(), SpecError> {
        let uids = id_mappings("mounts.uidMappings", mount.uid_mappings().as_deref())?;
        let gids = id_mappings("mounts.gidMappings", mount.gid_mappings().as_deref())?;
        if uids.is_empty() != gids.is_empty() {
            let problem = "uidMappings and gidMappings of a mount must come together";
            return Err(check::value("mounts.uidMappings", self.destination.display(), problem));
        }
        if !uids.is_empty() {
            let recursive = self.id_map.as_ref().is_some_and(|map| map.recursive);
            self.id_map = Some(IdMap { recursive, uids, gids });
        }
        Ok(())
    }

    /// Makes a bind mount recognisable by kind and flag alike, and its source absolute.
    fn bind_source(&mut self, bundle: &Path) -> Result<(), SpecError> {
        if let Some(source) = &self.source {
            check::path("mounts.source", source)?;
        }
        if self.kind == "bind" {
            self.flags = self.flags.union(MountFlags::BIND);
        }
        if !self.is_bind() {
            return Ok(());
        }
        self.kind = "bind".to_owned();
        match &self.source {
            Some(source) => self.source = Some(bundle.join(source)),
            None if self.flags.contains(MountFlags::REMOUNT) => {}
            None => {
                let problem = "a bind mount needs a source; name a file or folder of the host";
                return Err(check::value("mounts.source", self.destination.display(), problem));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "mount_tests.rs"]
mod tests;
