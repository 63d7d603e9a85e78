//! Compiles images ahead: the shim's own command in a process of its own for each, behind all other work of the node.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use coracle_shim::warm::command::PRECOMPILE;
use coracle_shim::warm::report::Report;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tracing::Instrument;

use super::containerd::Image;
use super::node::{Entrance, Node};
use super::stop::Stopped;

/// How long a process may take to end its own compiler when it is told to.
const FAREWELL: Duration = Duration::from_secs(5);
/// The longest report, in bytes: a name that an image gave is in it.
const REPORT: u64 = 64 << 10;
/// What is kept of what it says on the way, in bytes.
const WORDS: usize = 2048;
/// The least priority of all.
const NICE: i32 = 19;

/// How images are compiled.
#[derive(Debug)]
pub(crate) struct Compiler {
    /// The shim, on the node.
    pub(crate) shim: PathBuf,
    /// containerd's socket, on the node.
    pub(crate) address: PathBuf,
    /// Runtime options, `KEY=VALUE`.
    pub(crate) options: Vec<String>,
    /// The longest that one image may take.
    pub(crate) timeout: Duration,
    /// Where.
    pub(crate) node: Node,
}

/// What came of one image.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The process said so.
    Reported(Report),
    /// It was ended, being too slow.
    Late,
    /// It was ended with the daemon.
    Interrupted,
}

impl Outcome {
    /// For a label.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Reported(Report::Compiled { .. }) => "compiled",
            Self::Reported(Report::Cached { .. }) => "cached",
            Self::Reported(Report::Nothing { .. }) => "nothing",
            Self::Reported(Report::NotUnpacked { .. }) => "not_unpacked",
            Self::Reported(Report::Gone { .. }) => "gone",
            Self::Reported(Report::Failed { .. }) => "failed",
            Self::Late => "late",
            Self::Interrupted => "interrupted",
        }
    }

    /// What the queue makes of it.
    pub(crate) fn report(self) -> Report {
        match self {
            Self::Reported(report) => report,
            Self::Late | Self::Interrupted => Report::Failed { why: self.name().to_owned() },
        }
    }
}

impl Compiler {
    /// Looks at one image, within a span of its own.
    pub(crate) async fn compile(&self, image: &Image, stop: Stopped) -> Outcome {
        let span = tracing::info_span!(
            "precompile",
            image = %image.name,
            digest = %image.digest,
            namespace = %image.namespace,
            outcome = tracing::field::Empty,
            seconds = tracing::field::Empty,
        );
        let begun = Instant::now();
        let work = async {
            let outcome = match self.process(image, stop).await {
                Ok(outcome) => outcome,
                Err(error) => {
                    let why = format!("start {}: {error}", self.shim.display());
                    Outcome::Reported(Report::Failed { why })
                }
            };
            let seconds = begun.elapsed().as_secs_f64();
            let span = tracing::Span::current();
            span.record("outcome", outcome.name());
            span.record("seconds", seconds);
            outcome
        };
        work.instrument(span).await
    }

    async fn process(&self, image: &Image, mut stop: Stopped) -> io::Result<Outcome> {
        let mut child = self.spawn(image)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let words = tokio::spawn(last_words(stderr));
        let ended = tokio::select! {
            report = report(stdout) => Some(Outcome::Reported(report)),
            () = tokio::time::sleep(self.timeout) => None,
            () = stop.stopped() => Some(Outcome::Interrupted),
        };
        let outcome = match ended {
            Some(outcome @ Outcome::Reported(_)) => outcome,
            ended => {
                tell_to_end(&child);
                ended.unwrap_or(Outcome::Late)
            }
        };
        if tokio::time::timeout(FAREWELL, child.wait()).await.is_err() {
            child.kill().await?;
        }
        let words = words.await.unwrap_or_default();
        if !words.is_empty() {
            tracing::debug!(image = %image.name, words, "the compiler's words");
        }
        Ok(match outcome {
            Outcome::Reported(Report::Failed { why }) if why.is_empty() => {
                let why = format!("it ended without a report: {words}");
                Outcome::Reported(Report::Failed { why })
            }
            outcome => outcome,
        })
    }

    fn spawn(&self, image: &Image) -> io::Result<Child> {
        let entrance = self.node.entrance()?;
        let mut command = Command::new(&self.shim);
        command.arg(PRECOMPILE).arg(&image.namespace).arg(&self.address).arg(&image.name);
        command.args(&self.options).current_dir("/").kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
        unsafe { command.pre_exec(move || become_least(&entrance)) };
        command.spawn()
    }
}

/// Takes the last place in every queue of the node, and ends with the thread that has made it: the daemon's only one.
fn become_least(entrance: &Entrance) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    rustix::process::setpriority_process(None, NICE)?;
    idle_io();
    entrance.enter()
}

/// The idle class, for this process and what it starts. Where the kernel knows none it is no loss.
fn idle_io() {
    const WHO_PROCESS: libc::c_int = 1;
    const CLASS_IDLE: libc::c_int = 3 << 13;
    // SAFETY: the call takes numbers only.
    let _ = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, CLASS_IDLE) };
}

/// It ends its own compiler then.
fn tell_to_end(child: &Child) {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    if let Some(pid) = pid {
        // It may have ended meanwhile; it is not reaped, so nobody else is hit.
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// The one line that it says. What is no report is an empty failure.
async fn report(stdout: Option<impl AsyncRead + Unpin>) -> Report {
    let mut line = Vec::new();
    if let Some(stdout) = stdout {
        // A report that was cut does not parse.
        let _ = stdout.take(REPORT).read_to_end(&mut line).await;
    }
    serde_json::from_slice(&line).unwrap_or(Report::Failed { why: String::new() })
}

/// The end of what it says besides, to the end.
async fn last_words(stderr: Option<impl AsyncRead + Unpin>) -> String {
    let (mut kept, mut piece) = (VecDeque::new(), [0; 1024]);
    let Some(mut stderr) = stderr else { return String::new() };
    while let Ok(length @ 1..) = stderr.read(&mut piece).await {
        kept.extend(&piece[..length]);
        let more = kept.len().saturating_sub(WORDS);
        kept.drain(..more);
    }
    let kept: Vec<u8> = kept.into();
    String::from_utf8_lossy(&kept).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_report_is_one_line_of_json_and_nothing_else() {
        let cached = &b"{\"outcome\":\"cached\",\"bytes\":7}\n"[..];
        assert_eq!(report(Some(cached)).await, Report::Cached { bytes: 7 });
        for bad in [&b""[..], b"cached", b"{\"outcome\":\"owned\"}", &[b'{'; 100_000]] {
            assert_eq!(report(Some(bad)).await, Report::Failed { why: String::new() });
        }
    }

    #[tokio::test]
    async fn of_many_words_the_last_are_kept() {
        let many = format!("{}the end\n", "x".repeat(100_000));
        let words = last_words(Some(many.as_bytes())).await;
        assert!(words.ends_with("xthe end") && words.len() < WORDS, "{}", words.len());
    }
}
