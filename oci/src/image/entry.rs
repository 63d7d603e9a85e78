//! Entry points: `path[#export]`, and where a path may lie.

use std::path::{Path, PathBuf};

use crate::spec::{Process, clean};

/// What to run: a module and one of its exports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entrypoint {
    /// Path or name of the module as the container wrote it; the guest's `argv[0]`.
    pub path: String,
    /// Export to call instead of the default one.
    pub export: Option<String>,
}

impl Entrypoint {
    /// Splits `path[#export]` at the first `#`, since names of exports may hold further ones.
    #[must_use]
    pub fn parse(argument: &str) -> Self {
        let (path, export) = argument.split_once('#').unwrap_or((argument, ""));
        let export = (!export.is_empty()).then(|| export.to_owned());
        Self { path: path.to_owned(), export }
    }

    /// Places to look for the module, best first; absolute paths inside the container.
    ///
    /// A name without a slash is looked up in `PATH`, then in the working directory; anything
    /// else is taken from the working directory.
    #[must_use]
    pub(crate) fn candidates(&self, process: &Process) -> Vec<PathBuf> {
        if self.path.is_empty() {
            return Vec::new();
        }
        let here = clean(&process.cwd).join(&self.path);
        if self.path.contains('/') {
            return vec![here];
        }
        let path = process.env.iter().find_map(|pair| pair.strip_prefix("PATH="));
        let mut candidates: Vec<PathBuf> = path
            .unwrap_or_default()
            .split(':')
            .filter(|folder| !folder.is_empty())
            .map(|folder| clean(&process.cwd).join(Path::new(folder)).join(&self.path))
            .collect();
        candidates.push(here);
        candidates.dedup();
        candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_and_export() {
        for (argument, path, export) in [
            ("/app.wasm", "/app.wasm", None),
            ("app.wasm#run", "app.wasm", Some("run")),
            ("app.wasm#", "app.wasm", None),
            (
                "a#wasi:http/incoming-handler@0.2.0#handle",
                "a",
                Some("wasi:http/incoming-handler@0.2.0#handle"),
            ),
            ("#run", "", Some("run")),
            ("", "", None),
        ] {
            let entry = Entrypoint::parse(argument);
            assert_eq!(
                (entry.path.as_str(), entry.export.as_deref()),
                (path, export),
                "{argument}"
            );
        }
    }
}
