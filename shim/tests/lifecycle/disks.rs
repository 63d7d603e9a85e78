//! File systems that fail as those of a node do: full, over a quota, broken.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{MemfdFlags, SealFlags};

/// What takes the room of a full one.
pub(crate) const FILLER: &str = "filler";

/// A file system of its own, mounted on a folder until it is dropped.
pub(crate) struct Disk {
    at: PathBuf,
    /// Of those that lie in a file.
    image: Option<OwnedFd>,
}

impl Disk {
    /// A small one of 256 KiB.
    pub(crate) fn small(at: &Path) -> Self {
        run("mount", &["-t", "tmpfs", "-o", "size=256k,nr_inodes=64", "none"], at);
        Self::mounted(at, None)
    }

    /// One that [`Disk::break_down`] can break.
    pub(crate) fn breakable(at: &Path, options: &str) -> Self {
        let (image, path) = image(32 << 20);
        // Without a journal, whose errors would make all of it read-only.
        run("mkfs.ext4", &["-q", "-F", "-O", "^has_journal"], Path::new(&path));
        run("mount", &["-o", &format!("loop,{options}"), &path], at);
        Self::mounted(at, Some(image))
    }

    /// One with a quota for all that is in it.
    pub(crate) fn with_quota(at: &Path, bytes: u64) -> Self {
        let (image, path) = image(128 << 20);
        run("mkfs.btrfs", &["-q", "-f"], Path::new(&path));
        run("mount", &["-o", "loop", &path], at);
        let disk = Self::mounted(at, Some(image));
        run("btrfs", &["quota", "enable"], at);
        run("btrfs", &["qgroup", "limit", &bytes.to_string()], at);
        disk
    }

    fn mounted(at: &Path, image: Option<OwnedFd>) -> Self {
        let disk = Self { at: at.to_owned(), image };
        // As caches have to be.
        fs::set_permissions(at, Permissions::from_mode(0o700)).unwrap();
        disk
    }

    /// Takes all names: no file can be made any more.
    pub(crate) fn fill_names(&self) {
        let folder = self.at.join(FILLER);
        fs::create_dir(&folder).unwrap();
        let mut files = 0..;
        while File::create(folder.join(files.next().unwrap().to_string())).is_ok() {}
    }

    /// Takes all room but this many bytes.
    pub(crate) fn fill(&self, but: u64) {
        let mut filler = File::create(self.at.join(FILLER)).unwrap();
        while filler.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
        if but > 0 {
            filler.set_len(filler.metadata().unwrap().len() - but).unwrap();
        }
    }

    /// Gives back what [`Disk::fill`] took.
    pub(crate) fn empty(&self) {
        let filler = self.at.join(FILLER);
        if filler.is_dir() {
            fs::remove_dir_all(filler).unwrap();
        } else {
            fs::remove_file(filler).unwrap();
        }
        run("sync", &["-f"], &self.at);
    }

    /// Nothing can be written any more, nor the disk say so before it is tried: EIO.
    pub(crate) fn break_down(&self) {
        run("sync", &["-f"], &self.at);
        rustix::fs::fcntl_add_seals(self.image.as_ref().unwrap(), SealFlags::WRITE).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(&self.at).status();
        if !std::thread::panicking() {
            assert!(done.unwrap().success());
        }
    }
}

/// A disk in memory, and its name for other programs.
fn image(bytes: u64) -> (OwnedFd, String) {
    let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC;
    let image = rustix::fs::memfd_create("disk", flags).unwrap();
    rustix::fs::ftruncate(&image, bytes).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), image.as_raw_fd());
    (image, path)
}

fn run(program: &str, args: &[&str], last: &Path) {
    let output = Command::new(program).args(args).arg(last).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?} {}: {said}", last.display());
}
