//! The WebAssembly program of a container: the only place where the shim meets the engine.

use std::fs::File;
use std::os::fd::OwnedFd;

use coracle_engine::command::{self, Command, Preopen};
pub(super) use coracle_engine::command::{MAX_REPORT, Report, describe};
pub(super) use coracle_engine::runtime::{Caller, Ceiling, Interrupted, Linker, TrapKind};
pub(super) use coracle_engine::wasi::preview1::errno::Errno as WasiErrno;
pub(super) use coracle_engine::wasi::{ListenAddress, NetworkPolicy};

use super::runner::{Act, Failure};
use super::settings::Settings;
use super::termination::Message;
use super::{limit, stop, toolbox, trap};

/// Stack of a guest in bytes.
const WASM_STACK: usize = 1 << 20;

/// Exit code when the engine itself fails after the start.
const ENGINE_FAILED: u8 = 125;

/// The folders that a program is given, open for reading; both lie inside the container.
#[derive(Debug)]
pub(super) struct Grants {
    /// The container's root, `/`.
    pub(super) root: OwnedFd,
    /// Its working directory, `.`.
    pub(super) cwd: OwnedFd,
    /// Sockets that listen.
    pub(super) sockets: Vec<OwnedFd>,
    /// The limit of memory, if there is one.
    pub(super) memory: Option<limit::Files>,
    /// Whether it is the toolbox, and may import what only that may.
    pub(super) toolbox: bool,
}

/// Where a program's code comes from.
#[derive(Debug)]
pub(super) struct Code {
    image: File,
    /// Who makes the rest of it while it runs.
    compiler: Option<OwnedFd>,
}

impl Code {
    /// As the shim sends it.
    pub(super) fn new(fds: Vec<OwnedFd>) -> Option<Self> {
        let mut fds = fds.into_iter();
        Some(Self { image: fds.next()?.into(), compiler: fds.next() })
    }
}

/// Listens where the settings say.
pub(super) fn listen(settings: &Settings) -> Result<Vec<OwnedFd>, Failure> {
    let open = |at: &ListenAddress| {
        at.open().map_err(|error| Failure::new(format!("cannot listen on {at}: {error}")))
    };
    settings.listen.iter().map(open).collect()
}

/// A program that is mapped and linked.
#[derive(Debug)]
pub(super) struct Loaded(command::Loaded);

/// Maps and links the code image.
pub(super) fn load(
    code: Code,
    args: Vec<String>,
    env: Vec<String>,
    export: Option<String>,
    grants: Grants,
    settings: &Settings,
) -> Result<Loaded, Failure> {
    stop::set_up(settings.drain).act("handle", "signals")?;
    let command = Command {
        args: args.into_iter().map(String::into_bytes).collect(),
        env: env.into_iter().map(split).collect(),
        preopens: vec![preopen(grants.root, "/"), preopen(grants.cwd, ".")],
        sockets: grants.sockets,
        sockets_first: settings.listen_first,
        sockets_nonblock: settings.listen_nonblock,
        network: settings.network.clone(),
        ceiling: Some(&limit::CEILING),
        stop: Some(&stop::STOP),
        entry: export,
        initialize: settings.initialize.clone(),
        imports: grants.toolbox.then_some(toolbox::imports),
        max_wasm_stack: WASM_STACK,
    };
    let loaded = match code.compiler {
        None => command.load(&code.image),
        Some(compiler) => command.load_lazy(&code.image, compiler),
    };
    let loaded = loaded.map_err(|error| Failure::new(error.to_string()))?;
    if let Some(files) = grants.memory {
        limit::hold(files);
    }
    Ok(Loaded(loaded))
}

/// `KEY=value`; a pair without `=` is a key with an empty value.
fn split(pair: String) -> (Vec<u8>, Vec<u8>) {
    match pair.split_once('=') {
        Some((key, value)) => (key.as_bytes().to_vec(), value.as_bytes().to_vec()),
        None => (pair.into_bytes(), Vec::new()),
    }
}

/// Whether something may be written is decided by the kernel's mount flags, which may differ between
/// the root and the volumes below it.
fn preopen(fd: OwnedFd, guest_path: &str) -> Preopen {
    Preopen { fd, guest_path: guest_path.to_owned(), readonly: false }
}

impl Loaded {
    /// Runs the program to its end and gives its exit code. A trap's report goes to standard error and to
    /// `message`, and its kind to the shim.
    pub(super) fn run(self, message: Option<Message>) -> u8 {
        stop::exit_code(self.run_to_end(message))
    }

    fn run_to_end(self, message: Option<Message>) -> u8 {
        let (report, code) = match self.0.run() {
            Ok(command::Outcome::Trapped(report)) => {
                trap::leave_word(report.trap().map(|trap| trap.kind()));
                (report.to_string(), command::Outcome::Trapped(report).exit_code())
            }
            Ok(outcome) => return outcome.exit_code(),
            Err(error) => (error.to_string(), ENGINE_FAILED),
        };
        complain(&report);
        if let Some(message) = message {
            message.write(&report);
        }
        code
    }
}

/// Writes a line to standard error. Nobody may be reading there: the exit code still counts.
fn complain(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{line}");
}
