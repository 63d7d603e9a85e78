//! The worker's cgroup: what a compilation may take of the machine, whatever it compiles.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use coracle_oci::cgroup::Version;
use coracle_oci::digest::Digest;
use coracle_oci::spec::{CgroupSpec, CpuLimits, MemoryLimits, Resources};

use super::{CompileError, os};
use crate::config::CompileLimits;
use crate::guest::cgroups::Cgroup;
use crate::request::TaskId;

/// Who gets the processors when others want them too.
#[derive(Clone, Copy, Debug)]
pub(super) enum Share {
    /// All of the code, for this start or the next one.
    Whole,
    /// What a guest runs on while it is made.
    First,
}

impl Share {
    /// A container without limits has 1024.
    fn weight(self) -> u64 {
        match self {
            Self::Whole => 128,
            Self::First => 512,
        }
    }
}

/// What the name of the group of a first start's worker ends with.
const FIRST: &str = "-first";
/// Most processors that one compilation takes.
const MOST_PROCESSORS: u64 = 8;
/// `cpu.max`: microseconds.
const PERIOD: u64 = 100_000;
/// Tasks besides one for each processor.
const SPARE_TASKS: u64 = 8;

/// The cgroup of the worker that compiles for the container of a bundle, by which `shim delete` finds
/// it, and those whose names begin so: the workers for its further processes. Several containerds may share
/// a machine, with containers of the same id.
pub fn worker_group(id: &TaskId, bundle: &Path) -> String {
    let place = Digest::of(bundle.as_os_str().as_bytes()).hex();
    format!("/coracle-compile-{}-{}", id.as_str(), &place[..16])
}

/// Processors of this process.
pub(super) fn processors() -> u64 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u64)
}

/// A worker's cgroup that exists.
#[derive(Debug)]
pub(super) struct Group(Cgroup);

impl Group {
    /// Makes it, with its limits.
    pub(super) fn make(
        path: &str,
        limits: &CompileLimits,
        share: Share,
    ) -> Result<Self, CompileError> {
        let quota = PERIOD * processors().min(MOST_PROCESSORS);
        let resources = Resources {
            memory: MemoryLimits {
                limit: Some(limits.memory.cast_signed()),
                ..MemoryLimits::default()
            },
            cpu: CpuLimits {
                shares: Some(share.weight()),
                quota: Some(quota.cast_signed()),
                period: Some(PERIOD),
                ..CpuLimits::default()
            },
            pids: Some((processors() + SPARE_TASKS).cast_signed()),
            ..Resources::default()
        };
        let suffix = if matches!(share, Share::First) { FIRST } else { "" };
        let spec = CgroupSpec { path: Some(format!("{path}{suffix}")), resources };
        let mut group = Cgroup::named(&spec, "compile")?;
        group.do_without_root();
        if !group.is_nowhere() {
            group.make(&spec.resources)?;
        }
        Ok(Self(group))
    }

    /// The files to which a process writes `0` to enter it.
    pub(super) fn entrance(&self) -> Result<Vec<File>, CompileError> {
        let files = self.0.inner().join_files();
        let open = |path: &std::path::PathBuf| File::options().write(true).open(path);
        files.iter().map(open).collect::<Result<_, _>>().map_err(os("open the cgroup"))
    }

    /// Kills what is left in it and removes it; tells whether the kernel has killed for want of memory.
    pub(super) async fn remove(self) -> bool {
        let starved = self.starved();
        if let Err(error) = self.0.destroy().await {
            tracing::warn!(%error, "cgroup of the compiler left behind");
        }
        starved
    }

    fn starved(&self) -> bool {
        let group = self.0.inner();
        let name = match group.version() {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        group.dirs().any(|dir| killed(&dir.join(name)))
    }
}

/// Whether the file counts a kill: `oom_kill N` in both versions.
fn killed(file: &Path) -> bool {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut counts = text.lines().filter_map(|line| line.strip_prefix("oom_kill "));
    counts.any(|count| count.trim() != "0")
}

/// Removes the cgroups of workers whose shim is gone: all whose names begin with `path`, the last part of
/// which ends with what no other name has. That there are none is fine.
pub(crate) fn remove_left_behind(path: &str) -> Result<(), coracle_oci::CgroupError> {
    let host = coracle_oci::cgroup::Host::detect()?;
    let group = coracle_oci::cgroup::Cgroup::new(
        &host,
        &coracle_oci::cgroup::CgroupPath::parse(Some(path), "compile")?,
    );
    let mut left = BTreeSet::new();
    for dir in group.dirs() {
        let (Some(parent), Some(prefix)) = (dir.parent(), dir.file_name()) else { continue };
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name());
        left.extend(names.filter(|name| name.as_bytes().starts_with(prefix.as_bytes())));
    }
    left.iter().try_for_each(|name| remove_one(&host, &format!("/{}", name.display())))
}

fn remove_one(
    host: &coracle_oci::cgroup::Host,
    path: &str,
) -> Result<(), coracle_oci::CgroupError> {
    let path = coracle_oci::cgroup::CgroupPath::parse(Some(path), "compile")?;
    let group = coracle_oci::cgroup::Cgroup::new(host, &path);
    let dirs: Vec<_> = group.dirs().map(Path::to_path_buf).collect();
    if dirs.iter().any(|dir| dir.exists()) {
        Cgroup::reopen(host.version(), dirs, None).destroy_blocking()?;
    }
    Ok(())
}
