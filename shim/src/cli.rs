//! The command line containerd uses: `start | delete`, `-v`, `-info`.
//!
//! containerd's flags are the interface (see the runtime v2 README of containerd); nothing else is
//! accepted. The hidden commands (`guest`, and those of [`crate::warm::command`]) are dispatched by `main` before
//! anything is parsed.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use crate::request::{InvalidId, TaskId};

/// The hidden command under which the shim's own binary runs a guest.
pub const GUEST_COMMAND: &str = "guest";

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// `-v`, `-version`: print the version.
    Version,
    /// `-info`: print a `RuntimeInfo` message.
    Info,
    /// `start`: find or launch the shim of this container's group, print its address.
    Start(Flags),
    /// `delete`: clean up after a shim that is gone, print a `DeleteResponse` message.
    Delete(Flags),
}

/// The flags all commands share.
#[derive(Debug, Clone)]
pub struct Flags {
    /// `-namespace`: containerd's namespace of the container.
    pub namespace: String,
    /// `-id`: the container.
    pub id: TaskId,
    /// `-address`: containerd's gRPC socket; empty when not given.
    pub address: String,
    /// `-bundle`: the bundle folder; the working directory when not given.
    pub bundle: Option<PathBuf>,
    /// `-debug`: log everything.
    pub debug: bool,
}

/// Why a command line cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// A flag that containerd does not define, or one without its value.
    #[error("read the command line: {0}")]
    Syntax(#[source] containerd_shim::Error),
    /// No command, or one this shim does not have.
    #[error("unknown command {0:?}: containerd calls this program with start or delete")]
    UnknownCommand(String),
    /// `-id` is missing or is no container id.
    #[error("flag -id: {0}")]
    Id(#[from] InvalidId),
    /// `-namespace` is missing or cannot be a folder name.
    #[error("flag -namespace: {0:?} is no containerd namespace")]
    Namespace(String),
}

/// Parses the arguments after the program's name.
///
/// # Errors
/// Any flag or command outside containerd's interface, and ids that could leave a folder.
pub fn parse(args: &[OsString]) -> Result<Command, CliError> {
    let raw = containerd_shim::parse(args).map_err(CliError::Syntax)?;
    if raw.version {
        return Ok(Command::Version);
    }
    if raw.info {
        return Ok(Command::Info);
    }
    let make: fn(Flags) -> Command = match raw.action.as_str() {
        "start" => Command::Start,
        "delete" => Command::Delete,
        other => return Err(CliError::UnknownCommand(other.to_owned())),
    };
    let id = TaskId::parse(&raw.id)?;
    // containerd holds namespaces to the same alphabet as ids.
    if TaskId::parse(&raw.namespace).is_err() {
        return Err(CliError::Namespace(raw.namespace));
    }
    Ok(make(Flags {
        namespace: raw.namespace,
        id,
        address: raw.address,
        bundle: Some(raw.bundle).filter(|b| !b.is_empty()).map(PathBuf::from),
        debug: raw.debug,
    }))
}

/// Prints the version for `-v`.
///
/// # Errors
/// When standard output cannot be written.
pub fn print_version() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "containerd-shim-wasm-v1 (Coracle) {}", env!("CARGO_PKG_VERSION"))?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(line: &str) -> Result<Command, CliError> {
        parse(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn containerd_1_7_start_line() {
        let line = "-namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd \
                    -id abc -debug start";
        let Ok(Command::Start(flags)) = parse_words(line) else { panic!("not a start") };
        assert_eq!(flags.namespace, "k8s.io");
        assert_eq!(flags.id.as_str(), "abc");
        assert_eq!(flags.address, "/run/c.sock");
        assert!(flags.debug && flags.bundle.is_none());
    }

    #[test]
    fn delete_line_carries_the_bundle() {
        let line = "-namespace default -address a -id x1 -bundle /run/b delete";
        let Ok(Command::Delete(flags)) = parse_words(line) else { panic!("not a delete") };
        assert_eq!(flags.bundle.as_deref(), Some(std::path::Path::new("/run/b")));
    }

    #[test]
    fn version_and_info_need_no_ids() {
        assert!(matches!(parse_words("-v"), Ok(Command::Version)));
        assert!(matches!(parse_words("-info"), Ok(Command::Info)));
    }

    #[test]
    fn refuses_what_containerd_does_not_send() {
        assert!(matches!(
            parse_words("-namespace n -id a dance"),
            Err(CliError::UnknownCommand(_))
        ));
        assert!(matches!(parse_words("-namespace n start"), Err(CliError::Id(_))));
        assert!(matches!(parse_words("-namespace n -id ../x start"), Err(CliError::Id(_))));
        assert!(matches!(parse_words("-namespace a/b -id x start"), Err(CliError::Namespace(_))));
        assert!(matches!(parse_words("-frob start"), Err(CliError::Syntax(_))));
    }
}
