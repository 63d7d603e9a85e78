//! The process behind `coracle cache warm`, and what the node daemon starts for each image.
//!
//! ```text
//! warm-image NAMESPACE ADDRESS NAME [KEY=VALUE]...
//! warm-file PATH [KEY=VALUE]...
//! precompile-image NAMESPACE ADDRESS NAME [KEY=VALUE]...
//! ```
//!
//! The first two speak to people: exit code 0 when the code is in the cache, 125 when it is not. The third does the same
//! as the first and speaks to the daemon, by one line of JSON ([`Report`]) and an exit code: 0 when the code is in the
//! cache, 3 when there is nothing to compile, 4 when the image's files are not on the node yet, 125 for all else.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use tracing_subscriber::filter::LevelFilter;

use super::report::Report;
use super::{Progress, Target, WarmError, Warmed, warm};
use crate::config::process_env;

/// With a name of containerd's.
const IMAGE: &str = "warm-image";
/// With a path.
const FILE: &str = "warm-file";
/// With a name of containerd's, for the daemon.
pub const PRECOMPILE: &str = "precompile-image";
/// Exit code when the code is not in the cache: that of `coracle` for all its own failures.
pub(super) const FAILED: u8 = 125;

/// Whether the arguments are for this command.
#[must_use]
pub fn is_meant(args: &[OsString]) -> bool {
    args.first().is_some_and(|first| [IMAGE, FILE, PRECOMPILE].iter().any(|name| first == name))
}

/// Does what `coracle cache warm` was asked for, and says what was done.
#[must_use]
pub fn main(args: &[OsString]) -> ExitCode {
    let Some((target, options)) = read(args) else {
        eprintln!("this command is for `coracle cache warm`, see its --help");
        return ExitCode::from(2);
    };
    // What does not stop it is told as well; there is no other log yet.
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).without_time();
    let _ = log.with_target(false).with_ansi(false).with_max_level(LevelFilter::WARN).try_init();
    let name = target.to_string();
    let result = warm(target, &options, &process_env, &tell);
    if args.first().is_some_and(|first| first == PRECOMPILE) {
        return report(result);
    }
    match result {
        Ok(warmed) => {
            // Whoever reads may stop reading.
            let _ = std::io::stdout().write_all(done(&name, warmed).as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("coracle: {name}: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// Tells the daemon.
fn report(result: Result<Warmed, WarmError>) -> ExitCode {
    let report = Report::from(result);
    let line = serde_json::to_string(&report).unwrap_or_default();
    // Without a reader nobody needs it.
    let _ = writeln!(std::io::stdout(), "{line}");
    ExitCode::from(report.exit_code())
}

/// The target and the options. `coracle` has checked them; this only has to be told apart from what people type.
fn read(args: &[OsString]) -> Option<(Target, Vec<(String, String)>)> {
    let text = |arg: &OsString| arg.to_str().map(str::to_owned);
    let (target, options) = match args {
        [command, namespace, address, name, options @ ..]
            if command == IMAGE || command == PRECOMPILE =>
        {
            let (name, namespace) = (text(name)?, text(namespace)?);
            (Target::Image { name, namespace, address: address.into() }, options)
        }
        [command, path, options @ ..] if command == FILE => (Target::File(path.into()), options),
        _ => return None,
    };
    let pair = |option: &OsString| {
        let (key, value) = option.to_str()?.split_once('=')?;
        Some((key.to_owned(), value.to_owned()))
    };
    Some((target, options.iter().map(pair).collect::<Option<_>>()?))
}

fn tell(progress: Progress<'_>) {
    match progress {
        Progress::Compiling { origin, size } => eprintln!("compiling {origin}, {}", bytes(size)),
        Progress::Still { origin, time } => eprintln!("compiling {origin} for {}", seconds(time)),
    }
}

fn done(name: &str, warmed: Warmed) -> String {
    let code = bytes(warmed.size);
    match warmed.compiled {
        Some(time) => format!("{name}: compiled in {}, {code} of code\n", seconds(time)),
        None => format!("{name}: in the cache already, {code} of code\n"),
    }
}

fn bytes(count: u64) -> String {
    match count {
        0..0x2800 => format!("{count} B"),
        0x2800..0xa0_0000 => format!("{} KiB", count >> 10),
        _ => format!("{} MiB", count >> 20),
    }
}

fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(10) {
        format!("{:.1} s", time.as_secs_f32())
    } else {
        format!("{} s", time.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_words(line: &str) -> Option<(Target, Vec<(String, String)>)> {
        read(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_have_their_places() {
        let (target, options) = read_words("warm-image moby /run/c.sock hello:1 A=b=c").unwrap();
        let Target::Image { name, namespace, address } = target else { panic!("no image") };
        assert_eq!((name.as_str(), namespace.as_str()), ("hello:1", "moby"));
        assert_eq!(address, std::path::Path::new("/run/c.sock"));
        assert_eq!(options, [("A".to_owned(), "b=c".to_owned())]);
        assert!(read_words("precompile-image moby /run/c.sock hello:1").is_some());
        let (target, options) = read_words("warm-file ./x.wasm").unwrap();
        assert!(matches!(target, Target::File(path) if path == std::path::Path::new("./x.wasm")));
        assert!(options.is_empty());
        for bad in ["warm-image moby", "warm-file", "warm-file x y", "start", ""] {
            assert!(read_words(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_last_line_says_what_was_done() {
        let made = Warmed { size: 77 << 20, compiled: Some(Duration::from_millis(12_340)) };
        assert_eq!(done("x", made), "x: compiled in 12 s, 77 MiB of code\n");
        let there = Warmed { size: 28 << 10, compiled: None };
        assert_eq!(done("x", there), "x: in the cache already, 28 KiB of code\n");
    }
}
