//! Logging programs (`binary://`): processes of the host that read a container's outputs.
//!
//! A logger finds the outputs at its descriptors 3 and 4, and says by the pipe at 5 that it is ready. It is
//! executed by the shim's own binary, which puts the descriptors where they belong ([`become_logger`]): that
//! takes no unsafe code. The shim keeps a reader of each output, so that a logger which dies early neither
//! blocks nor breaks the container: what it does not read is thrown away then.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Access, CWD, OFlags};
use rustix::io::FdFlags;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::{Owner, StdioError};
use crate::request::Logger as Wanted;

/// The hidden sub-command that becomes a logger.
pub const COMMAND: &str = "logger";
/// Descriptors of a logger: standard output, standard error, and the pipe by which it says that it is ready.
const PLACES: [i32; 3] = [3, 4, 5];
/// How long a logger may take until it is ready.
const READY: Duration = Duration::from_secs(10);
/// How long it may read on when the outputs have ended, before it is told to stop.
const READ_ON: Duration = Duration::from_secs(2);
/// How long it may take to stop then.
const STOP: Duration = Duration::from_secs(10);

/// A logger at work; dropping it lets it read to the end, then ends it.
#[derive(Debug)]
pub(super) struct Logger {
    stop: Arc<Notify>,
    work: Option<JoinHandle<()>>,
}

/// What a logger reads, for a process to write to.
#[derive(Debug)]
pub(super) struct Outputs {
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

impl Logger {
    /// Starts one and waits until it is ready. Must be called on the shim's main thread.
    pub(super) async fn start(
        wanted: &Wanted,
        owner: Owner<'_>,
    ) -> Result<(Self, Outputs), StdioError> {
        let at = |source| StdioError { name: "logger", path: wanted.program.clone(), source };
        let path = wanted.program.as_path();
        rustix::fs::accessat(CWD, path, Access::EXEC_OK, rustix::fs::AtFlags::empty())
            .map_err(|errno| at(errno.into()))?;
        let (reader, stdout) = pair().map_err(at)?;
        let (second, stderr) = pair().map_err(at)?;
        let (ready, says) = pair().map_err(at)?;
        let command = command(wanted, owner, [&reader, &second], says);
        let child = command.map_err(at)?.spawn().map_err(at)?;
        let stop = Arc::new(Notify::new());
        let attended = attend(child, [reader, second], Arc::clone(&stop), path.to_owned());
        let logger = Self { stop, work: Some(tokio::spawn(attended)) };
        // From here on dropping `logger` ends it.
        heard(ready, wanted.says_ready).await.map_err(at)?;
        Ok((logger, Outputs { stdout, stderr }))
    }

    /// Waits until the logger has read everything and ended, and ends it if it does not by itself. The
    /// outputs must have no writer any more.
    pub(super) async fn finished(mut self) {
        self.stop.notify_one();
        if let Some(work) = self.work.take() {
            // It has told what went wrong.
            let _ = work.await;
        }
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?)
}

/// The command by which the shim's binary becomes the logger.
fn command(
    wanted: &Wanted,
    owner: Owner<'_>,
    outputs: [&OwnedFd; 2],
    says: OwnedFd,
) -> io::Result<Command> {
    let [stdout, stderr] = outputs;
    let own = ["CONTAINER_ID", "CONTAINER_NAMESPACE"];
    let env = wanted.env.iter().filter(|(name, _)| !own.contains(&name.as_str()));
    let mut command = Command::new("/proc/self/exe");
    command
        .arg(COMMAND)
        .arg(&wanted.program)
        .args(&wanted.args)
        .env_clear()
        .envs(env.map(|(name, value)| (name, value)))
        .env("CONTAINER_ID", owner.container)
        .env("CONTAINER_NAMESPACE", owner.namespace)
        .stdin(Stdio::from(stdout.try_clone()?))
        .stdout(Stdio::from(stderr.try_clone()?))
        .stderr(Stdio::from(says));
    Ok(command)
}

/// Waits until the logger says that it is ready, by a byte, or by closing the pipe where that counts.
async fn heard(ready: OwnedFd, by_a_byte: bool) -> io::Result<()> {
    nonblocking(&ready)?;
    let mut ready = pipe::Receiver::from_owned_fd(ready)?;
    let mut byte = [0];
    match tokio::time::timeout(READY, ready.read(&mut byte)).await {
        Ok(Ok(0)) if by_a_byte => Err(io::Error::other("it ended before it was ready")),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let text = format!("it did not say within {} s that it is ready", READY.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        }
    }
}

fn nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}

/// Sees to a logger's end, with its container or before it.
async fn attend(mut child: Child, outputs: [OwnedFd; 2], stop: Arc<Notify>, path: PathBuf) {
    let ended = tokio::select! {
        biased;
        () = stop.notified() => None,
        status = child.wait() => Some(status),
    };
    let logger = path.display();
    match ended {
        None => {
            drop(outputs);
            if let Err(error) = end(&mut child).await {
                tracing::warn!(%logger, %error, "end a logger");
            }
        }
        Some(status) => {
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            tracing::warn!(%logger, status, "a logger has ended before its container: output is lost");
            let [stdout, stderr] = outputs;
            tokio::select! {
                () = stop.notified() => {}
                _ = async { tokio::join!(throw_away(stdout), throw_away(stderr)) } => {}
            }
        }
    }
}

/// Reads to the end. The descriptor's own way to wait is the guest's too only where it writes.
async fn throw_away(output: OwnedFd) -> io::Result<()> {
    nonblocking(&output)?;
    let mut output = pipe::Receiver::from_owned_fd(output)?;
    tokio::io::copy(&mut output, &mut tokio::io::sink()).await.map(drop)
}

/// Waits for a logger that has nothing left to read; ends it if it does not.
async fn end(child: &mut Child) -> io::Result<()> {
    if let Ok(status) = tokio::time::timeout(READ_ON, child.wait()).await {
        return status.map(drop);
    }
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    if let Some(pid) = pid {
        rustix::process::kill_process(pid, Signal::TERM)?;
    }
    match tokio::time::timeout(STOP, child.wait()).await {
        Ok(status) => status.map(drop),
        Err(_) => child.kill().await,
    }
}

/// The sub-command: its streams are the outputs and the pipe; the arguments are the logger's program and
/// what it gets.
#[must_use]
pub fn become_logger(args: &[OsString]) -> ExitCode {
    let Some((program, args)) = args.split_first() else {
        eprintln!("this sub-command is for the shim itself, which starts loggers with it");
        return ExitCode::from(2);
    };
    let failed = match arrange() {
        Ok(()) => std::process::Command::new(program).args(args).exec(),
        Err(error) => error,
    };
    // Nobody has this process's streams; the shim tells that it ended.
    let _ = writeln!(io::stderr(), "{failed}");
    ExitCode::from(127)
}

fn arrange() -> io::Result<()> {
    // It shall end with the shim, but may still write what it has.
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    let (stdin, stdout, stderr) =
        (rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr());
    // Not even what the shim itself was started with by mistake.
    crate::guest::close_on_exec_from(PLACES[0].unsigned_abs())?;
    for (from, place) in [stdin, stdout, stderr].into_iter().zip(PLACES) {
        // Descriptors of the shim are closed by its exec, so these are free, one after the other.
        let moved = rustix::io::fcntl_dupfd_cloexec(from, place)?;
        rustix::io::fcntl_setfd(&moved, FdFlags::empty())?;
        if moved.into_raw_fd() != place {
            return Err(io::Error::other("a descriptor is in the way"));
        }
    }
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}
