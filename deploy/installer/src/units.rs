//! The node's manager of services.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Starts and watches services. systemd on a node; whoever starts containerd in a test.
pub trait Units {
    /// Whether there is a unit of this name.
    fn exists(&self, unit: &str) -> bool;
    /// Whether the unit runs.
    fn is_active(&self, unit: &str) -> bool;
    /// Stops the unit and starts it again.
    ///
    /// # Errors
    /// When it does not start; containers of the unit are not touched by that.
    fn restart(&self, unit: &str) -> Result<()>;
    /// The last lines of what the unit logged.
    fn log(&self, unit: &str, lines: usize) -> String;
}

/// systemd, by `systemctl` and `journalctl`.
#[derive(Debug, Clone, Copy)]
pub struct Systemd;

impl Units for Systemd {
    fn exists(&self, unit: &str) -> bool {
        let shown = Command::new("systemctl").args(["show", "--property=LoadState", unit]).output();
        shown.is_ok_and(|shown| shown.stdout.starts_with(b"LoadState=loaded"))
    }

    fn is_active(&self, unit: &str) -> bool {
        let mut command = Command::new("systemctl");
        command.args(["is-active", "--quiet", unit]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    fn restart(&self, unit: &str) -> Result<()> {
        // A unit that failed too often lately is not started again without this.
        let mut reset = Command::new("systemctl");
        let _ = reset.args(["reset-failed", unit]).stderr(Stdio::null()).status();
        let done = Command::new("systemctl")
            .args(["restart", unit])
            .output()
            .with_context(|| format!("restarting {unit}: cannot run systemctl"))?;
        if !done.status.success() {
            bail!("restarting {unit}: {}", String::from_utf8_lossy(&done.stderr).trim());
        }
        Ok(())
    }

    fn log(&self, unit: &str, lines: usize) -> String {
        let lines = lines.to_string();
        let logged = Command::new("journalctl")
            .args(["--no-pager", "--output=cat", "--unit", unit, "--lines", &lines])
            .output();
        logged
            .map(|logged| String::from_utf8_lossy(&logged.stdout).into_owned())
            .unwrap_or_default()
    }
}
