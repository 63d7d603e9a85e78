//! `kill`.

use crate::error::Failure;
use crate::host;
use crate::out::{Context, plain};

/// Linux's signals by their numbers, from 1 on.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
const TERM: i32 = 15;
/// The highest number.
const LAST: i32 = 64;

/// Sends a signal to processes, or lists signals.
pub fn run(context: &mut Context, words: Vec<String>) -> Result<(), Failure> {
    let mut words = words.into_iter().peekable();
    let mut signal = TERM;
    match words.peek().map(String::as_str) {
        Some("-l") => return list(context, &words.skip(1).collect::<Vec<_>>()),
        Some("-s" | "-n") => {
            words.next();
            let name = words.next().ok_or_else(|| Failure::usage("the signal is missing"))?;
            signal = number(&name)?;
        }
        Some("--") => {
            words.next();
        }
        Some(word) if word.starts_with('-') => {
            signal = number(&word[1..])?;
            words.next();
        }
        _ => {}
    }
    if words.peek().is_none() {
        return Err(Failure::usage("the pid is missing"));
    }
    for word in words.filter(|word| word != "--") {
        match word.parse::<i32>() {
            Ok(pid) => {
                if let Err(error) = host::kill(pid, signal) {
                    context.fault(&word, &error);
                }
            }
            Err(_) => {
                context.complain(format_args!("{}: is no pid; `ps` lists them", plain(&word)))
            }
        }
    }
    Ok(())
}

fn number(word: &str) -> Result<i32, Failure> {
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let by_name = NAMES.iter().position(|known| *known == name).map(|n| n as i32 + 1);
    let by_number = name.parse().ok().filter(|number| (0..=LAST).contains(number));
    by_name
        .or(by_number)
        .ok_or_else(|| Failure::of(plain(word), "is no signal; `kill -l` lists them"))
}

fn list(context: &mut Context, words: &[String]) -> Result<(), Failure> {
    if words.is_empty() {
        for (n, name) in NAMES.iter().enumerate() {
            context.line(format_args!("{:>2}) {name}", n + 1))?;
        }
        return Ok(());
    }
    for word in words {
        match word.parse::<usize>() {
            // Also the exit code of a program that a signal ended.
            Ok(code) => match NAMES.get((code & 127).wrapping_sub(1)) {
                Some(name) => context.line(name)?,
                None => context.line(code)?,
            },
            Err(_) => {
                let number = number(word)?;
                context.line(number)?;
            }
        }
    }
    Ok(())
}
