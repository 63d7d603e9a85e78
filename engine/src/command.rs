//! `Command`: runs one WASI program from its code image, from grants to exit code.
//!
//! [`Command::load`] maps and links without running any guest code, so that everything that can be
//! wrong with an image or its imports is told before the program starts; [`Loaded::run`] runs it.

use std::fmt;
use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::process::{Resource, getrlimit};

use crate::module::types::FuncType;
use crate::module::{ExportIndex, ModuleInfo};
use crate::runtime::{
    CallError, Engine, Exception, HostError, InstantiateError, Linker, LoadError, Module, Store,
    StoreConfig, StoreError, Trap,
};
use crate::wasi::preview1::{self, ProcExit};
use crate::wasi::{GrantError, WasiCtxBuilder};

/// The function that a command starts with.
const START: &str = "_start";
/// The function that prepares a reactor.
const INITIALIZE: &str = "_initialize";
/// Exit code after a trap: 128 + SIGABRT, what a shell shows for a native program that aborts.
const TRAPPED: u8 = 134;
/// Host descriptors that stay with the process itself.
const RESERVED_DESCRIPTORS: u64 = 32;
/// Most descriptors of a guest, whatever the process may have.
const MAX_DESCRIPTORS: u64 = 1 << 20;
/// Most export names that a message lists.
const MAX_LISTED: usize = 8;

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
    /// The exported function to call; `_start` if there is none.
    pub entry: Option<String>,
    /// Most bytes of stack that the program may use.
    pub max_wasm_stack: usize,
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
    #[error("{0}{hint}", hint = hint(.0))]
    Link(#[source] InstantiateError),
    #[error("{0}")]
    MissingEntry(MissingEntry),
    #[error("the engine failed while the program ran: {0}")]
    Host(HostError),
}

/// Why a module has no function to call.
#[derive(Debug, PartialEq, Eq)]
pub struct MissingEntry {
    entry: String,
    problem: Problem,
}

#[derive(Debug, PartialEq, Eq)]
enum Problem {
    /// With the names of functions that could be called instead.
    NotExported(Vec<String>),
    NotAFunction,
    /// With the type it has.
    Type(String),
}

impl fmt::Display for MissingEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = self.entry.escape_debug();
        match &self.problem {
            Problem::NotAFunction => write!(f, "the module's export `{entry}` is not a function"),
            Problem::Type(found) => write!(
                f,
                "the module's function `{entry}` has the type {found}; to start with it, it must \
                 take no parameters{}",
                if self.entry == START { " and return nothing" } else { "" },
            ),
            Problem::NotExported(others) => {
                write!(f, "the module exports no function `{entry}` to start with")?;
                for (n, other) in others.iter().take(MAX_LISTED).enumerate() {
                    let before = if n == 0 { "; it could start with " } else { ", " };
                    write!(f, "{before}`#{}`", other.escape_debug())?;
                }
                if others.len() > MAX_LISTED { f.write_str(" and others") } else { Ok(()) }
            }
        }
    }
}

/// What to say of imports that other hosts provide.
fn hint(error: &InstantiateError) -> &'static str {
    match error {
        InstantiateError::UnknownImport { module, .. } if module == "wasi_unstable" => {
            "; the program was built for an old snapshot of WASI: build it for \
             wasi_snapshot_preview1 (wasm32-wasip1)"
        }
        InstantiateError::UnknownImport { module, .. } if module == preview1::MODULE => {
            "; only the 46 functions of WASI preview 1 are defined in that module"
        }
        InstantiateError::UnknownImport { .. } => {
            "; a program can only import from wasi_snapshot_preview1"
        }
        _ => "",
    }
}

/// How a program ended.
#[derive(Debug)]
pub enum Outcome {
    /// It returned (0) or called `proc_exit`.
    Exited(u32),
    /// It trapped, or nothing caught an exception that it threw.
    Trapped(TrapReport),
}

impl Outcome {
    /// The exit code of the process: the lowest eight bits of the program's, or 134 for a trap and
    /// an uncaught exception.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Outcome::Exited(code) => code.to_le_bytes()[0],
            Outcome::Trapped(_) => TRAPPED,
        }
    }
}

/// What a person reads after a trap or an uncaught exception: its kind, and where it happened.
#[derive(Debug)]
pub struct TrapReport(Abort);

#[derive(Debug)]
enum Abort {
    Trap(Trap),
    Exception(Exception),
}

impl TrapReport {
    /// The trap, unless it was an exception.
    #[must_use]
    pub fn trap(&self) -> Option<&Trap> {
        match &self.0 {
            Abort::Trap(trap) => Some(trap),
            Abort::Exception(_) => None,
        }
    }

    /// The exception, unless it was a trap.
    #[must_use]
    pub fn exception(&self) -> Option<&Exception> {
        match &self.0 {
            Abort::Trap(_) => None,
            Abort::Exception(exception) => Some(exception),
        }
    }
}

impl fmt::Display for TrapReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Abort::Trap(trap) => trap.fmt(f),
            Abort::Exception(exception) => exception.fmt(f),
        }
    }
}

/// A program that is mapped and linked, and has not run yet.
#[derive(Debug)]
pub struct Loaded {
    store: Store,
    linker: Linker,
    module: Module,
    entry: String,
}

impl Command {
    /// Maps a code image, grants what the program may use and checks that all imports and the entry
    /// function are there. No guest code runs.
    ///
    /// # Errors
    /// What is wrong with the image, a grant, an import or the entry, in one sentence.
    pub fn load(self, image: File) -> Result<Loaded, RunError> {
        let engine = Engine::new();
        let module = Module::from_file(&engine, &image)?;
        let entry = self.entry.unwrap_or_else(|| START.to_owned());
        check_entry(module.info(), &entry).map_err(RunError::MissingEntry)?;

        let mut grants = WasiCtxBuilder::new();
        grants.inherit_stdio().max_descriptors(descriptor_limit());
        for arg in self.args {
            grants.arg(arg);
        }
        for (name, value) in self.env {
            grants.env(name, value);
        }
        for preopen in self.preopens {
            grants.preopen(preopen.fd, preopen.guest_path, preopen.readonly);
        }

        let config = StoreConfig { max_wasm_stack: self.max_wasm_stack, ..StoreConfig::default() };
        let store = Store::with_config(&engine, config)?;
        let mut linker = Linker::new(&engine);
        preview1::add_to_linker(&mut linker, grants.build()?);
        linker.check(&store, &module).map_err(RunError::Link)?;
        Ok(Loaded { store, linker, module, entry })
    }
}

impl Loaded {
    /// Runs the program to its end: its start function, `_initialize` if it is a reactor, then the
    /// entry. Results of the entry are dropped.
    ///
    /// # Errors
    /// When memory or tables cannot be had, or the engine itself fails. What the program does,
    /// traps included, is an outcome.
    pub fn run(mut self) -> Result<Outcome, RunError> {
        match self.run_to_end() {
            Ok(()) => Ok(Outcome::Exited(0)),
            Err(InstantiateError::Failed(CallError::Trap(trap))) => {
                Ok(Outcome::Trapped(TrapReport(Abort::Trap(trap))))
            }
            Err(InstantiateError::Failed(CallError::Exception(exception))) => {
                Ok(Outcome::Trapped(TrapReport(Abort::Exception(exception))))
            }
            Err(InstantiateError::Failed(CallError::Host(error))) => exited(error),
            Err(error) => Err(RunError::Link(error)),
        }
    }

    fn run_to_end(&mut self) -> Result<(), InstantiateError> {
        let instance = self.linker.instantiate(&mut self.store, &self.module)?;
        let reactor = self.entry != START && exported(self.module.info(), INITIALIZE).is_some();
        let functions = reactor.then_some(INITIALIZE).into_iter().chain([self.entry.as_str()]);
        for name in functions {
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

/// The outcome of a host function's error: the exit that it stands for, or the engine's failure.
fn exited(error: HostError) -> Result<Outcome, RunError> {
    match error.downcast::<ProcExit>() {
        Ok(exit) => Ok(Outcome::Exited(exit.0)),
        Err(error) => Err(RunError::Host(error)),
    }
}

/// How many descriptors the guest may hold: what the process may have, less what it needs itself.
fn descriptor_limit() -> u32 {
    let process = getrlimit(Resource::Nofile).current.unwrap_or(MAX_DESCRIPTORS);
    process.saturating_sub(RESERVED_DESCRIPTORS).clamp(8, MAX_DESCRIPTORS) as u32
}

/// The type of an exported function.
fn exported<'m>(module: &'m ModuleInfo, name: &str) -> Option<&'m FuncType> {
    match module.export(name)? {
        ExportIndex::Func(func) => Some(module.func_type(func)),
        _ => None,
    }
}

fn check_entry(module: &ModuleInfo, entry: &str) -> Result<(), MissingEntry> {
    let missing = |entry: &str, problem| MissingEntry { entry: entry.to_owned(), problem };
    let Some(ty) = exported(module, entry) else {
        return Err(missing(
            entry,
            match module.export(entry) {
                Some(_) => Problem::NotAFunction,
                None => Problem::NotExported(alternatives(module)),
            },
        ));
    };
    let unit = |ty: &FuncType| ty.params.is_empty() && ty.results.is_empty();
    if !ty.params.is_empty() || (entry == START && !unit(ty)) {
        return Err(missing(entry, Problem::Type(describe(ty))));
    }
    match exported(module, INITIALIZE) {
        Some(ty) if !unit(ty) && entry != START => {
            Err(missing(INITIALIZE, Problem::Type(describe(ty))))
        }
        _ => Ok(()),
    }
}

/// Exported functions that could be called instead.
fn alternatives(module: &ModuleInfo) -> Vec<String> {
    let callable = |name: &str| exported(module, name).is_some_and(|ty| ty.params.is_empty());
    let names = module.exports.iter().map(|export| &export.name);
    names.filter(|name| *name != INITIALIZE && callable(name)).cloned().collect()
}

fn describe(ty: &FuncType) -> String {
    let list = |types: &[_]| {
        let names: Vec<String> = types.iter().map(|ty| format!("{ty:?}").to_lowercase()).collect();
        names.join(" ")
    };
    format!("({}) -> ({})", list(&ty.params), list(&ty.results))
}
