//! One program of a suite: what it is given and what it must do.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longest that a program may take, compilation by a debug build on a busy machine included.
const LIMIT: Duration = Duration::from_secs(120);

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
    /// Runs it; the error says what was unexpected.
    pub(crate) fn run(&self) -> Result<(), String> {
        let scratch = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
        command.arg("run").env_clear().stdin(Stdio::null());
        if let Some(dir) = &self.dir {
            let root = scratch.path().join("root");
            fs::create_dir(&root).unwrap();
            if let Some(template) = &dir.template {
                copy(template, &root);
            }
            command.arg("--dir").arg(format!("{}::{}", root.display(), dir.guest));
        }
        for (name, value) in &self.env {
            command.arg("--env").arg(format!("{name}={value}"));
        }
        command.arg(&self.wasm).args(&self.args);
        let output = |name: &str| scratch.path().join(name);
        command.stdout(File::create(output("stdout")).unwrap());
        command.stderr(File::create(output("stderr")).unwrap());
        let status = wait(command.spawn().unwrap());
        let read = |name: &str| String::from_utf8_lossy(&fs::read(output(name)).unwrap()).into();
        self.check(status, read("stdout"), read("stderr"))
    }

    fn check(
        &self,
        status: Option<ExitStatus>,
        stdout: String,
        stderr: String,
    ) -> Result<(), String> {
        let Some(status) = status else {
            return Err(format!("not done after {LIMIT:?}: {stdout}{stderr}"));
        };
        if status.code() != Some(self.exit_code) {
            return Err(format!("{status}, not {}: {stdout}{stderr}", self.exit_code));
        }
        let expected = [("stdout", &self.stdout, stdout), ("stderr", &self.stderr, stderr)];
        for (name, expected, got) in expected {
            if expected.as_ref().is_some_and(|expected| *expected != got) {
                return Err(format!("{name} is {got:?}, not {expected:?}"));
            }
        }
        Ok(())
    }
}

/// Waits for a process; `None` if it had to be killed.
fn wait(mut child: Child) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if start.elapsed() > LIMIT {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Copies what a folder holds into another one.
fn copy(from: &Path, to: &Path) {
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
