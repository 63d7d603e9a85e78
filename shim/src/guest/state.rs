//! The state file of a guest, by which `shim delete` finds what a killed shim left behind.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use coracle_oci::cgroup::{Unit, Version};
use serde::{Deserialize, Serialize};

use super::GuestError;
use super::cgroups::Cgroup;

/// The file's name in the bundle.
const NAME: &str = "coracle-guest.json";

/// Longest state file that is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// What is needed to find a guest again.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// The container's id.
    pub(super) id: String,
    /// The guest's pid on the host; 0 until it exists.
    pub(super) pid: i32,
    /// When it was born, in clock ticks since boot, so that a recycled pid is not mistaken for it.
    pub(super) start_time: u64,
    /// Whether its cgroup is of version 2.
    pub(super) unified: bool,
    /// The folders of its cgroup.
    pub(super) cgroup: Vec<PathBuf>,
    /// Its unit of systemd and the slice of that, if it is one.
    #[serde(default)]
    pub(super) unit: Option<(String, String)>,
}

impl State {
    /// The state of a guest that is about to be created in `cgroup`, which need not exist yet.
    pub(super) fn new(id: &str, cgroup: Option<&Cgroup>) -> Self {
        let inner = cgroup.map(Cgroup::inner);
        Self {
            id: id.to_owned(),
            pid: 0,
            start_time: 0,
            unified: inner.is_some_and(|group| group.version() == Version::V2),
            cgroup: inner.into_iter().flat_map(|g| g.dirs()).map(Path::to_path_buf).collect(),
            unit: inner.and_then(|g| g.unit()).map(|u| (u.name.clone(), u.slice.clone())),
        }
    }

    /// The cgroup, if there is one.
    pub(super) fn cgroup(&self) -> Option<Cgroup> {
        let version = if self.unified { Version::V2 } else { Version::V1 };
        let unit = self.unit.clone().map(|(name, slice)| Unit { name, slice });
        (!self.cgroup.is_empty()).then(|| Cgroup::reopen(version, self.cgroup.clone(), unit))
    }

    /// Writes the file so that it is either the old or the new one at every moment.
    pub(super) fn write(&self, bundle: &Path) -> Result<(), GuestError> {
        let path = bundle.join(NAME);
        let draft = draft(bundle);
        let write = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.custom_flags(libc::O_NOFOLLOW).open(&draft)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            std::fs::rename(&draft, &path)
        };
        write().map_err(|error| {
            // A draft that cannot be removed goes with its bundle.
            let _ = std::fs::remove_file(&draft);
            GuestError::os(format!("write {}", path.display()))(error)
        })
    }

    /// Reads the file; `None` if there is none.
    pub(super) fn read(bundle: &Path) -> Result<Option<Self>, GuestError> {
        let path = bundle.join(NAME);
        let read = || -> io::Result<Self> {
            let file = File::open(&path)?;
            Ok(serde_json::from_reader(io::Read::take(file, LIMIT))?)
        };
        match read() {
            Ok(state) => Ok(Some(state)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(GuestError::os(format!("read {}", path.display()))(error)),
        }
    }
}

/// Removes the file; one that is gone is fine.
pub(super) fn remove(bundle: &Path) -> Result<(), GuestError> {
    remove_file(&bundle.join(NAME))
}

/// Removes what a shim left that died while it wrote the file.
pub(super) fn remove_draft(bundle: &Path) -> Result<(), GuestError> {
    remove_file(&draft(bundle))
}

/// What becomes the file when it is whole.
fn draft(bundle: &Path) -> PathBuf {
    bundle.join(format!("{NAME}.new"))
}

fn remove_file(path: &Path) -> Result<(), GuestError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(GuestError::os(format!("remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

/// When a process was born, in clock ticks since boot: field 22 of `/proc/PID/stat`; see proc(5).
pub(super) fn start_time(pid: i32) -> io::Result<u64> {
    let text = coracle_oci::file::read_text(Path::new(&format!("/proc/{pid}/stat")))?;
    // The name in parentheses may hold anything, so fields are counted after the last one.
    let fields = text.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    fields
        .split_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the start time is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_removal() {
        let dir = tempfile::tempdir().unwrap();
        assert!(State::read(dir.path()).unwrap().is_none());
        let state = State { pid: 7, start_time: 9, ..State::new("c1", None) };
        state.write(dir.path()).unwrap();
        let back = State::read(dir.path()).unwrap().unwrap();
        assert_eq!((back.id.as_str(), back.pid, back.start_time), ("c1", 7, 9));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        remove(dir.path()).unwrap();
        remove(dir.path()).unwrap();
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), "{").unwrap();
        assert!(State::read(dir.path()).unwrap_err().to_string().contains(NAME));
    }

    #[test]
    fn start_times_are_those_of_the_process() {
        let own = start_time(std::process::id() as i32).unwrap();
        assert!(own > 0);
        assert!(start_time(1).unwrap() <= own);
        assert!(start_time(i32::MAX).is_err());
    }
}
