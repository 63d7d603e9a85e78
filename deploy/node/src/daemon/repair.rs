//! Installs again on a node whose containerd has lost the handler: clouds put a node's configuration back to what they
//! know, and so may an administrator's tools.

use std::process::Stdio;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tokio::process::Command;

/// Pauses between two attempts, the first and the longest; each is double the one before. Whoever takes the handler away
/// each minute is not fought each minute.
const PAUSES: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(3600)];
/// How much is quoted of what the installer said, in characters from the end.
const EXCERPT: usize = 300;

/// The installer, started when it is needed.
#[derive(Debug)]
pub(crate) struct Repair {
    /// Whether this process is in a pod, and the installer has to enter the node.
    from_a_pod: bool,
    pace: Mutex<Pace>,
}

/// When there may be another attempt.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    next: Option<Instant>,
    pause: Option<Duration>,
}

impl Pace {
    /// How long to wait before the attempt that begins with this call.
    fn begin(&mut self, now: Instant) -> Duration {
        let [first, longest] = PAUSES;
        let wait = self.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now));
        let pause = self.pause.map_or(first, |pause| longest.min(pause * 2));
        *self = Self { next: Some(now + wait + pause), pause: Some(pause) };
        wait
    }
}

impl Repair {
    pub(crate) fn new(from_a_pod: bool) -> Self {
        Self { from_a_pod, pace: Mutex::default() }
    }

    /// Waits for its turn, and installs what is recorded on the node. The error is one sentence.
    ///
    /// # Errors
    /// When the installer cannot be started, or refuses, or fails; it puts back what it has begun.
    pub(crate) async fn attempt(&self) -> Result<(), String> {
        let wait = self.pace.lock().unwrap_or_else(PoisonError::into_inner).begin(Instant::now());
        tokio::time::sleep(wait).await;
        let program =
            std::env::current_exe().map_err(|error| format!("find the installer: {error}"))?;
        let mut command = Command::new(program);
        command.args(["install", "--again"]).stdin(Stdio::null()).stdout(Stdio::null());
        if self.from_a_pod {
            command.arg("--node");
        }
        // Restarting containerd ends the connection that this was found out by, and with it the caller: the installer
        // goes on by itself.
        let installing = tokio::spawn(async move { command.output().await });
        let output = installing.await.map_err(|error| format!("start the installer: {error}"))?;
        let output = output.map_err(|error| format!("start the installer: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let skipped = said.chars().count().saturating_sub(EXCERPT);
        let said: String = said.trim().chars().skip(skipped).collect();
        Err(format!("the installer ended with {}: {said}", output.status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_become_rare() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let [first, longest] = PAUSES;
        assert_eq!(pace.begin(now), Duration::ZERO, "the first is at once");
        assert_eq!(pace.begin(now), first);
        assert_eq!(pace.begin(now), first + first * 2);
        let mut last = now;
        for _ in 0..20 {
            last += longest * 2;
            assert_eq!(pace.begin(last), Duration::ZERO, "long after the last one");
        }
        assert_eq!(pace.begin(last), longest);
    }
}
