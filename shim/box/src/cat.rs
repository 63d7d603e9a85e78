//! `cat`.

use std::fs::File;
use std::io::{self, Read};

use crate::args::Options;
use crate::error::{Failure, reason};
use crate::out::Context;

/// What is done with lines.
#[derive(Default)]
struct Style {
    /// Numbers before all lines, or only before those that are not empty.
    number: bool,
    number_full: bool,
    /// `$` at their ends.
    ends: bool,
    /// `^I` for tabs.
    tabs: bool,
    /// Other control characters by `^` and `M-`.
    visible: bool,
    line: u64,
    within: bool,
}

/// Prints files, or standard input.
pub fn run(context: &mut Context, words: Vec<String>) -> Result<(), Failure> {
    let options = Options::parse(words, "nbvetAEu", &[])?;
    let all = options.has('A');
    let mut style = Style {
        number: options.has('n') && !options.has('b'),
        number_full: options.has('b'),
        ends: all || options.has('e') || options.has('E'),
        tabs: all || options.has('t'),
        visible: all || options.has('v') || options.has('e') || options.has('t'),
        ..Style::default()
    };
    let mut paths = options.operands;
    if paths.is_empty() {
        paths.push("-".to_owned());
    }
    for path in paths {
        let mut source: Box<dyn Read> = if path == "-" {
            Box::new(io::stdin())
        } else {
            match File::open(&path) {
                Ok(file) => Box::new(file),
                Err(error) => {
                    context.fault(&path, &error);
                    continue;
                }
            }
        };
        copy(context, &mut *source, &path, &mut style)?;
    }
    Ok(())
}

fn copy(
    context: &mut Context,
    source: &mut dyn Read,
    path: &str,
    style: &mut Style,
) -> Result<(), Failure> {
    let mut buffer = vec![0; 1 << 15];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) if style.is_none() => context.bytes(&buffer[..count])?,
            Ok(count) => context.bytes(&style.apply(&buffer[..count]))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                context.complain(format_args!("{}: {}", crate::out::plain(path), reason(&error)));
                return Ok(());
            }
        }
        // Who follows a pipe sees what came.
        context.flush()?;
    }
}

impl Style {
    fn is_none(&self) -> bool {
        !(self.number || self.number_full || self.ends || self.tabs || self.visible)
    }

    fn apply(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() * 2);
        for &byte in bytes {
            if !self.within {
                if self.number || (self.number_full && byte != b'\n') {
                    self.line += 1;
                    out.extend(format!("{:>6}\t", self.line).bytes());
                }
                self.within = true;
            }
            match byte {
                b'\n' => {
                    if self.ends {
                        out.push(b'$');
                    }
                    out.push(byte);
                    self.within = false;
                }
                b'\t' if !self.tabs => out.push(byte),
                _ if self.visible || (byte == b'\t' && self.tabs) => visible(byte, &mut out),
                _ => out.push(byte),
            }
        }
        out
    }
}

fn visible(byte: u8, out: &mut Vec<u8>) {
    let low = byte & 0x7f;
    if byte >= 0x80 {
        out.extend(b"M-");
    }
    match low {
        0..=31 => out.extend([b'^', low + 64]),
        127 => out.extend(b"^?"),
        _ => out.push(low),
    }
}
