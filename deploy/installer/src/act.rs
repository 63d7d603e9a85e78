//! Carries a plan out, and takes it back when a step fails.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::failure::Failure;
use crate::files;
use crate::live::{Live, PAUSE};
use crate::plan::{Expectation, Plan, Step, Want};
use crate::programs::Source;
use crate::record::{BACKUPS, Pending, Record, STATE_DIR, Swap};
use crate::units::Units;

/// How long a unit may be down while we wait for it, before that counts as its end.
const DOWN: Duration = Duration::from_secs(10);
/// Lines of a log that an error shows.
const LOG_LINES: usize = 20;

/// Hears of each step before it is taken.
pub trait Watcher {
    /// A step is about to be taken.
    ///
    /// # Errors
    /// When it shall not be.
    fn step(&mut self, step: &dyn Display) -> Result<(), Stop>;
}

/// Why a step shall not be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// As if it had failed.
    Fail,
    /// As if the process had been killed: nothing more is done.
    Kill,
}

/// Tells a person of the steps.
#[derive(Debug, Clone, Copy)]
pub struct Tell;

impl Watcher for Tell {
    fn step(&mut self, step: &dyn Display) -> Result<(), Stop> {
        eprintln!("coracle: {step}");
        Ok(())
    }
}

/// Acts on a node.
pub(crate) struct Actor<'a> {
    pub(crate) units: &'a dyn Units,
    pub(crate) watcher: &'a mut dyn Watcher,
    /// The unit that runs containerd.
    pub(crate) unit: Option<String>,
    /// containerd's socket.
    pub(crate) socket: PathBuf,
    /// How long containerd may take until it is healthy.
    pub(crate) timeout: Duration,
    /// The programs to be installed.
    pub(crate) sources: Vec<Source>,
}

impl Actor<'_> {
    /// Carries a plan out.
    pub(crate) fn run(&mut self, plan: &Plan) -> Result<(), Failure> {
        for (index, step) in plan.steps.iter().enumerate() {
            let taken = match self.watcher.step(step) {
                Err(Stop::Kill) => return Err(Failure::Killed),
                Err(Stop::Fail) => Err(anyhow!("{step}: stopped")),
                Ok(()) => self.take(step).with_context(|| step.to_string()),
            };
            let Err(cause) = taken else { continue };
            if index >= plan.revocable {
                return Err(Failure::Untidy(cause));
            }
            return Err(self.undo(plan, plan.steps.get(..=index).unwrap_or_default(), cause));
        }
        Ok(())
    }

    fn take(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Folder(path) => make_folder(path),
            Step::Backup { path, bytes } => files::replace(path, bytes),
            Step::Record(record) => record.save(),
            Step::Keep { path, backup } => {
                files::remove(backup)?;
                fs::hard_link(path, backup).context("linking it")
            }
            Step::Program { path, name } => {
                let source = self.sources.iter_mut().find(|source| source.name == *name);
                files::place(path, &mut source.context("it is not at hand")?.file)
            }
            Step::Link { path, target } => {
                std::os::unix::fs::symlink(target, path).context("linking it")
            }
            Step::Config { path, bytes: Some(bytes) } => files::replace(path, bytes),
            Step::Config { path, bytes: None } | Step::Remove(path) => files::remove(path),
            Step::RemoveFolder(path) => remove_empty_folder(path),
            Step::Restart(unit) => self.units.restart(unit),
            Step::Await(expectation) => self.wait(expectation),
        }
    }

    /// Waits until containerd is as expected.
    fn wait(&self, expectation: &Expectation) -> Result<()> {
        let deadline = Instant::now() + self.timeout;
        let mut down_since = None;
        loop {
            let down = self.unit.as_deref().is_some_and(|unit| !self.units.is_active(unit));
            let since = down_since.filter(|_| down).or(down.then(Instant::now));
            down_since = since;
            let fault =
                if down { Some("its unit does not run".into()) } else { self.fault(expectation) };
            let Some(fault) = fault else { return Ok(()) };
            let over = since.is_some_and(|since| since.elapsed() > DOWN.min(self.timeout));
            if over || Instant::now() > deadline {
                bail!("{fault}{}", self.log());
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn fault(&self, expectation: &Expectation) -> Option<String> {
        match Live::ask(&self.socket) {
            Ok(live) => expectation.fault(&live),
            Err(error) => Some(format!("{error:#}")),
        }
    }

    fn log(&self) -> String {
        let log =
            self.unit.as_deref().map(|unit| self.units.log(unit, LOG_LINES)).unwrap_or_default();
        if log.is_empty() { String::new() } else { format!("; the end of its log:\n{log}") }
    }

    /// Takes back what these steps may have done, of which the last failed.
    fn undo(&self, plan: &Plan, taken: &[Step], cause: anyhow::Error) -> Failure {
        eprintln!("coracle: {cause:#}");
        eprintln!("coracle: putting everything back");
        let restarted = taken.iter().any(|step| matches!(step, Step::Restart(_)));
        let written = taken.iter().any(|step| matches!(step, Step::Config { .. }));
        let attempt = || -> Result<()> {
            put_back(&plan.pending)?;
            if restarted && let Some(unit) = &self.unit {
                self.units.restart(unit)?;
            }
            let waits = plan.steps.iter().any(|step| matches!(step, Step::Await(_)));
            if written
                && waits
                && let Some(formerly) = &plan.formerly
            {
                self.wait(formerly)?;
            }
            plan.previous.save()?;
            forget(&plan.previous, &plan.pending)
        };
        match attempt() {
            Ok(()) => Failure::Undone(cause),
            Err(undo) => Failure::Broken { cause, undo, advice: advice(&plan.pending) },
        }
    }
}

impl Expectation {
    fn fault(&self, live: &Live) -> Option<String> {
        if let (true, Err(error)) = (self.cri, &live.cri) {
            return Some(error.clone());
        }
        let worse: Vec<_> = live.failed.difference(&self.failed).map(String::as_str).collect();
        if !worse.is_empty() {
            return Some(format!("plugins failed that worked before: {}", worse.join(", ")));
        }
        match &self.want {
            Want::Anything => None,
            Want::Loaded(entry) => live.fault(entry),
            Want::Absent => live
                .handler(&self.handler)
                .filter(|runtime| crate::config::is_our_type(&runtime.kind))
                .map(|_| format!("the handler {} is still loaded", self.handler)),
        }
    }
}

/// What a person must do when nothing else helped.
fn advice(pending: &Pending) -> String {
    let restore = |swap: &Swap| match (&swap.backup, &swap.from) {
        (Some(backup), Some(_)) => format!("copy {} to {}", backup.display(), swap.path.display()),
        _ => format!("remove {}", swap.path.display()),
    };
    let files = pending.swaps.iter().filter(|swap| swap.config).map(restore);
    let restart = pending.unit.iter().map(|unit| format!("systemctl restart {unit}"));
    let steps: Vec<_> = files.chain(restart).collect();
    format!("To get containerd back: {}", steps.join(", then "))
}

/// Gives all files the bytes that they had, the last written first.
fn put_back(pending: &Pending) -> Result<()> {
    for link in &pending.links {
        files::remove(link)?;
    }
    pending.swaps.iter().rev().try_for_each(put_back_one)
}

fn put_back_one(swap: &Swap) -> Result<()> {
    let now = files::digest_of(&swap.path)?;
    files::remove(&files::draft(&swap.path))?;
    if now != swap.from && now != swap.to {
        eprintln!(
            "coracle: {} was changed by somebody else meanwhile; left as it is",
            swap.path.display()
        );
        return Ok(());
    }
    if now != swap.from {
        restore(swap)?;
    }
    // Bytes of configurations lie in the folder of the state, and may serve later.
    match &swap.backup {
        Some(backup) if !swap.config => files::remove(backup),
        _ => Ok(()),
    }
}

fn restore(swap: &Swap) -> Result<()> {
    let (Some(from), Some(backup)) = (&swap.from, &swap.backup) else {
        return files::remove(&swap.path);
    };
    let bytes = files::read(backup)?;
    let bytes = bytes.filter(|bytes| files::digest(bytes) == *from);
    let bytes = bytes.with_context(|| {
        format!(
            "{}, which keeps the old {}, is missing or damaged",
            backup.display(),
            swap.path.display()
        )
    })?;
    if swap.config {
        return files::replace(&swap.path, &bytes);
    }
    fs::rename(backup, &swap.path).with_context(|| format!("putting {} back", swap.path.display()))
}

fn make_folder(path: &Path) -> Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other.with_context(|| format!("making the folder {}", path.display())),
    }
}

/// Removes a folder, unless there is something in it or it is where something is mounted.
fn remove_empty_folder(path: &Path) -> Result<()> {
    use std::io::ErrorKind::{DirectoryNotEmpty, NotFound, ResourceBusy};
    // On a read-only file system the kernel does not even look whether it is there.
    if !path.exists() {
        return Ok(());
    }
    match fs::remove_dir(path) {
        Err(error) if matches!(error.kind(), NotFound | DirectoryNotEmpty | ResourceBusy) => Ok(()),
        other => other.with_context(|| format!("removing the folder {}", path.display())),
    }
}

/// Removes what only served an act that was taken back.
fn forget(record: &Record, pending: &Pending) -> Result<()> {
    let installed = record.installed.as_ref().and_then(|installed| installed.config.as_ref());
    let needed = installed.and_then(|config| config.backup.as_deref());
    let backups = pending.swaps.iter().filter_map(|swap| swap.backup.as_deref());
    backups
        .filter(|backup| backup.starts_with(STATE_DIR) && Some(*backup) != needed)
        .try_for_each(files::remove)?;
    let state = if record.installed.is_none() { state_folders() } else { Vec::new() };
    pending.folders.iter().rev().chain(&state).try_for_each(|folder| remove_empty_folder(folder))
}

/// The folders of the state, innermost first.
pub(crate) fn state_folders() -> Vec<PathBuf> {
    let state = Path::new(STATE_DIR);
    [Some(state.join(BACKUPS)), Some(state.to_owned()), state.parent().map(Path::to_owned)]
        .into_iter()
        .flatten()
        .collect()
}

/// Takes back what an installer had begun that was killed. `None` when there was none.
pub(crate) fn recover(record: &mut Record, units: &dyn Units) -> Result<Option<String>> {
    let Some(pending) = record.pending.take() else { return Ok(None) };
    let mut written = false;
    for swap in pending.swaps.iter().filter(|swap| swap.config) {
        written |= files::digest_of(&swap.path)? == swap.to;
    }
    put_back(&pending)?;
    // Nobody knows how far containerd came with it.
    if written && let Some(unit) = &pending.unit {
        units.restart(unit)?;
    }
    record.save()?;
    forget(record, &pending)?;
    Ok(Some(pending.act))
}
