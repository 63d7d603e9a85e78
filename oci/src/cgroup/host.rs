//! Which control group hierarchies this host has mounted, and where we are in them.
//!
//! Source: `proc(5)` on `/proc/PID/mountinfo`; `cgroups(7)` on `/proc/PID/cgroup`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::error::CgroupError;

/// Which interface controls the limits of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// One hierarchy a controller, also beside an empty unified one ("hybrid").
    V1,
    /// One unified hierarchy.
    V2,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Controllers of a v1 hierarchy, or its name as `name=systemd`; empty for v2.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Group of this process in it, beneath the mount; never absolute.
    pub own: PathBuf,
}

/// The hierarchies of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    version: Version,
    hierarchies: Vec<Hierarchy>,
}

const MOUNTINFO: &str = "/proc/self/mountinfo";
const OWN_GROUPS: &str = "/proc/self/cgroup";

impl Host {
    /// Looks at `/proc/self`.
    ///
    /// # Errors
    /// [`CgroupError::Proc`] if a file cannot be read, [`CgroupError::NoHierarchy`] if nothing is
    /// mounted.
    pub fn detect() -> Result<Self, CgroupError> {
        let read = |path: &str| {
            crate::file::read_text(Path::new(path))
                .map_err(|source| CgroupError::Proc { path: PathBuf::from(path), source })
        };
        Self::parse(&read(MOUNTINFO)?, &read(OWN_GROUPS)?)
    }

    /// The same from the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`.
    ///
    /// # Errors
    /// [`CgroupError::NoHierarchy`] if no hierarchy is mounted.
    pub fn parse(mountinfo: &str, own_groups: &str) -> Result<Self, CgroupError> {
        let own = own_groups.lines().filter_map(OwnGroup::parse).collect::<Vec<_>>();
        let mounts = mountinfo.lines().filter_map(MountLine::parse).collect::<Vec<_>>();
        let mut v1: Vec<Hierarchy> = Vec::new();
        for group in own.iter().filter(|group| !group.controllers.is_empty()) {
            let fits = |mount: &&MountLine| {
                let has = |name: &String| mount.options.contains(name);
                mount.kind == "cgroup" && group.controllers.iter().all(has)
            };
            if let Some(mount) = best(mounts.iter().filter(fits)) {
                v1.push(mount.hierarchy(group));
            }
        }
        let has_controller =
            |one: &Hierarchy| one.controllers.iter().any(|name| !name.starts_with("name="));
        if v1.iter().any(has_controller) {
            return Ok(Self { version: Version::V1, hierarchies: v1 });
        }
        let unified = best(mounts.iter().filter(|mount| mount.kind == "cgroup2"))
            .ok_or(CgroupError::NoHierarchy)?;
        let root = OwnGroup { controllers: Vec::new(), path: PathBuf::from("/") };
        let group = own.iter().find(|group| group.controllers.is_empty()).unwrap_or(&root);
        Ok(Self { version: Version::V2, hierarchies: vec![unified.hierarchy(group)] })
    }

    /// Which interface controls the limits.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// All hierarchies that a container's process has to join.
    #[must_use]
    pub fn hierarchies(&self) -> &[Hierarchy] {
        &self.hierarchies
    }
}

/// A hierarchy may be mounted several times; the mount that shows most of it is the best.
fn best<'a>(mounts: impl Iterator<Item = &'a MountLine>) -> Option<&'a MountLine> {
    mounts.min_by_key(|mount| (mount.root.components().count(), !is_usual(&mount.mount)))
}

fn is_usual(mount: &Path) -> bool {
    mount.starts_with("/sys/fs/cgroup")
}

/// One line of `/proc/self/cgroup`.
struct OwnGroup {
    controllers: Vec<String>,
    path: PathBuf,
}

impl OwnGroup {
    /// `4:memory:/a/b`, `1:name=systemd:/`, or `0::/a` for v2.
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.splitn(3, ':');
        let _number = parts.next()?;
        let controllers = parts.next()?;
        let path = PathBuf::from(parts.next()?);
        let names = controllers.split(',').filter(|name| !name.is_empty());
        Some(Self { controllers: names.map(str::to_owned).collect(), path })
    }
}

/// The fields of a mountinfo line that matter here.
struct MountLine {
    root: PathBuf,
    mount: PathBuf,
    kind: String,
    options: Vec<String>,
}

impl MountLine {
    /// `32 31 0:29 ROOT MOUNT rw,relatime [OPTIONAL…] - TYPE SOURCE SUPER-OPTIONS`.
    fn parse(line: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let mut right = right.split(' ');
        let kind = right.next().filter(|kind| kind.starts_with("cgroup"))?;
        let _source = right.next()?;
        Some(Self {
            root: unescape(left.next()?),
            mount: unescape(left.next()?),
            kind: kind.to_owned(),
            options: right.next().unwrap_or_default().split(',').map(str::to_owned).collect(),
        })
    }

    fn hierarchy(&self, group: &OwnGroup) -> Hierarchy {
        // Within a container the mount shows only a part, whose name the group's path repeats. A
        // group outside of what is shown (`/../..`) counts as the mount itself.
        let own = group.path.strip_prefix(&self.root).unwrap_or(Path::new(""));
        let climbs = own.components().any(|part| part.as_os_str() == "..");
        let own = if climbs { Path::new("") } else { own };
        Hierarchy {
            controllers: group.controllers.clone(),
            mount: self.mount.clone(),
            own: own.to_path_buf(),
        }
    }
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes
            .get(at + 1..at + 4)
            .filter(|_| bytes[at] == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(octal.unwrap_or(bytes[at]));
        at += if octal.is_some() { 4 } else { 1 };
    }
    PathBuf::from(OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";

    #[test]
    fn hybrid_host_counts_as_v1() {
        let own = "9:name=systemd:/init\n4:memory:/box/1\n2:cpu,cpuacct:/\n0::/\n";
        let host = Host::parse(V1, own).unwrap();
        assert_eq!(host.version(), Version::V1);
        let find = |name: &str| {
            let has = |one: &&Hierarchy| one.controllers.iter().any(|known| known == name);
            host.hierarchies().iter().find(has).unwrap()
        };
        assert_eq!(host.hierarchies().len(), 3);
        assert_eq!(find("memory").own, Path::new("box/1"));
        assert_eq!(find("cpu").mount, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(find("name=systemd").own, Path::new("init"));
    }

    #[test]
    fn unified_host() {
        let mountinfo = "\
30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
        let host = Host::parse(mountinfo, "0::/system.slice/containerd.service\n").unwrap();
        assert_eq!(host.version(), Version::V2);
        let [only] = host.hierarchies() else { panic!("one hierarchy") };
        assert_eq!(only.mount, Path::new("/sys/fs/cgroup"));
        assert_eq!(only.own, Path::new("system.slice/containerd.service"));
    }

    #[test]
    fn only_a_named_v1_hierarchy_is_still_v2() {
        let mountinfo = "\
30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
31 23 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd";
        let host = Host::parse(mountinfo, "1:name=systemd:/\n0::/a\n").unwrap();
        assert_eq!(host.version(), Version::V2);
    }

    #[test]
    fn within_a_container_the_mount_shows_a_part() {
        let mountinfo = "\
32 31 0:29 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory";
        let host = Host::parse(mountinfo, "4:memory:/docker/abc/inner\n").unwrap();
        assert_eq!(host.hierarchies()[0].own, Path::new("inner"));
        let outside = Host::parse(mountinfo, "4:memory:/elsewhere\n").unwrap();
        assert_eq!(outside.hierarchies()[0].own, Path::new(""));
        let namespaced =
            Host::parse("32 31 0:29 / /m rw - cgroup c rw,memory", "4:memory:/../x\n").unwrap();
        assert_eq!(namespaced.hierarchies()[0].own, Path::new(""));
    }

    #[test]
    fn mount_points_are_unescaped_and_the_widest_mount_wins() {
        let mountinfo = "\
1 0 0:29 /part /var/lib/x rw - cgroup2 none rw
2 0 0:29 / /my\\040cgroups\\134x rw - cgroup2 none rw";
        let host = Host::parse(mountinfo, "0::/\n").unwrap();
        assert_eq!(host.hierarchies()[0].mount, Path::new("/my cgroups\\x"));
    }

    #[test]
    fn nothing_mounted() {
        let error = Host::parse("25 1 8:1 / / rw - ext4 /dev/sda1 rw", "0::/\n").unwrap_err();
        assert!(matches!(error, CgroupError::NoHierarchy));
    }
}
