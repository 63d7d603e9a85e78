//! One container's task: the state machine of its first process.
//!
//! ```text
//!   Created ──start──▶ Starting ──linked──▶ Running ──end──▶ Stopped ──delete──▶ (gone)
//!      │                  └── error, kill ─────────────────────▲  ▲
//!      └── kill, delete ──────────────────────────────────────────┘
//! ```
//!
//! The state owns the guest. A call that works with it for long (Start, Delete) takes it out and
//! brings it back, so that every other call finds a state to answer from at once. Events are
//! published while the state is locked: their order is the order of the changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::compile::{Afterwork, Compilation, CompileError, FirstStart, Ready, Stop};
use crate::events::Events;
use crate::exit::{self, ExitStatus};
use crate::figures::Program;
use crate::group::{Freeze, Group};
use crate::guest::{Child, Guest, GuestError};
use crate::io::KeptEnds;
use crate::mounts::RootfsMounts;
use crate::request::{Kill, Signal};
use crate::response;

use super::exec::Household;
use super::execs::Execs;
use super::{Facts, Snapshot, Status, TaskError};

mod control;
mod others;
mod told;

use told::Tally;

/// A task. Every method answers in every state.
pub struct Task {
    facts: Facts,
    events: Events,
    stdio: KeptEnds,
    afterwork: Afterwork,
    group: Group,
    inner: Mutex<Inner>,
    /// The program runs, so others may follow that are killed without its end.
    runs: Notify,
    /// Reaches the guest while a Start call holds it.
    child: Arc<Child>,
    /// Set once, with the change to Stopped.
    exit: watch::Sender<Option<ExitStatus>>,
    execs: Execs,
    household: Household,
    tally: Tally,
}

struct Inner {
    state: State,
    mounts: RootfsMounts,
    /// The compilation under way, to end it with the task.
    compiling: Option<Stop>,
    /// A compilation that was stopped and whose process is still to be waited for.
    stopped: Option<Compilation>,
    /// Compilations that go on while the program runs.
    first: Option<FirstStart>,
    /// The signal that was to end the guest before its program started. The parked guest gets
    /// SIGKILL for it, but the exit number tells what was asked for.
    ended_by: Option<Signal>,
    /// How the guest ended while a Start call holds it.
    early: Option<ExitStatus>,
}

enum State {
    Created(Box<Guest>, Option<Compilation>),
    /// A Start call holds the guest.
    Starting,
    Running(Box<Guest>),
    Stopped(Box<Guest>, ExitStatus),
    /// A Delete call holds the guest.
    Deleting(ExitStatus),
}

impl State {
    fn status(&self) -> Status {
        match self {
            Self::Created(..) | Self::Starting => Status::Created,
            Self::Running(_) => Status::Running,
            Self::Stopped(..) | Self::Deleting(_) => Status::Stopped,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Created(..) => "created",
            Self::Starting => "being started",
            Self::Running(_) => "running",
            Self::Stopped(..) => "stopped",
            Self::Deleting(_) => "being deleted",
        }
    }

    fn exit(&self) -> Option<ExitStatus> {
        match self {
            Self::Stopped(_, exit) | Self::Deleting(exit) => Some(*exit),
            _ => None,
        }
    }
}

/// What Create puts together.
pub struct Parts {
    /// What never changes.
    pub facts: Facts,
    /// Where events go.
    pub events: Events,
    /// The parked guest.
    pub guest: Guest,
    /// The code on its way; `None` for the built-in sleeper.
    pub compilation: Option<Compilation>,
    /// What the shim finishes before it exits.
    pub afterwork: Afterwork,
    /// The shim's ends of the streams.
    pub stdio: KeptEnds,
    /// The root file system.
    pub mounts: RootfsMounts,
    /// How long the exit is held back for clients to read the last output.
    pub output_patience: Duration,
    /// What further processes are made with.
    pub household: Household,
    /// What it runs, for the figures.
    pub program: Program,
}

impl Task {
    /// A task in state Created, watched from now on. The create event must be published before.
    pub fn new(parts: Parts) -> Arc<Self> {
        let child = parts.guest.child();
        let end = parts.guest.wait();
        let compiling = parts.compilation.as_ref().map(Compilation::stopper);
        let task = Arc::new(Self {
            facts: parts.facts,
            events: parts.events,
            stdio: parts.stdio,
            afterwork: parts.afterwork,
            group: Group::new(parts.guest.cgroup()),
            runs: Notify::new(),
            inner: Mutex::new(Inner {
                state: State::Created(Box::new(parts.guest), parts.compilation),
                mounts: parts.mounts,
                compiling,
                stopped: None,
                first: None,
                ended_by: None,
                early: None,
            }),
            child,
            exit: watch::Sender::new(None),
            execs: Execs::default(),
            household: parts.household,
            tally: Tally::new(parts.program),
        });
        let watched = Arc::clone(&task);
        let patience = parts.output_patience;
        tokio::spawn(async move {
            let end = end.await;
            watched.tell_oom_before_the_end().await;
            watched.end_others().await;
            watched.stdio.drained(patience).await;
            watched.ended(end.into());
            watched.tell_end(&end).await;
        });
        tokio::spawn(Arc::clone(&task).watch_oom());
        task
    }

    /// What never changes.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// State: answers at once.
    pub fn snapshot(&self) -> Snapshot {
        let inner = self.lock();
        let status = match (inner.state.status(), self.group.freeze()) {
            (Status::Running, Freeze::Pausing) => Status::Pausing,
            (Status::Running, Freeze::Paused) => Status::Paused,
            (status, _) => status,
        };
        Snapshot { status, exit: inner.state.exit() }
    }

    /// Wait: resolves when the task is Stopped.
    pub async fn wait(&self) -> ExitStatus {
        let mut exit = self.exit.subscribe();
        let known = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        // The sender is part of `self`, so the channel cannot close.
        known.unwrap_or_else(|| ExitStatus::now(exit::UNKNOWN))
    }

    /// See [`super::Process::resize`].
    pub(super) fn resize(&self, size: (u16, u16)) -> Result<(), TaskError> {
        let inner = self.lock();
        if inner.state.exit().is_some() {
            let (id, status) = (self.facts.id.clone(), inner.state.name());
            return Err(TaskError::Refused { id, act: "resize the terminal of", status });
        }
        self.stdio
            .resize(size)
            .map_err(|source| GuestError::Os { act: "resize the terminal".into(), source }.into())
    }

    /// See [`super::Process::close_input`].
    pub(super) fn close_input(&self) {
        self.stdio.close_input();
    }

    /// Pids: of all processes of the container, empty once it has ended. As long as the end of its first
    /// one is not told, that one is among them: a containerd that comes back takes a shim without
    /// processes for one to be removed, and forgets it when it then cannot be.
    ///
    /// # Errors
    /// When the cgroup cannot be read.
    pub fn pids(&self) -> Result<Vec<u32>, TaskError> {
        match &self.lock().state {
            State::Created(guest, _) | State::Running(guest) => {
                let mut pids = guest.pids()?;
                if !pids.contains(&self.facts.pid) {
                    pids.push(self.facts.pid);
                }
                Ok(pids)
            }
            State::Starting => Ok(vec![self.facts.pid]),
            State::Stopped(..) | State::Deleting(_) => Ok(Vec::new()),
        }
    }

    /// Kill.
    ///
    /// # Errors
    /// [`TaskError::Finished`] when there is nobody to kill any more.
    pub fn kill(&self, kill: Kill) -> Result<(), TaskError> {
        let mut inner = self.lock();
        match &inner.state {
            State::Created(..) | State::Starting => {
                // A parked guest has no handlers yet and may be the first of its pid namespace,
                // which the kernel shields from everything but SIGKILL (pid_namespaces(7)).
                let sent = if kill.signal.ends_by_default() { Signal::KILL } else { kill.signal };
                if sent == Signal::KILL {
                    inner.ended_by.get_or_insert(kill.signal);
                }
                self.send(sent)
            }
            State::Running(guest) => match guest.signal(kill.signal.number(), kill.all) {
                Err(GuestError::State { .. }) => Err(TaskError::Finished(self.facts.id.clone())),
                other => {
                    if kill.signal == Signal::KILL {
                        self.group.let_die();
                    }
                    Ok(other?)
                }
            },
            State::Stopped(..) | State::Deleting(_) => {
                Err(TaskError::Finished(self.facts.id.clone()))
            }
        }
    }

    fn send(&self, signal: Signal) -> Result<(), TaskError> {
        let Some(number) = rustix::process::Signal::from_named_raw(signal.number()) else {
            // Real-time signals have no meaning to a guest whose program does not run.
            return Ok(());
        };
        match rustix::process::pidfd_send_signal(self.child.pidfd(), number) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::SRCH) => Err(TaskError::Finished(self.facts.id.clone())),
            Err(errno) => {
                Err(GuestError::Os { act: "signal the guest".into(), source: errno.into() }.into())
            }
        }
    }

    /// Start: waits for the code, hands it over, lets the program go. Returns the pid.
    ///
    /// # Errors
    /// Why the program cannot run; the task is Stopped then and can be deleted.
    pub async fn start(&self) -> Result<u32, TaskError> {
        let (mut guest, compilation) = {
            let mut inner = self.lock();
            match std::mem::replace(&mut inner.state, State::Starting) {
                State::Created(guest, compilation) => (guest, compilation),
                other => {
                    let status = other.name();
                    inner.state = other;
                    let id = self.facts.id.clone();
                    return Err(TaskError::Refused { id, act: "start", status });
                }
            }
        };
        self.tally.begins();
        let result = self.bring_up(&mut guest, compilation).await;
        if result.is_err() {
            // The program will not run; what is parked must not stay. Harmless if it ended.
            let _ = self.send(Signal::KILL);
            let end = guest.wait().await.into();
            return self.not_started(guest, end, result);
        }
        self.started(guest)
    }

    async fn bring_up(
        &self,
        guest: &mut Guest,
        compilation: Option<Compilation>,
    ) -> Result<(), TaskError> {
        let too_late = || TaskError::EndedBeforeStart(self.facts.id.clone());
        if let Some(compilation) = compilation {
            // When the guest ends, the compilation is stopped, so this needs no second look.
            match compilation.ready().await {
                Ok(Ready { code, first }) => {
                    self.goes_on(first);
                    guest.provide_code(code)?;
                }
                Err(CompileError::Cancelled { .. }) => return Err(too_late()),
                Err(error) => {
                    guest.give_up(&error).await;
                    return Err(error.into());
                }
            }
        }
        self.stdio.release_input();
        match guest.start().await {
            Err(GuestError::Died { .. }) if self.lock().ended_by.is_some() => Err(too_late()),
            other => Ok(other?),
        }
    }

    /// Keeps the compilations that go on; the guest may have ended meanwhile.
    fn goes_on(&self, first: Option<FirstStart>) {
        let mut inner = self.lock();
        if first.is_some() {
            self.tally.is_first_start();
        }
        if let Some(first) = first.as_ref().filter(|_| inner.early.is_some()) {
            first.guest_ended(true);
        }
        inner.first = first;
    }

    /// The good end of Start: the guest comes back to the state, events follow in order.
    fn started(&self, guest: Box<Guest>) -> Result<u32, TaskError> {
        let mut inner = self.lock();
        inner.compiling = None;
        self.tally.started();
        self.events.publish(response::start_event(&self.facts));
        match inner.early.take() {
            None => {
                inner.state = State::Running(guest);
                self.runs.notify_one();
            }
            // It ran and ended before Start got here: the exit event comes second.
            Some(exit) => self.stop(&mut inner, guest, exit),
        }
        Ok(self.facts.pid)
    }

    /// The bad end of Start; `end` is how the guest was seen to end.
    fn not_started(
        &self,
        guest: Box<Guest>,
        end: ExitStatus,
        result: Result<(), TaskError>,
    ) -> Result<u32, TaskError> {
        let mut inner = self.lock();
        inner.compiling = None;
        let code = match (inner.ended_by, &result) {
            (Some(signal), _) => exit::by_signal(signal.number()),
            // The kernel took it, for want of memory perhaps: that is what happened.
            (None, Err(TaskError::Guest(GuestError::Died { .. }))) => end.code,
            (None, _) => exit::CANNOT_RUN,
        };
        // Who watches for the end may come later.
        self.tell_oom();
        self.stop(&mut inner, guest, ExitStatus { code, at: end.at });
        result.map(|()| self.facts.pid)
    }

    /// The guest has ended; called once, by the watcher.
    fn ended(&self, mut exit: ExitStatus) {
        let mut inner = self.lock();
        if let Some(stop) = inner.compiling.take() {
            stop.stop();
        }
        if let Some(first) = &inner.first {
            let ran = matches!(inner.state, State::Running(_));
            first.guest_ended(!ran || exit.code == exit::by_signal(libc::SIGKILL));
        }
        match std::mem::replace(&mut inner.state, State::Starting) {
            State::Created(guest, compilation) => {
                inner.stopped = compilation;
                if let Some(signal) = inner.ended_by {
                    exit.code = exit::by_signal(signal.number());
                }
                self.stop(&mut inner, guest, exit);
            }
            State::Running(guest) => self.stop(&mut inner, guest, exit),
            State::Starting => inner.early = Some(exit),
            done @ (State::Stopped(..) | State::Deleting(_)) => inner.state = done,
        }
    }

    /// The one way into Stopped: state, event, then those who wait.
    fn stop(&self, inner: &mut Inner, guest: Box<Guest>, exit: ExitStatus) {
        inner.state = State::Stopped(guest, exit);
        self.events.publish(response::exit_event(&self.facts, exit));
        self.exit.send_replace(Some(exit));
    }

    /// Delete: removes everything the task made, in reverse order. A task that was never started
    /// is ended first.
    ///
    /// # Errors
    /// [`TaskError::Refused`] while the program runs; what cannot be removed, after which Delete
    /// can be called again.
    pub async fn delete(&self) -> Result<ExitStatus, TaskError> {
        if matches!(self.lock().state, State::Created(..)) {
            // It may end by itself in between; then there is nobody to kill, which is as good.
            let _ = self.kill(Kill { signal: Signal::KILL, all: false });
            self.wait().await;
        }
        let (mut guest, exit) = {
            let mut inner = self.lock();
            match std::mem::replace(&mut inner.state, State::Starting) {
                State::Stopped(guest, exit) => {
                    inner.state = State::Deleting(exit);
                    (guest, exit)
                }
                other => {
                    let status = other.name();
                    inner.state = other;
                    let id = self.facts.id.clone();
                    return Err(TaskError::Refused { id, act: "delete", status });
                }
            }
        };
        match self.remove(&mut guest).await {
            Ok(()) => {
                self.events.publish(response::delete_event(&self.facts, exit));
                Ok(exit)
            }
            Err(error) => {
                self.lock().state = State::Stopped(guest, exit);
                Err(error)
            }
        }
    }

    async fn remove(&self, guest: &mut Guest) -> Result<(), TaskError> {
        let (stopped, first) = {
            let mut inner = self.lock();
            (inner.stopped.take(), inner.first.take())
        };
        if let Some(compilation) = stopped {
            compilation.given_up().await;
        }
        if let Some(first) = first {
            first.settled(&self.afterwork).await;
        }
        guest.cleanup().await?;
        self.execs.forget().await;
        self.stdio.close().await;
        // Unmounting writes nothing back here (the upper layer is on disk already), so it is short
        // enough for the event loop.
        Ok(self.lock().mounts.remove()?)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while holding the lock, so poison carries no meaning.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
