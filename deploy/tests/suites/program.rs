//! One program of a suite: what it is given and what it must do.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A program with its grants and its expected results.
#[derive(Debug, Default)]
pub(crate) struct Program {
    /// Its path beneath the suite's folder, without suffix.
    pub(crate) name: String,
    pub(crate) wasm: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) dir: Option<Dir>,
    pub(crate) exit_code: i32,
    /// Not compared if `None`.
    pub(crate) stdout: Option<String>,
    /// Not compared if `None`.
    pub(crate) stderr: Option<String>,
    /// Why it must fail here.
    pub(crate) different: Option<&'static str>,
}

/// A folder that a program gets.
#[derive(Debug)]
pub(crate) struct Dir {
    /// Copied for each run; an empty folder if `None`.
    pub(crate) template: Option<PathBuf>,
    /// The program's name for it.
    pub(crate) guest: String,
}

impl Program {
    /// What was unexpected of how it ended.
    pub(crate) fn check(
        &self,
        code: Option<i32>,
        stdout: &str,
        stderr: &str,
    ) -> Result<(), String> {
        if code != Some(self.exit_code) {
            let expected = self.exit_code;
            return Err(format!("exit code {code:?}, not {expected}: {stdout}{stderr}"));
        }
        let expected = [("stdout", &self.stdout, stdout), ("stderr", &self.stderr, stderr)];
        for (name, expected, got) in expected {
            if expected.as_ref().is_some_and(|expected| expected != got) {
                return Err(format!("{name} is {got:?}, not {expected:?}"));
            }
        }
        Ok(())
    }
}

/// Copies what a folder holds into another one.
pub(crate) fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&source, &target);
        } else {
            fs::copy(&source, &target).unwrap();
        }
    }
}

/// All modules beneath a folder, sorted, with their names; folders that end with `.dir` hold data.
pub(crate) fn modules(folder: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let entries = fs::read_dir(&next)
            .unwrap_or_else(|error| panic!("cannot list {}: {error}", next.display()));
        for path in entries.map(|entry| entry.unwrap().path()) {
            let suffix = path.extension().and_then(|suffix| suffix.to_str());
            match suffix {
                Some("wasm") => {
                    let name = path.strip_prefix(folder).unwrap().with_extension("");
                    found.push((name.to_str().unwrap().to_owned(), path));
                }
                Some("dir") => {}
                _ if path.is_dir() => folders.push(path),
                _ => {}
            }
        }
    }
    found.sort_unstable();
    found
}
