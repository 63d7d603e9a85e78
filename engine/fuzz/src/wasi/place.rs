//! The folders that a guest gets, and what lies beside them.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Bytes that a file may grow to.
const FILE_SIZE: u64 = 64 << 20;
/// What no guest may ever see.
pub(super) const SECRET: &[u8] = b"the secret outside of the folder";

/// What there is outside of the guest's folder: names, sizes, links, permissions, times of changes.
pub(super) fn outside(scratch: &Path) -> Vec<(PathBuf, [i64; 6])> {
    let list = || {
        let mut found = Vec::new();
        for folder in [scratch.to_owned(), scratch.join("outside")] {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let meta = entry.metadata()?;
                let numbers = [
                    meta.len().cast_signed(),
                    meta.nlink().cast_signed(),
                    meta.mode().into(),
                    meta.mtime_nsec(),
                    meta.ctime(),
                    meta.ctime_nsec(),
                ];
                // The guest's own folder changes within, and only its name counts.
                let own = entry.file_name() == "root" || entry.file_name() == "listener";
                found.push((entry.path(), if own { [0; 6] } else { numbers }));
            }
        }
        found.sort();
        std::io::Result::Ok(found)
    };
    match list() {
        Ok(found) => found,
        Err(error) => panic!("cannot look outside of the guest's folder: {error}"),
    }
}

/// The scratch folder, made once: `outside` beside `root`.
pub(super) fn scratch() -> &'static Path {
    static SCRATCH: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = SCRATCH.get_or_init(|| {
        limit();
        let made = || {
            let dir = tempfile::tempdir()?;
            fs::create_dir(dir.path().join("outside"))?;
            UnixListener::bind(dir.path().join("listener"))?;
            fs::write(dir.path().join("outside/secret"), SECRET)?;
            fs::write(dir.path().join("hosts"), "127.0.0.1 localhost two.test\n::1 two.test\n")?;
            // Nobody answers there, nor may a guest.
            let servers = "nameserver 127.0.0.1:46999\noptions timeout:1 attempts:1\n";
            fs::write(dir.path().join("resolv.conf"), servers)?;
            std::io::Result::Ok(dir)
        };
        match made() {
            Ok(dir) => dir,
            Err(error) => panic!("cannot make a scratch folder: {error}"),
        }
    });
    dir.path()
}

/// Limits what the process can do to this machine, and ignores the signals that come of it.
fn limit() {
    let size = libc::rlimit { rlim_cur: FILE_SIZE, rlim_max: FILE_SIZE };
    // SAFETY: the calls change the process's limits and signals only; `size` is a valid limit.
    unsafe {
        libc::setrlimit(libc::RLIMIT_FSIZE, &size);
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}

/// Fills the guest's folder anew.
pub(super) fn lay_out(root: &Path) {
    let fill = || {
        if root.exists() {
            // A guest may have taken its own rights away from what it made.
            fs::remove_dir_all(root)?;
        }
        fs::create_dir_all(root.join("dir"))?;
        fs::create_dir(root.join("deep"))?;
        fs::create_dir(root.join("deep/er"))?;
        fs::write(root.join("file"), "content of a file")?;
        fs::write(root.join("dir/inner"), "content of an inner file")?;
        symlink("file", root.join("link"))?;
        symlink("../outside/secret", root.join("out"))?;
        symlink("../../outside", root.join("dir/out"))?;
        symlink("/etc/passwd", root.join("abs"))?;
        symlink("/proc/self/root", root.join("magic"))?;
        symlink("loop", root.join("loop"))
    };
    if let Err(error) = fill() {
        panic!("cannot fill the scratch folder: {error}");
    }
}

pub(super) fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_outside_are_seen_and_those_inside_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let place = |path: &str| dir.path().join(path);
        fs::create_dir(place("outside")).unwrap();
        fs::write(place("outside/secret"), SECRET).unwrap();
        lay_out(&place("root"));
        let before = outside(dir.path());
        fs::write(place("root/new"), "").unwrap();
        assert_eq!(outside(dir.path()), before);
        fs::hard_link(place("outside/secret"), place("root/link-to-it")).unwrap();
        assert_ne!(outside(dir.path()), before, "a link from inside");
        let before = outside(dir.path());
        fs::write(place("outside/new"), "").unwrap();
        assert_ne!(outside(dir.path()), before, "a new file");
    }
}
