//! The file in which Kubernetes looks for the reason of a container's end.
//!
//! The kubelet mounts a file of its own, for `/dev/termination-log` or another path of the pod's, and shows
//! what is in it when the container has ended. A program may write there itself; what it wrote stays as it
//! is. The guest process writes, from inside: the file is opened below the container's root before the
//! program runs, without following a link.

use std::fs::File;
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::path::{Component, Path, PathBuf};

use coracle_oci::spec::Workload;
use rustix::fs::{FileType, OFlags};

use super::path;

/// What CRI says of the path, where it says anything.
const ANNOTATION: &str = "io.kubernetes.container.terminationMessagePath";
/// Where it is otherwise.
const DEFAULT: &str = "/dev/termination-log";
/// Most bytes that the kubelet reads of it.
const LIMIT: usize = 4096;
/// What stands where text was left out.
const CUT: &str = "\n…";

/// Where a container's file is: only where something is mounted, since what lies in the image reaches
/// nobody.
pub(super) fn path_of(workload: &Workload) -> Option<PathBuf> {
    let said = workload.id_annotations.get(ANNOTATION).filter(|path| !path.is_empty());
    let path = Path::new(said.unwrap_or(DEFAULT));
    workload.mounts.iter().any(|mount| mount.destination == path).then(|| path.to_owned())
}

/// A file for the message.
#[derive(Debug)]
pub(super) struct Message(File);

impl Message {
    /// Opens the file at `path` in the root, unless it is no ordinary file: then there is none.
    pub(super) fn open(root: BorrowedFd<'_>, path: &Path) -> Option<Self> {
        let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if !path.components().all(plain) {
            return None;
        }
        // A pipe without a reader would make the start wait.
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = path::open_in(root, path, flags).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        let ordinary = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        ordinary.then(|| Self(file.into()))
    }

    /// Writes why the program ended, unless it wrote something itself. A volume that is full or gone
    /// changes nothing about the end, which is told elsewhere too.
    pub(super) fn write(&self, text: &str) {
        if self.0.metadata().is_ok_and(|facts| facts.len() == 0) {
            let _ = (&self.0).write_all(shortened(text, LIMIT).as_bytes());
        }
    }
}

/// At most so many bytes of a text: its beginning.
fn shortened(text: &str, limit: usize) -> std::borrow::Cow<'_, str> {
    if text.len() <= limit {
        return text.into();
    }
    let end = text.floor_char_boundary(limit - CUT.len());
    format!("{}{CUT}", &text[..end]).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(shortened("short", 10), "short");
        let cut = shortened("ä".repeat(3000).as_str(), LIMIT).into_owned();
        assert!(
            cut.len() <= LIMIT && cut.len() > LIMIT - 3 && cut.ends_with("ä\n…"),
            "{}",
            cut.len()
        );
    }

    #[test]
    fn only_an_ordinary_file_that_is_no_link_is_written_and_only_if_it_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let root = rustix::fs::open(dir.path(), flags, rustix::fs::Mode::empty()).unwrap();
        let open = |name: &str| Message::open(root.as_fd(), Path::new(name));
        std::fs::write(at("log"), "").unwrap();
        open("/log").unwrap().write("trap");
        open("/log").unwrap().write("again");
        assert_eq!(std::fs::read_to_string(at("log")).unwrap(), "trap");
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::os::unix::fs::symlink(outside.path(), at("link")).unwrap();
        std::os::unix::fs::symlink("log", at("near")).unwrap();
        rustix::fs::mknodat(&root, "pipe", FileType::Fifo, 0o600.into(), 0).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        for name in ["/link", "/near", "/pipe", "/folder", "/missing", "/../log", "/log/x"] {
            assert!(open(name).is_none(), "{name}");
        }
    }
}
