//! The tasks of this shim, by id; also those that are still being made.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::request::TaskId;
use crate::task::{Task, TaskError};

/// All tasks.
#[derive(Default)]
pub struct Registry {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    slots: HashMap<TaskId, Slot>,
    closed: bool,
}

enum Slot {
    /// A Create call is at work; the channel closes when it is done, either way.
    Making(watch::Receiver<()>),
    Ready(Arc<Task>),
}

/// A place for the task of one Create call. Dropping it without [`Place::fill`] frees the id.
pub struct Place<'a> {
    registry: &'a Registry,
    id: TaskId,
    _done: watch::Sender<()>,
}

impl Registry {
    /// Takes an id for a task that is about to be made.
    ///
    /// # Errors
    /// The id is taken, or the shim is shutting down.
    pub fn reserve(&self, id: &TaskId) -> Result<Place<'_>, TaskError> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(TaskError::ShuttingDown);
        }
        if inner.slots.contains_key(id) {
            return Err(TaskError::AlreadyExists(id.clone()));
        }
        let (done, making) = watch::channel(());
        inner.slots.insert(id.clone(), Slot::Making(making));
        Ok(Place { registry: self, id: id.clone(), _done: done })
    }

    /// The task, if its Create has succeeded.
    ///
    /// # Errors
    /// [`TaskError::NotFound`].
    pub fn get(&self, id: &TaskId) -> Result<Arc<Task>, TaskError> {
        match self.lock().slots.get(id) {
            Some(Slot::Ready(task)) => Ok(Arc::clone(task)),
            _ => Err(TaskError::NotFound(id.clone())),
        }
    }

    /// Like [`Registry::get`], but waits for a Create call that is at work: Delete must not tell
    /// containerd that there is nothing while something is about to be.
    ///
    /// # Errors
    /// [`TaskError::NotFound`], also when that Create fails.
    pub async fn get_made(&self, id: &TaskId) -> Result<Arc<Task>, TaskError> {
        loop {
            let mut making = match self.lock().slots.get(id) {
                Some(Slot::Ready(task)) => return Ok(Arc::clone(task)),
                Some(Slot::Making(making)) => making.clone(),
                None => return Err(TaskError::NotFound(id.clone())),
            };
            // Nothing is ever sent: this returns when the sender goes.
            let _ = making.changed().await;
        }
    }

    /// Forgets a deleted task.
    pub fn remove(&self, id: &TaskId) {
        self.lock().slots.remove(id);
    }

    /// All tasks there are.
    pub fn all(&self) -> Vec<Arc<Task>> {
        let ready = |slot: &Slot| match slot {
            Slot::Ready(task) => Some(Arc::clone(task)),
            Slot::Making(_) => None,
        };
        self.lock().slots.values().filter_map(ready).collect()
    }

    /// Takes no new task from now on, if none is left or `force`. Tells whether it did.
    pub fn close(&self, force: bool) -> bool {
        let mut inner = self.lock();
        inner.closed |= force || inner.slots.is_empty();
        inner.closed
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while holding the lock, so poison carries no meaning.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place<'_> {
    /// Puts the finished task in its place.
    pub fn fill(self, task: Arc<Task>) {
        self.registry.lock().slots.insert(self.id.clone(), Slot::Ready(task));
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut inner = self.registry.lock();
        if let Some(Slot::Making(_)) = inner.slots.get(&self.id) {
            inner.slots.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn id(text: &str) -> TaskId {
        TaskId::parse(text).unwrap()
    }

    #[test]
    fn an_id_is_taken_while_its_task_is_made_and_free_after_a_failure() {
        let registry = Registry::default();
        let place = registry.reserve(&id("a")).unwrap();
        assert!(matches!(registry.reserve(&id("a")), Err(TaskError::AlreadyExists(_))));
        assert!(matches!(registry.get(&id("a")), Err(TaskError::NotFound(_))));
        assert!(!registry.close(false), "a task in the making keeps the shim");
        drop(place);
        drop(registry.reserve(&id("a")).unwrap());
        assert!(registry.close(false));
        assert!(matches!(registry.reserve(&id("b")), Err(TaskError::ShuttingDown)));
    }

    #[tokio::test]
    async fn delete_waits_for_a_create_under_way() {
        let registry = Registry::default();
        let place = registry.reserve(&id("a")).unwrap();
        let wanted = id("a");
        let waiting = registry.get_made(&wanted);
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut waiting).await.is_err());
        drop(place);
        let answer = tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap();
        assert!(matches!(answer, Err(TaskError::NotFound(_))));
    }

    #[test]
    fn a_forced_close_takes_effect_with_tasks() {
        let registry = Registry::default();
        let _place = registry.reserve(&id("a")).unwrap();
        assert!(registry.close(true));
    }
}
