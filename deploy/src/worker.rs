//! `coracle compile-worker`: one compilation, of a module that may have been made to break compilers.
//!
//! The worker owns nothing but its three descriptors: 0 is the module, 1 an empty regular file or
//! memfd for the code image, 2 a pipe for one line that says why it failed. Under `--first` 2 is a
//! socket that keeps messages apart, at whose other end a guest asks for functions while it runs. Under
//! `--initialize` 0 is a complete code image, and what runs is the module's own initialisation. Who
//! starts it bounds its memory and time; it takes its rights away itself, before it reads.

mod cage;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::{Context, Result};
use coracle_engine::compile;
use coracle_engine::config::Settings;
use coracle_engine::first::{self, Bounds};
use coracle_engine::snapshot;
use rustix::process::{Resource, getrlimit};

use cage::Work;

use crate::cli::WorkerArgs;
use crate::compile::read_module;

/// Most bytes of a lazy image, where no limit says less.
const MAX_IMAGE: u64 = 768 << 20;

/// Compiles descriptor 0 to descriptor 1.
pub(crate) fn worker(args: &WorkerArgs) -> ExitCode {
    if args.first {
        // What a panic prints would be taken for an answer to the guest.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let result = match &args.initialize {
        Some(export) => initialize(export),
        None if args.first => serve(args),
        None => compile_stdin(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line: the reader passes it on to docker and ctr as it is. One write: a message.
            let line = format!("{error:#}").replace('\n', " ") + "\n";
            // Nobody may be reading: the exit code still counts.
            let _ = rustix::io::write(io::stderr(), line.as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn settings(args: &WorkerArgs) -> Settings {
    if args.generic { Settings::default() } else { Settings::program() }
}

fn compile_stdin(args: &WorkerArgs) -> Result<()> {
    cage::enter(Work::Compile).context("confining the compiler")?;
    let bytes = read_module(io::stdin().lock())?;
    write(&compile::compile(&bytes, &settings(args))?)
}

/// Runs an export of the image that is descriptor 0.
fn initialize(export: &str) -> Result<()> {
    // The runtime asks for it. What tells it is read once, and may be a file.
    let _ = rustix::param::page_size();
    cage::enter(Work::Run).context("confining the program")?;
    let image = io::stdin().as_fd().try_clone_to_owned().context("sharing the code image")?;
    write(&snapshot::take(&File::from(image), export)?)
}

fn write(image: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(image).and_then(|()| out.flush()).context("writing the code image")?;
    Ok(())
}

/// Compiles functions until all are made or the guest is gone.
fn serve(args: &WorkerArgs) -> Result<()> {
    let most = getrlimit(Resource::Fsize).current.map_or(MAX_IMAGE, |limit| limit.min(MAX_IMAGE));
    cage::enter(Work::Compile).context("confining the compiler")?;
    let bytes = read_module(io::stdin().lock())?;
    let (image, guest) = (io::stdout(), io::stderr());
    let bounds = Bounds::with_image(most);
    first::serve(&bytes, &settings(args).first(), image.as_fd(), guest.as_fd(), bounds)?;
    Ok(())
}
