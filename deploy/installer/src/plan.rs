//! What is to be done, as a value: decided before anything is, printed by `--dry-run`, carried out by [`crate::act`].

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use crate::config::Entry;
use crate::record::{Pending, Record};

/// A whole installation, or taking one back.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The steps, in their order.
    pub(crate) steps: Vec<Step>,
    /// How many of them are taken back when one of them fails; those after them only tidy up.
    pub(crate) revocable: usize,
    /// What undoes the steps, whichever of them have been taken.
    pub(crate) pending: Pending,
    /// The record before.
    pub(crate) previous: Record,
    /// How the configuration changes, as a unified diff.
    pub(crate) diff: String,
    /// What the user should know.
    pub(crate) notes: Vec<String>,
    /// What must hold of containerd when everything was put back.
    pub(crate) formerly: Option<Expectation>,
}

/// One step. Each is atomic: after a crash it was taken or it was not.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Make a folder.
    Folder(PathBuf),
    /// Keep bytes.
    Backup { path: PathBuf, bytes: Vec<u8> },
    /// Write down what is being done, or what was done.
    Record(Box<Record>),
    /// Keep a program under another name while its place is taken.
    Keep { path: PathBuf, backup: PathBuf },
    /// Put a program into its place.
    Program { path: PathBuf, name: &'static str },
    /// Link to a program.
    Link { path: PathBuf, target: PathBuf },
    /// Give a configuration file these bytes; none: remove it.
    Config { path: PathBuf, bytes: Option<Vec<u8>> },
    /// Remove a file that nobody needs any more.
    Remove(PathBuf),
    /// Remove a folder that we made, if it is empty.
    RemoveFolder(PathBuf),
    /// Restart a unit.
    Restart(String),
    /// Wait until containerd is as expected.
    Await(Expectation),
}

/// What must hold of the containerd that runs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expectation {
    /// The handler's name.
    pub(crate) handler: String,
    /// What must hold of it.
    pub(crate) want: Want,
    /// Plugins that may have failed: those that had before.
    pub(crate) failed: BTreeSet<String>,
    /// Whether CRI answered before.
    pub(crate) cri: bool,
}

/// What must hold of a handler.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Want {
    /// It is loaded just so.
    Loaded(Entry),
    /// It is not loaded, not for our runtime.
    Absent,
    /// Nothing.
    Anything,
}

impl Plan {
    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diff)?;
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        if self.is_empty() {
            writeln!(f, "nothing to do")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "make folder {}", path.display()),
            Self::Backup { path, .. } => write!(f, "back up to {}", path.display()),
            Self::Record(record) => {
                let state = match (&record.pending, &record.installed) {
                    (Some(pending), _) => format!("{} is under way", pending.act),
                    (None, Some(_)) => "what is installed".to_owned(),
                    (None, None) => "nothing is installed".to_owned(),
                };
                write!(f, "record: {state}")
            }
            Self::Keep { backup, .. } => write!(f, "keep the old program as {}", backup.display()),
            Self::Program { path, .. } => write!(f, "install {}", path.display()),
            Self::Link { path, target } => {
                write!(f, "link {} to {}", path.display(), target.display())
            }
            Self::Config { path, bytes: Some(_) } => write!(f, "write {}", path.display()),
            Self::Config { path, bytes: None } | Self::Remove(path) => {
                write!(f, "remove {}", path.display())
            }
            Self::RemoveFolder(path) => write!(f, "remove folder {} if empty", path.display()),
            Self::Restart(unit) => write!(f, "restart {unit}"),
            Self::Await(Expectation { handler, want, .. }) => match want {
                Want::Loaded(_) => {
                    write!(f, "wait until containerd is healthy and has the handler {handler}")
                }
                Want::Absent => {
                    write!(f, "wait until containerd is healthy, without the handler {handler}")
                }
                Want::Anything => write!(f, "wait until containerd is healthy"),
            },
        }
    }
}

/// A unified diff of two texts, either of which may be no file.
pub(crate) fn diff(path: &str, before: Option<&str>, after: Option<&str>) -> String {
    if before == after {
        return String::new();
    }
    let name =
        |text: Option<&str>| if text.is_some() { path.to_owned() } else { "/dev/null".into() };
    similar::TextDiff::from_lines(before.unwrap_or_default(), after.unwrap_or_default())
        .unified_diff()
        .context_radius(3)
        .header(&name(before), &name(after))
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diffs_name_files_that_are_not_there() {
        assert_eq!(diff("/x", Some("a\n"), Some("a\n")), "");
        let made = diff("/x", None, Some("a\n"));
        assert!(made.starts_with("--- /dev/null\n+++ /x\n") && made.contains("+a"), "{made}");
        let removed = diff("/x", Some("a\n"), None);
        assert!(removed.starts_with("--- /x\n+++ /dev/null\n"), "{removed}");
    }
}
