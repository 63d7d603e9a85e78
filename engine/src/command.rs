//! `Command`: runs one WASI program from its code image, from grants to exit code.
//!
//! [`Command::load`] maps and links without running any guest code, so that everything that can be
//! wrong with an image or its imports is told before the program starts; [`Loaded::run`] runs it.

mod entry;
mod outcome;
mod report;
mod threads;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::process::{Resource, getrlimit};

use crate::runtime::{
    Ceiling, Engine, HostError, Instance, InstantiateError, Linker, LoadError, MemoryError, Module,
    Store, StoreConfig, StoreError,
};
use crate::wasi::{self, GrantError, Host, NetworkPolicy, Stop, WasiCtx, WasiCtxBuilder, preview1};

pub use entry::MissingEntry;
pub use outcome::{Outcome, TrapReport};
pub use report::{MAX_REPORT, Report, describe};

use entry::signal_handler;

/// The variable that tells how many sockets a program was given: `sd_listen_fds(3)`.
const LISTEN_FDS: &[u8] = b"LISTEN_FDS";
/// Host descriptors that stay with the process itself.
const RESERVED_DESCRIPTORS: u64 = 32;
/// Most descriptors of a guest, whatever the process may have.
const MAX_DESCRIPTORS: u64 = 1 << 20;

/// A directory that a program may use.
#[derive(Debug)]
pub struct Preopen {
    /// The directory, open for reading (not with `O_PATH`).
    pub fd: OwnedFd,
    /// The name that the program knows it by, such as `/` or `.`.
    pub guest_path: String,
    /// Whether every change beneath it is refused. Other mounts beneath it are no exception: where
    /// the kernel's own mount flags say what may be written, leave this `false`.
    pub readonly: bool,
}

/// What to run with. The program's standard streams are those of the process.
#[derive(Debug)]
pub struct Command {
    /// Arguments, the program's name first.
    pub args: Vec<Vec<u8>>,
    /// Environment variables: name, value.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Directories, descriptors 3 and up in this order.
    pub preopens: Vec<Preopen>,
    /// Listening sockets, told to the program as `LISTEN_FDS` unless its environment has one. Their
    /// descriptors follow those of the directories.
    pub sockets: Vec<OwnedFd>,
    /// Whether the sockets come before the directories: from descriptor 3 on.
    pub sockets_first: bool,
    /// Whether the sockets do not make the program wait from the start, as Go programs need it.
    pub sockets_nonblock: bool,
    /// What the program may do with the network beyond those sockets.
    pub network: NetworkPolicy,
    /// What its linear memories together are held against.
    pub ceiling: Option<&'static Ceiling>,
    /// What stops the program when it listens.
    pub stop: Option<&'static Stop>,
    /// The exported function to call; without one `wizer.resume` of a program that is initialised,
    /// where there is one, else `_start`.
    pub entry: Option<String>,
    /// The exported function that initialises the program, unless its image is a
    /// [snapshot](crate::snapshot) of afterwards; without one `wizer.initialize`, where there is one.
    pub initialize: Option<String>,
    /// Defines what the program may import beyond WASI. For a program that is the embedder's own: what
    /// it gets here, no other program can ask for.
    pub imports: Option<fn(&mut Linker)>,
    /// Most bytes of stack that the program may use.
    pub max_wasm_stack: usize,
}

impl Default for Command {
    /// No argument, no grant, and 1 MiB of stack.
    fn default() -> Command {
        Command {
            args: Vec::new(),
            env: Vec::new(),
            preopens: Vec::new(),
            sockets: Vec::new(),
            sockets_first: false,
            sockets_nonblock: false,
            network: NetworkPolicy::deny(),
            ceiling: None,
            stop: None,
            entry: None,
            initialize: None,
            imports: None,
            max_wasm_stack: 1 << 20,
        }
    }
}

/// Why a program cannot run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum RunError {
    #[error(transparent)]
    Image(#[from] LoadError),
    #[error(transparent)]
    Grant(#[from] GrantError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Sockets(#[from] wasi::sockets::Refusal),
    #[error("{0}{hint}", hint = hint(.0))]
    Link(#[source] InstantiateError),
    #[error("{0}")]
    MissingEntry(MissingEntry),
    #[error("the program's threads cannot be had: {0}")]
    Threads(#[from] threads::Refusal),
    #[error("the program's shared memory cannot be had: {0}")]
    Memory(#[from] MemoryError),
    #[error("the engine failed while the program ran: {0}")]
    Host(HostError),
}

/// What to say of imports that other hosts provide.
fn hint(error: &InstantiateError) -> &'static str {
    match error {
        InstantiateError::UnknownImport { module, .. } if module == "wasi_unstable" => {
            "; the program was built for an old snapshot of WASI: build it for \
             wasi_snapshot_preview1 (wasm32-wasip1)"
        }
        InstantiateError::UnknownImport { module, .. } if module == preview1::MODULE => {
            "; only the 46 functions of WASI preview 1 and the socket functions of WasmEdge and WAMR are \
             defined in that module"
        }
        InstantiateError::UnknownImport { .. } => {
            "; a program can only import from wasi_snapshot_preview1, and `thread-spawn` from wasi"
        }
        _ => "",
    }
}

/// A program that is mapped and linked, and has not run yet.
#[derive(Debug)]
pub struct Loaded {
    program: Program,
    /// The exports to call, in this order.
    calls: Vec<String>,
}

#[derive(Debug)]
enum Program {
    /// On the thread that loaded it.
    Single(Linked),
    /// On threads of its own.
    Threaded(Box<threads::Program>),
}

/// A module and what it is linked with, for one thread.
#[derive(Debug)]
struct Linked {
    store: Store,
    linker: Linker,
    module: Module,
    host: Rc<Host>,
}

impl Command {
    /// Maps a code image, grants what the program may use and checks that all imports and the entry
    /// function are there. No guest code runs.
    ///
    /// # Errors
    /// What is wrong with the image, a grant, an import or the entry, in one sentence.
    pub fn load(self, image: &File) -> Result<Loaded, RunError> {
        self.link(Module::from_file(&Engine::new(), image)?)
    }

    /// The same with a lazy image, whose functions the compiler at the other end of a
    /// [socket](crate::abi::lazy) makes while the program runs.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_lazy(self, image: &File, compiler: OwnedFd) -> Result<Loaded, RunError> {
        self.link(Module::from_lazy_file(&Engine::new(), image, compiler)?)
    }

    fn link(self, module: Module) -> Result<Loaded, RunError> {
        let calls = entry::calls(module.info(), self.initialize, self.entry);
        let calls = calls.map_err(RunError::MissingEntry)?;

        let threads = threads::needed(module.info());
        let mut grants = WasiCtxBuilder::new();
        grants.inherit_stdio().max_descriptors(descriptor_limit()).threads(threads);
        for arg in self.args {
            grants.arg(arg);
        }
        let told = self.env.iter().any(|(name, _)| name == LISTEN_FDS);
        for (name, value) in self.env {
            grants.env(name, value);
        }
        if !self.sockets.is_empty() && !told {
            grants.env(LISTEN_FDS, self.sockets.len().to_string());
        }
        grants.sockets_first(self.sockets_first).sockets_nonblock(self.sockets_nonblock);
        grants.network(self.network);
        for socket in self.sockets {
            grants.socket(socket);
        }
        if let Some(stop) = self.stop {
            grants.stop(stop);
        }
        for preopen in self.preopens {
            grants.preopen(preopen.fd, preopen.guest_path, preopen.readonly);
        }

        let config = StoreConfig {
            max_wasm_stack: self.max_wasm_stack,
            ceiling: self.ceiling,
            ..StoreConfig::default()
        };
        let ctx = grants.build()?;
        let program = if threads {
            Program::Threaded(Box::new(threads::Program::new(module, ctx, config)?))
        } else {
            let imports = self.imports;
            Program::Single(Linked::new(module, ctx, config, |linker, _, _| {
                if let Some(define) = imports {
                    define(linker);
                }
            })?)
        };
        Ok(Loaded { program, calls })
    }
}

impl Loaded {
    /// Runs the program to its end: its start function, `_initialize` if it is a reactor, what else
    /// initialises it unless that was done before, then the entry. Results of the entry are dropped. What ends one thread of a program ends the program,
    /// except that threads other than the first may return; other threads may still be at work when
    /// this returns, until the process ends.
    ///
    /// # Errors
    /// When memory or tables cannot be had, or the engine itself fails. What the program does,
    /// traps included, is an outcome.
    pub fn run(self) -> Result<Outcome, RunError> {
        match self.program {
            Program::Single(mut linked) => linked.outcome(&self.calls),
            Program::Threaded(program) => program.run(self.calls),
        }
    }
}

impl Linked {
    /// Links a module with what WASI grants and what `more` defines, and checks that nothing lacks.
    fn new(
        module: Module,
        ctx: WasiCtx,
        config: StoreConfig,
        more: impl FnOnce(&mut Linker, &mut Store, &Rc<Host>),
    ) -> Result<Linked, RunError> {
        let mut store = Store::with_config(module.engine(), config)?;
        let mut linker = Linker::new(module.engine());
        let host: Rc<Host> = ctx.into();
        more(&mut linker, &mut store, &host);
        wasi::add_to_linker(&mut linker, &module, Rc::clone(&host))?;
        linker.check(&store, &module).map_err(RunError::Link)?;
        Ok(Linked { store, linker, module, host })
    }

    /// An instance, whose handler gets signals from now on.
    fn instantiate(&mut self) -> Result<Instance, InstantiateError> {
        let instance = self.linker.instantiate(&mut self.store, &self.module)?;
        let handler = signal_handler(self.module.info());
        if let Some(handler) = handler.and_then(|name| instance.func(&self.store, name)) {
            self.host.handle_signals(handler);
        }
        Ok(instance)
    }

    /// Runs the program, and says how it ended.
    fn outcome(&mut self, calls: &[String]) -> Result<Outcome, RunError> {
        let result = self.run(calls);
        outcome::of(result, &self.store)
    }

    /// Runs the program.
    fn run(&mut self, calls: &[String]) -> Result<(), InstantiateError> {
        let instance = self.instantiate()?;
        for name in calls {
            // All were found when the program was loaded.
            if let Some(function) = instance.func(&self.store, name) {
                function
                    .call(&mut self.store, &[], &mut Vec::new())
                    .map_err(InstantiateError::Failed)?;
            }
        }
        Ok(())
    }
}

/// How many descriptors the guest may hold: what the process may have, less what it needs itself.
fn descriptor_limit() -> u32 {
    let process = getrlimit(Resource::Nofile).current.unwrap_or(MAX_DESCRIPTORS);
    process.saturating_sub(RESERVED_DESCRIPTORS).clamp(8, MAX_DESCRIPTORS) as u32
}
