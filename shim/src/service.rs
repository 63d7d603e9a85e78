//! The Task API: translate, call, translate back. One implementation serves
//! `containerd.task.v2.Task` and `containerd.task.v3.Task`, whose messages are the same.
//!
//! Calls that change something run to their end even when the caller hangs up: a half-made task
//! would be in nobody's hands.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use containerd_shim_protos::api;
use containerd_shim_protos::shim_async::{Task as TaskApi, create_task};
use containerd_shim_protos::ttrpc::asynchronous::{Service, TtrpcContext};
use containerd_shim_protos::ttrpc::{self};
use tokio::sync::Notify;

use crate::cache::CodeCache;
use crate::compile::Afterwork;
use crate::config::ShimConfig;
use crate::create;
use crate::events::Events;
use crate::exit::ExitStatus;
use crate::registry::Registry;
use crate::request::{Create, Kill, RequestError, Signal, TaskId, init_process};
use crate::response;
use crate::task::{Task, TaskError};

/// The name under which the generated code registers the service.
const V3: &str = "containerd.task.v3.Task";
/// The name containerd up to 2.2 uses for the same messages.
const V2: &str = "containerd.task.v2.Task";

/// The shim: its tasks and what they share.
pub struct Shim {
    config: ShimConfig,
    cache: OnceLock<CodeCache>,
    events: Events,
    afterwork: Afterwork,
    tasks: Registry,
    leave: Notify,
}

impl Shim {
    /// An empty shim.
    pub fn new(config: ShimConfig, events: Events) -> Arc<Self> {
        Arc::new(Self {
            config,
            cache: OnceLock::new(),
            events,
            afterwork: Afterwork::default(),
            tasks: Registry::default(),
            leave: Notify::new(),
        })
    }

    /// Resolves when the shim may exit.
    pub async fn left(&self) {
        self.leave.notified().await;
    }

    /// What is to be finished before the shim exits.
    pub fn afterwork(&self) -> &Afterwork {
        &self.afterwork
    }

    /// Makes a task; returns its pid.
    async fn create(&self, request: Create) -> Result<u32, TaskError> {
        let place = self.tasks.reserve(&request.id)?;
        let cache = self.cache.get_or_init(|| CodeCache::open(&self.config.cache));
        let task =
            create::create(&self.config, cache, &self.events, &self.afterwork, request).await?;
        let pid = task.facts().pid;
        place.fill(task);
        Ok(pid)
    }

    async fn delete(&self, id: &TaskId) -> Result<(u32, ExitStatus), TaskError> {
        let task = self.tasks.get_made(id).await?;
        let exit = task.delete().await?;
        self.tasks.remove(id);
        Ok((task.facts().pid, exit))
    }

    /// Shutdown: the shim exits when it has no task left, or at once if `now`, ending what runs.
    pub async fn shut_down(&self, now: bool) {
        if !self.tasks.close(now) {
            return;
        }
        for task in self.tasks.all() {
            end(&task).await;
        }
        self.leave.notify_one();
    }

    fn task(&self, id: &str, exec: &str) -> Result<Arc<Task>, TaskError> {
        self.tasks.get(&init_process(id, exec)?)
    }
}

/// Kills and removes a task, for a shim that must exit now.
async fn end(task: &Task) {
    // Whatever fails here is left to `delete`, which containerd calls after the shim is gone.
    let _ = task.kill(Kill { signal: Signal::KILL, all: true });
    task.wait().await;
    if let Err(error) = task.delete().await {
        tracing::warn!(id = %task.facts().id, %error, "task left behind");
    }
}

/// The services of one shim, for a ttrpc server.
pub fn services(shim: &Arc<Shim>) -> HashMap<String, Service> {
    let service = || create_task(Arc::new(TaskService(Arc::clone(shim))));
    let mut services = service();
    if let Some(v2) = service().remove(V3) {
        services.insert(V2.to_owned(), v2);
    }
    services
}

/// The wire face of a [`Shim`].
struct TaskService(Arc<Shim>);

/// Runs `work` to its end whatever becomes of the caller, whose connection may close and whose
/// deadline may pass.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, TaskError>> + Send + 'static,
) -> Result<T, TaskError> {
    tokio::spawn(work).await.unwrap_or(Err(TaskError::Broken("finish the call")))
}

/// Answers a call this shim does not have.
fn unsupported<T>(sentence: &'static str) -> ttrpc::Result<T> {
    Err(TaskError::Unsupported(sentence).into())
}

#[async_trait]
impl TaskApi for TaskService {
    async fn create(
        &self,
        _: &TtrpcContext,
        request: api::CreateTaskRequest,
    ) -> ttrpc::Result<api::CreateTaskResponse> {
        let request = Create::try_from(request).map_err(TaskError::from)?;
        let (shim, id) = (Arc::clone(&self.0), request.id.clone());
        let result = detached(async move { shim.create(request).await }).await;
        let pid = result.inspect_err(|error| tracing::warn!(%id, %error, "create failed"))?;
        tracing::info!(%id, pid, "created");
        Ok(api::CreateTaskResponse { pid, ..Default::default() })
    }

    async fn start(
        &self,
        _: &TtrpcContext,
        request: api::StartRequest,
    ) -> ttrpc::Result<api::StartResponse> {
        let task = self.0.task(&request.id, &request.exec_id)?;
        let result = detached(async move { task.start().await }).await;
        let id = &request.id;
        let pid = result.inspect_err(|error| tracing::warn!(%id, %error, "start failed"))?;
        tracing::info!(%id, pid, "started");
        Ok(api::StartResponse { pid, ..Default::default() })
    }

    async fn state(
        &self,
        _: &TtrpcContext,
        request: api::StateRequest,
    ) -> ttrpc::Result<api::StateResponse> {
        let task = self.0.task(&request.id, &request.exec_id)?;
        Ok(response::state(task.facts(), task.snapshot()))
    }

    async fn wait(
        &self,
        _: &TtrpcContext,
        request: api::WaitRequest,
    ) -> ttrpc::Result<api::WaitResponse> {
        let task = self.0.task(&request.id, &request.exec_id)?;
        Ok(response::waited(task.wait().await))
    }

    async fn pids(
        &self,
        _: &TtrpcContext,
        request: api::PidsRequest,
    ) -> ttrpc::Result<api::PidsResponse> {
        Ok(response::pids(self.0.task(&request.id, "")?.pids()?))
    }

    async fn kill(&self, _: &TtrpcContext, request: api::KillRequest) -> ttrpc::Result<api::Empty> {
        let task = self.0.task(&request.id, &request.exec_id)?;
        task.kill(Kill::try_from(&request).map_err(TaskError::from)?)?;
        Ok(api::Empty::new())
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        request: api::DeleteRequest,
    ) -> ttrpc::Result<api::DeleteResponse> {
        let id = init_process(&request.id, &request.exec_id).map_err(TaskError::from)?;
        let shim = Arc::clone(&self.0);
        let (pid, exit) = detached(async move { shim.delete(&id).await }).await?;
        tracing::info!(id = request.id, pid, exit = exit.code, "deleted");
        Ok(response::deleted(pid, exit))
    }

    /// The guest reads the client's FIFO itself, whose end comes when the client closes it; the shim
    /// holds nothing that would be left to close.
    async fn close_io(
        &self,
        _: &TtrpcContext,
        request: api::CloseIORequest,
    ) -> ttrpc::Result<api::Empty> {
        self.0.task(&request.id, &request.exec_id)?;
        Ok(api::Empty::new())
    }

    /// Answers for unknown containers too: containerd asks a shim for its pid before it knows more.
    async fn connect(
        &self,
        _: &TtrpcContext,
        request: api::ConnectRequest,
    ) -> ttrpc::Result<api::ConnectResponse> {
        let id = TaskId::parse(&request.id).map_err(RequestError::from).map_err(TaskError::from)?;
        Ok(api::ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: self.0.tasks.get(&id).map_or(0, |task| task.facts().pid),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        })
    }

    async fn shutdown(
        &self,
        _: &TtrpcContext,
        request: api::ShutdownRequest,
    ) -> ttrpc::Result<api::Empty> {
        let shim = Arc::clone(&self.0);
        detached(async move {
            shim.shut_down(request.now).await;
            Ok(())
        })
        .await?;
        Ok(api::Empty::new())
    }

    async fn pause(&self, _: &TtrpcContext, _: api::PauseRequest) -> ttrpc::Result<api::Empty> {
        unsupported("pausing a wasm container is not supported")
    }

    async fn resume(&self, _: &TtrpcContext, _: api::ResumeRequest) -> ttrpc::Result<api::Empty> {
        unsupported("resuming a wasm container is not supported, since it cannot be paused")
    }

    async fn checkpoint(
        &self,
        _: &TtrpcContext,
        _: api::CheckpointTaskRequest,
    ) -> ttrpc::Result<api::Empty> {
        unsupported("checkpoints of wasm containers are not supported")
    }

    async fn exec(
        &self,
        _: &TtrpcContext,
        _: api::ExecProcessRequest,
    ) -> ttrpc::Result<api::Empty> {
        unsupported("exec is not supported: a wasm container has one process")
    }

    async fn resize_pty(
        &self,
        _: &TtrpcContext,
        _: api::ResizePtyRequest,
    ) -> ttrpc::Result<api::Empty> {
        unsupported("there is no terminal to resize: terminals are not supported")
    }

    async fn update(
        &self,
        _: &TtrpcContext,
        _: api::UpdateTaskRequest,
    ) -> ttrpc::Result<api::Empty> {
        unsupported("limits cannot be changed after the container was created")
    }

    async fn stats(
        &self,
        _: &TtrpcContext,
        _: api::StatsRequest,
    ) -> ttrpc::Result<api::StatsResponse> {
        unsupported("statistics of wasm containers are not supported")
    }
}
