//! What a task does with the further processes of its container.

use std::sync::Arc;

use super::{State, Task};
use crate::exit::ExitStatus;
use crate::group::Freeze;
use crate::guest::Child;
use crate::request::{Exec as Call, ExecId};
use crate::response;
use crate::task::exec::{Exec, Household};
use crate::task::execs::Execs;
use crate::task::{Process, TaskError};

impl Task {
    /// Ends the further processes when the first one has: their exits are told before its own. Where the
    /// kernel does not end what they have left behind, this does.
    pub(super) async fn end_others(&self) {
        self.execs.close();
        if self.facts.shares_pids
            && let State::Created(guest, _) | State::Running(guest) = &self.lock().state
        {
            // That there is nobody left is as good.
            let _ = guest.signal(libc::SIGKILL, true);
        }
        self.execs.end_all().await;
    }

    /// Exec: a further process, which Start makes.
    ///
    /// # Errors
    /// [`TaskError::ExecExists`], and [`TaskError::Refused`] when the container has ended or is paused.
    pub fn exec(&self, call: Call) -> Result<(), TaskError> {
        let refuse = |status| {
            let id = self.facts.id.clone();
            Err(TaskError::Refused { id, act: "execute in", status })
        };
        if self.is_paused() {
            return refuse("paused");
        }
        let inner = self.lock();
        if inner.state.exit().is_some() {
            return refuse(inner.state.name());
        }
        let exec = Exec::new(call, self.events.clone());
        let event = response::exec_added_event(exec.facts());
        self.execs.add(exec)?;
        self.events.publish(event);
        Ok(())
    }

    /// One of its processes; without an id the first one.
    ///
    /// # Errors
    /// [`TaskError::NoExec`].
    pub fn process(self: &Arc<Self>, id: Option<&ExecId>) -> Result<Process, TaskError> {
        let Some(id) = id else { return Ok(Process::Init(Arc::clone(self))) };
        let exec = self.execs.get(&self.facts.id, id)?;
        Ok(Process::Exec(Arc::clone(self), exec))
    }

    /// Delete of a further process; gives its pid, 0 if it never had one.
    ///
    /// # Errors
    /// [`TaskError::NoExec`]; [`TaskError::ExecRefused`] while it runs.
    pub async fn delete_exec(&self, id: &ExecId) -> Result<(u32, ExitStatus), TaskError> {
        let exec = self.execs.get(&self.facts.id, id)?;
        let deleted = exec.delete(&self.afterwork).await?;
        self.execs.remove(id);
        Ok(deleted)
    }

    /// The further processes that run, by pid.
    pub fn exec_pids(&self) -> Vec<(u32, ExecId)> {
        self.execs.pids()
    }

    /// What further processes are made with.
    pub(in crate::task) fn household(&self) -> &Household {
        &self.household
    }

    /// Whether further processes may still begin.
    pub(in crate::task) fn execs(&self) -> &Execs {
        &self.execs
    }

    /// The handle on the guest's process.
    pub(in crate::task) fn child(&self) -> &Child {
        &self.child
    }

    /// Its control group.
    pub(in crate::task) fn cgroup(&self) -> Result<&coracle_oci::cgroup::Cgroup, TaskError> {
        self.group.cgroup().map_err(self.group_error("execute in"))
    }

    /// Whether it is paused, or about to be.
    pub(in crate::task) fn is_paused(&self) -> bool {
        self.group.freeze() != Freeze::No
    }
}
