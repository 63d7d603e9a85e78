//! What an installation wrote, on disk: for taking it back, and for repairing one that was interrupted.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::config::Entry;
use crate::failure::Failure;
use crate::files;

/// The record and the backups.
pub(crate) const STATE_DIR: &str = "/var/lib/coracle/install";
/// Folder of the backups, in there.
pub(crate) const BACKUPS: &str = "backup";
/// Held while an installer works. Not among the state, which an uninstall removes while others may wait for the lock.
const LOCK: &str = "/run/coracle-install.lock";
/// Version of the record's own format.
const FORMAT: u32 = 1;

/// The record's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// Version of the installer that wrote this.
    pub(crate) coracle: String,
    /// What is installed.
    #[serde(default)]
    pub(crate) installed: Option<Installed>,
    /// What was about to be done. Only an installer that was interrupted leaves this.
    #[serde(default)]
    pub(crate) pending: Option<Pending>,
}

impl Default for Record {
    fn default() -> Self {
        let coracle = env!("CARGO_PKG_VERSION").to_owned();
        Self { format: FORMAT, coracle, installed: None, pending: None }
    }
}

/// An installation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Installed {
    /// The distribution's name.
    pub(crate) distribution: String,
    /// containerd's socket; `None` when only programs were installed.
    #[serde(default)]
    pub(crate) socket: Option<PathBuf>,
    /// The handler, unless only programs were installed.
    pub(crate) entry: Option<Entry>,
    /// The configuration file, likewise.
    pub(crate) config: Option<ConfigFile>,
    /// The programs.
    pub(crate) programs: Vec<Program>,
    /// Links to programs.
    pub(crate) links: Vec<PathBuf>,
    /// Folders that were made, outermost first.
    pub(crate) folders: Vec<PathBuf>,
}

/// A configuration file, before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfigFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// A copy of the bytes without our entries; `None` when there was no file.
    pub(crate) backup: Option<PathBuf>,
    /// Digest of the backup's bytes.
    pub(crate) before: Option<String>,
    /// Digest of the bytes with our entries.
    pub(crate) after: String,
}

/// A program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Digest of its bytes.
    pub(crate) digest: String,
}

/// What was about to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pending {
    /// `install` or `uninstall`.
    pub(crate) act: String,
    /// The files, in the order in which they are written.
    pub(crate) swaps: Vec<Swap>,
    /// Links that are made.
    pub(crate) links: Vec<PathBuf>,
    /// Folders that are made, outermost first.
    pub(crate) folders: Vec<PathBuf>,
    /// The unit that runs containerd, if it runs and needs a restart to see the files.
    pub(crate) unit: Option<String>,
}

/// One file that is replaced, made or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Swap {
    /// The file.
    pub(crate) path: PathBuf,
    /// Digest before; `None`: it is not there.
    pub(crate) from: Option<String>,
    /// Digest after; `None`: it is removed.
    pub(crate) to: Option<String>,
    /// Where the bytes of before are kept.
    pub(crate) backup: Option<PathBuf>,
    /// Whether containerd reads it.
    pub(crate) config: bool,
}

/// Files in the folder of the state that this one does not need.
pub(crate) fn strays(needed: Option<&Path>) -> Vec<PathBuf> {
    let state = Path::new(STATE_DIR);
    let listed = std::fs::read_dir(state.join(BACKUPS)).into_iter().flatten().flatten();
    let mut files: Vec<_> = listed.map(|entry| entry.path()).collect();
    files.push(files::draft(&Record::path()));
    files.retain(|file| Some(&**file) != needed && file.exists());
    files.sort();
    files
}

/// The socket of the containerd that this was installed for, on the node whose file system is seen at this place; `None`
/// when nothing is recorded there that can be read.
#[must_use]
pub fn recorded_socket(root: &Path) -> Option<PathBuf> {
    let path = Record::path();
    let below = path.strip_prefix("/").unwrap_or(&path);
    Record::read(&root.join(below)).ok()?.installed?.socket
}

impl Record {
    fn path() -> PathBuf {
        Path::new(STATE_DIR).join("record.json")
    }

    /// The record of this node; an empty one when there is none.
    pub(crate) fn load() -> Result<Self> {
        Self::read(&Self::path())
    }

    fn read(path: &Path) -> Result<Self> {
        let Some(bytes) = files::read(path)? else { return Ok(Self::default()) };
        let record: Self = serde_json::from_slice(&bytes).with_context(|| {
            format!("reading {}: remove it if it is damaged; nothing else needs it", path.display())
        })?;
        if record.format != FORMAT {
            bail!("{} is of another version of Coracle; use that one", path.display());
        }
        Ok(record)
    }

    /// Writes the record, or removes it when it says nothing.
    pub(crate) fn save(&self) -> Result<()> {
        let path = Self::path();
        if self.installed.is_none() && self.pending.is_none() {
            return files::remove(&path);
        }
        files::replace(&path, &serde_json::to_vec_pretty(self)?)
    }
}

/// Keeps other installers away for as long as it lives.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // By name: a process that another thread is about to start may have the file open for a moment longer.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

impl Lock {
    /// Takes the lock, or says that somebody has it.
    pub(crate) fn take() -> Result<Self, Failure> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(LOCK)
            .with_context(|| format!("opening {LOCK}: an installer must be root"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Failure::Busy),
            Err(error) => Err(anyhow::Error::new(error).context(format!("locking {LOCK}")).into()),
        }
    }
}
