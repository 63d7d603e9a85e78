//! The node daemon: compiles images when they are pulled, bounds the cache, tells Prometheus how containers fare.
//!
//! Nothing depends on it: shims compile what is missing and bound the cache themselves.
//!
//! Reading order: [`watch`] hears of images from [`containerd`], keeps a [`queue`], and has [`compiler`] look at each;
//! [`figures`] hears what shims tell and [`scrape`] asks for the rest when [`http`] is asked; [`metrics`] and
//! [`exposition`] put it into Prometheus' words.

mod cache;
mod cluster;
mod compiler;
mod containerd;
mod exposition;
mod figures;
mod handler;
mod http;
mod metrics;
mod node;
mod queue;
mod repair;
mod retired;
mod scrape;
mod stop;
mod telemetry;
mod usage;
mod watch;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use coracle_engine::cache::Place;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::cli::DaemonArgs;
use cache::NodeCache;
use cluster::Cluster;
use compiler::Compiler;
use figures::Ear;
use handler::{Announcer, Told};
use metrics::Metrics;
use node::Node;
use repair::Repair;
use scrape::{Bounds, Scrape};
use stop::Stop;
use watch::Watch;

/// The shim's executable.
const SHIM: &str = "containerd-shim-wasm-v1";
/// containerd's socket, where nobody has said another.
const ADDRESS: &str = "/run/containerd/containerd.sock";
/// How often the cache is bounded, besides after each compilation.
const PRUNE: Duration = Duration::from_secs(3600);
/// How long containerd may take to show that it is there.
const READY: Duration = Duration::from_secs(1);
/// How long all that runs may take to end; a compiler that does not listen is killed before.
const FAREWELL: Duration = Duration::from_secs(10);
/// Threads for what may block: looking into the cache.
const BLOCKING: usize = 2;

/// What the pages of [`http`] are made of.
#[derive(Debug)]
pub(crate) struct Daemon {
    watch: Arc<Watch>,
    metrics: Arc<Metrics>,
    cache: NodeCache,
    bounds: Bounds,
    /// The shim, as this process sees it.
    shim: PathBuf,
    /// What the node's label says, where there is one.
    told: Option<Arc<Told>>,
    /// One look at all containers at a time.
    scraping: tokio::sync::Mutex<()>,
}

/// Why the daemon is not ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotReady {
    /// Events are not heard.
    #[error("not connected to containerd")]
    Disconnected,
    /// It does not answer.
    #[error(transparent)]
    Containerd(#[from] containerd::Fault),
    /// The cluster sends no pods yet.
    #[error("the node has no label yet")]
    Unlabelled,
    /// It sends none, with reason.
    #[error("containerd has not loaded the runtime handler")]
    NoHandler,
    /// The cluster still sends pods.
    #[error("the node's label is still there")]
    Labelled,
    /// Nobody could compile.
    #[error("the shim {path} is not there", path = .0.display())]
    NoShim(PathBuf),
}

impl http::Pages for Daemon {
    async fn metrics(&self) -> Result<String, std::fmt::Error> {
        let _turn = self.scraping.lock().await;
        let mut scrape = Scrape {
            cache: self.cache.contents().await,
            cache_bounds: self.cache.bounds(),
            waiting: self.watch.waiting(),
            ..Scrape::default()
        };
        if let Some(containerd) = self.watch.containerd() {
            scrape.connected = true;
            scrape.look(&containerd, &self.bounds).await;
        }
        self.metrics.text(scrape)
    }

    /// Whether images are heard of and can be compiled.
    async fn readiness(&self) -> Result<(), NotReady> {
        let containerd = self.watch.containerd().ok_or(NotReady::Disconnected)?;
        containerd.answers(READY).await?;
        if !self.shim.is_file() {
            return Err(NotReady::NoShim(self.shim.clone()));
        }
        match self.told.as_ref().map(|told| told.loaded()) {
            None | Some(Some(true)) => Ok(()),
            Some(None) => Err(NotReady::Unlabelled),
            Some(Some(false)) => Err(NotReady::NoHandler),
        }
    }
}

fn env(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// `coracle daemon`.
///
/// # Errors
/// What is wrong with the arguments, the environment or the address to listen on; nothing that may pass.
pub(crate) fn run(args: DaemonArgs) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "only root can be the node's daemon: the cache and containerd's socket are root's"
    );
    if !args.listen.ip().is_loopback() && !args.listen_beyond_loopback {
        bail!(
            "--listen {} is reached by others than this machine: say --listen-beyond-loopback as well if that is meant",
            args.listen
        );
    }
    let traces = telemetry::Traces::of(&env).context("reading the environment")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING)
        .build()
        .context("making the event loop")?;
    runtime.block_on(async {
        let telemetry = telemetry::install(args.log_format, args.log_level, traces)?;
        let result = serve(args).await;
        telemetry.end().await;
        result
    })
}

async fn serve(args: DaemonArgs) -> Result<()> {
    // First, so that an early signal is not the default's.
    let mut terminate = signal(SignalKind::terminate()).context("listening to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening to SIGINT")?;
    let told = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to end");
    };
    let listen = args.listen;
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("listening on {listen}"))?;
    let address = listener.local_addr().context("listening")?;
    let retired = args.retired;
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), retired, "coracle daemon");
    if retired {
        retired::serve(&args.cluster, listener, told).await
    } else {
        work(args, listener, told).await
    }
}

/// All that the daemon does, until it is told to end.
async fn work(
    args: DaemonArgs,
    listener: TcpListener,
    told: impl Future<Output = ()>,
) -> Result<()> {
    let node = Node::new(args.node_pid.map(std::num::NonZero::get));
    let place = place(&node)?;
    let ear = place.run.as_deref().and_then(ear);
    let address = address(&args, &node);
    let announcer = announcer(&args, node.path(&address))?;
    let label = announcer.as_ref().map(|announcer| Arc::clone(&announcer.told));
    let daemon = daemon(args, address, node, place, label)?;

    let (stop, stopped) = Stop::new();
    let (mut beside, mut ending) = (JoinSet::new(), JoinSet::new());
    beside.spawn(http::serve(listener, Arc::clone(&daemon)));
    beside.spawn(bound_cache(daemon.cache.clone(), Arc::clone(&daemon.metrics)));
    if let Some(ear) = ear {
        let metrics = Arc::clone(&daemon.metrics);
        beside.spawn(async move { ear.listen(&metrics).await });
    }
    if let Some(announcer) = announcer {
        beside.spawn(Arc::new(announcer).announce(daemon.watch.connections()));
    }
    ending.spawn(Arc::clone(&daemon.watch).listen(stopped.clone()));
    ending.spawn(Arc::clone(&daemon.watch).work(stopped));
    told.await;
    stop.stop();
    let all = async { while ending.join_next().await.is_some() {} };
    if tokio::time::timeout(FAREWELL, all).await.is_err() {
        tracing::warn!("not everything ends in time");
    }
    // The socket goes with its task.
    beside.shutdown().await;
    Ok(())
}

/// containerd's socket, on the node. Distributions have it in places of their own.
fn address(args: &DaemonArgs, node: &Node) -> PathBuf {
    let recorded = || coracle_installer::recorded_socket(&node.path(Path::new("/")));
    args.address.clone().or_else(recorded).unwrap_or_else(|| ADDRESS.into())
}

/// Where the node's cache is, as this process sees it.
fn place(node: &Node) -> Result<Place> {
    let place = Place::of_the_node(env).context("reading the environment")?;
    Ok(Place { dir: node.path(&place.dir), run: place.run.map(|run| node.path(&run)), ..place })
}

/// Without it, the daemon knows only what it does itself and what containerd tells.
fn ear(run: &Path) -> Option<Ear> {
    Ear::open(run)
        .inspect_err(|error| {
            tracing::warn!(%error, folder = %run.display(), "shims are not heard: no socket for them");
        })
        .ok()
}

fn announcer(args: &DaemonArgs, socket: PathBuf) -> Result<Option<Announcer>> {
    let cluster = &args.cluster;
    let Some(node) = cluster.node_name.clone().filter(|_| cluster.kubernetes) else {
        return Ok(None);
    };
    let (label, handler) = (cluster.node_label.clone(), cluster.handler.clone());
    let repair = cluster.repair.then(|| Repair::new(args.node_pid.is_some()));
    let cluster = Cluster::of(&env, cluster.service_account.clone(), node)?;
    Ok(Some(Announcer { cluster, socket, label, handler, repair, told: Arc::default() }))
}

fn daemon(
    args: DaemonArgs,
    address: PathBuf,
    node: Node,
    place: Place,
    told: Option<Arc<Told>>,
) -> Result<Arc<Daemon>> {
    let shim = match args.shim {
        Some(shim) => shim,
        None if args.node_pid.is_some() => {
            bail!("say where the shim is on the node: --node-pid needs --shim")
        }
        None => find_shim().with_context(|| {
            format!("{SHIM} is neither beside this program nor in PATH: say --shim")
        })?,
    };
    let (metrics, cache) = (Arc::new(Metrics::new()), NodeCache::new(place));
    let seen = node.path(&shim);
    let socket = node.path(&address);
    let (options, timeout) = (args.options, args.timeout);
    let compiler = Compiler { shim, address, options, timeout, node };
    let compiler = Some(compiler).filter(|_| !args.no_precompile);
    let (jobs, own) = (args.jobs.get(), Arc::clone(&metrics));
    let watch = Watch::new(socket, compiler, jobs, cache.clone(), own);
    let bounds =
        Bounds { runtime: args.runtime, containers: args.max_containers, time: args.scrape_limit };
    let scraping = tokio::sync::Mutex::default();
    Ok(Arc::new(Daemon { watch, metrics, cache, bounds, shim: seen, told, scraping }))
}

/// Now and then, for ever.
async fn bound_cache(cache: NodeCache, metrics: Arc<Metrics>) {
    let mut clock = tokio::time::interval(PRUNE);
    loop {
        clock.tick().await;
        cache.prune(&metrics).await;
    }
}

/// Beside this executable, or in `PATH`.
fn find_shim() -> Option<PathBuf> {
    let own = std::env::current_exe().ok().and_then(|own| own.canonicalize().ok());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).map(|folder| folder.join(SHIM));
    let mut places = own.map(|own| own.with_file_name(SHIM)).into_iter().chain(folders);
    places.find(|place| place.is_file())
}
