//! The built-in toolbox: small commands for containers whose image has none, as one WebAssembly module.
//!
//! Its source is `shim/box`; the module is kept beside it, and `make test` builds it anew and compares. It
//! goes through the node's cache like any module, and it alone is linked with the functions of
//! `guest/toolbox.rs`.

/// The module.
pub const MODULE: &[u8] = include_bytes!("../box/coracle-box.wasm");

/// The name of the toolbox itself.
const NAME: &str = "coracle-box";

/// The commands, which are names of the toolbox too.
pub const COMMANDS: [&str; 13] = [
    "backtrace",
    "cat",
    "df",
    "env",
    "kill",
    "ls",
    "mem",
    "netstat",
    "ps",
    "sleep",
    "tar",
    "test",
    "wget",
];

/// The folders in which programs of that kind are looked for: scripts and probes name them so.
const FOLDERS: [&str; 5] = ["/bin", "/usr/bin", "/sbin", "/usr/sbin", "/usr/local/bin"];

/// Whether the toolbox answers to the first word of a command line that no file of the container answers
/// to: a command or its own name, alone or in a usual folder.
#[must_use]
pub fn answers_to(word: &str) -> bool {
    let name = match word.rsplit_once('/') {
        Some((folder, name)) if FOLDERS.contains(&folder) => name,
        Some(_) => return false,
        None => word,
    };
    name == NAME || COMMANDS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_alone_and_in_usual_folders_are_known() {
        for word in ["ls", "coracle-box", "/bin/cat", "/usr/bin/env", "/usr/local/bin/coracle-box"]
        {
            assert!(answers_to(word), "{word}");
        }
        for word in ["", "sh", "/ls", "/app/ls", "bin/ls", "./ls", "ls/", "/bin/", "LS"] {
            assert!(!answers_to(word), "{word}");
        }
    }
}
