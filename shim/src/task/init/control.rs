//! What a task does with its control group: Stats, Update, Pause and Resume, and the report of kills
//! for want of memory.

use std::sync::Arc;
use std::time::Duration;

use coracle_oci::cgroup::stats::Stats;
use coracle_oci::spec::Resources;

use super::{State, Status, Task};
use crate::figures::{self, Happening};
use crate::group::GroupError;
use crate::guest::OomWatch;
use crate::response;
use crate::task::TaskError;

/// A program that ends by then needs no watch on its memory: its end is looked at anyway. One that
/// ends at once is not made slower so.
const SETTLED: Duration = Duration::from_millis(50);
/// The kernel tells before it kills, and on v2 also when it kills nobody: time between two looks.
const LOOKS: Duration = Duration::from_millis(200);
/// How long containerd may take to hear of the reason before it hears of the end.
const REASON_FIRST: Duration = Duration::from_millis(500);

impl Task {
    /// Stats: also of a task that has ended, until it is deleted.
    ///
    /// # Errors
    /// When the group is about to be removed, or cannot be read.
    pub fn stats(&self) -> Result<Stats, TaskError> {
        const ACT: &str = "read the statistics of";
        // Removing the group takes the lock too.
        let inner = self.lock();
        if let State::Deleting(_) = inner.state {
            return Err(self.refused(ACT, inner.state.name()));
        }
        self.group.stats().map_err(self.group_error(ACT))
    }

    /// Update: new limits, at once.
    ///
    /// # Errors
    /// The first limit that cannot be kept; a task that has ended.
    pub async fn update(&self, resources: Resources) -> Result<(), TaskError> {
        const ACT: &str = "update";
        if self.snapshot().status == Status::Stopped {
            return Err(self.refused(ACT, "stopped"));
        }
        self.group.update(resources).await.map_err(self.group_error(ACT))
    }

    /// Pause: returns when every process of the container has stopped.
    ///
    /// # Errors
    /// Unless the program runs; when it cannot be stopped. It runs on then.
    pub async fn pause(&self) -> Result<(), TaskError> {
        const ACT: &str = "pause";
        self.must_run(ACT)?;
        self.group.pause().await.map_err(self.group_error(ACT))?;
        // An end in between has been published already.
        let inner = self.lock();
        if !matches!(inner.state, State::Running(_)) {
            return Err(self.refused(ACT, inner.state.name()));
        }
        self.events.publish(response::paused_event(&self.facts));
        Ok(())
    }

    /// Resume.
    ///
    /// # Errors
    /// Unless the task is paused.
    pub fn resume(&self) -> Result<(), TaskError> {
        const ACT: &str = "resume";
        self.must_run(ACT)?;
        let inner = self.lock();
        self.group.resume().map_err(self.group_error(ACT))?;
        if matches!(inner.state, State::Running(_)) {
            self.events.publish(response::resumed_event(&self.facts));
        }
        Ok(())
    }

    fn must_run(&self, act: &'static str) -> Result<(), TaskError> {
        match &self.lock().state {
            State::Running(_) => Ok(()),
            other => Err(self.refused(act, other.name())),
        }
    }

    fn refused(&self, act: &'static str, status: &'static str) -> TaskError {
        TaskError::Refused { id: self.facts.id.clone(), act, status }
    }

    pub(super) fn group_error(&self, act: &'static str) -> impl FnOnce(GroupError) -> TaskError {
        let id = self.facts.id.clone();
        move |source| TaskError::Group { id, act, source: Box::new(source) }
    }

    /// Publishes that the kernel has killed for want of memory, if it has since this was asked last.
    pub(super) fn tell_oom(&self) -> bool {
        let killed = self.group.oom_killed();
        if killed {
            self.events.publish(response::oom_event(&self.facts));
            figures::tell_later(Happening::OutOfMemory);
        }
        killed
    }

    /// The same when the guest has ended. Who waits for the end asks at once why, so the reason
    /// goes ahead.
    pub(super) async fn tell_oom_before_the_end(&self) {
        if self.tell_oom() {
            self.events.drain(REASON_FIRST).await;
        }
    }

    /// Watches, while the program runs, for kills of other processes of the container.
    pub(super) async fn watch_oom(self: Arc<Self>) {
        let mut exit = self.exit.subscribe();
        tokio::select! {
            biased;
            _ = exit.wait_for(Option::is_some) => {}
            () = self.watch_oom_while_it_runs() => {}
        }
    }

    async fn watch_oom_while_it_runs(&self) {
        self.runs.notified().await;
        tokio::time::sleep(SETTLED).await;
        self.tell_started();
        let Ok(cgroup) = self.group.cgroup() else { return };
        let watch = match OomWatch::open(cgroup) {
            Ok(Some(watch)) => watch,
            Ok(None) => return,
            Err(error) => {
                let id = &self.facts.id;
                return tracing::warn!(%id, %error, "out of memory is seen at the end only");
            }
        };
        loop {
            // What came before the watch counts too.
            self.tell_oom();
            if watch.heard().await.is_err() {
                return;
            }
            self.tell_oom();
            tokio::time::sleep(LOOKS).await;
        }
    }
}
