//! Create: from a request to a parked guest, all or nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coracle_oci::digest::Digest;
use coracle_oci::image::{self, ContentStore, Descriptor, Entrypoint, ImageRef, Module};
use coracle_oci::spec::{self, Workload};
use coracle_oci::{ImageError, StoreError};

use crate::compile::{self, Compilation, Job};
use crate::config::ShimConfig;
use crate::content::ContainerdContent;
use crate::events::Events;
use crate::guest::{Guest, Runner, SpawnRequest, Stdio};
use crate::io;
use crate::mounts::RootfsMounts;
use crate::request::{Create, RootfsMount, TaskId};
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
    events: &Events,
    request: Create,
) -> Result<Arc<Task>, TaskError> {
    let config = config.with_options(request.options.as_ref())?;
    let mut prepared = prepare(&config, &request).await?;
    let job = prepared.program.take();
    match assemble(&config, &request, &prepared.workload, job).await {
        Ok(assembled) => {
            let patience = config.output_patience;
            finish(events, request, assembled, prepared.mounts, patience)
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
    /// What to compile, and what to call in it; `None` for the built-in sleeper.
    program: Option<(Job, Entrypoint)>,
}

/// Reads, mounts and finds the module, away from the event loop.
async fn prepare(config: &ShimConfig, request: &Create) -> Result<Prepared, TaskError> {
    let runtime = tokio::runtime::Handle::current();
    let (config, id) = (config.clone(), request.id.clone());
    let (bundle, mounts) = (request.bundle.clone(), request.mounts.clone());
    tokio::task::spawn_blocking(move || prepare_blocking(&runtime, &config, &id, &bundle, &mounts))
        .await
        .map_err(|_| TaskError::Broken("prepare the container"))?
}

fn prepare_blocking(
    runtime: &tokio::runtime::Handle,
    config: &ShimConfig,
    id: &TaskId,
    bundle: &Path,
    mounts: &[RootfsMount],
) -> Result<Prepared, TaskError> {
    let workload = spec::load(bundle)?;
    if workload.process.terminal {
        return Err(TaskError::Unsupported(crate::request::NO_TERMINAL));
    }
    let mut mounts = RootfsMounts::make(bundle, mounts)?;
    let program = if workload.is_pause() {
        Ok(None)
    } else {
        program(runtime, config, id, &workload).map(Some)
    };
    match program {
        Ok(program) => Ok(Prepared { workload, mounts, program }),
        Err(error) => {
            undo(&mut mounts);
            Err(error)
        }
    }
}

/// Finds the module and makes its bytes unchangeable.
fn program(
    runtime: &tokio::runtime::Handle,
    config: &ShimConfig,
    id: &TaskId,
    workload: &Workload,
) -> Result<(Job, Entrypoint), TaskError> {
    let mut module = resolve(runtime, config, id, workload)?;
    let compiler = compile::find_compiler(config.coracle_bin.as_deref())?;
    let job =
        Job { module: module.seal()?, origin: module.origin, limits: config.compile, compiler };
    Ok((job, module.entry))
}

/// Looks into the root file system first; containerd is asked only when that gives nothing, since
/// asking costs more than all the rest.
fn resolve(
    runtime: &tokio::runtime::Handle,
    config: &ShimConfig,
    id: &TaskId,
    workload: &Workload,
) -> Result<Module, TaskError> {
    let rootfs = &workload.rootfs.path;
    let image = match image::resolve(workload, rootfs, None, &NoStore) {
        Ok(module) => return Ok(module),
        Err(image @ ImageError::NothingUsable { .. }) => image,
        Err(other) => return Err(other.into()),
    };
    let address = config.grpc_address.as_deref();
    let store = ContainerdContent::connect(runtime.clone(), address, &config.namespace);
    let (store, name) = match store {
        Ok(store) => match store.image_of(id.as_str()) {
            Ok(name) => (store, name),
            Err(error) => return Err(TaskError::NoModule { image, content: error.to_string() }),
        },
        Err(error) => return Err(TaskError::NoModule { image, content: error.to_string() }),
    };
    match name {
        Some(name) => Ok(image::resolve(workload, rootfs, Some(&name), &store)?),
        None => Err(image.into()),
    }
}

/// The store of a look-up that asks for no image.
struct NoStore;

impl ContentStore for NoStore {
    fn read(&self, digest: &Digest, _: u64) -> Result<Vec<u8>, StoreError> {
        Err(StoreError::NotFound(digest.to_string()))
    }

    fn image_target(&self, name: &str) -> Result<Descriptor, StoreError> {
        Err(StoreError::NotFound(ImageRef::new(name).map_or_else(String::new, |image| image.name)))
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
    program: Option<(Job, Entrypoint)>,
) -> Result<Assembled, TaskError> {
    if let Some(systemd) = config.systemd_cgroup {
        tracing::debug!(id = %request.id, systemd, "cgroup driver by runtime option");
    }
    let (ends, stdio) = io::open(&request.stdio, config.stdin_patience)?;
    let (compilation, runner) = match program {
        Some((job, entry)) => (Some(Compilation::begin(job)), Runner::Wasm { entry }),
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
                // Its own error says no more than that it was stopped.
                let _ = compilation.image().await;
            }
            Err(error.into())
        }
    }
}

fn finish(
    events: &Events,
    request: Create,
    assembled: Assembled,
    mounts: RootfsMounts,
    output_patience: Duration,
) -> Result<Arc<Task>, TaskError> {
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
