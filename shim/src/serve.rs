//! The shim process that `start` leaves behind.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use containerd_shim_protos::ttrpc::asynchronous::{self as ttrpc, transport::Listener};
use tokio::signal::unix::{SignalKind, signal};

use crate::bootstrap::{self, Server};
use crate::config::ShimConfig;
use crate::events::Events;
use crate::service::{self, Shim};
use crate::{daemon, figures, telemetry};

/// How long the last events may take to leave; containerd waits 3 s for the shim to go.
const DRAIN: Duration = Duration::from_secs(2);
/// How long answers under way may take to leave.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long code may still take to get into the cache.
const PUBLISHING: Duration = Duration::from_secs(1);
/// Idle threads for blocking work go after this long.
const THREAD_KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Why the shim cannot serve, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A step of becoming a server.
    #[error("{act}: {source}")]
    Os {
        /// What was tried.
        act: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The server did not start.
    #[error("serve the task API: {0}")]
    Server(#[from] containerd_shim_protos::ttrpc::Error),
}

fn os(act: &'static str) -> impl FnOnce(io::Error) -> ServeError {
    move |source| ServeError::Os { act, source }
}

/// Serves until Shutdown or SIGTERM, then removes the socket.
///
/// # Errors
/// When it cannot start; also logged, since nobody reads this process's output.
pub fn serve(server: Server) -> Result<(), ServeError> {
    telemetry::install(&server.bundle, server.config.log_level).map_err(os("open the log"))?;
    serve_with(server).inspect_err(|error| tracing::error!(%error, "shim cannot serve"))
}

fn serve_with(server: Server) -> Result<(), ServeError> {
    daemon::settle();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(THREAD_KEEP_ALIVE)
        .build()
        .map_err(os("make the event loop"))?;
    let Server { config, listener, socket, .. } = server;
    if let Some(run) = &config.cache.run {
        figures::begin(run);
    }
    let result = runtime.block_on(run(config, listener, &socket));
    // Code that is being published would have to be compiled again, but a call that hangs must not keep the process.
    runtime.shutdown_timeout(PUBLISHING);
    result
}

async fn run(config: ShimConfig, listener: UnixListener, socket: &Path) -> Result<(), ServeError> {
    let listener = Listener::try_from(listener).map_err(os("listen"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(os("listen to SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(os("listen to SIGINT"))?;
    let events = Events::start(&config.namespace, &config.ttrpc_address, config.event_patience);
    let shim = Shim::new(config, events.clone());
    let mut server =
        ttrpc::Server::new().add_listener(listener).register_service(service::services(&shim));
    server.start().await?;
    tracing::info!("shim serves");
    tokio::select! {
        () = shim.left() => {}
        _ = terminate.recv() => shim.shut_down(true).await,
        _ = interrupt.recv() => shim.shut_down(true).await,
    }
    if let Err(error) = bootstrap::remove_own_socket(socket) {
        tracing::warn!(%error, socket = %socket.display(), "socket left behind");
    }
    events.drain(DRAIN).await;
    // Lets the answer to Shutdown out; then the process, and with it every connection, ends.
    let _ = tokio::time::timeout(FAREWELL, server.shutdown()).await;
    // Nobody waits for this; whoever wants the shim gone says so again.
    tokio::select! {
        () = shim.afterwork().finish() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("shim leaves");
    Ok(())
}
