//! The containerd that runs, asked over its socket: does it answer, which plugins failed, what does CRI know.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use containerd_client::services::v1::PluginsRequest;
use containerd_client::services::v1::introspection_client::IntrospectionClient;
use containerd_client::services::v1::version_client::VersionClient;
use containerd_client::tonic::client::Grpc;
use containerd_client::tonic::codegen::http::uri::PathAndQuery;
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Code, Request};
use serde_json::Value;

use crate::config::Entry;

/// Longer than any containerd needs for an answer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two attempts to reach it.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// What a running containerd says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    /// Its version.
    pub(crate) version: String,
    /// Plugins that could not be loaded; every node has some.
    pub(crate) failed: BTreeSet<String>,
    /// CRI; why not, when it does not answer.
    pub(crate) cri: Result<Cri, String>,
}

/// What CRI says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cri {
    /// Why pods cannot be run at all; `None` when they can. The network is not looked at: it comes and goes.
    pub(crate) not_ready: Option<String>,
    /// The runtime handlers.
    pub(crate) handlers: BTreeMap<String, Runtime>,
}

/// A runtime handler that CRI has loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Runtime {
    /// Its type; empty where CRI did not tell.
    pub(crate) kind: String,
    /// The shim's path.
    pub(crate) path: String,
    /// `SystemdCgroup` of its options.
    pub(crate) systemd_cgroup: bool,
}

impl Live {
    /// Asks the containerd behind this socket.
    pub(crate) fn ask(socket: &Path) -> Result<Self> {
        // Whoever calls may be within a runtime, which cannot wait for another on its thread.
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(
                    async {
                        tokio::time::timeout(PATIENCE, ask(socket)).await.map_err(|_| {
                            anyhow!("containerd does not answer within {} s", PATIENCE.as_secs())
                        })?
                    },
                )
            });
            asking.join().map_err(|_| anyhow!("asking containerd panicked"))?
        })
        .with_context(|| format!("asking containerd at {}", socket.display()))
    }

    /// The same, of one that may still be starting.
    pub(crate) fn wait(socket: &Path, time: Duration) -> Result<Self> {
        let deadline = Instant::now() + time;
        loop {
            match Self::ask(socket) {
                Err(_) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                answer => return answer,
            }
        }
    }

    /// The handler as it is loaded.
    pub(crate) fn handler(&self, name: &str) -> Option<&Runtime> {
        self.cri.as_ref().ok().and_then(|cri| cri.handlers.get(name))
    }

    /// Why this containerd cannot run pods with our handler; `None` when it can.
    pub(crate) fn fault(&self, entry: &Entry) -> Option<String> {
        let cri = match &self.cri {
            Ok(cri) => cri,
            Err(error) => return Some(error.clone()),
        };
        if let Some(reason) = &cri.not_ready {
            return Some(format!("CRI says that it is not ready: {reason}"));
        }
        let Some(runtime) = cri.handlers.get(&entry.handler) else {
            return Some(format!("CRI has not loaded the handler {}", entry.handler));
        };
        let wanted = Runtime {
            kind: entry.runtime_type.clone(),
            path: entry.runtime_path.clone(),
            systemd_cgroup: entry.systemd_cgroup,
        };
        (*runtime != wanted && !runtime.kind.is_empty())
            .then(|| format!("CRI has loaded another handler {}: {runtime:?}", entry.handler))
    }
}

async fn ask(socket: &Path) -> Result<Live> {
    let channel = containerd_client::connect(socket).await.context("connecting")?;
    let version =
        VersionClient::new(channel.clone()).version(()).await.context("asking for its version")?;
    let plugins = IntrospectionClient::new(channel.clone())
        .plugins(PluginsRequest { filters: Vec::new() })
        .await
        .context("asking for its plugins")?;
    let failed =
        plugins.into_inner().plugins.into_iter().filter(|plugin| plugin.init_err.is_some());
    Ok(Live {
        version: version.into_inner().version,
        failed: failed.map(|plugin| format!("{}.{}", plugin.r#type, plugin.id)).collect(),
        cri: cri(channel).await,
    })
}

/// CRI's Status, of which only this much is wanted.
#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {
    #[prost(bool, tag = "1")]
    verbose: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
    #[prost(map = "string, string", tag = "2")]
    info: std::collections::HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(message, repeated, tag = "1")]
    conditions: Vec<Condition>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Condition {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(bool, tag = "2")]
    status: bool,
    #[prost(string, tag = "3")]
    reason: String,
    #[prost(string, tag = "4")]
    message: String,
}

async fn cri(channel: Channel) -> Result<Cri, String> {
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| error.to_string())?;
    let path = PathAndQuery::from_static("/runtime.v1.RuntimeService/Status");
    let codec = tonic_prost::ProstCodec::<StatusRequest, StatusResponse>::default();
    match client.unary(Request::new(StatusRequest { verbose: true }), path, codec).await {
        Ok(response) => read_status(&response.into_inner()),
        Err(status) if status.code() == Code::Unimplemented => {
            Err("containerd has not loaded its CRI plugin".into())
        }
        Err(status) => Err(format!("CRI does not answer: {}", status.message())),
    }
}

fn read_status(response: &StatusResponse) -> Result<Cri, String> {
    let conditions = response.status.iter().flat_map(|status| &status.conditions);
    let mut ready = conditions.filter(|condition| condition.kind == "RuntimeReady");
    let not_ready = match ready.next() {
        Some(condition) if condition.status => None,
        Some(condition) => Some(format!("{} {}", condition.reason, condition.message)),
        None => Some("it has no condition RuntimeReady".into()),
    };
    let config = response.info.get("config").ok_or("CRI does not tell its configuration")?;
    let config: Value = serde_json::from_str(config)
        .map_err(|error| format!("CRI's configuration cannot be read: {error}"))?;
    let runtimes = config.pointer("/containerd/runtimes").and_then(Value::as_object);
    let runtimes = runtimes.ok_or("CRI's configuration names no runtimes")?;
    let handlers = runtimes.iter().map(|(name, runtime)| (name.clone(), read_runtime(runtime)));
    Ok(Cri { not_ready, handlers: handlers.collect() })
}

fn read_runtime(runtime: &Value) -> Runtime {
    let text = |key: &str| runtime.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let systemd = runtime.pointer("/options/SystemdCgroup").and_then(Value::as_bool);
    Runtime {
        kind: text("runtimeType"),
        path: text("runtimePath"),
        systemd_cgroup: systemd.unwrap_or(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_names_the_handlers() {
        let config = r#"{"containerd":{"runtimes":{"wasm":{"runtimeType":"io.containerd.wasm.v1",
            "runtimePath":"/x","options":{"SystemdCgroup":true}},"runc":{"runtimeType":"io.containerd.runc.v2"}}}}"#;
        let mut response = StatusResponse {
            status: Some(Status {
                conditions: vec![Condition {
                    kind: "RuntimeReady".into(),
                    status: true,
                    ..Condition::default()
                }],
            }),
            info: [("config".to_owned(), config.to_owned())].into(),
        };
        let cri = read_status(&response).unwrap();
        assert_eq!(cri.not_ready, None);
        assert_eq!(cri.handlers["wasm"].path, "/x");
        assert!(cri.handlers["wasm"].systemd_cgroup && !cri.handlers["runc"].systemd_cgroup);
        let live = Live { version: String::new(), failed: BTreeSet::new(), cri: Ok(cri) };
        let mut entry = Entry {
            handler: "wasm".into(),
            runtime_type: crate::config::RUNTIME_TYPE.into(),
            runtime_path: "/x".into(),
            systemd_cgroup: true,
            options: toml::Table::new(),
            sandboxer: false,
            local_pull: false,
            defaults: toml::Table::new(),
        };
        assert_eq!(live.fault(&entry), None);
        entry.systemd_cgroup = false;
        assert!(live.fault(&entry).unwrap().contains("another handler"));
        response.status = None;
        assert!(read_status(&response).unwrap().not_ready.is_some());
    }
}
