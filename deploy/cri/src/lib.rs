//! Which runtime handlers containerd has loaded: what counts is what it answers, not what its files say.
//!
//! Of CRI that is one call, `Status`, so its few messages are written out here; the numbers are those of
//! `k8s.io/cri-api`'s `runtime/v1/api.proto`. containerd 2.0 and later list the handlers; before that they are in the
//! configuration that a verbose answer carries as JSON.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_client::connect;
use containerd_client::tonic::client::Grpc;
use containerd_client::tonic::codegen::http::uri::PathAndQuery;
use containerd_client::tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

/// The call.
const STATUS: &str = "/runtime.v1.RuntimeService/Status";
/// The part of a verbose answer that holds the configuration.
const CONFIG: &str = "config";

/// What CRI says of its runtimes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runtimes {
    /// Names of the handlers that pods can ask for. The default one, whose name is empty in CRI, is not among them.
    pub handlers: BTreeSet<String>,
    /// Why the node's runtime or its network is not ready, by CRI's conditions.
    pub not_ready: Vec<String>,
}

/// Why it cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// Nobody listens there.
    #[error("connect to containerd at {path}: {reason}", path = path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// containerd is there, and its CRI plugin is not.
    #[error("containerd at {path} has no CRI: its plugin is disabled or failed to load", path = path.display())]
    NoCri {
        /// The socket.
        path: PathBuf,
    },
    /// The call failed.
    #[error("ask containerd's CRI for its status: {0}")]
    Call(String),
    /// No answer.
    #[error("containerd at {path} did not answer within {} s", limit.as_secs_f32(), path = path.display())]
    Late {
        /// The socket.
        path: PathBuf,
        /// The time that it had.
        limit: Duration,
    },
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {
    #[prost(bool, tag = "1")]
    verbose: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<RuntimeStatus>,
    #[prost(map = "string, string", tag = "2")]
    info: HashMap<String, String>,
    #[prost(message, repeated, tag = "3")]
    handlers: Vec<RuntimeHandler>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RuntimeStatus {
    #[prost(message, repeated, tag = "1")]
    conditions: Vec<RuntimeCondition>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RuntimeCondition {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(bool, tag = "2")]
    holds: bool,
    #[prost(string, tag = "3")]
    reason: String,
    #[prost(string, tag = "4")]
    message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RuntimeHandler {
    #[prost(string, tag = "1")]
    name: String,
}

/// Asks the containerd that listens on `socket`, within `limit`. Must be called within a tokio runtime.
///
/// # Errors
/// When it cannot be told; that a handler is missing is no error.
pub async fn runtimes(socket: &Path, limit: Duration) -> Result<Runtimes, CriError> {
    let asking = ask(socket);
    let late = CriError::Late { path: socket.to_owned(), limit };
    tokio::time::timeout(limit, asking).await.unwrap_or(Err(late))
}

async fn ask(socket: &Path) -> Result<Runtimes, CriError> {
    let path = || socket.to_owned();
    let unreachable = |error: &dyn std::error::Error| CriError::Connect {
        path: path(),
        reason: innermost(error),
    };
    let channel = connect(socket).await.map_err(|error| unreachable(&error))?;
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| unreachable(&error))?;
    let codec: ProstCodec<StatusRequest, StatusResponse> = ProstCodec::default();
    let request = Request::new(StatusRequest { verbose: true });
    let answer = client.unary(request, PathAndQuery::from_static(STATUS), codec).await;
    let answer = answer.map_err(|status: Status| match status.code() {
        Code::Unimplemented => CriError::NoCri { path: path() },
        _ => CriError::Call(status.message().to_owned()),
    })?;
    Ok(answer.into_inner().into())
}

impl From<StatusResponse> for Runtimes {
    fn from(answer: StatusResponse) -> Self {
        let StatusResponse { status, info, handlers } = answer;
        let listed: BTreeSet<String> = handlers
            .into_iter()
            .map(|handler| handler.name)
            .filter(|name| !name.is_empty())
            .collect();
        let handlers = if listed.is_empty() {
            configured(info.get(CONFIG)).unwrap_or_default()
        } else {
            listed
        };
        let conditions = status.unwrap_or_default().conditions.into_iter();
        let not_ready = conditions
            .filter(|condition| !condition.holds)
            .map(|condition| {
                format!("{}: {} {}", condition.kind, condition.reason, condition.message)
            })
            .collect();
        Self { handlers, not_ready }
    }
}

/// The names of the runtimes in CRI's configuration.
fn configured(config: Option<&String>) -> Option<BTreeSet<String>> {
    let config: serde_json::Value = serde_json::from_str(config?).ok()?;
    let runtimes = config.get("containerd")?.get("runtimes")?.as_object()?;
    Some(runtimes.keys().cloned().collect())
}

/// The transport says only that it failed; the kernel's word is at the end of the chain.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn handlers_are_listed_or_in_the_configuration() {
        let handlers = ["", "runc", "wasm"].map(|name| RuntimeHandler { name: name.into() });
        let listed = StatusResponse { handlers: handlers.into(), ..Default::default() };
        assert_eq!(Runtimes::from(listed).handlers, names(&["runc", "wasm"]));
        let config = r#"{"containerd":{"runtimes":{"runc":{},"wasm":{"runtimeType":"x"}}}}"#;
        let info = HashMap::from([(CONFIG.to_owned(), config.to_owned())]);
        let verbose = StatusResponse { info, ..Default::default() };
        assert_eq!(Runtimes::from(verbose).handlers, names(&["runc", "wasm"]));
        assert_eq!(Runtimes::from(StatusResponse::default()), Runtimes::default());
        let bad = HashMap::from([(CONFIG.to_owned(), "{".to_owned())]);
        let bad = StatusResponse { info: bad, ..Default::default() };
        assert_eq!(Runtimes::from(bad).handlers, names(&[]));
    }

    #[test]
    fn conditions_that_do_not_hold_are_told() {
        let condition = |kind: &str, holds| RuntimeCondition {
            kind: kind.into(),
            holds,
            reason: "NetworkPluginNotReady".into(),
            message: "no network".into(),
        };
        let conditions = vec![condition("RuntimeReady", true), condition("NetworkReady", false)];
        let status = Some(RuntimeStatus { conditions });
        let told = Runtimes::from(StatusResponse { status, ..Default::default() });
        assert_eq!(told.not_ready, ["NetworkReady: NetworkPluginNotReady no network"]);
    }

    #[tokio::test]
    async fn nobody_there_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("containerd.sock");
        let limit = Duration::from_secs(5);
        let error = runtimes(&socket, limit).await.unwrap_err().to_string();
        assert!(error.contains("containerd.sock") && error.contains("No such file"), "{error}");
        let _deaf = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let error = runtimes(&socket, Duration::from_millis(200)).await.unwrap_err();
        assert!(matches!(error, CriError::Late { .. }), "{error}");
    }
}
