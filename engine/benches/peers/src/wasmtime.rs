//! wasmtime as its own command line drives it, with the interface of our runners.
//!
//! ```text
//! wasmtime-peer compile [OPTION]… MODULE IMAGE
//! wasmtime-peer run [OPTION]… [--dir HOST::GUEST]… [--timing FILE] IMAGE [ARGUMENT]…
//! wasmtime-peer calls [OPTION]… IMAGE COUNT
//! ```
//!
//! `run` does what `wasmtime run --allow-precompiled` does: a runtime of tokio with several threads,
//! the guest on a stack of its own (fibers), preview 1 from wasmtime-wasi in its asynchronous form,
//! blocking allowed. `--sync` is the leaner way that embedders like runwasi take: no fibers, the
//! synchronous form of preview 1. `--fastest` is inlining within the module and a guard of 2 GiB, so
//! that no access needs a check; everything else stays as wasmtime ships it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::error::Context as _;
use wasmtime::{
    AsContextMut, Config, Engine, Inlining, Linker, Module, OptLevel, Result, Store, StoreLimits,
    Trap, bail,
};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder};

/// What a process's exit code is after a trap under wasmtime's CLI: 128 + SIGABRT.
const TRAPPED: u8 = 134;

#[derive(Default)]
struct Options {
    fastest: bool,
    no_optimize: bool,
    sync: bool,
    dirs: Vec<(String, String)>,
    timing: Option<PathBuf>,
    rest: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let options = parse(args)?;
    let engine = Engine::new(&config(&options))?;
    match (command.as_str(), options.rest.as_slice()) {
        ("compile", [module, image]) => {
            compile(&engine, Path::new(module), Path::new(image)).map(|()| ExitCode::SUCCESS)
        }
        ("run", [_, ..]) => run(&engine, &options),
        ("calls", [image, count]) => {
            calls(&engine, &options, Path::new(image), count.parse()?).map(|()| ExitCode::SUCCESS)
        }
        _ => bail!("usage: wasmtime-peer compile|run|calls …"),
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options::default();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--fastest" => options.fastest = true,
            "--no-optimize" => options.no_optimize = true,
            "--sync" => options.sync = true,
            "--dir" => {
                let dir = args.next().context("--dir needs HOST::GUEST")?;
                let (host, guest) = dir.split_once("::").unwrap_or((&dir, &dir));
                options.dirs.push((host.to_owned(), guest.to_owned()));
            }
            "--timing" => {
                options.timing = Some(args.next().context("--timing needs a file")?.into())
            }
            other if other.starts_with("--") => bail!("unknown option {other}"),
            _ => {
                options.rest.push(arg);
                options.rest.extend(args.by_ref());
            }
        }
    }
    Ok(options)
}

fn config(options: &Options) -> Config {
    let mut config = Config::new();
    if options.fastest {
        config.compiler_inlining(Inlining::Yes);
        config.memory_guard_size(2 << 30);
    }
    if options.no_optimize {
        config.cranelift_opt_level(OptLevel::None);
    }
    config
}

fn compile(engine: &Engine, module: &Path, image: &Path) -> Result<()> {
    let bytes = std::fs::read(module).with_context(|| format!("reading {}", module.display()))?;
    let code = engine.precompile_module(&bytes)?;
    std::fs::write(image, code).with_context(|| format!("writing {}", image.display()))
}

/// What the store holds, as the CLI's does: limits are consulted when memory grows.
struct Host {
    wasi: WasiP1Ctx,
    limits: StoreLimits,
}

/// Times of the steps, for `--timing`.
struct Laps {
    wall: Instant,
    cpu: u64,
    text: String,
}

impl Laps {
    fn new() -> Laps {
        Laps { wall: Instant::now(), cpu: process_cpu(), text: String::new() }
    }

    fn lap(&mut self, step: &str) {
        let (wall, cpu) = (Instant::now(), process_cpu());
        let line = format!("{step} {} {}\n", (wall - self.wall).as_nanos(), cpu - self.cpu);
        self.text.push_str(&line);
        (self.wall, self.cpu) = (wall, cpu);
    }
}

/// Processor time of all threads of this process so far, in nanoseconds.
fn process_cpu() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn load(engine: &Engine, image: &Path) -> Result<Module> {
    // SAFETY: the image was written by `compile` of this very program, whose user vouches for it.
    unsafe { Module::deserialize_file(engine, image) }
        .with_context(|| format!("loading {}", image.display()))
}

fn run(engine: &Engine, options: &Options) -> Result<ExitCode> {
    let mut laps = Laps::new();
    let result = if options.sync {
        run_sync(engine, options, &mut laps)
    } else {
        // As the CLI does.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_time().enable_io().build()?;
        runtime.block_on(run_async(engine, options, &mut laps))
    };
    laps.lap("call");
    let code = match result {
        Ok(()) => 0,
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(exit) => exit.0.to_le_bytes()[0],
            None => {
                eprintln!("Error: {error:?}");
                if error.is::<Trap>() { TRAPPED } else { 1 }
            }
        },
    };
    if let Some(path) = &options.timing {
        std::fs::write(path, &laps.text)?;
    }
    // The CLI ends this way: nothing is torn down first.
    std::process::exit(i32::from(code));
}

async fn run_async(engine: &Engine, options: &Options, laps: &mut Laps) -> Result<()> {
    let module = load(engine, Path::new(&options.rest[0]))?;
    laps.lap("load");
    let mut store = store(engine, options)?;
    let mut linker = Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |host: &mut Host| &mut host.wasi)?;
    let instance = linker.instantiate_async(&mut store, &module).await?;
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
    laps.lap("instantiate");
    start.call_async(&mut store, ()).await
}

fn run_sync(engine: &Engine, options: &Options, laps: &mut Laps) -> Result<()> {
    let module = load(engine, Path::new(&options.rest[0]))?;
    laps.lap("load");
    let mut store = store(engine, options)?;
    let mut linker = Linker::new(engine);
    p1::add_to_linker_sync(&mut linker, |host: &mut Host| &mut host.wasi)?;
    let instance = linker.instantiate(&mut store, &module)?;
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
    laps.lap("instantiate");
    start.call(&mut store, ())
}

fn store(engine: &Engine, options: &Options) -> Result<Store<Host>> {
    let mut wasi = WasiCtxBuilder::new();
    wasi.args(&options.rest).inherit_stdio().allow_blocking_current_thread(true);
    for (host, guest) in &options.dirs {
        wasi.preopened_dir(host, guest, FsPerms::ReadWrite)?;
    }
    let host = Host { wasi: wasi.build_p1(), limits: StoreLimits::default() };
    let mut store = Store::new(engine, host);
    store.limiter(|host| &mut host.limits);
    Ok(store)
}

/// Calls a host function that does nothing COUNT times from wasm; prints nanoseconds per call.
fn calls(engine: &Engine, options: &Options, image: &Path, count: u32) -> Result<()> {
    let module = load(engine, image)?;
    let mut store = Store::new(engine, ());
    let mut linker = Linker::new(engine);
    linker.func_wrap("bench", "nop", |x: i32| x)?;
    if options.sync {
        let instance = linker.instantiate(&mut store, &module)?;
        let func = instance.get_typed_func::<u32, u32>(&mut store, "run")?;
        func.call(&mut store, count / 10)?;
        let cpu = process_cpu();
        func.call(&mut store, count)?;
        println!("{}", (process_cpu() - cpu) as f64 / f64::from(count));
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    runtime.block_on(async {
        let instance = linker.instantiate_async(&mut store, &module).await?;
        let func = instance.get_typed_func::<u32, u32>(store.as_context_mut(), "run")?;
        func.call_async(&mut store, count / 10).await?;
        let cpu = process_cpu();
        func.call_async(&mut store, count).await?;
        println!("{}", (process_cpu() - cpu) as f64 / f64::from(count));
        Ok(())
    })
}
