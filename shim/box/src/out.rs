//! What commands print: buffered, escaped where a terminal reads it, and without a panic when nobody does.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::process::ExitCode;

use crate::error::{Failure, reason};

/// A command at work.
pub struct Context {
    name: &'static str,
    out: BufWriter<StdoutLock<'static>>,
    /// Whether a terminal reads.
    pub terminal: bool,
    failed: bool,
}

impl Context {
    pub fn new(name: &'static str) -> Context {
        let out = io::stdout();
        let terminal = out.is_terminal();
        Context {
            name,
            out: BufWriter::with_capacity(1 << 14, out.lock()),
            terminal,
            failed: false,
        }
    }

    /// Prints a line.
    pub fn line(&mut self, line: impl fmt::Display) -> Result<(), Failure> {
        writeln!(self.out, "{line}").map_err(Failure::Output)
    }

    /// Prints bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(Failure::Output)
    }

    pub fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(Failure::Output)
    }

    /// A name of the container's as it may be printed: on a terminal nothing in it is a command.
    pub fn shown<'a>(&self, name: &'a str) -> Cow<'a, str> {
        if self.terminal { plain(name) } else { Cow::Borrowed(name) }
    }

    /// Says what went wrong, and goes on; the exit code will be 1.
    pub fn complain(&mut self, what: impl fmt::Display) {
        // In the order in which things happened.
        let _ = self.out.flush();
        eprintln!("{}: {what}", self.name);
        self.failed = true;
    }

    /// The same for an error of the system.
    pub fn fault(&mut self, object: &str, error: &io::Error) {
        self.complain(format_args!("{}: {}", plain(object), reason(error)));
    }

    /// Goes on without a word; the exit code will be 1.
    pub fn fail(&mut self) {
        self.failed = true;
    }

    /// The end: 0, or 1 if anything went wrong.
    pub fn finish(mut self, result: Result<(), Failure>) -> ExitCode {
        match result.and_then(|()| self.flush()) {
            Ok(()) => {}
            Err(Failure::Told(sentence)) => self.complain(sentence),
            Err(Failure::Output(error)) => {
                if error.kind() != io::ErrorKind::BrokenPipe {
                    eprintln!("{}: cannot write: {}", self.name, reason(&error));
                }
                self.failed = true;
            }
        }
        ExitCode::from(u8::from(self.failed))
    }
}

/// A text with every control character as an octal escape, as `ls -b` and git show it.
pub fn plain(text: &str) -> Cow<'_, str> {
    // Marks that turn the direction of writing can make one name look like another.
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::new();
    for c in text.chars() {
        if harmful(c) {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                // Writing to a string cannot fail.
                let _ = write!(plain, "\\{byte:03o}");
            }
        } else {
            plain.push(c);
        }
    }
    Cow::Owned(plain)
}

/// A number of bytes as `df -h` and `ls -h` show it.
pub fn human(bytes: u64) -> String {
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10;
    while tenths >= 10240 && unit < 6 {
        tenths = tenths.div_ceil(1024);
        unit += 1;
    }
    match unit {
        0 => bytes.to_string(),
        n => format!("{}.{}{}", tenths / 10, tenths % 10, ["", "K", "M", "G", "T", "P", "E"][n]),
    }
}
