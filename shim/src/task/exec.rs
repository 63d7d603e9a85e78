//! A further process of a container: its state machine.
//!
//! ```text
//!   Created ──start──▶ Starting ──linked──▶ Running ──end──▶ Stopped ──delete──▶ (gone)
//!      │                  └── error ────────────────────────▲             ▲
//!      └── delete ────────────────────────────────────────────────────────┘
//! ```
//!
//! Exec only adds it; Start makes its process, in the namespaces and the cgroup of the container as they are
//! then. A process that could not be started is Stopped without an exit event, since it had no start event
//! either. When the container's first process ends, the others end before its exit is told.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coracle_oci::spec::{self, Process as Described, Workload};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::{Snapshot, Status, Task, TaskError};
use crate::cache::CodeCache;
use crate::compile::{Afterwork, CompileError, FirstStart, Ready};
use crate::config::ShimConfig;
use crate::events::Events;
use crate::exit::{self, ExitStatus};
use crate::find::{Finder, Found};
use crate::guest::{Entrance, ExecRequest, Guest, GuestError, Runner, Stdio};
use crate::io::{self, KeptEnds};
use crate::request::{Exec as Call, ExecId, RootfsMount, Signal, StdioPlan, TaskId};
use crate::response;

/// What the further processes of a container are made with, besides what its bundle says.
pub struct Household {
    /// The configuration of the container's Create call.
    pub config: ShimConfig,
    /// The node's cache.
    pub cache: CodeCache,
    /// What the shim finishes before it exits.
    pub afterwork: Afterwork,
    /// The mounts of its root file system.
    pub mounts: Vec<RootfsMount>,
}

/// What never changes about a further process.
#[derive(Debug)]
pub struct ExecFacts {
    /// The container.
    pub task: TaskId,
    /// The process.
    pub id: ExecId,
    /// The standard streams as containerd named them.
    pub streams: [String; 3],
    /// Whether it has a terminal.
    pub terminal: bool,
}

/// A further process. Every method answers in every state.
pub struct Exec {
    facts: ExecFacts,
    events: Events,
    inner: Mutex<Inner>,
    /// Set once: with the change to Stopped, or when the container goes.
    exit: watch::Sender<Option<ExitStatus>>,
}

struct Inner {
    state: State,
    /// 0 until there is a process.
    pid: u32,
    stdio: Option<Arc<KeptEnds>>,
    /// A compilation that goes on while the program runs.
    first: Option<FirstStart>,
}

enum State {
    Created(Box<(Described, StdioPlan)>),
    /// A Start call is at work.
    Starting,
    Running(Box<Guest>),
    Stopped(ExitStatus),
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::Created(_) => "it is created",
            Self::Starting => "it is being started",
            Self::Running(_) => "it is running",
            Self::Stopped(_) => "it is stopped",
        }
    }
}

impl Exec {
    /// One in state Created.
    pub(super) fn new(call: Call, events: Events) -> Arc<Self> {
        let Call { task, id, process, stdio } = call;
        let facts = ExecFacts { task, id, streams: stdio.texts.clone(), terminal: stdio.terminal };
        let state = State::Created(Box::new((process, stdio)));
        let inner = Inner { state, pid: 0, stdio: None, first: None };
        Arc::new(Self { facts, events, inner: Mutex::new(inner), exit: watch::Sender::new(None) })
    }

    /// What never changes.
    pub fn facts(&self) -> &ExecFacts {
        &self.facts
    }

    /// State, with the pid: answers at once.
    pub fn snapshot(&self) -> (Snapshot, u32) {
        let inner = self.lock();
        let (status, exit) = match &inner.state {
            State::Created(_) | State::Starting => (Status::Created, None),
            State::Running(_) => (Status::Running, None),
            State::Stopped(exit) => (Status::Stopped, Some(*exit)),
        };
        (Snapshot { status, exit }, inner.pid)
    }

    /// Its pid, while it runs.
    pub(super) fn running(&self) -> Option<u32> {
        let inner = self.lock();
        matches!(inner.state, State::Running(_)).then_some(inner.pid)
    }

    /// Wait: resolves when it is Stopped, or its container gone.
    pub async fn wait(&self) -> ExitStatus {
        let mut exit = self.exit.subscribe();
        let known = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        // The sender is part of `self`, so the channel cannot close.
        known.unwrap_or_else(|| ExitStatus::now(exit::UNKNOWN))
    }

    /// Start: makes the process and lets its program go. Returns the pid.
    ///
    /// # Errors
    /// [`TaskError::ExecFailed`], after which it is Stopped and can be deleted;
    /// [`TaskError::ExecRefused`] in the wrong state.
    pub async fn start(self: &Arc<Self>, task: &Arc<Task>) -> Result<u32, TaskError> {
        if *task.execs().closed().borrow() {
            return Err(self.refuse("start", "its container has ended"));
        }
        if task.is_paused() {
            return Err(self.refuse("start", "its container is paused"));
        }
        let created = {
            let mut inner = self.lock();
            match std::mem::replace(&mut inner.state, State::Starting) {
                State::Created(created) => created,
                other => {
                    let status = other.name();
                    inner.state = other;
                    return Err(self.refuse("start", status));
                }
            }
        };
        let (process, stdio) = *created;
        match self.bring_up(task, process, stdio).await {
            Ok((guest, kept)) => {
                Ok(self.started(guest, kept, task.household().config.output_patience))
            }
            Err(error) => {
                self.not_started(&error, &task.household().afterwork).await;
                Err(TaskError::ExecFailed(Box::new(error)))
            }
        }
    }

    /// The bad end of Start.
    async fn not_started(&self, error: &TaskError, afterwork: &Afterwork) {
        let first = self.lock().first.take();
        if let Some(first) = first {
            first.guest_ended(true);
            first.settled(afterwork).await;
        }
        let exit =
            ExitStatus::now(if is_absent(error) { exit::NOT_FOUND } else { exit::CANNOT_RUN });
        self.lock().state = State::Stopped(exit);
        self.exit.send_replace(Some(exit));
    }

    /// Makes the process and lets it go.
    async fn bring_up(
        &self,
        task: &Arc<Task>,
        process: Described,
        stdio: StdioPlan,
    ) -> Result<(Guest, Arc<KeptEnds>), TaskError> {
        let household = task.household();
        let facts = task.facts();
        let entrance = Entrance::open(task.child(), facts.pid)?;
        let (workload, found) = self.prepare(task, process, &entrance).await?;
        let owner =
            io::Owner { container: self.facts.id.as_str(), namespace: &household.config.namespace };
        let (ends, kept) = io::open(&stdio, owner, household.config.stdin_patience).await?;
        let ends = ends.given_to(household.config.io_owner)?;
        let digest = found.digest();
        let (source, runner) = match found {
            Found::Wasm(source, entry) => (Some(source), Runner::Wasm { entry }),
            Found::Toolbox(source) => (Some(source), Runner::Toolbox),
            Found::Linux => (None, Runner::Linux),
        };
        let code = match source {
            Some(source) => Some(self.code(task, source.begin()).await?),
            None => None,
        };
        let mut guest = Guest::spawn_exec(ExecRequest {
            id: facts.id.as_str(),
            bundle: &facts.bundle,
            workload,
            stdio: Stdio { stdin: ends.stdin, stdout: ends.stdout, stderr: ends.stderr },
            runner,
            entrance,
            cgroup: task.cgroup()?,
        })
        .await?;
        guest.runs_module(digest);
        match self.let_go(&mut guest, &kept, code).await {
            Ok(()) => Ok((guest, Arc::new(kept))),
            Err(error) => {
                guest.kill_and_reap().await;
                Err(error)
            }
        }
    }

    async fn let_go(
        &self,
        guest: &mut Guest,
        kept: &KeptEnds,
        code: Option<crate::guest::Code>,
    ) -> Result<(), TaskError> {
        if let Some(master) = guest.take_terminal() {
            kept.connect(master)?;
        }
        if let Some(code) = code {
            guest.provide_code(code)?;
        }
        kept.release_input();
        Ok(guest.start().await?)
    }

    /// Reads what the bundle says of the container and finds the program, away from the event loop.
    async fn prepare(
        &self,
        task: &Arc<Task>,
        process: Described,
        entrance: &Entrance,
    ) -> Result<(Workload, Found), TaskError> {
        let household = task.household();
        let finder = Finder {
            runtime: Handle::current(),
            config: household.config.clone(),
            cache: household.cache.clone(),
            id: self.facts.task.clone(),
            exec: Some(self.facts.id.clone()),
            bundle: task.facts().bundle.clone(),
            afterwork: household.afterwork.clone(),
            image: None,
        };
        let root = entrance.root().map_err(GuestError::os("open the container's root"))?;
        let task = Arc::clone(task);
        let prepare = move || {
            let workload = Workload { process, ..spec::load(&finder.bundle)? };
            let found = finder.exec(&workload.process, root, &task.household().mounts)?;
            Ok((workload, found))
        };
        let prepared = tokio::task::spawn_blocking(prepare).await;
        prepared.unwrap_or(Err(TaskError::Broken("prepare the process")))
    }

    /// Waits for the code, as long as the container runs.
    async fn code(
        &self,
        task: &Task,
        compilation: crate::compile::Compilation,
    ) -> Result<crate::guest::Code, TaskError> {
        let stop = compilation.stopper();
        let mut closed = task.execs().closed();
        let ended = async {
            // The sender lives as long as the task.
            let _ = closed.wait_for(|closed| *closed).await;
        };
        let ready = compilation.ready();
        tokio::pin!(ready);
        let result = tokio::select! {
            biased;
            result = &mut ready => result,
            () = ended => {
                stop.stop();
                ready.await
            }
        };
        match result {
            Ok(Ready { code, first }) => {
                self.lock().first = first;
                Ok(code)
            }
            Err(CompileError::Cancelled { .. }) => {
                Err(self.refuse("start", "its container has ended"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The good end of Start: the event, then whoever waits for the end.
    fn started(self: &Arc<Self>, guest: Guest, kept: Arc<KeptEnds>, patience: Duration) -> u32 {
        let mut inner = self.lock();
        let (pid, end) = (guest.pid().unsigned_abs(), guest.wait());
        inner.pid = pid;
        inner.stdio = Some(Arc::clone(&kept));
        inner.state = State::Running(Box::new(guest));
        self.events.publish(response::exec_started_event(&self.facts, pid));
        let watched = Arc::clone(self);
        tokio::spawn(async move {
            let exit = end.await.into();
            kept.drained(patience).await;
            watched.ended(exit);
        });
        pid
    }

    /// The process has ended; called once, by the watcher.
    fn ended(&self, exit: ExitStatus) {
        let mut inner = self.lock();
        if let Some(first) = &inner.first {
            first.guest_ended(exit.code == exit::by_signal(libc::SIGKILL));
        }
        inner.state = State::Stopped(exit);
        self.events.publish(response::exec_exit_event(&self.facts, inner.pid, exit));
        self.exit.send_replace(Some(exit));
    }

    /// Kill.
    ///
    /// # Errors
    /// [`TaskError::ExecRefused`] before it runs, [`TaskError::ExecFinished`] after it.
    pub(super) fn kill(&self, signal: Signal) -> Result<(), TaskError> {
        let finished = || TaskError::ExecFinished(self.facts.task.clone(), self.facts.id.clone());
        match &self.lock().state {
            State::Running(guest) => match guest.signal(signal.number(), false) {
                Err(GuestError::State { .. }) => Err(finished()),
                other => Ok(other?),
            },
            State::Stopped(_) => Err(finished()),
            other => Err(self.refuse("kill", other.name())),
        }
    }

    /// Kills it if it runs.
    pub(super) fn end(&self) {
        if let State::Running(guest) = &self.lock().state {
            // That it has ended is as good.
            let _ = guest.signal(libc::SIGKILL, false);
        }
    }

    /// Resolves when it is neither starting nor running. Its container has ended.
    pub(super) async fn settled(&self) {
        if matches!(self.lock().state, State::Created(_)) {
            return;
        }
        while self.exit.borrow().is_none() {
            // One that has begun just now is killed too.
            self.end();
            let mut exit = self.exit.subscribe();
            let soon = exit.wait_for(Option::is_some);
            let _ = tokio::time::timeout(Duration::from_millis(50), soon).await;
        }
    }

    /// See [`super::Process::resize`].
    pub(super) fn resize(&self, size: (u16, u16)) -> Result<(), TaskError> {
        let inner = self.lock();
        match (&inner.state, &inner.stdio) {
            (State::Stopped(_), _) => {
                Err(self.refuse("resize the terminal of", inner.state.name()))
            }
            (_, Some(stdio)) => stdio.resize(size).map_err(|source| {
                GuestError::Os { act: "resize the terminal".into(), source }.into()
            }),
            (_, None) => Ok(()),
        }
    }

    /// See [`super::Process::close_input`].
    pub(super) fn close_input(&self) {
        if let Some(stdio) = &self.lock().stdio {
            stdio.close_input();
        }
    }

    /// Delete: gives pid and end; one that never ran has neither.
    ///
    /// # Errors
    /// [`TaskError::ExecRefused`] while it starts or runs.
    pub(super) async fn delete(
        &self,
        afterwork: &Afterwork,
    ) -> Result<(u32, ExitStatus), TaskError> {
        let (pid, exit, stdio, first) = {
            let mut inner = self.lock();
            let exit = match &inner.state {
                State::Stopped(exit) => *exit,
                State::Created(_) => ExitStatus::now(0),
                other => return Err(self.refuse("delete", other.name())),
            };
            inner.state = State::Stopped(exit);
            (inner.pid, exit, inner.stdio.take(), inner.first.take())
        };
        if let Some(first) = first {
            first.settled(afterwork).await;
        }
        if let Some(stdio) = stdio {
            stdio.close().await;
        }
        self.exit.send_if_modified(|known| known.replace(exit).is_none());
        Ok((pid, exit))
    }

    /// Its container goes: nobody waits any longer.
    pub(super) async fn forgotten(&self) {
        // It does not run; so this cannot be refused.
        let _ = self.delete(&Afterwork::default()).await;
    }

    fn refuse(&self, act: &'static str, status: &'static str) -> TaskError {
        let (id, exec) = (self.facts.task.clone(), self.facts.id.clone());
        TaskError::ExecRefused { id, exec, act, status }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while holding the lock, so poison carries no meaning.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether nothing was there to execute, by which shells and Docker choose their number.
fn is_absent(error: &TaskError) -> bool {
    matches!(error, TaskError::Exec(fault) if fault.is_absent())
}
