//! What a task tells the node daemon: that its program started, in which time, and how it ended.
//!
//! Nothing is told before containerd has its answers: the start with the first look at the container's memory, or with
//! its end if that comes sooner.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Task;
use crate::figures::{self, Code, Happening, Program, micros};
use crate::guest::WaitStatus;

/// How far a container has come, for the daemon's figures.
#[derive(Debug)]
pub(super) struct Tally(Mutex<Facts>);

#[derive(Debug)]
struct Facts {
    program: Program,
    create: Duration,
    /// Since when Start is at work.
    begun: Option<Instant>,
    start: Option<Duration>,
    told: bool,
}

impl Tally {
    pub(super) fn new(program: Program) -> Self {
        let create = Duration::ZERO;
        Self(Mutex::new(Facts { program, create, begun: None, start: None, told: false }))
    }

    /// Start was received.
    pub(super) fn begins(&self) {
        self.lock().begun = Some(Instant::now());
    }

    /// The program starts before its code is complete.
    pub(super) fn is_first_start(&self) {
        self.lock().program = Program::Wasm(Code::FirstStart);
    }

    /// Start is about to be answered: the program runs.
    pub(super) fn started(&self) {
        let mut facts = self.lock();
        facts.start = facts.begun.map(|begun| begun.elapsed());
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        // Nothing panics while holding the lock, so poison carries no meaning.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    /// Create took so long.
    pub fn created_in(&self, time: Duration) {
        self.tally.lock().create = time;
    }

    /// Tells once that the program has started, if it has.
    pub(super) fn tell_started(&self) {
        let mut facts = self.tally.lock();
        if let Some(start) = facts.start.filter(|_| !facts.told) {
            facts.told = true;
            let (create, start) = (micros(facts.create), micros(start));
            figures::tell(Happening::Started { program: facts.program, create, start });
        }
    }

    /// Tells how the guest ended, once containerd knows: a Start that is at work answers first.
    pub(super) async fn tell_end(&self, status: &WaitStatus) {
        self.wait().await;
        // What was woken before this is what sends answers and events.
        tokio::task::yield_now().await;
        self.tell_started();
        let (begun, started) = {
            let facts = self.tally.lock();
            (facts.begun.is_some(), facts.start.is_some())
        };
        match (begun, started) {
            (_, true) => figures::tell(Happening::Ended(status.into())),
            (true, false) => figures::tell(Happening::NotStarted),
            // Created, and removed again.
            (false, false) => {}
        }
    }
}
