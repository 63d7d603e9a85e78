//! Which file a container's file really is: something that the next container of the image finds again.
//!
//! An overlay file system shows the files of its folders under a device number of its own, another one
//! for each mount. So the file is looked up in those folders.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use coracle_engine::cache::FileIdentity;
use rustix::fs::{Mode, OFlags, ResolveFlags, Stat};

use crate::request::RootfsMount;

/// File systems (`statfs(2)`) whose times of change are the kernel's own: ext4, XFS, Btrfs, F2FS, tmpfs,
/// ZFS. Of what a server or a process presents, the image may choose it.
const LOCAL: [i64; 6] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x0102_1994, 0x2fc1_2fc1];
/// `OVERLAYFS_SUPER_MAGIC`.
const OVERLAY: i64 = 0x794c_7630;

/// The identity of a module's file, at `path` of a root file system made by `mounts`. `None` if there is
/// none to rely on.
pub fn lasting_identity(mounts: &[RootfsMount], path: &Path, file: &File) -> Option<FileIdentity> {
    let shown = rustix::fs::fstat(file).ok()?;
    let kind = kind(file)?;
    if LOCAL.contains(&kind) {
        return Some(FileIdentity::of(&shown));
    }
    if kind != OVERLAY {
        return None;
    }
    let [mount] = mounts else { return None };
    let below = path.strip_prefix("/").ok()?;
    let (found, stat) = folders(mount)?.find_map(|folder| open_beneath(folder, below))?;
    let is_local = LOCAL.contains(&self::kind(&found)?);
    (is_local && is_same(&stat, &shown)).then(|| FileIdentity::of(&stat))
}

/// The folders of an overlay, topmost first. `None` if their names need more than splitting.
fn folders(mount: &RootfsMount) -> Option<impl Iterator<Item = &Path>> {
    let value = |name: &str| {
        mount.options.iter().find_map(move |option| option.strip_prefix(name)?.strip_prefix('='))
    };
    let lower = value("lowerdir").unwrap_or_default();
    let plain = mount.kind == "overlay" && !lower.contains(['\\', ',']) && !lower.contains("::");
    plain.then(|| value("upperdir").into_iter().chain(lower.split(':')).map(Path::new))
}

fn open_beneath(folder: &Path, below: &Path) -> Option<(std::os::fd::OwnedFd, Stat)> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags | OFlags::DIRECTORY, Mode::empty()).ok()?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let found = rustix::fs::openat2(&folder, below, flags, Mode::empty(), resolve).ok()?;
    let stat = rustix::fs::fstat(&found).ok()?;
    Some((found, stat))
}

/// Whether an overlay shows just this file: it changes nothing but the device.
fn is_same(found: &Stat, shown: &Stat) -> bool {
    let times =
        |stat: &Stat| (stat.st_ctime, stat.st_ctime_nsec, stat.st_mtime, stat.st_mtime_nsec);
    let rest = |stat: &Stat| (stat.st_ino, stat.st_size, stat.st_mode, stat.st_nlink);
    times(found) == times(shown) && rest(found) == rest(shown)
}

/// The type of the file system that a file is on.
fn kind(file: &impl AsFd) -> Option<i64> {
    Some(rustix::fs::fstatfs(file).ok()?.f_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bed(tempfile::TempDir);

    impl Bed {
        fn new() -> Self {
            let bed = Self(tempfile::tempdir().unwrap());
            for folder in ["one/app", "two/app", "upper", "work", "merged"] {
                std::fs::create_dir_all(bed.0.path().join(folder)).unwrap();
            }
            std::fs::write(bed.0.path().join("one/app/x.wasm"), "one").unwrap();
            std::fs::write(bed.0.path().join("two/app/x.wasm"), "two, hidden").unwrap();
            std::fs::write(bed.0.path().join("two/app/y.wasm"), "y").unwrap();
            bed
        }

        fn mount(&self) -> RootfsMount {
            let path = |name: &str| self.0.path().join(name).display().to_string();
            RootfsMount {
                kind: "overlay".into(),
                source: "overlay".into(),
                options: vec![
                    format!("workdir={}", path("work")),
                    format!("upperdir={}", path("upper")),
                    format!("lowerdir={}:{}", path("one"), path("two")),
                ],
            }
        }

        fn real(&self, path: &str) -> FileIdentity {
            FileIdentity::of(&rustix::fs::stat(self.0.path().join(path)).unwrap())
        }
    }

    #[test]
    fn a_file_of_an_overlay_is_found_in_its_folder() {
        let bed = Bed::new();
        let mount = bed.mount();
        let merged = bed.0.path().join("merged");
        nix::mount::mount(
            Some("overlay"),
            &merged,
            Some("overlay"),
            nix::mount::MsFlags::empty(),
            Some(mount.options.join(",").as_str()),
        )
        .unwrap();
        let identity = |path: &str| {
            let file = File::open(merged.join(path)).unwrap();
            lasting_identity(std::slice::from_ref(&mount), &Path::new("/").join(path), &file)
        };
        assert_eq!(identity("app/x.wasm"), Some(bed.real("one/app/x.wasm")));
        assert_eq!(identity("app/y.wasm"), Some(bed.real("two/app/y.wasm")));
        // What is new is in the upper folder.
        std::fs::write(merged.join("app/z.wasm"), "new").unwrap();
        assert_eq!(identity("app/z.wasm"), Some(bed.real("upper/app/z.wasm")));
        // What was changed is there too, but is shown with its old number: nothing to rely on.
        std::fs::write(merged.join("app/y.wasm"), "changed").unwrap();
        assert_eq!(identity("app/y.wasm"), None);
        // The path of another file is no proof.
        let file = File::open(merged.join("app/x.wasm")).unwrap();
        let other = lasting_identity(std::slice::from_ref(&mount), Path::new("/app/z.wasm"), &file);
        assert_eq!(other, None);
        drop(file);
        nix::mount::umount(&merged).unwrap();
    }

    #[test]
    fn only_the_kernels_own_times_count() {
        let bed = Bed::new();
        let file = File::open(bed.0.path().join("one/app/x.wasm")).unwrap();
        let path = Path::new("/app/x.wasm");
        assert_eq!(lasting_identity(&[], path, &file), Some(bed.real("one/app/x.wasm")));
        let other = File::open("/proc/self/status").unwrap();
        assert_eq!(lasting_identity(&[bed.mount()], path, &other), None);
    }
}
