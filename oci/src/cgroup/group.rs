//! One container's control group, over all hierarchies of the host.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::host::{Host, Version};
use super::limits::{write, write_all, write_error};
use super::path::CgroupPath;
use super::unit::Unit;
use super::{v1, v2};
use crate::error::CgroupError;
use crate::spec::Resources;

/// Pauses between attempts to remove a group: the last process leaves it a little after its exit
/// is seen. Together 0.5 s.
const REMOVE_PAUSES: [u64; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 245];

/// A container's control group; it need not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    version: Version,
    folders: Vec<Folder>,
    unit: Option<Unit>,
}

/// The group in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Folder {
    controllers: Vec<String>,
    mount: PathBuf,
    dir: PathBuf,
}

impl Cgroup {
    /// The group at `path` on `host`.
    #[must_use]
    pub fn new(host: &Host, path: &CgroupPath) -> Self {
        let folder = |hierarchy: &super::Hierarchy| Folder {
            controllers: hierarchy.controllers.clone(),
            mount: hierarchy.mount.clone(),
            dir: hierarchy.mount.join(path.within(&hierarchy.own)),
        };
        let folders = host.hierarchies().iter().map(folder).collect();
        let unit = path.unit().filter(|_| host.version() == Version::V2);
        Self { version: host.version(), folders, unit }
    }

    /// The group that lies in `dirs`, as [`Cgroup::dirs`] gave them: enough to read its processes
    /// and to remove it, also in a process that did not make it.
    #[must_use]
    pub fn from_dirs(version: Version, dirs: impl IntoIterator<Item = PathBuf>) -> Self {
        let folder = |dir: PathBuf| {
            let mount = dir.parent().unwrap_or(&dir).to_path_buf();
            Folder { controllers: Vec::new(), mount, dir }
        };
        Self { version, folders: dirs.into_iter().map(folder).collect(), unit: None }
    }

    /// The same group, of which is known that it is a unit of systemd.
    #[must_use]
    pub fn with_unit(self, unit: Option<Unit>) -> Self {
        Self { unit, ..self }
    }

    /// The unit of systemd that it is to be, by the form of its path; on v2 only. On v1 systemd leaves the files of others
    /// alone.
    #[must_use]
    pub fn unit(&self) -> Option<&Unit> {
        self.unit.as_ref()
    }

    /// Leaves out the hierarchies in which this process may not make it.
    pub fn keep_possible(&mut self) {
        let may_write = |dir: &Path| rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok();
        self.folders.retain(|folder| {
            let parents = folder.dir.ancestors().skip(1);
            parents.clone().find(|dir| dir.exists()).is_some_and(may_write)
        });
    }

    /// Which interface the group has.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Its folders, one a hierarchy.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.folders.iter().map(|folder| folder.dir.as_path())
    }

    /// For each hierarchy where it is mounted and the group's folder there.
    pub fn places(&self) -> impl Iterator<Item = (&Path, &Path)> {
        self.folders.iter().map(|folder| (folder.mount.as_path(), folder.dir.as_path()))
    }

    /// The files that hold its limit of memory and what it uses of it; `None` where nothing counts memory.
    #[must_use]
    pub fn memory_files(&self) -> Option<[PathBuf; 2]> {
        let names = match self.version {
            Version::V1 => ["memory.limit_in_bytes", "memory.usage_in_bytes"],
            Version::V2 => ["memory.max", "memory.current"],
        };
        let dir = self.folder("memory")?;
        Some(names.map(|name| dir.join(name)))
    }

    /// Its folder in the hierarchy of a controller; on v2 all are in one.
    #[must_use]
    pub fn folder(&self, controller: &str) -> Option<&Path> {
        let has = |folder: &&Folder| {
            self.version == Version::V2 || folder.controllers.iter().any(|name| name == controller)
        };
        self.folders.iter().find(has).map(|folder| folder.dir.as_path())
    }

    /// Its folder in the unified hierarchy, for `clone3(2)` with `CLONE_INTO_CGROUP`.
    #[must_use]
    pub fn unified_dir(&self) -> Option<&Path> {
        (self.version == Version::V2).then(|| self.dirs().next()).flatten()
    }

    /// Files to which a process writes `0` to enter the group, when it was not born in it.
    ///
    /// On v1 this is `tasks`, which moves only the writing thread, but a hundred times faster than
    /// `cgroup.procs`; a process that has one thread moves as a whole.
    #[must_use]
    pub fn join_files(&self) -> Vec<PathBuf> {
        let name = match self.version {
            Version::V1 => "tasks",
            Version::V2 => "cgroup.procs",
        };
        self.dirs().map(|dir| dir.join(name)).collect()
    }

    /// The file that kills all processes at once (v2, Linux 5.14), if there is one.
    #[must_use]
    pub fn kill_file(&self) -> Option<PathBuf> {
        self.unified_dir().map(|dir| dir.join("cgroup.kill")).filter(|file| file.exists())
    }

    /// Makes the group's folders, ready to take processes.
    ///
    /// Parents are made as needed and stay when the group is removed, for they may be shared. On
    /// failure nothing of the group itself is left.
    ///
    /// # Errors
    /// [`CgroupError::Busy`] if the group exists and has processes; [`CgroupError::Create`],
    /// [`CgroupError::Read`] or [`CgroupError::Write`] if the kernel refuses.
    pub fn create(&self) -> Result<(), CgroupError> {
        let mut fresh = Vec::new();
        let made =
            self.folders.iter().try_for_each(|folder| self.create_folder(folder, &mut fresh));
        let undone = match &made {
            Ok(()) => Ok(()),
            // Somebody else's: only what was made here goes.
            Err(CgroupError::Busy { .. }) => {
                Self::from_dirs(self.version, fresh.into_iter().map(Path::to_path_buf)).remove()
            }
            Err(_) => self.remove(),
        };
        if let Err(error) = undone {
            tracing::warn!(%error, "cannot take back a cgroup that could not be made");
        }
        made
    }

    /// Makes the folders of a hierarchy; notes the group's own if it was not there.
    fn create_folder<'s>(
        &'s self,
        folder: &'s Folder,
        fresh: &mut Vec<&'s Path>,
    ) -> Result<(), CgroupError> {
        let rest = folder.dir.strip_prefix(&folder.mount).unwrap_or(Path::new(""));
        let cpuset = folder.controllers.iter().any(|name| name == "cpuset");
        let mut dir = folder.mount.clone();
        for name in rest.components() {
            if self.version == Version::V2 {
                hand_down(&dir);
            }
            dir.push(name);
            let own = dir == folder.dir;
            let is_new = match fs::create_dir(&dir) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                Err(source) => return Err(CgroupError::Create { dir, source }),
            };
            match (own, is_new) {
                (true, true) => fresh.push(&folder.dir),
                (true, false) => refuse_busy(&dir)?,
                (false, _) => {}
            }
            if cpuset && self.version == Version::V1 {
                v1::cpuset::inherit(&dir, is_new)?;
            }
        }
        Ok(())
    }

    /// Sets limits, all that `resources` names and nothing else.
    ///
    /// # Errors
    /// [`CgroupError::NoController`] if the host cannot keep a limit, [`CgroupError::Limit`] for
    /// one that contradicts another, [`CgroupError::Refused`] if the kernel does not take a value.
    pub fn apply(&self, resources: &Resources) -> Result<(), CgroupError> {
        let settings = match self.version {
            Version::V1 => v1::plan(resources)?,
            Version::V2 => v2::plan(&self.completed(resources))?,
        };
        if resources.memory.check_before_update {
            self.refuse_below_usage(resources.memory.limit)?;
        }
        let fallback = self.dirs().next().unwrap_or(Path::new("/sys/fs/cgroup"));
        write_all(&settings, |controller| self.folder(controller), fallback)
    }

    /// On v2 period and quota are one value: a period alone must not take the quota away.
    pub(super) fn completed<'r>(&self, resources: &'r Resources) -> Cow<'r, Resources> {
        if resources.cpu.period.is_none() || resources.cpu.quota.is_some() {
            return Cow::Borrowed(resources);
        }
        let file = self.folder("cpu").map(|dir| dir.join("cpu.max"));
        let text = file.and_then(|file| crate::file::read_text(&file).ok()).unwrap_or_default();
        let mut resources = resources.clone();
        resources.cpu.quota = text.split_whitespace().next().and_then(|quota| quota.parse().ok());
        Cow::Owned(resources)
    }

    /// Refuses a limit of memory that is used up already.
    fn refuse_below_usage(&self, limit: Option<i64>) -> Result<(), CgroupError> {
        let (Some(limit), Some([_, file])) = (limit, self.memory_files()) else { return Ok(()) };
        let text = crate::file::read_text(&file);
        let text = text.map_err(|source| CgroupError::Read { file: file.clone(), source })?;
        let used = text.trim().parse::<i64>().unwrap_or(0);
        if limit >= 0 && limit < used {
            return Err(CgroupError::Limit {
                setting: "memory.limit",
                value: limit,
                problem: "more than that is in use; ask for more, or leave out checkBeforeUpdate",
            });
        }
        Ok(())
    }

    /// Moves the process `pid` with all its threads into the group.
    ///
    /// # Errors
    /// [`CgroupError::Write`] if the kernel refuses.
    pub fn add(&self, pid: u32) -> Result<(), CgroupError> {
        self.dirs().try_for_each(|dir| {
            let (file, value) = (dir.join("cgroup.procs"), pid.to_string());
            write(&file, &value).map_err(|source| write_error(file, &value, source))
        })
    }

    /// Ids of the processes in the group and in groups beneath it, sorted; none if it is absent.
    ///
    /// # Errors
    /// [`CgroupError::Read`] if a file cannot be read.
    pub fn procs(&self) -> Result<Vec<u32>, CgroupError> {
        let mut pids = Vec::new();
        for dir in self.dirs() {
            collect(dir, &mut pids)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Removes the group and groups beneath it; one that is absent is removed already.
    ///
    /// A group whose last process was just killed stays busy for a moment, so this tries again for
    /// up to half a second, sleeping in between: call it where blocking does no harm.
    ///
    /// # Errors
    /// [`CgroupError::Remove`] if a folder stays; the others are removed nevertheless.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let mut pauses = REMOVE_PAUSES.iter();
        loop {
            let attempts = self.dirs().map(|dir| (dir, remove_tree(dir)));
            let failed = attempts.filter_map(|(dir, result)| Some((dir, result.err()?)));
            // Of several faults, one that waiting does not cure is the one to tell.
            let Some((dir, source)) = failed.min_by_key(|(_, error)| is_busy(error)) else {
                return Ok(());
            };
            match pauses.next() {
                Some(pause) if is_busy(&source) => thread::sleep(Duration::from_millis(*pause)),
                _ => return Err(CgroupError::Remove { dir: dir.to_path_buf(), source }),
            }
        }
    }
}

/// Lets the children of `dir` use the controllers that `dir` has itself.
///
/// What cannot be handed down (a group with processes of its own, a controller that is absent) is
/// no fault here: it is one only if a limit needs it, and [`Cgroup::apply`] will say so.
fn hand_down(dir: &Path) {
    let available = crate::file::read_text(&dir.join("cgroup.controllers")).unwrap_or_default();
    let enabled = crate::file::read_text(&dir.join("cgroup.subtree_control")).unwrap_or_default();
    let has = |list: &str, name: &str| list.split_whitespace().any(|known| known == name);
    for name in v2::CONTROLLERS {
        if has(&available, name) && !has(&enabled, name) {
            let file = dir.join("cgroup.subtree_control");
            if let Err(error) = write(&file, &format!("+{name}")) {
                tracing::debug!(file = %file.display(), name, %error, "controller not handed down");
            }
        }
    }
}

/// A group that was there before may be another container's.
fn refuse_busy(dir: &Path) -> Result<(), CgroupError> {
    let mut pids = Vec::new();
    collect(dir, &mut pids)?;
    match pids.iter().min() {
        Some(&pid) => Err(CgroupError::Busy { dir: dir.to_path_buf(), pid }),
        None => Ok(()),
    }
}

/// Adds the processes of `dir` and of the groups beneath it.
fn collect(dir: &Path, pids: &mut Vec<u32>) -> Result<(), CgroupError> {
    let file = dir.join("cgroup.procs");
    match crate::file::read_text(&file) {
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.trim().parse::<u32>().ok())),
        Err(error) if is_gone(&error) => return Ok(()),
        Err(source) => return Err(CgroupError::Read { file, source }),
    }
    for child in children(dir) {
        collect(&child, pids)?;
    }
    Ok(())
}

/// Groups right beneath `dir`.
fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

fn is_busy(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ResourceBusy
}

/// Removes `dir`, children first; control files go with their folder.
fn remove_tree(dir: &Path) -> io::Result<()> {
    for child in children(dir) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(dir) {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}

/// A group that vanishes while it is read answers with "no such device".
fn is_gone(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::NOENT | Errno::NODEV))
}
