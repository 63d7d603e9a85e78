//! Stopping all processes of a group and letting them go on. Source: Linux
//! `cgroup-v1/freezer-subsystem.rst`, `cgroup-v2.rst` on `cgroup.freeze`.

use std::io;
use std::path::PathBuf;

use super::host::Version;
use super::limits::{write, write_error};
use super::{Cgroup, CgroupError};

impl Cgroup {
    /// Tells the kernel to stop all processes of the group, or to let them go on. Stopping takes a
    /// moment; [`Cgroup::is_frozen`] says when it is done.
    ///
    /// # Errors
    /// [`CgroupError::NoFreezer`] where nothing can pause the group, [`CgroupError::Write`] if the
    /// kernel refuses.
    pub fn freeze(&self, freeze: bool) -> Result<(), CgroupError> {
        let (name, value) = match (self.version(), freeze) {
            (Version::V1, true) => ("freezer.state", "FROZEN"),
            (Version::V1, false) => ("freezer.state", "THAWED"),
            (Version::V2, true) => ("cgroup.freeze", "1"),
            (Version::V2, false) => ("cgroup.freeze", "0"),
        };
        let file = self.freezer_file(name)?;
        match write(&file, value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.no_freezer()),
            result => result.map_err(|source| write_error(file, value, source)),
        }
    }

    /// Whether all processes of the group have stopped. A group of v1 has to be told again until
    /// they have, for one that was about to start another may slip through.
    ///
    /// # Errors
    /// [`CgroupError::NoFreezer`], or [`CgroupError::Read`] if the file cannot be read.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        let (name, frozen) = match self.version() {
            Version::V1 => ("freezer.state", "FROZEN"),
            Version::V2 => ("cgroup.events", "frozen 1"),
        };
        let file = self.freezer_file(name)?;
        match crate::file::read_text(&file) {
            Ok(text) => Ok(text.lines().any(|line| line.trim() == frozen)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.no_freezer()),
            Err(source) => Err(CgroupError::Read { file, source }),
        }
    }

    /// Lets everything go on if it was stopped; what cannot be paused needs nothing. Killed processes
    /// of a paused group of v1 end only then.
    ///
    /// # Errors
    /// [`CgroupError::Write`] if the kernel refuses.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        match self.freeze(false) {
            Err(CgroupError::NoFreezer { .. }) => Ok(()),
            result => result,
        }
    }

    /// By its controller, or by the file where the controllers are not known.
    fn freezer_file(&self, name: &str) -> Result<PathBuf, CgroupError> {
        if let Some(dir) = self.folder("freezer") {
            return Ok(dir.join(name));
        }
        let mut files = self.dirs().map(|dir| dir.join(name));
        files.find(|file| file.exists()).ok_or_else(|| self.no_freezer())
    }

    fn no_freezer(&self) -> CgroupError {
        CgroupError::NoFreezer { dir: self.dirs().next().map(PathBuf::from).unwrap_or_default() }
    }
}
