//! `containerd-shim-wasm-v1`: parse the arguments, dispatch.

use std::process::ExitCode;

use coracle_shim::io::logger;
use coracle_shim::warm::command as warm;
use coracle_shim::{bootstrap, cleanup, cli, guest, serve};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    // The guest runner is exec'd right after clone and must not pay for anything else first.
    if args.first().is_some_and(|arg| arg == cli::GUEST_COMMAND) {
        return guest::runner_main();
    }
    if let Some((_, args)) = args.split_first().filter(|(first, _)| *first == logger::COMMAND) {
        return logger::become_logger(args);
    }
    if warm::is_meant(&args) {
        return warm::main(&args);
    }
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // containerd shows what a failed `start` or `delete` wrote here. The sentence tells what its sources would.
            eprintln!("containerd-shim-wasm-v1: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[std::ffi::OsString]) -> anyhow::Result<()> {
    match cli::parse(args)? {
        cli::Command::Version => Ok(cli::print_version()?),
        cli::Command::Info => Ok(bootstrap::info()?),
        cli::Command::Start(flags) => match bootstrap::start(&flags)? {
            bootstrap::Started::Answered => Ok(()),
            bootstrap::Started::Server(server) => Ok(serve::serve(*server)?),
        },
        cli::Command::Delete(flags) => Ok(cleanup::delete(&flags)?),
    }
}
