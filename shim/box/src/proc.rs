//! The container's processes, from its `/proc`.

use std::io;

use crate::error::{Failure, reason};

/// What the command line of the guest's half of the shim begins with, whatever program it runs.
const RUNNER: &str = "containerd-shim-wasm-v1 guest ";
/// Clock ticks in a second, in which `/proc` counts on every machine.
const TICKS: u64 = 100;

/// A process.
pub struct Process {
    pub pid: i32,
    pub uid: u32,
    /// Processor time in seconds.
    pub seconds: u64,
    pub command: String,
}

/// The pids, ascending.
pub fn pids() -> Result<Vec<i32>, Failure> {
    numbers("/proc").map_err(|error| {
        Failure::Told(format!(
            "cannot list processes: /proc: {}; does the container mount it?",
            reason(&error)
        ))
    })
}

/// The threads of a process, ascending.
pub fn threads(pid: i32) -> io::Result<Vec<i32>> {
    numbers(&format!("/proc/{pid}/task"))
}

fn numbers(folder: &str) -> io::Result<Vec<i32>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    if numbers.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// A file of a process as text.
pub fn file(pid: i32, name: &str) -> io::Result<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/{name}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a line of a process's `status` says.
pub fn status(text: &str, key: &str) -> Option<String> {
    let value = |line: &str| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim().to_owned());
    text.lines().find_map(value)
}

/// Looks at a process; `None` when it has ended.
pub fn look(pid: i32) -> Option<Process> {
    let stat = file(pid, "stat").ok()?;
    // The name may hold anything, parentheses as well.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    let status_text = file(pid, "status").ok()?;
    let uid = status(&status_text, "Uid")?.split_whitespace().next()?.parse().ok()?;
    Some(Process { pid, uid, seconds: (ticks(11) + ticks(12)) / TICKS, command: command(pid) })
}

/// The command line; for a WebAssembly program its name, for a thread of the kernel its name in brackets.
pub fn command(pid: i32) -> String {
    let line = file(pid, "cmdline").unwrap_or_default();
    let line = line.trim_end_matches('\0').replace('\0', " ");
    let name = || file(pid, "comm").unwrap_or_default().trim_end().to_owned();
    if line.is_empty() {
        format!("[{}]", name())
    } else if line.starts_with(RUNNER) {
        name()
    } else {
        line
    }
}

/// The one operand that names a process, else the container's first.
pub fn chosen(operands: &[String]) -> Result<i32, Failure> {
    match operands {
        [] => Ok(1),
        [word] => {
            let pid = word.parse().ok().filter(|&pid| pid > 0);
            pid.ok_or_else(|| Failure::of(crate::out::plain(word), "is no pid; `ps` lists them"))
        }
        _ => Err(Failure::usage("one pid at a time")),
    }
}
