//! `coracle doctor`: is the node as it was installed, and does it have what the shim uses?

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use crate::cli::NodeArgs;
use crate::compare;
use crate::config::Entry;
use crate::failure::{EXIT_ABSENT, EXIT_DRIFT, EXIT_REFUSED};
use crate::files;
use crate::programs::{self, SHIM};
use crate::record::{Installed, Record};
use crate::survey::Survey;
use crate::units::Units;

/// The node's cache of compiled code.
const CACHE: &str = "/var/lib/coracle/cache";
/// The oldest kernel with all that the shim uses without falling back: `clone3` into a cgroup, `openat2`,
/// `mount_setattr`, `cgroup.kill`.
const KERNEL: (u64, u64) = (5, 14);

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// As it should be.
    Good,
    /// Worth knowing.
    Hint,
    /// Nothing is installed.
    Absent,
    /// Not as it was installed.
    Drift,
    /// The node cannot be looked at.
    Unknown,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    findings: Vec<(Grade, String, String)>,
}

impl Report {
    fn add(&mut self, grade: Grade, what: &str, text: impl Into<String>) {
        self.findings.push((grade, what.to_owned(), text.into()));
    }

    /// The gravest of the findings.
    #[must_use]
    pub fn grade(&self) -> Grade {
        self.findings.iter().map(|finding| finding.0).max().unwrap_or(Grade::Good)
    }

    /// What tells of it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self.grade() {
            Grade::Good | Grade::Hint => ExitCode::SUCCESS,
            Grade::Absent => ExitCode::from(EXIT_ABSENT),
            Grade::Drift => ExitCode::from(EXIT_DRIFT),
            Grade::Unknown => ExitCode::from(EXIT_REFUSED),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (grade, what, text) in &self.findings {
            let grade = match grade {
                Grade::Good => "ok",
                Grade::Hint => "note",
                Grade::Absent => "none",
                Grade::Drift => "DRIFT",
                Grade::Unknown => "FAIL",
            };
            writeln!(f, "{grade:<6}{what:<14}{text}")?;
        }
        Ok(())
    }
}

/// Looks at all of it.
pub(crate) fn examine(args: &NodeArgs, units: &dyn Units) -> Report {
    let mut report = Report::default();
    let record = Record::load().unwrap_or_else(|error| {
        report.add(Grade::Drift, "record", format!("{error:#}"));
        Record::default()
    });
    if let Some(pending) = &record.pending {
        let text = format!("an {} was interrupted; run it again, and it is put right", pending.act);
        report.add(Grade::Drift, "record", text);
    }
    match record.installed.as_ref() {
        None => report.add(Grade::Absent, "record", "there is no record of an installation"),
        Some(installed) => examine_files(&mut report, installed),
    }
    let entry = record.installed.as_ref().and_then(|installed| installed.entry.as_ref());
    match Survey::take(args, units) {
        Ok(survey) => examine_daemon(&mut report, &survey, entry),
        Err(error) if record.installed.is_some() && entry.is_none() => {
            report.add(
                Grade::Hint,
                "containerd",
                format!("{error:#}; only programs are installed"),
            );
        }
        Err(error) => report.add(Grade::Unknown, "containerd", format!("{error:#}")),
    }
    examine_kernel(&mut report);
    examine_cache(&mut report);
    let shims = programs::running_shims(&args.bin_dir.join(SHIM));
    report.add(Grade::Good, "containers", format!("{} shims run", shims.len()));
    report
}

fn examine_files(report: &mut Report, installed: &Installed) {
    let config = installed.config.as_ref().map(|file| ("configuration", &file.path, &file.after));
    let programs =
        installed.programs.iter().map(|program| ("program", &program.path, &program.digest));
    for (what, path, digest) in config.into_iter().chain(programs) {
        let path_text = path.display();
        match files::digest_of(path) {
            Ok(Some(now)) if now == *digest => {
                report.add(Grade::Good, what, format!("{path_text} is as installed"))
            }
            Ok(Some(_)) if what == "configuration" => {
                // Others may add to it; whether our entries are there is looked at with containerd.
                report.add(
                    Grade::Hint,
                    what,
                    format!("{path_text} was changed since it was installed"),
                );
            }
            Ok(Some(_)) => report.add(
                Grade::Drift,
                what,
                format!("{path_text} was changed since it was installed"),
            ),
            Ok(None) => report.add(Grade::Drift, what, format!("{path_text} is gone")),
            Err(error) => report.add(Grade::Drift, what, format!("{error:#}")),
        }
    }
    for link in installed.links.iter().filter(|link| link.symlink_metadata().is_err()) {
        report.add(Grade::Drift, "link", format!("{} is gone", link.display()));
    }
}

fn examine_daemon(report: &mut Report, survey: &Survey, entry: Option<&Entry>) {
    let unit = survey.unit.as_deref().unwrap_or("none");
    let text = format!(
        "{} of {}, distribution {}, unit {unit}, configuration {} (version {})",
        survey.containerd.version,
        survey.containerd.program.display(),
        survey.distribution.name(),
        survey.site.path.display(),
        survey.site.version.number()
    );
    report.add(Grade::Good, "containerd", text);
    let systemd = compare::node_uses_systemd(&survey.baseline);
    let driver = if systemd { "systemd" } else { "cgroupfs" };
    report.add(Grade::Good, "cgroup driver", driver);
    let Some(entry) = entry else { return };
    let now = survey
        .site
        .view(survey.site.text.as_deref())
        .and_then(|view| survey.containerd.dump(&view));
    match now.map(|now| compare::missing(&now, entry)) {
        Ok(None) => {
            report.add(Grade::Good, "handler", format!("{} is in the configuration", entry.handler))
        }
        Ok(Some(fault)) => {
            report.add(Grade::Drift, "handler", format!("in the configuration: {fault}"))
        }
        Err(error) => report.add(Grade::Unknown, "handler", format!("{error:#}")),
    }
    if systemd != entry.systemd_cgroup {
        report.add(Grade::Drift, "handler", "runc's cgroup driver has changed; install again");
    }
    match &survey.live {
        None => report.add(Grade::Hint, "handler", format!("{unit} does not run")),
        Some(Err(error)) => report.add(Grade::Drift, "handler", error.clone()),
        Some(Ok(live)) => match live.fault(entry) {
            None => report.add(
                Grade::Good,
                "handler",
                format!("{} is loaded by containerd {}", entry.handler, live.version),
            ),
            Some(fault) => report.add(Grade::Drift, "handler", fault),
        },
    }
}

fn examine_kernel(report: &mut Report) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= KERNEL {
        report.add(Grade::Good, "kernel", release);
    } else {
        let text = format!(
            "{release} is older than {}.{}; the shim is tried with newer ones",
            KERNEL.0, KERNEL.1
        );
        report.add(Grade::Hint, "kernel", text);
    }
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    report.add(Grade::Good, "cgroup", if unified { "version 2" } else { "version 1" });
    let lists = |path: &str, word: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split([' ', ',', '\n']).any(|item| item == word)
    };
    if lists("/proc/sys/kernel/seccomp/actions_avail", "kill_process") {
        report.add(Grade::Good, "seccomp", "filters can be installed");
    } else {
        report.add(
            Grade::Drift,
            "seccomp",
            "the kernel has none, and without it no guest is started",
        );
    }
    let landlock = lists("/sys/kernel/security/lsm", "landlock");
    let text = if landlock {
        "on"
    } else {
        "not listed in /sys/kernel/security/lsm; guests run without it"
    };
    report.add(if landlock { Grade::Good } else { Grade::Hint }, "landlock", text);
}

fn examine_cache(report: &mut Report) {
    let Ok(entries) = fs::read_dir(CACHE) else {
        return report.add(Grade::Good, "cache", format!("{CACHE} is not there yet"));
    };
    let sizes = entries.flatten().filter_map(|entry| entry.metadata().ok());
    let sizes: Vec<_> = sizes.filter(fs::Metadata::is_file).map(|entry| entry.len()).collect();
    let mib = sizes.iter().sum::<u64>() >> 20;
    report.add(Grade::Good, "cache", format!("{} files, {mib} MiB in {CACHE}", sizes.len()));
}
