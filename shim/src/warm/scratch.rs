//! The bundle of a container that will never be.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::compile::{remove_left_behind, worker_group};
use crate::config::ShimConfig;
use crate::mounts::ROOTFS;
use crate::request::{InvalidId, TaskId};

/// The beginning of the names of these bundles; the pid of whoever made it follows.
const NAME: &str = "warm-";
/// The spec in a bundle.
pub(super) const SPEC: &str = "config.json";

/// The name of this process's bundle and of its container.
pub(super) fn id() -> Result<TaskId, InvalidId> {
    TaskId::parse(&format!("{NAME}{}", std::process::id()))
}

/// A bundle with nothing in it; gone when it is dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    bundle: PathBuf,
}

impl Scratch {
    /// Makes one, and removes what processes have left behind that were killed.
    pub(super) fn make(config: &ShimConfig) -> io::Result<Self> {
        let folder = config.cache.run.clone().unwrap_or_else(std::env::temp_dir);
        for left in fs::read_dir(&folder)?.flatten().map(|entry| entry.path()) {
            remove_if_left(&left);
        }
        let bundle = folder.join(config.id.as_str());
        DirBuilder::new().mode(0o700).create(&bundle)?;
        let scratch = Self { bundle };
        fs::create_dir(scratch.bundle.join(ROOTFS))?;
        Ok(scratch)
    }

    /// Its folder.
    pub(super) fn bundle(&self) -> &Path {
        &self.bundle
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.bundle);
    }
}

/// Removes a bundle by the names that are in it, never whole: an image may be mounted there.
fn remove(bundle: &Path) {
    let _ = fs::remove_file(bundle.join(SPEC));
    let _ = fs::remove_dir(bundle.join(ROOTFS));
    if let Err(error) = fs::remove_dir(bundle) {
        tracing::warn!(%error, bundle = %bundle.display(), "folder left behind");
    }
}

/// Removes the bundle of a process that is gone, and the cgroup of its compiler.
fn remove_if_left(bundle: &Path) {
    let name = bundle.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Ok(id) = TaskId::parse(name) else { return };
    let pid = id.as_str().strip_prefix(NAME).filter(|pid| pid.parse::<u32>().is_ok());
    let Some(pid) = pid.filter(|pid| !Path::new("/proc").join(pid).exists()) else { return };
    if let Err(error) = remove_left_behind(&worker_group(&id, bundle)) {
        tracing::warn!(%error, pid, "cgroup of a compiler left behind");
    }
    remove(bundle);
}
