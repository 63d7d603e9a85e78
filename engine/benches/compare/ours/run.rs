//! Our runtime as the benchmarks call it; the compiler is not part of this executable, as it is not
//! part of a guest in production.
//!
//! ```text
//! run run [--network] [--dir HOST::GUEST]… [--timing FILE] IMAGE [ARGUMENT]…
//! run calls IMAGE COUNT
//! ```
//!
//! `--timing` writes a line for each step (`load`, `instantiate`, `call`): its name, and its wall and
//! processor time in nanoseconds. `calls` calls a host function that does nothing COUNT times from
//! wasm and prints nanoseconds per call.

#![allow(clippy::exit, reason = "the guest's exit code is this process's")]

use std::fs::File;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use coracle_engine::command::{Command, Outcome, Preopen};
use coracle_engine::runtime::{Caller, Engine, Linker, Module, Store, Val};
use coracle_engine::wasi::NetworkPolicy;
use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};

/// Stack for wasm code, in bytes: as in the shim's guest and in `coracle run`.
const MAX_WASM_STACK: usize = 6 << 20;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    match args.next().as_deref() {
        Some("run") => run(args),
        Some("calls") => calls(args),
        _ => bail!("usage: run run|calls …"),
    }
}

/// Wall time of a step's begin, and processor time of all threads until then.
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

fn run(mut args: impl Iterator<Item = String>) -> Result<()> {
    let mut preopens = Vec::new();
    let mut timing: Option<PathBuf> = None;
    let mut program = Vec::new();
    let mut network = NetworkPolicy::deny();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--dir" => preopens.push(preopen(&args.next().context("--dir needs HOST::GUEST")?)?),
            "--network" => network = NetworkPolicy::allow_all(),
            "--timing" => timing = Some(args.next().context("--timing needs a file")?.into()),
            other if other.starts_with("--") => bail!("unknown option {other}"),
            _ => {
                program.push(arg);
                program.extend(args.by_ref());
            }
        }
    }
    let image = program.first().context("run needs an image")?;
    let mut laps = Laps::new();
    let file = File::open(image).with_context(|| format!("opening {image}"))?;
    let command = Command {
        args: program.iter().map(|arg| arg.clone().into_bytes()).collect(),
        preopens,
        network,
        max_wasm_stack: MAX_WASM_STACK,
        ..Command::default()
    };
    let loaded = command.load(&file).with_context(|| format!("loading {image}"))?;
    laps.lap("load");
    let outcome = loaded.run()?;
    laps.lap("call");
    if let Outcome::Trapped(report) = &outcome {
        eprintln!("{report}");
    }
    if let Some(path) = timing {
        std::fs::write(path, laps.text)?;
    }
    std::process::exit(i32::from(outcome.exit_code()));
}

fn preopen(dir: &str) -> Result<Preopen> {
    let (host, guest) = dir.split_once("::").unwrap_or((dir, dir));
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    let fd = rustix::fs::open(host, flags, Mode::empty())
        .with_context(|| format!("opening the folder {host}"))?;
    Ok(Preopen { fd, guest_path: guest.to_owned(), readonly: false })
}

fn calls(mut args: impl Iterator<Item = String>) -> Result<()> {
    let (Some(image), Some(count)) = (args.next(), args.next()) else {
        bail!("usage: run calls IMAGE COUNT");
    };
    let count: u32 = count.parse().context("COUNT is no number")?;
    let engine = Engine::new();
    let module = Module::from_file(&engine, &File::open(&image)?)?;
    let mut store = Store::new(&engine)?;
    let mut linker = Linker::new(&engine);
    linker.func_wrap("bench", "nop", |_: Caller<'_>, x: i32| x);
    let instance = linker.instantiate(&mut store, &module)?;
    let func = instance.func(&store, "run").context("the module has no `run`")?;
    let mut call = |n: u32| func.call(&mut store, &[Val::I32(n.cast_signed())], &mut Vec::new());
    call(count / 10)?;
    let cpu = process_cpu();
    call(count)?;
    println!("{}", (process_cpu() - cpu) as f64 / f64::from(count));
    Ok(())
}
