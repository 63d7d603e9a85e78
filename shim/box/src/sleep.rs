//! `sleep`.

use std::time::Duration;

use crate::args::Options;
use crate::error::Failure;
use crate::out::{Context, plain};

/// Waits for the sum of the times.
pub fn run(_: &mut Context, words: Vec<String>) -> Result<(), Failure> {
    let options = Options::parse(words, "", &[])?;
    if options.operands.is_empty() {
        return Err(Failure::usage("the time is missing"));
    }
    let mut total = Duration::ZERO;
    for word in &options.operands {
        let time = time(word).ok_or_else(|| {
            Failure::of(
                plain(word),
                "is no time: write a number, with s, m, h or d behind it, or `infinity`",
            )
        })?;
        total = total.saturating_add(time);
    }
    // More is an error of WASI's clock, which counts nanoseconds.
    std::thread::sleep(total.min(Duration::from_secs(1 << 33)));
    Ok(())
}

fn time(word: &str) -> Option<Duration> {
    if matches!(word, "inf" | "infinity") {
        return Some(Duration::MAX);
    }
    let (number, unit) = match word.char_indices().last()? {
        (at, 's') => (&word[..at], 1.0),
        (at, 'm') => (&word[..at], 60.0),
        (at, 'h') => (&word[..at], 3600.0),
        (at, 'd') => (&word[..at], 86400.0),
        _ => (word, 1.0),
    };
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds = number.parse::<f64>().ok().filter(|_| plain)? * unit;
    Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}
