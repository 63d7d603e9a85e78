//! Root file systems whose ids are mapped: the options `uidmap=` and `gidmap=`, by which a snapshotter of
//! containerd hands out a snapshot for a user namespace without changing the owner of each file.
//!
//! Of an overlay the lower folders are mapped, as containerd itself does: what is written has its
//! final owners already. Everything is put together in a mount namespace of a thread's own, so that
//! nothing of it remains on the node, whenever the shim dies.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use coracle_oci::spec::IdMapping;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::Options;
use crate::guest::foreign;
use crate::request::RootfsMount;

/// The mappings that a mount asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) uids: Vec<IdMapping>,
    pub(super) gids: Vec<IdMapping>,
}

impl Ids {
    /// Takes an option, if it is one of the two; `None` if its value is none.
    pub(super) fn take(&mut self, option: &str) -> Option<bool> {
        let (list, text) = match option.split_once('=') {
            Some(("uidmap", text)) => (&mut self.uids, text),
            Some(("gidmap", text)) => (&mut self.gids, text),
            _ => return Some(false),
        };
        for range in text.split(',') {
            list.push(parse(range)?);
        }
        Some(true)
    }

    /// Whether nothing is to be mapped.
    pub(super) fn is_empty(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }
}

/// `INSIDE:OUTSIDE:COUNT`.
fn parse(range: &str) -> Option<IdMapping> {
    let mut numbers = range.splitn(3, ':').map(|number| number.parse::<u32>().ok());
    let (container_id, host_id, size) = (numbers.next()??, numbers.next()??, numbers.next()??);
    (size > 0).then_some(IdMapping { container_id, host_id, size })
}

/// Makes a mount with mapped ids on `target`.
pub(super) fn make(wanted: &RootfsMount, options: &Options, target: &Path) -> io::Result<()> {
    let namespace = foreign::user_namespace(&options.ids.uids, &options.ids.gids)?;
    let work = || apart(wanted, options, &namespace, target);
    let made = std::thread::scope(|scope| scope.spawn(work).join());
    let made = made.unwrap_or_else(|_| Err(io::ErrorKind::OutOfMemory.into()))?;
    foreign::attach(made.as_fd(), target)
}

/// Builds the mount where nobody sees it; the calling thread must end then.
fn apart(
    wanted: &RootfsMount,
    options: &Options,
    namespace: &OwnedFd,
    target: &Path,
) -> io::Result<OwnedFd> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    if wanted.kind != "overlay" {
        super::mount_plain(wanted, options, target)?;
        let made = foreign::clone(target)?;
        foreign::map(made.as_fd(), namespace)?;
        return Ok(made);
    }
    mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::empty(), Some("mode=700"))?;
    // The names of the folders are short then, however many there are.
    nix::unistd::chdir(target)?;
    let mut data = Vec::new();
    for option in options.data.split(',') {
        data.push(match option.strip_prefix("lowerdir=") {
            Some(folders) => format!("lowerdir={}", map_all(folders, namespace)?),
            None => option.to_owned(),
        });
    }
    std::fs::create_dir("root")?;
    let plain = Options { data: data.join(","), ids: Ids::default(), ..*options };
    super::mount_plain(wanted, &plain, Path::new("root"))?;
    foreign::clone(Path::new("root"))
}

/// Mounts the lower folders, mapped, at numbers; gives their list.
fn map_all(folders: &str, namespace: &OwnedFd) -> io::Result<String> {
    let mut names = Vec::new();
    for (n, folder) in folders.split(':').enumerate() {
        let name = n.to_string();
        std::fs::create_dir(&name)?;
        let made = foreign::clone(Path::new(folder))?;
        foreign::map(made.as_fd(), namespace)?;
        foreign::attach(made.as_fd(), Path::new(&name))?;
        names.push(name);
    }
    Ok(names.join(":"))
}

#[cfg(test)]
mod tests {
    use super::super::{RootfsMounts, tests::overlay};
    use super::*;
    use std::os::unix::fs::{MetadataExt, chown};

    #[test]
    fn options_are_ranges() {
        let mut ids = Ids::default();
        assert_eq!(ids.take("index=off"), Some(false));
        assert_eq!(ids.take("uidmap=0:1000:10,10:5000:1"), Some(true));
        assert_eq!(ids.take("gidmap=7:8:9"), Some(true));
        let range = |container_id, host_id, size| IdMapping { container_id, host_id, size };
        assert_eq!(ids.uids, [range(0, 1000, 10), range(10, 5000, 1)]);
        assert_eq!(ids.gids, [range(7, 8, 9)]);
        for bad in ["uidmap=", "uidmap=0:1", "gidmap=0:1:0", "gidmap=0:1:2:3", "uidmap=a:1:2"] {
            assert_eq!(ids.take(bad), None, "{bad}");
        }
    }

    const MAP: [&str; 2] = ["uidmap=0:70000:100", "gidmap=0:80000:100"];

    fn owners(path: &Path) -> (u32, u32) {
        let found = std::fs::metadata(path).unwrap();
        (found.uid(), found.gid())
    }

    #[test]
    fn the_layers_of_an_overlay_get_other_owners_and_new_files_keep_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for (n, folder) in ["one", "two", "upper", "work"].into_iter().enumerate() {
            std::fs::create_dir(path(folder)).unwrap();
            std::fs::write(path(folder).join(format!("of-{folder}")), folder).unwrap();
            let id = Some(n as u32);
            chown(path(folder).join(format!("of-{folder}")), id, id).unwrap();
        }
        let option = |name: &str, text: String| format!("{name}={text}");
        let shown = |name: &str| path(name).display().to_string();
        let options = [
            option("lowerdir", format!("{}:{}", shown("one"), shown("two"))),
            option("upperdir", shown("upper")),
            option("workdir", shown("work")),
        ];
        let options: Vec<_> = options.iter().map(String::as_str).chain(MAP).collect();
        let mut made = RootfsMounts::make(dir.path(), &[overlay(&options)]).unwrap();
        assert_eq!(owners(&path("rootfs/of-one")), (70_000, 80_000));
        assert_eq!(owners(&path("rootfs/of-two")), (70_001, 80_001));
        assert_eq!(owners(&path("rootfs/of-upper")), (2, 2));
        assert_eq!(std::fs::read_to_string(path("rootfs/of-two")).unwrap(), "two");
        made.remove().unwrap();
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains(dir.path().to_str().unwrap()), "{table}");
    }

    #[test]
    fn so_does_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("file"), "x").unwrap();
        let bind = |options: &[&str]| RootfsMount {
            kind: "bind".into(),
            source: source.display().to_string(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        };
        let options = [&["rbind", "ro"], &MAP[..]].concat();
        let mut made = RootfsMounts::make(dir.path(), &[bind(&options)]).unwrap();
        let file = dir.path().join("rootfs/file");
        assert_eq!(owners(&file), (70_000, 80_000));
        assert_eq!(std::fs::write(&file, "y").unwrap_err().raw_os_error(), Some(libc::EROFS));
        made.remove().unwrap();
        let error = RootfsMounts::make(dir.path(), &[bind(&["rbind", MAP[0]])]).unwrap_err();
        assert!(error.to_string().contains("uidmap and gidmap"), "{error}");
        let error = RootfsMounts::make(dir.path(), &[bind(&["uidmap=0"])]).unwrap_err();
        assert!(error.to_string().contains(r#"option "uidmap=0""#), "{error}");
    }
}
