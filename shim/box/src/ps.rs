//! `ps`.

use crate::error::Failure;
use crate::out::Context;
use crate::passwd::Names;
use crate::proc;

/// Lists the container's processes. Options for more columns, as in `ps aux`, change nothing.
pub fn run(context: &mut Context, words: Vec<String>) -> Result<(), Failure> {
    let known =
        |word: &&String| word.trim_start_matches('-').chars().all(|c| "auxefwlA".contains(c));
    if let Some(word) = words.iter().find(|word| !known(word)) {
        return Err(Failure::usage(format_args!("unknown option {}", crate::out::plain(word))));
    }
    let users = Names::users();
    let pids = proc::pids()?;
    context.line("PID   USER     TIME  COMMAND")?;
    for process in pids.into_iter().filter_map(proc::look) {
        let time = format!("{}:{:02}", process.seconds / 60, process.seconds % 60);
        let line = format!(
            "{:>5} {:<8} {time:>5} {}",
            process.pid,
            context.shown(&users.get(process.uid)),
            context.shown(&process.command),
        );
        context.line(line)?;
    }
    Ok(())
}
