//! Tells systemd of a container's control group, so that it keeps to the container's limits: `RATIONALE.md` says why.
//!
//! Only for a path of systemd's form (`slice:prefix:name`) on cgroup v2; nothing here runs else. Every function blocks, for
//! as long as systemd takes: call it where that does no harm.

mod bus;
mod wire;

use std::time::{Duration, Instant};

use coracle_oci::CgroupError;
use coracle_oci::cgroup::unit::{Property, Value};
use coracle_oci::cgroup::{Cgroup, Unit};
use coracle_oci::spec::Resources;

use bus::{Bus, CallError};
use wire::Body;

/// How long systemd may take for all that is asked of it at once. It may be busy with other units.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a unit of the same name may take to be gone, and the pause between two looks.
const NAMESAKE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
/// What systemd is to do with jobs that contradict a new one.
const REPLACE: &str = "replace";

/// Why systemd did not do it.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// It refuses, or does not answer.
    #[error("cannot {act} the systemd unit {unit}: {reason}; look at journalctl --unit={unit}")]
    Unit {
        /// What was to be done.
        act: &'static str,
        /// The unit.
        unit: String,
        /// systemd's words.
        reason: String,
    },
    /// A limit that contradicts another.
    #[error(transparent)]
    Limit(#[from] CgroupError),
}

/// Makes the group's unit, a scope with this process, which is in the group already: so it has its limits when systemd
/// hears of it, and what systemd sets is no change. Nothing happens for a group that is none.
///
/// # Errors
/// When systemd refuses. That there is no systemd is a warning only.
pub fn start(group: &Cgroup, pid: i32, resources: &Resources) -> Result<(), SystemdError> {
    let Some(unit) = group.unit() else { return Ok(()) };
    let properties = scope(unit, pid, group.properties(resources)?);
    let told = converse("make", unit, |bus| {
        let body =
            Body::default().text(&unit.name).text(REPLACE).properties(&properties).no_units();
        let job = start_or_replace(bus, unit, &body)?;
        match bus.result_of(&job)?.as_str() {
            "done" => Ok(()),
            other => Err(CallError::Refused { name: "its job ended".into(), text: other.into() }),
        }
    })?;
    if !told {
        tracing::warn!(
            unit = %unit.name,
            slice = %unit.slice,
            "the cgroup path is of systemd's form, and no systemd answers: whoever sets limits of the slice may undo those \
             of the container; choose the cgroupfs driver"
        );
        return Ok(());
    }
    // systemd counts time in other units, and knows no files but its own: what was asked for to the letter is the last word.
    Ok(group.apply(resources)?)
}

/// Tells systemd of new limits, which the group's files have already.
///
/// # Errors
/// When systemd refuses.
pub fn update(group: &Cgroup, resources: &Resources) -> Result<(), SystemdError> {
    let Some(unit) = group.unit() else { return Ok(()) };
    let properties = group.properties(resources)?;
    if properties.is_empty() {
        return Ok(());
    }
    let told = converse("limit", unit, |bus| {
        // At runtime only: a scope is gone with its processes.
        let body = Body::default().text(&unit.name).bool(true).properties(&properties);
        match bus.manager("SetUnitProperties", &body) {
            // It was made when there was no systemd to hear of it.
            Err(CallError::Refused { name, .. }) if name == NO_SUCH_UNIT => Ok(()),
            other => other.map(drop),
        }
    })?;
    if told { Ok(group.apply(resources)?) } else { Ok(()) }
}

/// Has systemd forget the unit. One that is gone is fine, as it is with its last process.
///
/// # Errors
/// When systemd refuses.
pub fn stop(unit: &Unit) -> Result<(), SystemdError> {
    converse("stop", unit, |bus| match forget(bus, unit)? {
        Some(job) => bus.result_of(&job).map(drop),
        None => Ok(()),
    })
    .map(drop)
}

/// Properties of a scope for a container. It lies outside of what systemd starts and stops by dependencies, and what is
/// beneath it is the container's.
fn scope(unit: &Unit, pid: i32, limits: Vec<Property>) -> Vec<Property> {
    let text = |text: &str| Value::Text(text.to_owned());
    let mut properties = vec![
        ("Description", text("WebAssembly container")),
        ("Slice", text(&unit.slice)),
        ("Delegate", Value::Bool(true)),
        ("DefaultDependencies", Value::Bool(false)),
        ("CollectMode", text("inactive-or-failed")),
        ("PIDs", Value::Numbers(vec![pid.unsigned_abs()])),
        ("CPUAccounting", Value::Bool(true)),
        ("MemoryAccounting", Value::Bool(true)),
        ("IOAccounting", Value::Bool(true)),
        ("TasksAccounting", Value::Bool(true)),
    ];
    // Of tasks systemd has a limit of its own for units that name none.
    if !limits.iter().any(|(name, _)| *name == "TasksMax") {
        properties.push(("TasksMax", Value::Number(u64::MAX)));
    }
    properties.extend(limits);
    properties
}

/// Starts the unit. That of a container of the same name may not be gone yet: it has no processes any more, or the group
/// would not have been given to this one.
fn start_or_replace(bus: &mut Bus, unit: &Unit, body: &Body) -> Result<String, CallError> {
    let give_up = Instant::now() + NAMESAKE;
    loop {
        match bus.manager("StartTransientUnit", body) {
            Err(CallError::Refused { name, .. })
                if name == UNIT_EXISTS && Instant::now() < give_up =>
            {
                forget(bus, unit)?;
                std::thread::sleep(LOOK);
            }
            other => return other,
        }
    }
}

/// Stops the unit, whose processes have ended, and drops what systemd remembers of a failure; the job, if it takes one.
fn forget(bus: &mut Bus, unit: &Unit) -> Result<Option<String>, CallError> {
    let known = |result: Result<String, CallError>| match result {
        Err(CallError::Refused { name, .. }) if name == NO_SUCH_UNIT => Ok(None),
        other => other.map(Some),
    };
    let job = known(bus.manager("StopUnit", &Body::default().text(&unit.name).text(REPLACE)))?;
    known(bus.manager("ResetFailedUnit", &Body::default().text(&unit.name)))?;
    Ok(job)
}

/// Says something to systemd about a unit; false where there is no systemd.
fn converse(
    act: &'static str,
    unit: &Unit,
    talk: impl FnOnce(&mut Bus) -> Result<(), CallError>,
) -> Result<bool, SystemdError> {
    let failed = |error: CallError| SystemdError::Unit {
        act,
        unit: unit.name.clone(),
        reason: error.to_string(),
    };
    match Bus::connect(LIMIT).map_err(failed)? {
        Some(mut bus) => talk(&mut bus).map_err(failed).map(|()| true),
        None => Ok(false),
    }
}
