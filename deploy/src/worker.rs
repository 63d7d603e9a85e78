//! `coracle compile-worker`: one compilation, of a module that may have been made to break compilers.
//!
//! The worker owns nothing but its three descriptors: 0 is the module, 1 an empty regular file or
//! memfd for the code image, 2 a pipe for one line that says why it failed. Who starts it bounds its
//! memory and time; it takes its rights away itself, before it reads.

mod cage;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use coracle_engine::compile;
use coracle_engine::config::Settings;

use crate::cli::WorkerArgs;
use crate::compile::read_module;

/// Compiles descriptor 0 to descriptor 1.
pub(crate) fn worker(args: &WorkerArgs) -> ExitCode {
    match compile_stdin(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line: the reader passes it on to docker and ctr as it is.
            eprintln!("{}", format!("{error:#}").replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn compile_stdin(args: &WorkerArgs) -> Result<()> {
    let settings = if args.generic { Settings::default() } else { Settings::program() };
    cage::enter().context("confining the compiler")?;
    let bytes = read_module(io::stdin().lock())?;
    let image = compile::compile(&bytes, &settings)?;
    let mut out = io::stdout().lock();
    out.write_all(&image).and_then(|()| out.flush()).context("writing the code image")?;
    Ok(())
}
