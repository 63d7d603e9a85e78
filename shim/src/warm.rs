//! Code ahead of the first container: what Create would look for and compile, without a container.
//!
//! The way is that of Create, from [`crate::find::Finder`] to the publication, so that the entry is the one that a container
//! will look for. Where Create is given a bundle, here one is made of what the image says of its containers, in a
//! mount namespace that nobody else has: whatever becomes of this process, no mount stays.

pub mod command;
pub mod report;
mod scratch;
mod search;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use coracle_engine::cache::{Cache, CacheError};
use coracle_oci::image::{EntryFault, LayerFault};
use coracle_oci::{ImageError, SpecError, StoreError};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cache::Turn;
use crate::compile::{Compilation, CompileError, Job};
use crate::config::{ConfigError, Lookup, ShimConfig};
use crate::content::ConnectError;
use crate::find::Source;
use crate::mounts::MountError;
use crate::request::RequestError;
use crate::task::TaskError;
use scratch::Scratch;
use search::Search;

/// How often is told that a compilation goes on.
const TELL: Duration = Duration::from_secs(5);
/// How long another process may take to publish what it has compiled.
const PUBLISHING: Duration = Duration::from_secs(120);

/// What to compile.
#[derive(Debug, Clone)]
pub enum Target {
    /// The module that containers of an image run.
    Image {
        /// containerd's name of the image.
        name: String,
        /// containerd's namespace of it.
        namespace: String,
        /// containerd's main socket.
        address: PathBuf,
    },
    /// A module in a file.
    File(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image { name, .. } => f.write_str(name),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What is told on the way.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// The compiler begins.
    Compiling {
        /// Where the module came from.
        origin: &'a str,
        /// Its size in bytes.
        size: u64,
    },
    /// It still is at work.
    Still {
        /// Where the module came from.
        origin: &'a str,
        /// For how long.
        time: Duration,
    },
}

/// Code that is in the cache.
#[derive(Debug, Clone, Copy)]
pub struct Warmed {
    /// Size of the code in bytes.
    pub size: u64,
    /// How long it took to compile; `None` if it was there.
    pub compiled: Option<Duration>,
}

/// Why there is no code now.
#[derive(Debug, thiserror::Error)]
pub enum WarmError {
    /// The cache is root's.
    #[error("only root can: the cache that containers start from is the node's")]
    NotRoot,
    /// Environment or options.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The cache cannot be used.
    #[error("the code cache cannot be used: {0}")]
    Cache(#[from] CacheError),
    /// containerd cannot be asked.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// containerd does not know the image.
    #[error("{0}")]
    NoImage(NoImage),
    /// containerd does not answer as it should.
    #[error("ask containerd: {0}")]
    Store(#[from] StoreError),
    /// What the image says of its containers.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// What the image says makes no container.
    #[error("the image's configuration makes no container: {0}")]
    Spec(#[from] SpecError),
    /// The image's files.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// It has no wasm layer, and its files cannot be looked into.
    #[error(
        "the image is not unpacked on this node, so its files were not looked into (pull it with unpacking, or run a \
         container of it once), and {0}"
    )]
    NotUnpacked(Box<LayerFault>),
    /// A file that holds no module.
    #[error("cannot use {path}: {fault}", path = path.display())]
    NoModule {
        /// The file.
        path: PathBuf,
        /// What it is.
        fault: EntryFault,
    },
    /// There is no module, or it cannot be read.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The compiler.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The code was made and cannot be kept.
    #[error("the code of {0} cannot be kept in the cache; the warning above says why")]
    NotKept(String),
    /// A signal came.
    #[error("interrupted")]
    Interrupted,
    /// A system call.
    #[error("cannot {act}: {source}")]
    Os {
        /// What was tried.
        act: String,
        /// What the kernel said.
        source: io::Error,
    },
}

fn os(act: impl Into<String>) -> impl FnOnce(io::Error) -> WarmError {
    move |source| WarmError::Os { act: act.into(), source }
}

/// An image that containerd does not have where it was looked for.
#[derive(Debug)]
pub struct NoImage {
    name: String,
    namespace: String,
    /// Namespaces that have it.
    elsewhere: Vec<String>,
}

impl NoImage {
    fn new(name: &str, namespace: &str, elsewhere: Vec<String>) -> Self {
        Self { name: name.to_owned(), namespace: namespace.to_owned(), elsewhere }
    }
}

impl fmt::Display for NoImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, namespace, elsewhere } = self;
        write!(f, "containerd has no image {name} in its namespace {namespace}: ")?;
        match elsewhere.as_slice() {
            [] => write!(f, "pull it with `ctr --namespace {namespace} images pull {name}`")?,
            [only] => write!(f, "it is in the namespace {only}, so say --namespace {only}")?,
            many => write!(f, "it is in the namespaces {}, so say --namespace", many.join(", "))?,
        }
        if Path::new(name).exists() {
            write!(f, "; if the file of that name is meant, say ./{name}")?;
        }
        Ok(())
    }
}

/// Puts the code of a module into the node's cache, if it is not there yet. `options` are runtime options, `tell` is
/// called while it is at work. Must be called in a process that has one thread.
///
/// # Errors
/// Why it is not there now, in one sentence.
pub fn warm(
    target: Target,
    options: &[(String, String)],
    env: Lookup<'_>,
    tell: &dyn Fn(Progress<'_>),
) -> Result<Warmed, WarmError> {
    if !rustix::process::geteuid().is_root() {
        return Err(WarmError::NotRoot);
    }
    let id = scratch::id().map_err(RequestError::from).map_err(TaskError::from)?;
    let (namespace, address) = match &target {
        Target::Image { namespace, address, .. } => (namespace.as_str(), Some(address.as_path())),
        Target::File(_) => ("default", None),
    };
    let config = ShimConfig::without_events(namespace, id, address, env)?.with_pairs(options)?;
    // A start goes without a cache that cannot be used; here nothing would be left to do.
    Cache::open(&config.cache)?;
    own_mounts().map_err(os("make a mount namespace"))?;
    let scratch = Scratch::make(&config).map_err(os("make a folder for the image"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(os("make the event loop"))?;
    runtime.block_on(async {
        let search = Search::new(Handle::current(), config, &scratch, target);
        let found = tokio::task::spawn_blocking(move || search.run()).await;
        match found.map_err(|_| TaskError::Broken("find the module"))?? {
            Source::Cached(code, _) => Ok(Warmed { size: size(&code)?, compiled: None }),
            Source::Job(job, _) => compile(*job, tell).await,
        }
    })
}

/// Takes a mount namespace, in which nothing that is mounted reaches the machine's.
fn own_mounts() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)?;
    Ok(())
}

fn size(file: &File) -> Result<u64, WarmError> {
    Ok(file.metadata().map_err(os("look at a file in memory"))?.len())
}

/// Compiles as a container's Start would wait for it, then waits until others find it.
async fn compile(job: Job, tell: &dyn Fn(Progress<'_>)) -> Result<Warmed, WarmError> {
    let begun = Instant::now();
    let (origin, slot) = (job.origin.clone(), job.slot.clone());
    tell(Progress::Compiling { origin: &origin, size: size(&job.module)? });
    let mut signals = Signals::new().map_err(os("listen to signals"))?;
    // Nobody runs it meanwhile.
    let compilation = Compilation::begin(Job { lazy: false, ..job });
    let stopper = compilation.stopper();
    let mut interrupted = false;
    let mut image = std::pin::pin!(compilation.ready());
    let mut clock = tokio::time::interval_at(tokio::time::Instant::now() + TELL, TELL);
    let image = loop {
        tokio::select! {
            image = &mut image => break image,
            _ = clock.tick() => tell(Progress::Still { origin: &origin, time: begun.elapsed() }),
            () = signals.any() => {
                interrupted = true;
                stopper.stop();
            }
        }
    };
    let image = match image {
        Err(CompileError::Cancelled { .. }) if interrupted => return Err(WarmError::Interrupted),
        ready => File::from(ready?.code.image),
    };
    let compiled = Some(begun.elapsed());
    let Some(slot) = slot else { return Err(WarmError::NotKept(origin)) };
    // Whoever publishes holds the lock until it is done.
    match slot.turn(&origin, PUBLISHING).await {
        Turn::Done(_) => Ok(Warmed { size: size(&image)?, compiled }),
        Turn::Ours(_) => Err(WarmError::NotKept(origin)),
    }
}

/// The signals by which people and machines end a command.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> io::Result<Self> {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        Ok(Self([signal(interrupt)?, signal(terminate)?, signal(hangup)?]))
    }

    async fn any(&mut self) {
        let Self([interrupt, terminate, hangup]) = self;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
