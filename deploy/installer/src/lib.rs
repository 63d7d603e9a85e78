//! Puts Coracle onto a node: programs, and a runtime handler in containerd's configuration. Takes it off again, to the byte.
//! Says whether all is as it was left.
//!
//! An installation reads the node ([`survey`]), decides ([`mod@install`], [`mod@uninstall`]: values, no effects), and carries the
//! decision out step by step ([`act`]); a step that fails takes all back. README.md says what is touched where.

mod act;
mod cli;
mod compare;
mod config;
mod containerd;
mod distribution;
mod doctor;
mod enter;
mod failure;
mod files;
mod install;
mod live;
mod plan;
mod programs;
mod record;
mod site;
mod survey;
mod uninstall;
mod units;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

pub use act::{Stop, Tell, Watcher};
pub use cli::{DoctorArgs, InstallArgs, NodeArgs, RuntimeOption, UninstallArgs};
pub use distribution::Distribution;
pub use failure::{
    EXIT_ABSENT, EXIT_BROKEN, EXIT_BUSY, EXIT_DRIFT, EXIT_REFUSED, EXIT_UNDONE, EXIT_UNTIDY,
    Failure,
};
pub use record::recorded_socket;
pub use units::{Systemd, Units};

use act::{Actor, recover};
use plan::Plan;
use programs::Source;
use record::{Lock, Record};
use survey::Survey;

/// `coracle install`: what happened is said on standard error, and by the exit code.
#[must_use]
pub fn install(args: &InstallArgs) -> ExitCode {
    if args.check {
        return doctor(&DoctorArgs { node: args.node.clone() });
    }
    finish("install", install_with(args, &Systemd, &mut Tell))
}

/// `coracle uninstall`, likewise.
#[must_use]
pub fn uninstall(args: &UninstallArgs) -> ExitCode {
    finish("uninstall", uninstall_with(args, &Systemd, &mut Tell))
}

/// `coracle doctor`: the findings on standard output.
#[must_use]
pub fn doctor(args: &DoctorArgs) -> ExitCode {
    if let Err(error) = enter::enter(&args.node) {
        return finish("doctor", Err(error.into()));
    }
    let report = doctor_with(args, &Systemd);
    print!("{report}");
    report.exit_code()
}

fn finish(act: &str, outcome: Result<bool, Failure>) -> ExitCode {
    match outcome {
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("coracle {act}: {failure}");
            failure.exit_code()
        }
    }
}

/// Installs, with this manager of services and under these eyes. `true`: something was changed.
///
/// # Errors
/// See [`Failure`].
pub fn install_with(
    args: &InstallArgs,
    units: &dyn Units,
    watcher: &mut dyn Watcher,
) -> Result<bool, Failure> {
    let sources = programs::open(args.programs.as_deref())?;
    enter::enter(&args.node)?;
    let _lock = Lock::take()?;
    let mut record = Record::load()?;
    if !args.dry_run {
        repair(&mut record, units)?;
    }
    let args = &if args.again { install::again(args, &record)? } else { args.clone() };
    let survey = if args.programs_only { None } else { Some(Survey::take(&args.node, units)?) };
    let plan = install::plan(args, survey.as_ref(), &record, &sources)?;
    carry_out(&plan, args.dry_run, survey.as_ref(), sources, args.timeout, units, watcher)
}

/// Takes an installation back, likewise.
///
/// # Errors
/// See [`Failure`].
pub fn uninstall_with(
    args: &UninstallArgs,
    units: &dyn Units,
    watcher: &mut dyn Watcher,
) -> Result<bool, Failure> {
    enter::enter(&args.node)?;
    let _lock = Lock::take()?;
    let mut record = Record::load()?;
    if !args.dry_run {
        repair(&mut record, units)?;
    }
    let survey = match Survey::take(&args.node, units) {
        Ok(survey) => Some(survey),
        Err(error) if args.force => {
            eprintln!("coracle: {error:#}; going by the record alone");
            None
        }
        Err(error) => return Err(error.context("use --force to go by the record alone").into()),
    };
    let shims = programs::running_shims(&args.node.bin_dir.join(programs::SHIM));
    let plan = uninstall::plan(args, survey.as_ref(), &record, &shims)?;
    carry_out(&plan, args.dry_run, survey.as_ref(), Vec::new(), args.timeout, units, watcher)
}

/// Looks whether all is as it was installed.
#[must_use]
pub fn doctor_with(args: &DoctorArgs, units: &dyn Units) -> Report {
    doctor::examine(&args.node, units)
}

pub use doctor::{Grade, Report};

fn repair(record: &mut Record, units: &dyn Units) -> Result<(), Failure> {
    let repaired =
        recover(record, units).context("putting back what an interrupted installer had begun")?;
    if let Some(act) = repaired {
        eprintln!("coracle: an {act} was interrupted; what it had begun was put back");
    }
    Ok(())
}

fn carry_out(
    plan: &Plan,
    dry_run: bool,
    survey: Option<&Survey>,
    sources: Vec<Source>,
    timeout: u64,
    units: &dyn Units,
    watcher: &mut dyn Watcher,
) -> Result<bool, Failure> {
    if dry_run {
        print!("{plan}");
        return Ok(false);
    }
    let mut actor = Actor {
        units,
        watcher,
        unit: survey.and_then(|survey| survey.unit.clone()),
        socket: survey.map(|survey| survey.socket.clone()).unwrap_or_default(),
        timeout: Duration::from_secs(timeout),
        sources,
    };
    actor.run(plan)?;
    plan.notes.iter().for_each(|note| eprintln!("coracle: {note}"));
    if plan.is_empty() {
        eprintln!("coracle: nothing to do");
    }
    Ok(!plan.is_empty())
}
