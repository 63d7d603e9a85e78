//! `/metrics`, `/healthz` and `/readyz`, and nothing else.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::NotReady;

/// What the pages say.
pub(crate) trait Pages: Send + Sync + 'static {
    /// All figures, as text.
    fn metrics(&self) -> impl Future<Output = Result<String, fmt::Error>> + Send;
    /// Why this process is not ready, if it is not.
    fn readiness(&self) -> impl Future<Output = Result<(), NotReady>> + Send;
}

/// The text format that Prometheus asks for first.
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
/// Clients at once; a probe, Prometheus and a person are three.
const CLIENTS: usize = 32;
/// How long a client may take for its request's head.
const HEAD: Duration = Duration::from_secs(5);
/// How long a connection may last in all.
const LONGEST: Duration = Duration::from_secs(120);
/// A pause when the system has no descriptor left for another client.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves for ever.
pub(crate) async fn serve<P: Pages>(listener: TcpListener, pages: Arc<P>) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let pages = Arc::clone(&pages);
                tokio::spawn(async move {
                    // A client that goes away, or says what is no HTTP, is its own matter.
                    let _ = tokio::time::timeout(LONGEST, attend(stream, pages)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "no client");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn attend<P: Pages>(stream: TcpStream, pages: Arc<P>) -> io::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(answer(&request, &*pages).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD).max_headers(64);
    server.serve_connection(TokioIo::new(stream), service).await.map_err(io::Error::other)
}

async fn answer<P: Pages>(request: &Request<Incoming>, pages: &P) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match request.uri().path() {
        "/metrics" => match pages.metrics().await {
            Ok(figures) => with_type(StatusCode::OK, METRICS, figures),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the figures cannot be written\n"),
        },
        // That there is an answer is the answer.
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => match pages.readiness().await {
            Ok(()) => text(StatusCode::OK, "ok\n"),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"),
    }
}

fn text(status: StatusCode, body: impl Into<String>) -> Response<Full<Bytes>> {
    with_type(status, TEXT, body.into())
}

fn with_type(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
