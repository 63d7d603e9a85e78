//! `coracle`: runs WebAssembly programs, shows what a module needs, looks after the cache of compiled
//! code, and compiles for the shim. What concerns a whole node is handed on to `coracle-node`.

mod beside;
mod cache;
mod cli;
mod compile;
mod inspect;
mod run;
mod worker;

use std::process::ExitCode;

use clap::Parser;

/// Exit code when `coracle` itself fails, as opposed to the program it runs: what `docker run` and
/// `env(1)` use.
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
        cli::Command::Run(args) => run::run(args),
        cli::Command::Inspect(args) => inspect::inspect(&args).map(|()| ExitCode::SUCCESS),
        cli::Command::Cache(command) => cache::cache(&command),
        cli::Command::Install(args) => node("install", &args),
        cli::Command::Uninstall(args) => node("uninstall", &args),
        cli::Command::Doctor(args) => node("doctor", &args),
        cli::Command::Daemon(args) => node("daemon", &args),
        cli::Command::CompileWorker(args) => return worker::worker(&args),
    }
    .unwrap_or_else(|error| {
        eprintln!("coracle: {error:#}");
        ExitCode::from(EXIT_TOOL_FAILED)
    })
}

fn node(name: &str, args: &cli::NodeArgs) -> anyhow::Result<ExitCode> {
    match beside::become_node(name, &args.arguments)? {}
}
