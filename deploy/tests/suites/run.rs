//! Runs a program by `coracle run`.

use std::fs::{self, File};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::program::{Program, copy};

/// Longest that a program may take, compilation by a debug build on a busy machine included.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a program; the error says what was unexpected.
pub(crate) fn run(program: &Program) -> Result<(), String> {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
    command.arg("run").env_clear().stdin(Stdio::null());
    if let Some(dir) = &program.dir {
        let root = scratch.path().join("root");
        fs::create_dir(&root).unwrap();
        if let Some(template) = &dir.template {
            copy(template, &root);
        }
        command.arg("--dir").arg(format!("{}::{}", root.display(), dir.guest));
    }
    for (name, value) in &program.env {
        command.arg("--env").arg(format!("{name}={value}"));
    }
    command.arg(&program.wasm).args(&program.args);
    let output = |name: &str| scratch.path().join(name);
    command.stdout(File::create(output("stdout")).unwrap());
    command.stderr(File::create(output("stderr")).unwrap());
    let status = wait(command.spawn().unwrap());
    let read = |name: &str| String::from_utf8_lossy(&fs::read(output(name)).unwrap()).into_owned();
    let (stdout, stderr) = (read("stdout"), read("stderr"));
    let Some(status) = status else {
        return Err(format!("not done after {LIMIT:?}: {stdout}{stderr}"));
    };
    program.check(status.code(), &stdout, &stderr)
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
