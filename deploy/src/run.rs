//! `coracle run`: one program in this process, without any container around it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::ExitCode;

use anyhow::{Context, Result};
use coracle_engine::command::{Command, Outcome, Preopen};
use coracle_engine::config::{OptLevel, Settings};
use coracle_engine::wasi::ListenAddress;

use crate::cli::{Dir, RunArgs};
use crate::{cache, compile};

/// Stack for wasm code, in bytes: the main thread has 8 MiB by default, the host needs little.
const MAX_WASM_STACK: usize = 6 << 20;

/// Runs the program; the result is the exit code to end with.
pub(crate) fn run(args: RunArgs) -> Result<ExitCode> {
    let RunArgs {
        dirs,
        env,
        listen,
        listen_first,
        listen_nonblock,
        network,
        invoke,
        no_optimize,
        no_cache,
        program,
    } = args;
    let path = &program[0];
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let bytes =
        compile::read_module(file).with_context(|| format!("loading {}", path.display()))?;
    let opt_level = if no_optimize { OptLevel::None } else { OptLevel::Speed };
    let settings = Settings { opt_level, ..Settings::program() };
    let image = if no_cache {
        compile::compile_to_memory(&bytes, &settings)
    } else {
        cache::code(&bytes, &settings)
    };
    let image = image.with_context(|| format!("compiling {}", path.display()))?;
    drop(bytes);

    let command = Command {
        args: program.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
        env: environment(&env),
        preopens: dirs.iter().map(preopen).collect::<Result<_>>()?,
        sockets: listen.iter().map(socket).collect::<Result<_>>()?,
        sockets_first: listen_first,
        sockets_nonblock: listen_nonblock,
        network,
        entry: invoke,
        max_wasm_stack: MAX_WASM_STACK,
        ..Command::default()
    };
    let loaded = command.load(&image).with_context(|| format!("loading {}", path.display()))?;
    let outcome = loaded.run().with_context(|| format!("running {}", path.display()))?;
    if let Outcome::Trapped(report) = &outcome {
        // Nobody may be reading there: the exit code still counts.
        let _ = writeln!(std::io::stderr(), "{report}");
    }
    Ok(ExitCode::from(outcome.exit_code()))
}

fn socket(address: &ListenAddress) -> Result<OwnedFd> {
    address.open().with_context(|| format!("listening on {address}"))
}

fn preopen(dir: &Dir) -> Result<Preopen> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    let fd = rustix::fs::open(&dir.host, flags, Mode::empty())
        .with_context(|| format!("opening the folder {}", dir.host.display()))?;
    Ok(Preopen { fd, guest_path: dir.guest.clone(), readonly: false })
}

/// `NAME=VALUE` as it is; `NAME` with this process's value, or left out when there is none.
fn environment(entries: &[OsString]) -> Vec<(Vec<u8>, Vec<u8>)> {
    entries
        .iter()
        .filter_map(|entry| {
            let bytes = entry.as_bytes();
            match bytes.iter().position(|&byte| byte == b'=') {
                Some(at) => Some((bytes[..at].to_vec(), bytes[at + 1..].to_vec())),
                None => std::env::var_os(OsStr::from_bytes(bytes))
                    .map(|value| (bytes.to_vec(), value.into_vec())),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_split_at_the_first_equals_sign_or_inherited() {
        let entries = ["A=1=2", "B=", "CORACLE_SURELY_UNSET", "PATH"].map(OsString::from);
        let env = environment(&entries);
        assert_eq!(env[0], (b"A".to_vec(), b"1=2".to_vec()));
        assert_eq!(env[1], (b"B".to_vec(), Vec::new()));
        assert_eq!(env.len(), 3);
        assert_eq!(env[2].0, b"PATH");
        assert!(!env[2].1.is_empty());
    }
}
