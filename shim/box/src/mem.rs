//! `mem`: the memory of a running WebAssembly program.

use crate::backtrace::{failure, threads};
use crate::error::Failure;
use crate::host::{What, inspect};
use crate::out::{Context, human};
use crate::proc;

/// Bytes of a page of linear memory.
const PAGE: u64 = 1 << 16;
/// The files of the container's limit and of what it uses, in both versions of cgroups.
const LIMITS: [&str; 2] =
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
const USES: [&str; 2] =
    ["/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes"];

/// Prints what the container's program, or the one that is named, has of memory.
pub fn run(context: &mut Context, words: Vec<String>) -> Result<(), Failure> {
    let pid = proc::chosen(&words)?;
    threads(pid)?;
    let text = inspect(pid, pid, What::Memory).map_err(|error| failure(pid, &error))?;
    let mut numbers = text.split(' ').map(|word| word.parse::<u64>().unwrap_or(0));
    let (bytes, elements) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    context.line(format_args!("linear memory  {} pages, {bytes} bytes", bytes / PAGE))?;
    context.line(format_args!("tables         {elements} elements"))?;
    let status = proc::file(pid, "status").unwrap_or_default();
    if let (Some(now), Some(most)) =
        (proc::status(&status, "VmRSS"), proc::status(&status, "VmHWM"))
    {
        context.line(format_args!("resident       {now}, at most {most} so far"))?;
    }
    if let (Some(used), Some(limit)) = (first(&USES), first(&LIMITS)) {
        let shown = |text: &str| text.parse().map_or_else(|_| text.to_owned(), human);
        context.line(format_args!("container      {} of {}", shown(&used), shown(&limit)))?;
    }
    Ok(())
}

fn first(paths: &[&str]) -> Option<String> {
    paths
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok())
        .map(|text| text.trim().to_owned())
}
