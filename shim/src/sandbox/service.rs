//! The wire face of the sandbox: `containerd.runtime.sandbox.v1.Sandbox`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::sandbox_api as api;
use containerd_shim_protos::sandbox_async::{Sandbox as SandboxApi, create_sandbox};
use containerd_shim_protos::ttrpc::asynchronous::{Service, TtrpcContext};
use containerd_shim_protos::ttrpc::{self, Code};
use containerd_shim_protos::types::platform::Platform;
use serde_json::json;

use super::config::PodSandboxConfig;
use super::{Request, SandboxError, absolute, parse_id};
use crate::request::RootfsMount;
use crate::response::timestamp;
use crate::service::{Shim, finish};
use crate::stats;
use crate::task::TaskError;

/// The name under which containerd asks for it.
const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";

/// The service of one shim, for a ttrpc server.
pub fn services(shim: &Arc<Shim>) -> HashMap<String, Service> {
    create_sandbox(Arc::new(SandboxService(Arc::clone(shim))))
}

struct SandboxService(Arc<Shim>);

impl From<SandboxError> for ttrpc::Error {
    fn from(error: SandboxError) -> Self {
        let code = match error {
            SandboxError::NotFound(_) => Code::NOT_FOUND,
            SandboxError::AlreadyExists(_) => Code::ALREADY_EXISTS,
            SandboxError::Refused { .. } => Code::FAILED_PRECONDITION,
            SandboxError::Request(_) => Code::INVALID_ARGUMENT,
            SandboxError::Bundle { .. } => Code::INTERNAL,
            // The faults of a container have their codes.
            SandboxError::Spec(error) => return TaskError::from(error).into(),
            SandboxError::Mount(error) => return TaskError::from(error).into(),
            SandboxError::Guest(error) => return TaskError::from(error).into(),
        };
        ttrpc::Error::RpcStatus(ttrpc::get_status(code, error))
    }
}

impl TryFrom<api::CreateSandboxRequest> for Request {
    type Error = SandboxError;

    fn try_from(wire: api::CreateSandboxRequest) -> Result<Self, SandboxError> {
        let options = wire.options.into_option().unwrap_or_default();
        let decoded = PodSandboxConfig::decode_options(&options.type_url, &options.value);
        let config = decoded
            .map_err(|error| SandboxError::Request(format!("decode the pod's options: {error}")))?;
        // Absent as a message is "no user namespace", whatever the number inside would mean.
        if config.namespaces().users.is_some_and(|users| users.mode == 0) {
            return Err(SandboxError::Request(
                "a pod with a user namespace cannot be a sandbox of the shim: set sandboxer = \"podsandbox\"".to_owned(),
            ));
        }
        let netns = Some(wire.netns_path).filter(|path| !path.is_empty());
        let mount = |mount: containerd_shim_protos::types::mount::Mount| RootfsMount {
            kind: mount.type_,
            source: mount.source,
            options: mount.options,
        };
        Ok(Self {
            id: parse_id(&wire.sandbox_id)?,
            bundle: absolute("bundle", &wire.bundle_path)?,
            rootfs: wire.rootfs.into_iter().map(mount).collect(),
            netns: netns.map(|path: String| absolute("network namespace", &path)).transpose()?,
            config,
        })
    }
}

#[async_trait]
impl SandboxApi for SandboxService {
    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::CreateSandboxRequest,
    ) -> ttrpc::Result<api::CreateSandboxResponse> {
        self.0.sandbox().create(request.try_into()?)?;
        Ok(api::CreateSandboxResponse::new())
    }

    async fn start_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::StartSandboxRequest,
    ) -> ttrpc::Result<api::StartSandboxResponse> {
        let sandbox = self.0.sandbox().get(&request.sandbox_id)?;
        let started = finish(async move { sandbox.start().await }).await??;
        tracing::info!(id = request.sandbox_id, pid = started.pid, "sandbox started");
        Ok(api::StartSandboxResponse {
            pid: started.pid,
            created_at: MessageField::some(timestamp(started.at)),
            ..Default::default()
        })
    }

    async fn platform(
        &self,
        _: &TtrpcContext,
        request: api::PlatformRequest,
    ) -> ttrpc::Result<api::PlatformResponse> {
        self.0.sandbox().get(&request.sandbox_id)?;
        let platform = Platform {
            os: "linux".to_owned(),
            architecture: architecture().to_owned(),
            ..Default::default()
        };
        Ok(api::PlatformResponse { platform: MessageField::some(platform), ..Default::default() })
    }

    async fn stop_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::StopSandboxRequest,
    ) -> ttrpc::Result<api::StopSandboxResponse> {
        let sandbox = self.0.sandbox().get(&request.sandbox_id)?;
        let seconds = Some(request.timeout_secs).filter(|seconds| *seconds > 0);
        let patience = seconds.map(|seconds| Duration::from_secs(seconds.into()));
        finish(async move { sandbox.stop(patience).await }).await??;
        Ok(api::StopSandboxResponse::new())
    }

    async fn wait_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::WaitSandboxRequest,
    ) -> ttrpc::Result<api::WaitSandboxResponse> {
        let exit = self.0.sandbox().get(&request.sandbox_id)?.wait().await;
        Ok(api::WaitSandboxResponse {
            exit_status: exit.code,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..Default::default()
        })
    }

    async fn sandbox_status(
        &self,
        _: &TtrpcContext,
        request: api::SandboxStatusRequest,
    ) -> ttrpc::Result<api::SandboxStatusResponse> {
        let sandbox = self.0.sandbox().get(&request.sandbox_id)?;
        let (started, ended) = (sandbox.started(), sandbox.ended());
        let ready = started.is_some() && ended.is_none();
        let mut answer = api::SandboxStatusResponse {
            sandbox_id: request.sandbox_id,
            pid: started.map_or(0, |started| started.pid),
            state: if ready { READY } else { NOT_READY }.to_owned(),
            created_at: started.map(|started| timestamp(started.at)).into(),
            exited_at: ended.map(|exit| timestamp(exit.at)).into(),
            ..Default::default()
        };
        if request.verbose {
            let shim = std::process::id();
            let info = json!({ "status": sandbox.status(), "pid": answer.pid, "shimPid": shim });
            answer.info.insert("info".to_owned(), info.to_string());
        }
        Ok(answer)
    }

    async fn ping_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::PingRequest,
    ) -> ttrpc::Result<api::PingResponse> {
        self.0.sandbox().get(&request.sandbox_id)?;
        Ok(api::PingResponse::new())
    }

    async fn sandbox_metrics(
        &self,
        _: &TtrpcContext,
        request: api::SandboxMetricsRequest,
    ) -> ttrpc::Result<api::SandboxMetricsResponse> {
        let stats = self.0.sandbox().get(&request.sandbox_id)?.stats().await?;
        let message = stats::message(&stats).map_err(|_| TaskError::Broken("encode statistics"))?;
        let mut answer = api::SandboxMetricsResponse::new();
        let metric = answer.metrics.mut_or_insert_default();
        metric.timestamp = MessageField::some(timestamp(SystemTime::now()));
        metric.id = request.sandbox_id;
        metric.data = MessageField::some(message);
        Ok(answer)
    }

    async fn shutdown_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::ShutdownSandboxRequest,
    ) -> ttrpc::Result<api::ShutdownSandboxResponse> {
        let id = parse_id(&request.sandbox_id)?;
        // A shim whose sandbox was never made leaves as well: containerd gives it up.
        if self.0.sandbox().is_taken() {
            self.0.sandbox().get(id.as_str())?;
        }
        let shim = Arc::clone(&self.0);
        finish(shim.shut_down_pod()).await?;
        Ok(api::ShutdownSandboxResponse::new())
    }
}

/// This machine's architecture, as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
