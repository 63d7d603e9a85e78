//! Compilation: in this process for `coracle run`, as a confined worker for the shim.
//!
//! The worker owns nothing but its three descriptors: 0 is the module, 1 an empty regular file or
//! memfd for the code image, 2 a pipe for one line that says why it failed. Who starts it takes its
//! rights away and bounds its memory and time; here we only keep to that contract.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use coracle_engine::compile;
use coracle_engine::config::Settings;

use crate::cli::WorkerArgs;

/// Largest module that is read, in bytes.
const MAX_MODULE: u64 = 256 << 20;

/// Compiles descriptor 0 to descriptor 1.
pub(crate) fn worker(args: &WorkerArgs) -> ExitCode {
    let settings = if args.generic { Settings::default() } else { Settings::program() };
    match compile_stdin(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line: the reader passes it on to docker and ctr as it is.
            eprintln!("{}", format!("{error:#}").replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn compile_stdin(settings: &Settings) -> Result<()> {
    let bytes = read_module(io::stdin().lock())?;
    let image = compile::compile(&bytes, settings)?;
    let mut out = io::stdout().lock();
    out.write_all(&image).and_then(|()| out.flush()).context("writing the code image")?;
    Ok(())
}

/// Reads a module, refusing one over the size limit.
pub(crate) fn read_module(source: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_MODULE + 1).read_to_end(&mut bytes).context("reading the module")?;
    if bytes.len() as u64 > MAX_MODULE {
        bail!("module is over the limit of {} MiB", MAX_MODULE >> 20);
    }
    Ok(bytes)
}

/// Compiles a module into an unlinked file in memory, ready to be mapped.
pub(crate) fn compile_to_memory(bytes: &[u8], settings: &Settings) -> Result<File> {
    let image = compile::compile(bytes, settings)?;
    let fd: OwnedFd =
        rustix::fs::memfd_create("coracle-code-image", rustix::fs::MemfdFlags::CLOEXEC)
            .context("creating a memory file for the code image")?;
    let mut file = File::from(fd);
    file.write_all(&image).context("writing the code image")?;
    Ok(file)
}
