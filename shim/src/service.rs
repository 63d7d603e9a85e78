//! The Task API: translate, call, translate back. One implementation serves
//! `containerd.task.v2.Task` and `containerd.task.v3.Task`, whose messages are the same.
//!
//! Calls that change something run to their end even when the caller hangs up: a half-made task
//! would be in nobody's hands.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

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
use crate::figures::{self, Happening};
use crate::registry::Registry;
use crate::request::{Create, Exec, ExecId, Kill, RequestError, Signal, TaskId};
use crate::response;
use crate::sandbox;
use crate::stats;
use crate::task::{Process, Task, TaskError};
use crate::update;

/// The name under which the generated code registers the service.
const V3: &str = "containerd.task.v3.Task";
/// The name containerd up to 2.2 uses for the same messages.
const V2: &str = "containerd.task.v2.Task";

/// How long the connections of a pod's shim stay open after its last answer.
const LINGER: Duration = Duration::from_secs(1);

/// The shim: its tasks and what they share.
pub struct Shim {
    config: ShimConfig,
    cache: OnceLock<CodeCache>,
    events: Events,
    afterwork: Afterwork,
    tasks: Registry,
    sandbox: sandbox::Place,
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
            sandbox: sandbox::Place::default(),
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

    /// The place of this shim's sandbox.
    pub fn sandbox(&self) -> &sandbox::Place {
        &self.sandbox
    }

    /// Makes a task; returns its pid.
    async fn create(&self, mut request: Create, received: Instant) -> Result<u32, TaskError> {
        request.pod = self.sandbox.files();
        let place = self.tasks.reserve(&request.id)?;
        let cache = self.cache.get_or_init(|| CodeCache::open(&self.config.cache));
        let task =
            create::create(&self.config, cache, &self.events, &self.afterwork, request).await?;
        let pid = task.facts().pid;
        task.created_in(received.elapsed());
        place.fill(task);
        Ok(pid)
    }

    async fn delete(
        &self,
        id: &TaskId,
        exec: Option<&ExecId>,
    ) -> Result<(u32, ExitStatus), TaskError> {
        let task = self.tasks.get_made(id).await?;
        if let Some(exec) = exec {
            return task.delete_exec(exec).await;
        }
        let exit = task.delete().await?;
        self.tasks.remove(id);
        Ok((task.facts().pid, exit))
    }

    /// Shutdown: the shim exits when it has no task and no sandbox left, or at once if `now`, ending what
    /// runs.
    pub async fn shut_down(&self, now: bool) {
        if (self.sandbox.is_taken() && !now) || !self.tasks.close(now) {
            return;
        }
        self.end_all().await;
        self.leave.notify_one();
    }

    /// ShutdownSandbox: like Shutdown with `now`, but the shim stays for [`LINGER`] after its answer.
    /// Where answer and end of a connection come together, containerd's client takes either, and fails
    /// the pod's removal with "ttrpc: closed"; of Shutdown it takes that for the answer.
    pub async fn shut_down_pod(self: Arc<Self>) {
        self.tasks.close(true);
        self.end_all().await;
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            self.leave.notify_one();
        });
    }

    async fn end_all(&self) {
        for task in self.tasks.all() {
            end(&task).await;
        }
        self.sandbox.clear().await;
    }

    fn task(&self, id: &str) -> Result<Arc<Task>, TaskError> {
        self.tasks.get(&TaskId::parse(id).map_err(RequestError::from)?)
    }

    /// The process that a call means: the first one of its container, without an `exec` id.
    fn process(&self, id: &str, exec: &str) -> Result<Process, TaskError> {
        self.task(id)?.process(ExecId::parse_optional(exec)?.as_ref())
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
    services.extend(sandbox::services(shim));
    services
}

/// The wire face of a [`Shim`].
struct TaskService(Arc<Shim>);

/// Runs `work` to its end whatever becomes of the caller, whose connection may close and whose
/// deadline may pass.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, TaskError>> + Send + 'static,
) -> Result<T, TaskError> {
    finish(work).await?
}

/// The same for work of any outcome.
pub(crate) async fn finish<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, TaskError> {
    tokio::spawn(work).await.map_err(|_| TaskError::Broken("finish the call"))
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
        let received = Instant::now();
        let request = Create::try_from(request).map_err(TaskError::from)?;
        let (shim, id) = (Arc::clone(&self.0), request.id.clone());
        let result = detached(async move { shim.create(request, received).await }).await;
        if result.is_err() {
            figures::tell_later(Happening::NotStarted);
        }
        let pid = result.inspect_err(|error| tracing::warn!(%id, %error, "create failed"))?;
        tracing::info!(%id, pid, "created");
        Ok(api::CreateTaskResponse { pid, ..Default::default() })
    }

    async fn start(
        &self,
        _: &TtrpcContext,
        request: api::StartRequest,
    ) -> ttrpc::Result<api::StartResponse> {
        let process = self.0.process(&request.id, &request.exec_id)?;
        let result = detached(async move { process.start().await }).await;
        let (id, exec) = (&request.id, &request.exec_id);
        let pid = result.inspect_err(|error| tracing::warn!(%id, exec, %error, "start failed"))?;
        tracing::info!(%id, exec, pid, "started");
        Ok(api::StartResponse { pid, ..Default::default() })
    }

    async fn state(
        &self,
        _: &TtrpcContext,
        request: api::StateRequest,
    ) -> ttrpc::Result<api::StateResponse> {
        Ok(match self.0.process(&request.id, &request.exec_id)? {
            Process::Init(task) => response::state(task.facts(), task.snapshot()),
            Process::Exec(task, exec) => response::exec_state(&exec, &task),
        })
    }

    async fn wait(
        &self,
        _: &TtrpcContext,
        request: api::WaitRequest,
    ) -> ttrpc::Result<api::WaitResponse> {
        let process = self.0.process(&request.id, &request.exec_id)?;
        Ok(response::waited(process.wait().await))
    }

    async fn pids(
        &self,
        _: &TtrpcContext,
        request: api::PidsRequest,
    ) -> ttrpc::Result<api::PidsResponse> {
        let task = self.0.task(&request.id)?;
        Ok(response::pids(task.pids()?, &task.exec_pids()))
    }

    async fn kill(&self, _: &TtrpcContext, request: api::KillRequest) -> ttrpc::Result<api::Empty> {
        let process = self.0.process(&request.id, &request.exec_id)?;
        process.kill(Kill::try_from(&request).map_err(TaskError::from)?)?;
        Ok(api::Empty::new())
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        request: api::DeleteRequest,
    ) -> ttrpc::Result<api::DeleteResponse> {
        let id = TaskId::parse(&request.id).map_err(RequestError::from).map_err(TaskError::from)?;
        let exec = ExecId::parse_optional(&request.exec_id).map_err(TaskError::from)?;
        let shim = Arc::clone(&self.0);
        let (pid, exit) = detached(async move { shim.delete(&id, exec.as_ref()).await }).await?;
        tracing::info!(id = request.id, exec = request.exec_id, pid, exit = exit.code, "deleted");
        Ok(response::deleted(pid, exit))
    }

    /// Closes what the shim holds of standard input: a terminal's. Otherwise the guest reads the client's
    /// FIFO itself, whose end comes when the client closes it.
    async fn close_io(
        &self,
        _: &TtrpcContext,
        request: api::CloseIORequest,
    ) -> ttrpc::Result<api::Empty> {
        let process = self.0.process(&request.id, &request.exec_id)?;
        if request.stdin {
            process.close_input();
        }
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

    async fn pause(
        &self,
        _: &TtrpcContext,
        request: api::PauseRequest,
    ) -> ttrpc::Result<api::Empty> {
        let task = self.0.task(&request.id)?;
        detached(async move { task.pause().await }).await?;
        Ok(api::Empty::new())
    }

    async fn resume(
        &self,
        _: &TtrpcContext,
        request: api::ResumeRequest,
    ) -> ttrpc::Result<api::Empty> {
        self.0.task(&request.id)?.resume()?;
        Ok(api::Empty::new())
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
        request: api::ExecProcessRequest,
    ) -> ttrpc::Result<api::Empty> {
        let call = Exec::try_from(request)?;
        let (id, exec) = (call.task.clone(), call.id.clone());
        self.0.tasks.get(&id)?.exec(call)?;
        tracing::info!(%id, %exec, "exec added");
        Ok(api::Empty::new())
    }

    async fn resize_pty(
        &self,
        _: &TtrpcContext,
        request: api::ResizePtyRequest,
    ) -> ttrpc::Result<api::Empty> {
        let process = self.0.process(&request.id, &request.exec_id)?;
        // The kernel's structure has 16 bits for each.
        let cut = |length: u32| u16::try_from(length).unwrap_or(u16::MAX);
        process.resize((cut(request.width), cut(request.height)))?;
        Ok(api::Empty::new())
    }

    async fn update(
        &self,
        _: &TtrpcContext,
        request: api::UpdateTaskRequest,
    ) -> ttrpc::Result<api::Empty> {
        let task = self.0.task(&request.id)?;
        let resources = update::resources(&request).map_err(TaskError::from)?;
        detached(async move { task.update(resources).await }).await?;
        Ok(api::Empty::new())
    }

    async fn stats(
        &self,
        _: &TtrpcContext,
        request: api::StatsRequest,
    ) -> ttrpc::Result<api::StatsResponse> {
        let stats = self.0.task(&request.id)?.stats()?;
        let message = stats::message(&stats).map_err(|_| TaskError::Broken("encode statistics"))?;
        Ok(api::StatsResponse { stats: Some(message).into(), ..Default::default() })
    }
}
