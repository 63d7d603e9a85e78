//! Our programs: where they come from, and who runs them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::files;

/// The shim, which containerd starts.
pub(crate) const SHIM: &str = "containerd-shim-wasm-v1";
/// All of them: the shim, the compiler and tool, the node's daemon and installer.
pub(crate) const PROGRAMS: [&str; 3] = [SHIM, "coracle", "coracle-node"];

/// A program to be installed. It is open: its path may mean something else once the node is entered.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its file name.
    pub(crate) name: &'static str,
    /// Its bytes.
    pub(crate) file: File,
    /// Their digest.
    pub(crate) digest: String,
}

/// Opens the programs of a folder, or of the one that this program is in.
pub(crate) fn open(folder: Option<&Path>) -> Result<Vec<Source>> {
    let own = || std::env::current_exe().and_then(|own| own.canonicalize());
    let folder = match folder {
        Some(folder) => folder.to_owned(),
        None => {
            own().context("finding this program")?.parent().unwrap_or(Path::new("/")).to_owned()
        }
    };
    PROGRAMS.into_iter().map(|name| open_one(&folder, name)).collect()
}

fn open_one(folder: &Path, name: &'static str) -> Result<Source> {
    let path = folder.join(name);
    let reading = || format!("reading {}, which is to be installed", path.display());
    let mut file = File::open(&path).with_context(reading)?;
    let digest = files::digest_of_file(&mut file).with_context(reading)?;
    Ok(Source { name, file, digest })
}

/// The containers whose shim runs from this path, also when it was replaced since, as `namespace/id`.
pub(crate) fn running_shims(path: &Path) -> Vec<String> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let mut found: Vec<_> =
        processes.filter_map(|process| shim_of(&process.ok()?.path(), path)).collect();
    found.sort();
    found.dedup();
    found
}

fn shim_of(process: &Path, path: &Path) -> Option<String> {
    let program = fs::read_link(process.join("exe")).ok()?;
    let program = program.to_str()?;
    let program = program.strip_suffix(" (deleted)").unwrap_or(program);
    if Path::new(program) != path {
        return None;
    }
    let line = fs::read(process.join("cmdline")).ok()?;
    let words: Vec<_> = line
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    Some(container_of(&words).unwrap_or_else(|| {
        let pid = process.file_name().unwrap_or_default().to_string_lossy();
        format!("process {pid}")
    }))
}

fn container_of(words: &[String]) -> Option<String> {
    let after = |flag: &str| {
        let at = words.iter().position(|word| word.trim_start_matches('-') == flag)?;
        words.get(at + 1)
    };
    Some(format!("{}/{}", after("namespace")?, after("id")?))
}

/// Where programs are in a folder.
pub(crate) fn in_folder(folder: &Path) -> impl Iterator<Item = PathBuf> {
    PROGRAMS.into_iter().map(|name| folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_read_from_command_lines() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let line = words("/x/containerd-shim-wasm-v1 -namespace k8s.io -id abc -address /run/x");
        assert_eq!(container_of(&line).as_deref(), Some("k8s.io/abc"));
        assert_eq!(container_of(&words("/x guest")), None);
    }

    #[test]
    fn this_process_runs_its_own_program() {
        let own = std::env::current_exe().unwrap();
        assert!(!running_shims(&own).is_empty());
        assert!(running_shims(Path::new("/nowhere")).is_empty());
    }

    #[test]
    fn a_missing_program_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = open(Some(dir.path())).unwrap_err();
        assert!(format!("{error:#}").contains(SHIM));
    }
}
