//! coracle-box: small tools for containers whose image has none.
//!
//! One WebAssembly program with the commands of [`TOOLS`], called as `coracle-box COMMAND ARGUMENTS` or
//! by a command's own name. It sees the container by WASI like any program, and what WASI cannot tell by
//! the functions in [`host`], which only this program is given.

mod args;
mod backtrace;
mod cat;
mod df;
mod env;
mod error;
mod host;
mod kill;
mod ls;
mod mem;
mod net;
mod netstat;
mod out;
mod passwd;
mod proc;
mod ps;
mod sleep;
mod tar;
mod test;
mod time;
mod wget;

use std::process::ExitCode;

use crate::error::Failure;
use crate::out::Context;

/// Exit code for a command that there is not, as a shell has it.
const NOT_FOUND: u8 = 127;
/// The name that stands for all commands.
const BOX: &str = "coracle-box";

/// A command.
struct Tool {
    name: &'static str,
    /// Its options and operands.
    usage: &'static str,
    /// What it does.
    about: &'static str,
    run: fn(&mut Context, Vec<String>) -> Result<(), Failure>,
}

/// All commands, by their names.
const TOOLS: &[Tool] = &[
    Tool {
        name: "backtrace",
        usage: "[PID]",
        about: "where the container's program is",
        run: backtrace::run,
    },
    Tool { name: "cat", usage: "[-nbvetA] [FILE]...", about: "print files", run: cat::run },
    Tool {
        name: "df",
        usage: "[-hkmaTPi] [FILE]...",
        about: "space of file systems",
        run: df::run,
    },
    Tool {
        name: "env",
        usage: "[-i0] [-u NAME] [NAME=VALUE]...",
        about: "print the environment",
        run: env::run,
    },
    Tool { name: "kill", usage: "[-l] [-SIGNAL] PID...", about: "send a signal", run: kill::run },
    Tool { name: "ls", usage: "[-1aAdFhilnrRSt] [FILE]...", about: "list folders", run: ls::run },
    Tool { name: "mem", usage: "[PID]", about: "memory of the container's program", run: mem::run },
    Tool { name: "netstat", usage: "[-altunwxp]", about: "sockets", run: netstat::run },
    Tool { name: "ps", usage: "", about: "processes", run: ps::run },
    Tool { name: "sleep", usage: "NUMBER[smhd]...", about: "wait", run: sleep::run },
    Tool {
        name: "tar",
        usage: "c|x|t[v]f - [-C FOLDER] [FILE]...",
        about: "archives from and to a stream",
        run: tar::run,
    },
    Tool { name: "test", usage: "-d|-e|-f|-L|-s FILE", about: "whether it is so", run: test::run },
    Tool {
        name: "wget",
        usage: "[-qS] [-O FILE] [-T SECONDS] [-U AGENT] [--header LINE] [--post-data TEXT] [--spider] URL...",
        about: "fetch by HTTP",
        run: wget::run,
    },
];

fn main() -> ExitCode {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let called = words.next().unwrap_or_default();
    let called = called.rsplit('/').next().unwrap_or_default();
    let mut rest: Vec<String> = words.collect();
    let name = if called.strip_suffix(".wasm").unwrap_or(called) == BOX {
        match rest.first().map(String::as_str) {
            None | Some("--help" | "-h" | "help") => return help(),
            Some(_) => rest.remove(0),
        }
    } else {
        called.to_owned()
    };
    let Some(tool) = TOOLS.iter().find(|tool| tool.name == name) else {
        eprintln!("{BOX}: {}: no such command; `{BOX} --help` lists them", out::plain(&name));
        return ExitCode::from(NOT_FOUND);
    };
    let mut context = Context::new(tool.name);
    let result = match rest.first().map(String::as_str) {
        Some("--help") => usage(&mut context, tool),
        _ => (tool.run)(&mut context, rest),
    };
    context.finish(result)
}

fn usage(context: &mut Context, tool: &Tool) -> Result<(), Failure> {
    context.line(format_args!("usage: {} {}\n{}", tool.name, tool.usage, tool.about))
}

fn help() -> ExitCode {
    let mut context = Context::new(BOX);
    let result = list(&mut context);
    context.finish(result)
}

fn list(context: &mut Context) -> Result<(), Failure> {
    context.line(format_args!("usage: {BOX} COMMAND [ARGUMENTS], or COMMAND [ARGUMENTS]\n"))?;
    for tool in TOOLS {
        context.line(format_args!("  {:<10} {}", tool.name, tool.about))?;
        if !tool.usage.is_empty() {
            context.line(format_args!("  {:<10}   {} {}", "", tool.name, tool.usage))?;
        }
    }
    Ok(())
}
