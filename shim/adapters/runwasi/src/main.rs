//! Coracle's engine under runwasi's shim library, for those who have built upon that library, and to
//! show what a shim costs apart from its engine.
//!
//! The library decides what a container is: it reads wasm layers, keeps what [`Compiler::compile`] made
//! of them in containerd's content store, makes namespaces and cgroup with libcontainer, and calls
//! [`Sandbox::run_wasi`] in the container's first process. So a module in a root file system is compiled
//! at each start, in the container, and there is no exec, pause, update or terminal. Nothing of this is
//! in the product's shim.

use std::fs::File;
use std::hash::Hash;
use std::io::Write as _;
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use containerd_shim_wasm::sandbox::Sandbox;
use containerd_shim_wasm::sandbox::context::{Entrypoint, RuntimeContext, Source, WasmLayer};
use containerd_shim_wasm::shim::{Cli, Compiler, Config, Shim, Version, version};
use coracle_engine::cache::{Key, Scope};
use coracle_engine::command::{Command, Outcome, Preopen};
use coracle_engine::compile;
use coracle_engine::config::Settings;
use coracle_engine::wasi::NetworkPolicy;
use rustix::fs::{MemfdFlags, Mode, OFlags};

/// Stack of a guest in bytes: as the product's shim has it.
const WASM_STACK: usize = 1 << 20;
/// Stack of the thread that the guest runs on, in bytes: the rest is the host's.
const STACK: usize = 2 * WASM_STACK;

/// The shim as the library knows it.
struct Coracle;

/// What runs a container.
#[derive(Default)]
struct Program;

/// What compiles layers.
struct Layers;

impl Shim for Coracle {
    type Sandbox = Program;

    fn name() -> &'static str {
        "coracle-runwasi"
    }

    fn version() -> Version {
        version!()
    }

    async fn compiler() -> Option<impl Compiler> {
        Some(Layers)
    }
}

impl Compiler for Layers {
    /// All that a code image depends on besides its module: the key of no module in particular.
    fn cache_key(&self) -> impl Hash {
        Key::new(&[0; 32], &Settings::program(), Scope::Node).to_string()
    }

    async fn compile(&self, layers: &[WasmLayer]) -> Result<Vec<Option<Vec<u8>>>> {
        let compile = |layer: &WasmLayer| match layer.precompiled {
            true => Ok(None),
            false => Ok(Some(compile::compile(&layer.layer, &Settings::program())?)),
        };
        layers.iter().map(compile).collect()
    }
}

impl Sandbox for Program {
    async fn run_wasi(&self, context: &impl RuntimeContext) -> Result<i32> {
        let Entrypoint { source, func, .. } = context.entrypoint();
        let image = match source {
            // Only what this shim has compiled bears that mark.
            Source::Oci([layer]) if layer.precompiled => in_memory(&layer.layer)?,
            source => in_memory(&compile::compile(&source.as_bytes()?, &Settings::program())?)?,
        };
        let command = Command {
            args: context.args().iter().map(|arg| arg.clone().into_bytes()).collect(),
            env: context.envs().iter().map(|pair| split(pair)).collect(),
            preopens: vec![preopen("/")?, preopen(".")?],
            network: NetworkPolicy::allow_all(),
            entry: Some(func),
            max_wasm_stack: WASM_STACK,
            ..Command::default()
        };
        let thread = thread::Builder::new().name("wasm".into()).stack_size(STACK);
        let thread = thread.spawn(move || run(command, image)).context("starting a thread")?;
        thread.join().map_err(|_| anyhow!("the engine panicked"))?
    }
}

/// Runs a program to its end and gives its exit code.
fn run(command: Command, image: File) -> Result<i32> {
    let outcome = command.load(&image)?.run()?;
    if let Outcome::Trapped(report) = &outcome {
        // Nobody may be reading there: the exit code still counts.
        let _ = writeln!(std::io::stderr(), "{report}");
    }
    Ok(outcome.exit_code().into())
}

/// A code image as a file, as the engine maps it.
fn in_memory(image: &[u8]) -> Result<File> {
    let file = rustix::fs::memfd_create("coracle-code-image", MemfdFlags::CLOEXEC);
    let mut file = File::from(file.context("creating a memory file for the code image")?);
    file.write_all(image).context("writing the code image")?;
    Ok(file)
}

/// A folder of the container, which its process has as its own by now.
fn preopen(path: &str) -> Result<Preopen> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    let fd = rustix::fs::open(path, flags, Mode::empty())
        .with_context(|| format!("opening the folder {path}"))?;
    Ok(Preopen { fd, guest_path: path.to_owned(), readonly: false })
}

/// `KEY=value`; a pair without `=` is a key with an empty value.
fn split(pair: &str) -> (Vec<u8>, Vec<u8>) {
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    (key.as_bytes().to_vec(), value.as_bytes().to_vec())
}

fn main() {
    Coracle::run(Config { default_log_level: "warn".into(), ..Config::default() });
}
