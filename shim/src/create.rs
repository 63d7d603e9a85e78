//! Create: from a request to a parked guest, all or nothing.

use std::sync::Arc;
use std::time::Duration;

use coracle_oci::image::Entrypoint;
use coracle_oci::spec::{self, Workload};
use tokio::runtime::Handle;

use crate::cache::CodeCache;
use crate::compile::{Afterwork, Compilation};
use crate::config::ShimConfig;
use crate::events::Events;
use crate::find::{Finder, Source};
use crate::guest::{Guest, Runner, SpawnRequest, Stdio};
use crate::io;
use crate::mounts::RootfsMounts;
use crate::request::{Create, RootfsMount};
use crate::response;
use crate::task::{Facts, Parts, Task, TaskError};

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
    let mut prepared = prepare(&config, cache, afterwork, &request).await?;
    let program = prepared.program.take();
    match assemble(&config, &request, &prepared.workload, program).await {
        Ok(assembled) => {
            let patience = config.output_patience;
            let afterwork = afterwork.clone();
            Ok(finish(events, afterwork, request, assembled, prepared.mounts, patience))
        }
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
    /// The program's code, and what to call in it; `None` for the built-in sleeper.
    program: Option<(Source, Entrypoint)>,
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
        bundle: request.bundle.clone(),
        afterwork: afterwork.clone(),
        image: None,
    };
    let mounts = request.mounts.clone();
    tokio::task::spawn_blocking(move || prepare_blocking(&finder, &mounts))
        .await
        .map_err(|_| TaskError::Broken("prepare the container"))?
}

fn prepare_blocking(finder: &Finder, mounts: &[RootfsMount]) -> Result<Prepared, TaskError> {
    let workload = spec::load(&finder.bundle)?;
    if workload.process.terminal {
        return Err(TaskError::Unsupported(crate::request::NO_TERMINAL));
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

/// Starts the compiler, then makes the guest while it works.
async fn assemble(
    config: &ShimConfig,
    request: &Create,
    workload: &Workload,
    program: Option<(Source, Entrypoint)>,
) -> Result<Assembled, TaskError> {
    if let Some(systemd) = config.systemd_cgroup {
        tracing::debug!(id = %request.id, systemd, "cgroup driver by runtime option");
    }
    let (ends, stdio) = io::open(&request.stdio, config.stdin_patience)?;
    let (compilation, runner) = match program {
        Some((source, entry)) => (Some(source.begin()), Runner::Wasm { entry }),
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
        Ok(guest) => Ok(Assembled { guest, compilation, stdio }),
        Err(error) => {
            if let Some(compilation) = compilation {
                compilation.stopper().stop();
                compilation.given_up().await;
            }
            Err(error.into())
        }
    }
}

fn finish(
    events: &Events,
    afterwork: Afterwork,
    request: Create,
    assembled: Assembled,
    mounts: RootfsMounts,
    output_patience: Duration,
) -> Arc<Task> {
    let facts = Facts {
        id: request.id,
        bundle: request.bundle,
        pid: assembled.guest.pid().unsigned_abs(),
        streams: request.stdio.texts,
    };
    events.publish(response::create_event(&facts, &request.mounts));
    Task::new(Parts {
        facts,
        events: events.clone(),
        guest: assembled.guest,
        compilation: assembled.compilation,
        afterwork,
        stdio: assembled.stdio,
        mounts,
        output_patience,
    })
}

/// The error that is under way matters more than one of cleaning up.
fn undo(mounts: &mut RootfsMounts) {
    if let Err(error) = mounts.remove() {
        tracing::warn!(%error, "mount left behind");
    }
}
