//! Why a command ends early.

use std::fmt;
use std::io;

/// The end of a command.
#[derive(Debug)]
pub enum Failure {
    /// A sentence for the user.
    Told(String),
    /// Nobody reads what the command prints.
    Output(io::Error),
}

impl Failure {
    /// `object: reason`.
    pub fn of(object: impl fmt::Display, reason: impl fmt::Display) -> Failure {
        Failure::Told(format!("{object}: {reason}"))
    }

    /// An option or operand that makes no sense.
    pub fn usage(what: impl fmt::Display) -> Failure {
        Failure::Told(format!("{what}; --help tells the usage"))
    }
}

impl From<String> for Failure {
    fn from(sentence: String) -> Failure {
        Failure::Told(sentence)
    }
}

/// The words of an error, without its number, which is WASI's and no system's.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}
