//! A task's control group: what it uses, its limits, its pauses, and what the kernel killed in it.
//!
//! All of it works while a Start or Delete call holds the guest, so a task keeps this beside its
//! state.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coracle_oci::CgroupError;
use coracle_oci::cgroup::Cgroup;
use coracle_oci::cgroup::stats::Stats;
use coracle_oci::spec::Resources;
use tokio::time::Instant;

use crate::systemd::{self, SystemdError};

/// How long the processes may take to stop; one that waits for a broken disk never does.
const PAUSE_LIMIT: Duration = Duration::from_secs(10);
/// Pauses between two looks whether they have, the first and the longest.
const LOOKS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];

/// Why the group did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The container has no group of its own.
    #[error("the container has no cgroup of its own")]
    None,
    /// A file of it.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Its unit.
    #[error(transparent)]
    Systemd(#[from] SystemdError),
    /// It is paused, or not.
    #[error("it is {0}")]
    State(&'static str),
    /// The container ended, or was killed, while it was being paused.
    #[error("it has ended meanwhile")]
    Ended,
    /// Some process does not stop.
    #[error("its processes did not stop within {} s; one of them may wait for a device", PAUSE_LIMIT.as_secs())]
    Stuck,
    /// The shim itself.
    #[error("the shim failed to {0}")]
    Broken(&'static str),
}

/// How far a pause has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freeze {
    /// The processes run.
    No,
    /// They are told to stop.
    Pausing,
    /// They have stopped.
    Paused,
}

/// The group of a task.
#[derive(Debug)]
pub struct Group {
    cgroup: Option<Cgroup>,
    freeze: Mutex<Freeze>,
    /// Kills for want of memory that containerd knows of.
    oom_told: AtomicU64,
}

impl Group {
    /// The group that a guest is in.
    pub fn new(cgroup: Option<&Cgroup>) -> Self {
        Self {
            cgroup: cgroup.cloned(),
            freeze: Mutex::new(Freeze::No),
            oom_told: AtomicU64::new(0),
        }
    }

    /// The group's files.
    ///
    /// # Errors
    /// [`GroupError::None`].
    pub fn cgroup(&self) -> Result<&Cgroup, GroupError> {
        self.cgroup.as_ref().ok_or(GroupError::None)
    }

    /// How far a pause has come.
    pub fn freeze(&self) -> Freeze {
        *self.lock()
    }

    /// What the container uses.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn stats(&self) -> Result<Stats, GroupError> {
        Ok(self.cgroup()?.stats()?)
    }

    /// Sets new limits, and leaves the others. Away from the event loop: a lower limit of memory is
    /// taken only when the kernel has freed what is above it.
    ///
    /// # Errors
    /// The first limit that cannot be kept.
    pub async fn update(&self, resources: Resources) -> Result<(), GroupError> {
        let cgroup = self.cgroup()?.clone();
        let set = move || {
            // First, since only the kernel knows whether a limit can be kept.
            cgroup.apply(&resources)?;
            Ok(systemd::update(&cgroup, &resources)?)
        };
        let done = tokio::task::spawn_blocking(set).await;
        done.map_err(|_| GroupError::Broken("set the limits"))?
    }

    /// Stops all processes. They run on if this fails.
    ///
    /// # Errors
    /// [`GroupError::State`] when they are stopped already, or are about to be; and all others.
    pub async fn pause(&self) -> Result<(), GroupError> {
        let cgroup = self.cgroup()?;
        {
            let mut freeze = self.lock();
            match *freeze {
                Freeze::No => *freeze = Freeze::Pausing,
                Freeze::Pausing => return Err(GroupError::State("being paused")),
                Freeze::Paused => return Err(GroupError::State("paused")),
            }
        }
        let stopped = self.stop_all(cgroup).await;
        let mut freeze = self.lock();
        match (stopped, *freeze) {
            (Ok(()), Freeze::Pausing) => {
                *freeze = Freeze::Paused;
                Ok(())
            }
            (stopped, _) => {
                *freeze = Freeze::No;
                cgroup.thaw()?;
                stopped.and(Err(GroupError::Ended))
            }
        }
    }

    async fn stop_all(&self, cgroup: &Cgroup) -> Result<(), GroupError> {
        let give_up = Instant::now() + PAUSE_LIMIT;
        let [mut pause, longest] = LOOKS;
        loop {
            cgroup.freeze(true)?;
            if cgroup.is_frozen()? {
                return Ok(());
            }
            if Instant::now() > give_up {
                return Err(GroupError::Stuck);
            }
            tokio::time::sleep(pause).await;
            pause = longest.min(pause * 2);
            if self.freeze() != Freeze::Pausing {
                return Err(GroupError::Ended);
            }
        }
    }

    /// Lets all processes go on.
    ///
    /// # Errors
    /// [`GroupError::State`] when they are not stopped; when the kernel refuses.
    pub fn resume(&self) -> Result<(), GroupError> {
        let mut freeze = self.lock();
        match *freeze {
            Freeze::No => return Err(GroupError::State("running")),
            Freeze::Pausing => return Err(GroupError::State("being paused")),
            Freeze::Paused => {}
        }
        self.cgroup()?.freeze(false)?;
        *freeze = Freeze::No;
        Ok(())
    }

    /// Lets killed processes end: those of a paused group of cgroup v1 do so only when they run.
    pub fn let_die(&self) {
        let mut freeze = self.lock();
        if *freeze == Freeze::No {
            return;
        }
        *freeze = Freeze::No;
        if let Some(Err(error)) = self.cgroup.as_ref().map(Cgroup::thaw) {
            tracing::warn!(%error, "killed processes cannot end");
        }
    }

    /// Whether the kernel has killed for want of memory since this was asked last.
    pub fn oom_killed(&self) -> bool {
        let Some(cgroup) = &self.cgroup else { return false };
        match cgroup.oom_kills() {
            Ok(kills) => self.oom_told.fetch_max(kills, Ordering::Relaxed) < kills,
            Err(error) => {
                tracing::warn!(%error, "kills for want of memory are not known");
                false
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Freeze> {
        // Nothing panics while holding the lock, so poison carries no meaning.
        self.freeze.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_oci::cgroup::Version;

    /// A group of v2 whose processes stop when the test says so.
    fn group(dir: &std::path::Path) -> Group {
        std::fs::write(dir.join("cgroup.freeze"), "0").unwrap();
        events(dir, 0);
        Group::new(Some(&Cgroup::from_dirs(Version::V2, [dir.to_path_buf()])))
    }

    fn events(dir: &std::path::Path, frozen: u8) {
        std::fs::write(dir.join("cgroup.events"), format!("populated 1\nfrozen {frozen}\n"))
            .unwrap();
    }

    fn told(dir: &std::path::Path) -> String {
        std::fs::read_to_string(dir.join("cgroup.freeze")).unwrap()
    }

    #[tokio::test]
    async fn a_pause_takes_its_time_and_happens_once() {
        let dir = tempfile::tempdir().unwrap();
        let group = group(dir.path());
        assert!(matches!(group.resume(), Err(GroupError::State("running"))));
        let pausing = group.pause();
        tokio::pin!(pausing);
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut pausing).await.is_err());
        assert_eq!((group.freeze(), told(dir.path()).as_str()), (Freeze::Pausing, "1"));
        assert!(matches!(group.pause().await, Err(GroupError::State("being paused"))));
        assert!(matches!(group.resume(), Err(GroupError::State("being paused"))));
        events(dir.path(), 1);
        pausing.await.unwrap();
        assert_eq!(group.freeze(), Freeze::Paused);
        assert!(matches!(group.pause().await, Err(GroupError::State("paused"))));
        group.resume().unwrap();
        assert_eq!((group.freeze(), told(dir.path()).as_str()), (Freeze::No, "0"));
    }

    #[tokio::test]
    async fn a_kill_ends_a_pause_also_one_that_is_not_complete() {
        let dir = tempfile::tempdir().unwrap();
        let group = group(dir.path());
        let (paused, ()) = tokio::join!(group.pause(), async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            group.let_die();
        });
        assert!(matches!(paused, Err(GroupError::Ended)), "{paused:?}");
        assert_eq!((group.freeze(), told(dir.path()).as_str()), (Freeze::No, "0"));
        events(dir.path(), 1);
        group.pause().await.unwrap();
        group.let_die();
        assert_eq!((group.freeze(), told(dir.path()).as_str()), (Freeze::No, "0"));
    }

    #[test]
    fn each_kill_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let group = group(dir.path());
        let count = |kills: u32| {
            let text = format!("low 0\nmax 7\noom_kill {kills}\n");
            std::fs::write(dir.path().join("memory.events"), text).unwrap();
            (group.oom_killed(), group.oom_killed())
        };
        assert_eq!(count(0), (false, false));
        assert_eq!(count(1), (true, false));
        assert_eq!(count(3), (true, false));
        assert!(!Group::new(None).oom_killed());
    }
}
