//! Installs on nodes of all distributions, with real containerds of three lines, and lets every step fail.
//!
//! Needs root, and what `deploy/testbed/fetch.sh` fetches; `make test-installer` runs it.

mod faults;
mod fixtures;
mod matrix;
mod node;
mod refusals;
mod scratch;

use std::path::PathBuf;

use clap::Parser;
use coracle_installer::{DoctorArgs, Failure, InstallArgs, Stop, UninstallArgs, Units, Watcher};

/// Lets one step fail, or kills the installer before it.
#[derive(Debug)]
pub(crate) struct Trap {
    /// Steps heard of.
    pub(crate) steps: Vec<String>,
    /// Which of them, and how.
    at: Option<(usize, Stop)>,
}

impl Trap {
    pub(crate) fn none() -> Self {
        Self { steps: Vec::new(), at: None }
    }

    pub(crate) fn at(step: usize, stop: Stop) -> Self {
        Self { steps: Vec::new(), at: Some((step, stop)) }
    }
}

impl Watcher for Trap {
    fn step(&mut self, step: &dyn std::fmt::Display) -> Result<(), Stop> {
        self.steps.push(step.to_string());
        match self.at {
            Some((at, stop)) if at + 1 == self.steps.len() => Err(stop),
            _ => Ok(()),
        }
    }
}

#[derive(Debug, Parser)]
struct Line<A: clap::Args> {
    #[command(flatten)]
    args: A,
}

/// Arguments as the command line gives them.
pub(crate) fn install_args(more: &[&str]) -> InstallArgs {
    let mut line = vec!["test", "--timeout", "15"];
    if more.contains(&"--timeout") {
        line.truncate(1);
    }
    if !more.contains(&"--programs") {
        line.extend(["--programs", scratch::SOURCES]);
    }
    let line = line.into_iter().chain(more.iter().copied());
    Line::<InstallArgs>::parse_from(line).args
}

pub(crate) fn uninstall_args(more: &[&str]) -> UninstallArgs {
    Line::<UninstallArgs>::parse_from(["test", "--timeout", "15"].iter().chain(more)).args
}

pub(crate) fn install(units: &dyn Units, more: &[&str]) -> Result<bool, Failure> {
    coracle_installer::install_with(&install_args(more), units, &mut Trap::none())
}

pub(crate) fn uninstall(units: &dyn Units, more: &[&str]) -> Result<bool, Failure> {
    coracle_installer::uninstall_with(&uninstall_args(more), units, &mut Trap::none())
}

/// What `coracle doctor` says, and its verdict.
pub(crate) fn doctor(units: &dyn Units) -> (String, coracle_installer::Grade) {
    let args = Line::<DoctorArgs>::parse_from(["test"]).args;
    let report = coracle_installer::doctor_with(&args, units);
    (report.to_string(), report.grade())
}

/// Where the backups are.
pub(crate) fn state() -> PathBuf {
    "/var/lib/coracle/install".into()
}
