//! Runs a process and measures what it took: wall time, processor time, peak memory.
//!
//! The kernel adds up what ended children took. So that a sample holds one child only, this executable
//! starts itself as a small helper for each sample; the helper starts the program, waits for it and
//! prints three numbers.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// First argument of the helper.
pub(crate) const HELPER: &str = "--measure-one";

/// A command line with what its process gets.
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    /// Program and arguments.
    pub(crate) line: Vec<String>,
    /// Whether it may use only one processor.
    pub(crate) one_core: bool,
}

/// What one process took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Processor time, user and system, of all its threads, in seconds.
    pub(crate) cpu: f64,
    /// Wall time from before its start until its end was seen, in seconds.
    pub(crate) wall: f64,
    /// Peak resident memory in bytes. Not below that of the helper, some 2 MB.
    pub(crate) rss: f64,
}

/// Runs a process to its end, with its standard output in a file.
///
/// # Errors
/// When it cannot start, or ends with anything but exit code 0: its last words are in the error.
pub(crate) fn run(invocation: &Invocation, stdout: &Path) -> Result<Sample> {
    let shown = invocation.line.join(" ");
    let mut helper = Command::new(std::env::current_exe().context("finding this executable")?);
    helper.args([HELPER, if invocation.one_core { "one" } else { "all" }]).args(&invocation.line);
    let output = File::create(stdout).with_context(|| format!("creating {}", stdout.display()))?;
    // Numbers come by standard error's last line, since standard output is the program's.
    let done = helper
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("starting {shown}"))?;
    let text = String::from_utf8_lossy(&done.stderr);
    let (words, last) = text.trim_end().rsplit_once('\n').unwrap_or(("", text.trim_end()));
    if !done.status.success() {
        let words: Vec<&str> = text.trim().lines().take(6).collect();
        bail!("{shown}: {}: {}", done.status, words.join(" "));
    }
    let numbers: Vec<f64> = last.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let [cpu, wall, rss] = numbers[..] else { bail!("{shown}: no measurement in: {words} {last}") };
    Ok(Sample { cpu, wall, rss })
}

/// The helper: runs the rest of its command line and prints the sample's numbers.
///
/// # Errors
/// When the program cannot start.
pub(crate) fn helper(args: &[String]) -> Result<ExitCode> {
    let [cores, program, rest @ ..] = args else { bail!("nothing to run") };
    if cores == "one" {
        keep_one_core()?;
    }
    let begin = Instant::now();
    let status = Command::new(program)
        .args(rest)
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("starting {program}"))?;
    let wall = begin.elapsed();
    if let Some(signal) = status.signal() {
        bail!("killed by signal {signal}");
    }
    let code = u8::try_from(status.code().unwrap_or(1)).unwrap_or(1);
    if code != 0 {
        return Ok(ExitCode::from(code));
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    let cpu = seconds(usage.user_time()) + seconds(usage.system_time());
    let rss = usage.max_rss() * 1024;
    writeln!(std::io::stderr(), "\n{cpu} {} {rss}", wall.as_secs_f64())?;
    Ok(ExitCode::SUCCESS)
}

/// Leaves only the last of the processors that this process may use.
fn keep_one_core() -> Result<()> {
    let allowed = sched_getaffinity(None)?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|&cpu| allowed.is_set(cpu));
    let mut one = CpuSet::new();
    one.set(last.context("no processor may be used")?);
    sched_setaffinity(None, &one)?;
    Ok(())
}
