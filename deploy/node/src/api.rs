//! The cluster's API, as far as this program calls it.
//!
//! A handful of requests do not need a client library of fifty crates. The token is read for each call, since the kubelet
//! renews it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

/// How long one call may take.
const CALL_LIMIT: Duration = Duration::from_secs(15);
/// What is read of an answer, in bytes: the pods of a DaemonSet on a thousand nodes.
const ANSWER: usize = 16 << 20;
/// What is quoted of a refusal, in characters.
const EXCERPT: usize = 300;

/// Why the API did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// This is no pod.
    #[error("{0} is not set: --kubernetes is for a pod, where the kubelet sets it")]
    NoPod(&'static str),
    /// The port is none, or the name cannot be one.
    #[error("{variable}={value:?} is no {what}")]
    Address {
        /// The variable.
        variable: &'static str,
        /// What it says.
        value: String,
        /// What it should be.
        what: &'static str,
    },
    /// A file of the service account.
    #[error("read {path}: {reason}", path = path.display())]
    Account {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// No connection, or it broke.
    #[error("call the API server at {server}: {reason}")]
    Connection {
        /// Host and port.
        server: String,
        /// Why not.
        reason: String,
    },
    /// Its answer is not what was asked for.
    #[error("{act}: the API server's answer cannot be read: {reason}")]
    Answer {
        /// What was asked for.
        act: &'static str,
        /// Why not.
        reason: String,
    },
    /// It was refused.
    #[error("the API server refuses to {act}: {status}: {reason}{hint}")]
    Refused {
        /// What was asked for.
        act: &'static str,
        /// The status.
        status: StatusCode,
        /// The server's words.
        reason: String,
        /// What to do; begins with `; `, or is empty.
        hint: &'static str,
    },
}

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// In words, for errors.
    pub(crate) act: &'static str,
    pub(crate) method: Method,
    /// With the query, if there is one.
    pub(crate) path: &'a str,
}

/// The API server of the cluster that this pod is in.
#[derive(Debug)]
pub(crate) struct Api {
    host: String,
    port: u16,
    account: PathBuf,
}

impl Api {
    /// The cluster that this pod is in.
    ///
    /// # Errors
    /// Outside of a pod.
    pub(crate) fn of(
        env: &dyn Fn(&str) -> Option<OsString>,
        account: PathBuf,
    ) -> Result<Self, ClusterError> {
        const HOST: &str = "KUBERNETES_SERVICE_HOST";
        const PORT: &str = "KUBERNETES_SERVICE_PORT";
        let text = |name| {
            let value = env(name).ok_or(ClusterError::NoPod(name))?;
            Ok(value.to_string_lossy().into_owned())
        };
        let (host, port) = (text(HOST)?, text(PORT)?);
        let bad = |variable, value, what| ClusterError::Address { variable, value, what };
        let port = port.parse().map_err(|_| bad(PORT, port, "port"))?;
        if ServerName::try_from(host.as_str()).is_err() {
            return Err(bad(HOST, host, "address or name"));
        }
        Ok(Self { host, port, account })
    }

    /// Sends a request, with a body of that media type if there is one, and reads the object that is answered.
    ///
    /// # Errors
    /// No connection, a refusal, an answer that is something else.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        request: &Request<'_>,
        body: Option<(&str, &Value)>,
    ) -> Result<T, ClusterError> {
        let late = || self.broken(&format!("no answer within {} s", CALL_LIMIT.as_secs()));
        let answer = tokio::time::timeout(CALL_LIMIT, self.send(request, body)).await;
        let (status, answer) = answer.unwrap_or_else(|_| Err(late()))?;
        let act = request.act;
        if status.is_success() {
            let read = serde_json::from_slice(&answer);
            return read.map_err(|error| ClusterError::Answer { act, reason: error.to_string() });
        }
        let said = serde_json::from_slice::<Value>(&answer).ok();
        let said = said.and_then(|said| Some(said.get("message")?.as_str()?.to_owned()));
        let said = said.unwrap_or_else(|| String::from_utf8_lossy(&answer).into_owned());
        let reason = said.chars().take(EXCERPT).collect();
        let hint = match status {
            StatusCode::FORBIDDEN => {
                "; the service account needs the rights that the chart gives it"
            }
            StatusCode::UNAUTHORIZED => "; the token of the service account is not taken",
            StatusCode::NOT_FOUND => "; is its name right (NODE_NAME is spec.nodeName)?",
            _ => "",
        };
        Err(ClusterError::Refused { act, status, reason, hint })
    }

    async fn send(
        &self,
        request: &Request<'_>,
        body: Option<(&str, &Value)>,
    ) -> Result<(StatusCode, Bytes), ClusterError> {
        let token = self.file("token")?;
        let token = String::from_utf8_lossy(&token).trim().to_owned();
        let stream = self.connect().await?;
        let broken = |error: &dyn std::fmt::Display| self.broken(error);
        let client = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut client, connection) = client.map_err(|error| broken(&error))?;
        let connection = tokio::spawn(connection);
        let builder = hyper::Request::builder()
            .method(&request.method)
            .uri(request.path)
            .header(HOST, self.host.as_str())
            .header(AUTHORIZATION, format!("Bearer {token}"));
        let request = match body {
            Some((kind, body)) => {
                builder.header(CONTENT_TYPE, kind).body(Full::new(Bytes::from(body.to_string())))
            }
            None => builder.body(Full::default()),
        };
        let request = request.map_err(|error| broken(&error))?;
        let answer = client.send_request(request).await.map_err(|error| broken(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER).collect().await;
        connection.abort();
        Ok((status, body.map_err(|error| broken(&error))?.to_bytes()))
    }

    async fn connect(&self) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ClusterError> {
        let connector = TlsConnector::from(Arc::new(self.tls()?));
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|error| self.broken(&error))?;
        let name = ServerName::try_from(self.host.clone()).map_err(|error| self.broken(&error))?;
        connector.connect(name, stream).await.map_err(|error| self.broken(&error))
    }

    /// Trusts the cluster's own authority and no other.
    fn tls(&self) -> Result<ClientConfig, ClusterError> {
        let file = "ca.crt";
        let bytes = self.file(file)?;
        let mut roots = RootCertStore::empty();
        let found = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
        let (added, _) = roots.add_parsable_certificates(found.unwrap_or_default());
        if added == 0 {
            let reason = "it holds no certificate".to_owned();
            return Err(ClusterError::Account { path: self.account.join(file), reason });
        }
        let provider = Arc::new(crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| self.broken(&error))?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }

    fn file(&self, name: &str) -> Result<Vec<u8>, ClusterError> {
        let path = self.account.join(name);
        std::fs::read(&path)
            .map_err(|error| ClusterError::Account { path, reason: error.to_string() })
    }

    fn broken(&self, reason: &dyn std::fmt::Display) -> ClusterError {
        let server = format!("{}:{}", self.host, self.port);
        ClusterError::Connection { server, reason: reason.to_string() }
    }
}
