//! The node's own containerd, asked for its version and for what it makes of a configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

use crate::config;

/// Name of a drop-in file of ours.
pub(crate) const DROP_IN: &str = "coracle.toml";

/// containerd's program.
#[derive(Debug, Clone)]
pub(crate) struct Containerd {
    /// Where it is.
    pub(crate) program: PathBuf,
    /// Its version.
    pub(crate) version: Version,
}

/// Major, minor and patch version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u64, pub(crate) u64, pub(crate) u64);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A configuration as containerd would find it: a root file, and perhaps a file of ours that it imports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    /// The root file; its own list of imports does not count.
    pub(crate) root: String,
    /// Our drop-in, to be imported after [`View::imports`].
    pub(crate) drop_in: Option<String>,
    /// Files that the root file imports before our drop-in, and after it.
    pub(crate) imports: (Vec<String>, Vec<String>),
}

impl Containerd {
    /// Asks a program for its version.
    pub(crate) fn ask(program: PathBuf) -> Result<Self> {
        let output = run(&program, &["--version"])?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = parse_version(&text)
            .with_context(|| format!("{} --version says {:?}", program.display(), text.trim()))?;
        Ok(Self { program, version })
    }

    /// What containerd makes of a configuration: all that is set, defaults included.
    pub(crate) fn dump(&self, view: &View) -> Result<toml::Table> {
        let folder = tempfile::tempdir().context("making a temporary folder")?;
        let root = view.place(folder.path())?;
        let path = root.to_str().context("the name of the temporary folder is not UTF-8")?;
        let output = run(&self.program, &["--config", path, "config", "dump"])?;
        let text = String::from_utf8(output.stdout).context("containerd's dump is not UTF-8")?;
        text.parse().context("reading containerd's dump of its configuration")
    }
}

impl View {
    /// Writes the files into a folder of their own.
    fn place(&self, folder: &Path) -> Result<PathBuf> {
        let mut imports = self.imports.0.clone();
        if let Some(text) = &self.drop_in {
            let file = folder.join(DROP_IN);
            fs::write(&file, text).context("writing a temporary file")?;
            imports.push(file.to_string_lossy().into_owned());
        }
        imports.extend_from_slice(&self.imports.1);
        let text = if imports.is_empty() && config::imports(&self.root)?.is_empty() {
            self.root.clone()
        } else {
            config::with_imports(&self.root, &imports)?
        };
        let root = folder.join("config.toml");
        fs::write(&root, text).context("writing a temporary file")?;
        Ok(root)
    }
}

fn run(program: &Path, arguments: &[&str]) -> Result<Output> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("running {}", program.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} {}: {}", program.display(), arguments.join(" "), said.trim());
    }
    Ok(output)
}

/// From `containerd github.com/containerd/containerd v2.1.9-k3s1 7ad184331fa3`: the first word that is a version.
fn parse_version(text: &str) -> Option<Version> {
    text.split_whitespace().find_map(|word| {
        let word = word.strip_prefix('v').unwrap_or(word);
        let core = word.split(['-', '+', '~']).next()?;
        let mut numbers = core.split('.').map(|number| number.parse().ok());
        let version = Version(numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(version)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_distributions_print() {
        let upstream = "containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7193e4\n";
        assert_eq!(parse_version(upstream), Some(Version(2, 1, 4)));
        let debian =
            "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u1\n";
        assert_eq!(parse_version(debian), Some(Version(1, 6, 20)));
        let k3s = "containerd github.com/k3s-io/containerd v1.7.23-k3s2 \n";
        assert_eq!(parse_version(k3s), Some(Version(1, 7, 23)));
        assert_eq!(parse_version("containerd unknown"), None);
    }
}
