//! The shim process that `start` leaves behind.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_shim_protos::ttrpc::asynchronous::{Server, transport::Listener};
use tokio::signal::unix::{SignalKind, signal};

use crate::bootstrap;
use crate::cli::Flags;
use crate::config::{self, ShimConfig};
use crate::events::Events;
use crate::service::{self, Shim};
use crate::telemetry;

/// How long the last events may take to leave; containerd waits 3 s for the shim to go.
const DRAIN: Duration = Duration::from_secs(2);
/// How long answers under way may take to leave.
const FAREWELL: Duration = Duration::from_millis(500);
/// Idle threads for blocking work go after this long.
const THREAD_KEEP_ALIVE: Duration = Duration::from_secs(1);

/// The highest score there is (`proc_pid_oom_score_adj(5)`).
const MAX_OOM_SCORE: i32 = 1000;

/// Why the shim cannot serve, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Standard input is no listening socket: not started by `start`.
    #[error("standard input is no listening socket: serve is started by the start command: {0}")]
    Listener(#[source] io::Error),
    /// A step of becoming a server.
    #[error("{act}: {source}")]
    Os {
        /// What was tried.
        act: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Flags and environment.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
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
pub fn serve(flags: &Flags) -> Result<(), ServeError> {
    let bundle = std::env::current_dir().map_err(os("find the bundle"))?;
    let config = ShimConfig::new(flags, &config::process_env)?;
    telemetry::install(&bundle, config.log_level).map_err(os("open the log"))?;
    serve_with(config).inspect_err(|error| tracing::error!(%error, "shim cannot serve"))
}

fn serve_with(config: ShimConfig) -> Result<(), ServeError> {
    // The session of whoever started containerd must not end the shim.
    if let Err(errno) = nix::unistd::setsid() {
        tracing::warn!(%errno, "no session of its own");
    }
    if let Err(error) = set_oom_score() {
        // Refused to a root without CAP_SYS_RESOURCE; everything works without.
        tracing::warn!(%error, "oom score not set");
    }
    let listener = take_listener()?;
    let socket = bound_path(&listener)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(THREAD_KEEP_ALIVE)
        .build()
        .map_err(os("make the event loop"))?;
    let result = runtime.block_on(run(config, listener, &socket));
    // A blocking call that hangs must not keep the process.
    runtime.shutdown_background();
    result
}

/// One above containerd's own score, which `start` inherited: the shim survives its guests, and
/// containerd survives the shim.
fn set_oom_score() -> io::Result<()> {
    let file = "/proc/self/oom_score_adj";
    let score: i32 = std::fs::read_to_string(file)?.trim().parse().map_err(io::Error::other)?;
    std::fs::write(file, (score + 1).min(MAX_OOM_SCORE).to_string())
}

/// Takes the listener from descriptor 0 and puts `/dev/null` there.
fn take_listener() -> Result<UnixListener, ServeError> {
    let fd: OwnedFd = io::stdin().as_fd().try_clone_to_owned().map_err(ServeError::Listener)?;
    let null = std::fs::File::open("/dev/null").map_err(os("open /dev/null"))?;
    rustix::stdio::dup2_stdin(&null)
        .map_err(|errno| ServeError::Os { act: "release standard input", source: errno.into() })?;
    let listening = rustix::net::sockopt::socket_acceptconn(&fd)
        .map_err(|errno| ServeError::Listener(errno.into()))?;
    if !listening {
        return Err(ServeError::Listener(io::ErrorKind::NotConnected.into()));
    }
    Ok(UnixListener::from(fd))
}

fn bound_path(listener: &UnixListener) -> Result<PathBuf, ServeError> {
    let address = listener.local_addr().map_err(ServeError::Listener)?;
    let unnamed = || ServeError::Listener(io::ErrorKind::AddrNotAvailable.into());
    address.as_pathname().map(PathBuf::from).ok_or_else(unnamed)
}

async fn run(config: ShimConfig, listener: UnixListener, socket: &Path) -> Result<(), ServeError> {
    let listener = Listener::try_from(listener).map_err(ServeError::Listener)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(os("listen to SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(os("listen to SIGINT"))?;
    let events = Events::start(&config.namespace, &config.ttrpc_address, config.event_patience);
    let shim = Shim::new(config, events.clone());
    let mut server =
        Server::new().add_listener(listener).register_service(service::services(&shim));
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
