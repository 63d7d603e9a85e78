//! `coracle-node`: what a node runs for its WebAssembly containers besides the shims. `coracle` starts it.

mod api;
mod cli;
mod daemon;
mod retire;

use std::process::ExitCode;

use clap::Parser;

/// Exit code when the command itself fails, as of `coracle`.
const EXIT_TOOL_FAILED: u8 = 125;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are not failures and go to stdout.
            let failed = error.use_stderr();
            let _ = error.print();
            return ExitCode::from(if failed { EXIT_TOOL_FAILED } else { 0 });
        }
    };
    match cli.command {
        cli::Command::Install(args) => coracle_installer::install(&args),
        cli::Command::Uninstall(args) => coracle_installer::uninstall(&args),
        cli::Command::Doctor(args) => coracle_installer::doctor(&args),
        cli::Command::Daemon(args) => finish(daemon::run(args)),
        cli::Command::UninstallNodes(args) => finish(retire::run(&args)),
    }
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coracle: {error:#}");
            ExitCode::from(EXIT_TOOL_FAILED)
        }
    }
}
