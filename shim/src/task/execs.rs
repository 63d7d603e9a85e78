//! The further processes of a container, by id.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::TaskError;
use super::exec::Exec;
use crate::request::{ExecId, TaskId};

/// All that were added and not yet deleted.
pub(super) struct Execs {
    known: Mutex<HashMap<ExecId, Arc<Exec>>>,
    /// Whether the container's first process has ended, so that none may begin.
    closed: watch::Sender<bool>,
}

impl Default for Execs {
    fn default() -> Self {
        Self { known: Mutex::default(), closed: watch::Sender::new(false) }
    }
}

impl Execs {
    /// Adds one.
    pub(super) fn add(&self, exec: Arc<Exec>) -> Result<(), TaskError> {
        let facts = exec.facts();
        let (task, id) = (facts.task.clone(), facts.id.clone());
        let mut known = self.lock();
        if known.contains_key(&id) {
            return Err(TaskError::ExecExists(task, id));
        }
        known.insert(id, exec);
        Ok(())
    }

    /// Finds one.
    pub(super) fn get(&self, task: &TaskId, id: &ExecId) -> Result<Arc<Exec>, TaskError> {
        let found = self.lock().get(id).cloned();
        found.ok_or_else(|| TaskError::NoExec(task.clone(), id.clone()))
    }

    /// Forgets one.
    pub(super) fn remove(&self, id: &ExecId) {
        self.lock().remove(id);
    }

    /// The pids of those that run.
    pub(super) fn pids(&self) -> Vec<(u32, ExecId)> {
        let known = self.lock();
        known.values().filter_map(|exec| Some((exec.running()?, exec.facts().id.clone()))).collect()
    }

    /// None begins from now on.
    pub(super) fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Whether none may begin, and when that changes.
    pub(super) fn closed(&self) -> watch::Receiver<bool> {
        self.closed.subscribe()
    }

    /// Kills those that run, and waits until their exits are told, also for those about to begin.
    pub(super) async fn end_all(&self) {
        let all: Vec<_> = self.lock().values().cloned().collect();
        for exec in &all {
            exec.end();
        }
        for exec in &all {
            exec.settled().await;
        }
    }

    /// Lets go of all that are left, when the container is deleted.
    pub(super) async fn forget(&self) {
        let all: Vec<_> = self.lock().drain().map(|(_, exec)| exec).collect();
        for exec in all {
            exec.forgotten().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ExecId, Arc<Exec>>> {
        // Nothing panics while holding the lock, so poison carries no meaning.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
