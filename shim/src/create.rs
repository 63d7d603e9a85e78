//! Create: from a request to a parked guest, all or nothing.

use std::sync::Arc;

use coracle_oci::spec::{self, Namespace, NamespaceKind, Workload};
use tokio::runtime::Handle;

use crate::cache::CodeCache;
use crate::compile::{Afterwork, Compilation};
use crate::config::ShimConfig;
use crate::events::Events;
use crate::figures::Program;
use crate::find::{Finder, Found};
use crate::guest::{Guest, Runner, SpawnRequest, Stdio};
use crate::io::{self, Owner};
use crate::mounts::RootfsMounts;
use crate::request::{Create, RootfsMount};
use crate::response;
use crate::sandbox::PodFiles;
use crate::task::{Facts, Household, Parts, Task, TaskError};

/// Makes the task of a Create call and publishes its first event.
///
/// Must run on the shim's main thread: the guest and the compiler live as long as the thread that
/// makes them.
///
/// # Errors
/// One sentence for the user; mounts, processes and files made on the way are gone then.
pub async fn create(
    config: &ShimConfig,
    cache: &CodeCache,
    events: &Events,
    afterwork: &Afterwork,
    request: Create,
) -> Result<Arc<Task>, TaskError> {
    let config = config.with_options(request.options.as_ref())?;
    let household = Household {
        config: config.clone(),
        cache: cache.clone(),
        afterwork: afterwork.clone(),
        mounts: request.mounts.clone(),
    };
    let mut prepared = prepare(&config, cache, afterwork, &request).await?;
    let program = prepared.program.take();
    let kind = kind(program.as_ref());
    match assemble(&config, &request, &prepared.workload, program).await {
        Ok(assembled) => Ok(finish(events, household, request, assembled, (prepared, kind))),
        Err(error) => {
            undo(&mut prepared.mounts);
            Err(error)
        }
    }
}

/// What needs no process yet.
struct Prepared {
    workload: Workload,
    mounts: RootfsMounts,
    /// The program; `None` for the built-in sleeper.
    program: Option<Found>,
}

/// Reads, mounts and finds the module, away from the event loop.
async fn prepare(
    config: &ShimConfig,
    cache: &CodeCache,
    afterwork: &Afterwork,
    request: &Create,
) -> Result<Prepared, TaskError> {
    let finder = Finder {
        runtime: Handle::current(),
        config: config.clone(),
        cache: cache.clone(),
        id: request.id.clone(),
        exec: None,
        bundle: request.bundle.clone(),
        afterwork: afterwork.clone(),
        image: None,
    };
    let (mounts, pod) = (request.mounts.clone(), request.pod.clone());
    let terminal = request.stdio.terminal;
    tokio::task::spawn_blocking(move || prepare_blocking(&finder, &mounts, &pod, terminal))
        .await
        .map_err(|_| TaskError::Broken("prepare the container"))?
}

fn prepare_blocking(
    finder: &Finder,
    mounts: &[RootfsMount],
    pod: &PodFiles,
    terminal: bool,
) -> Result<Prepared, TaskError> {
    let mut workload = spec::load(&finder.bundle)?;
    pod.complete(&mut workload);
    if workload.process.terminal != terminal {
        return Err(TaskError::Terminal { call: terminal });
    }
    let mut made = RootfsMounts::make(&finder.bundle, mounts)?;
    let program =
        if workload.is_pause() { Ok(None) } else { finder.program(&workload, mounts).map(Some) };
    match program {
        Ok(program) => Ok(Prepared { workload, mounts: made, program }),
        Err(error) => {
            undo(&mut made);
            Err(error)
        }
    }
}

/// The live parts of a task.
struct Assembled {
    guest: Guest,
    compilation: Option<Compilation>,
    stdio: io::KeptEnds,
}

/// What is run, for the figures.
fn kind(program: Option<&Found>) -> Program {
    program.map_or(Program::Pause, Found::kind)
}

/// Starts the compiler, then makes the guest while it works.
async fn assemble(
    config: &ShimConfig,
    request: &Create,
    workload: &Workload,
    program: Option<Found>,
) -> Result<Assembled, TaskError> {
    if let Some(systemd) = config.systemd_cgroup {
        tracing::debug!(id = %request.id, systemd, "cgroup driver by runtime option");
    }
    let owner = Owner { container: request.id.as_str(), namespace: &config.namespace };
    let (ends, stdio) = io::open(&request.stdio, owner, config.stdin_patience).await?;
    let ends = ends.given_to(config.io_owner)?;
    let digest = program.as_ref().and_then(Found::digest);
    let (compilation, runner) = match program {
        Some(Found::Wasm(source, entry)) => (Some(source.begin()), Runner::Wasm { entry }),
        Some(Found::Toolbox(source)) => (Some(source.begin()), Runner::Toolbox),
        Some(Found::Linux) => (None, Runner::Linux),
        None => (None, Runner::Pause),
    };
    let spawned = Guest::spawn(SpawnRequest {
        id: request.id.as_str(),
        bundle: &request.bundle,
        workload,
        stdio: Stdio { stdin: ends.stdin, stdout: ends.stdout, stderr: ends.stderr },
        runner,
    });
    match spawned.await {
        Ok(guest) => {
            guest.runs_module(digest);
            connected(guest, compilation, stdio).await
        }
        Err(error) => Err(given_up(compilation, error.into()).await),
    }
}

/// Connects the client to the terminal of a guest that has one.
async fn connected(
    mut guest: Guest,
    compilation: Option<Compilation>,
    stdio: io::KeptEnds,
) -> Result<Assembled, TaskError> {
    if let Some(Err(error)) = guest.take_terminal().map(|master| stdio.connect(master)) {
        if let Err(second) = guest.cleanup().await {
            tracing::warn!(error = %second, "remove a guest whose terminal does not work");
        }
        return Err(given_up(compilation, error.into()).await);
    }
    Ok(Assembled { guest, compilation, stdio })
}

/// Ends the compilation for a guest that will not be.
async fn given_up(compilation: Option<Compilation>, error: TaskError) -> TaskError {
    if let Some(compilation) = compilation {
        compilation.stopper().stop();
        compilation.given_up().await;
    }
    error
}

fn finish(
    events: &Events,
    household: Household,
    request: Create,
    assembled: Assembled,
    (prepared, program): (Prepared, Program),
) -> Arc<Task> {
    let facts = Facts {
        id: request.id,
        bundle: request.bundle,
        pid: assembled.guest.pid().unsigned_abs(),
        streams: request.stdio.texts,
        terminal: request.stdio.terminal,
        shares_pids: !matches!(
            prepared.workload.namespace(NamespaceKind::Pid),
            Some(Namespace { path: None, .. })
        ),
    };
    events.publish(response::create_event(&facts, &request.mounts));
    Task::new(Parts {
        facts,
        events: events.clone(),
        guest: assembled.guest,
        compilation: assembled.compilation,
        afterwork: household.afterwork.clone(),
        stdio: assembled.stdio,
        mounts: prepared.mounts,
        output_patience: household.config.output_patience,
        household,
        program,
    })
}

/// The error that is under way matters more than one of cleaning up.
fn undo(mounts: &mut RootfsMounts) {
    if let Err(error) = mounts.remove() {
        tracing::warn!(%error, "mount left behind");
    }
}
