//! The file that our entries go into: its text with and without them, and the configuration that comes of either.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use glob::Pattern;

use crate::compare;
use crate::config::{self, BEGIN, END, Entry, FormatVersion};
use crate::containerd::View;

/// A template that was not there begins with the distribution's own.
const TEMPLATE: &str = "{{/* Written by `coracle install`; `coracle uninstall` removes it. */ -}}\n{{ template \"base\" . }}\n\n";

/// The file that our entries go into.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What kind of text it is.
    pub(crate) kind: Kind,
    /// The format's version of its tables.
    pub(crate) version: FormatVersion,
    /// Its text as it is; `None` when there is no file.
    pub(crate) text: Option<String>,
    /// How containerd's configuration comes of it.
    pub(crate) basis: Basis,
}

/// What kind of text a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// TOML.
    Toml,
    /// A template of TOML, which ends with a block of ours.
    Template,
}

/// How containerd's configuration comes of a file.
#[derive(Debug, Clone)]
pub(crate) enum Basis {
    /// It is the file.
    Itself,
    /// This one imports the file.
    Imported { root: PathBuf, text: String },
    /// It is rendered from the file, last into this text.
    Rendered { text: String },
    /// k0s joins the file with this one, which the root file imports from that path.
    Merged { root: String, cri: String, cri_path: String },
}

impl Site {
    /// The text without our entries; `None` when there was nothing else in the file.
    pub(crate) fn without(&self, handler: &str) -> Result<Option<String>> {
        let Some(text) = &self.text else { return Ok(None) };
        let rest = match self.kind {
            Kind::Template => config::without_block(text),
            Kind::Toml => config::strip(text, handler).with_context(|| self.reading())?,
        };
        let ours = match self.kind {
            Kind::Template => rest.trim() == TEMPLATE.trim(),
            Kind::Toml => rest != *text && config::is_bare(&rest)?,
        };
        Ok((!ours).then_some(rest))
    }

    /// The text with our entries put into this one.
    pub(crate) fn with(&self, original: Option<&str>, entry: &Entry) -> Result<String> {
        match (self.kind, original) {
            (Kind::Toml, None) => Ok(config::own_file(self.version, entry)),
            (Kind::Toml, Some(text)) => {
                config::add(text, self.version, entry).with_context(|| self.reading())
            }
            (Kind::Template, text) => {
                let mut out = text.unwrap_or(TEMPLATE).to_owned();
                if !out.ends_with('\n') {
                    out.push('\n');
                }
                Ok(out + &config::block(self.version, entry))
            }
        }
    }

    /// The configuration that containerd would find if this were the file's text.
    pub(crate) fn view(&self, text: Option<&str>) -> Result<View> {
        match &self.basis {
            Basis::Itself => {
                let root = text.map_or_else(|| self.empty(), str::to_owned);
                let folder = self.path.parent().unwrap_or(Path::new("/"));
                let imports = config::imports(&root).with_context(|| self.reading())?;
                let absolute = |file: &String| folder.join(file).to_string_lossy().into_owned();
                let imports = imports.iter().map(absolute).collect();
                Ok(View { root, drop_in: None, imports: (imports, Vec::new()) })
            }
            Basis::Imported { root, text: base } => {
                let imports = self.other_imports(root, base)?;
                Ok(View { root: base.clone(), drop_in: text.map(str::to_owned), imports })
            }
            Basis::Rendered { text: base } => {
                let mut root = config::without_block(base);
                let imports = config::imports(&root).with_context(|| self.reading())?;
                root += &text.map(only_block).unwrap_or_default();
                Ok(View { root, drop_in: None, imports: (imports, Vec::new()) })
            }
            Basis::Merged { root, cri, cri_path } => merged(root, cri, cri_path, text),
        }
    }

    /// What a configuration without a file is, nearly.
    fn empty(&self) -> String {
        format!("version = {}\n", self.version.number())
    }

    /// The files that the root file imports before ours and after it.
    fn other_imports(&self, root: &Path, base: &str) -> Result<(Vec<String>, Vec<String>)> {
        let folder = root.parent().unwrap_or(Path::new("/"));
        let (mut before, mut after, mut met) = (Vec::new(), Vec::new(), false);
        for pattern in config::imports(base)? {
            let pattern = folder.join(&pattern);
            let ours = covers(&pattern, &self.path);
            for file in expand(&pattern) {
                if file == self.path {
                    met = true;
                    continue;
                }
                met |= ours && file > self.path;
                let list = if met { &mut after } else { &mut before };
                list.push(file.to_string_lossy().into_owned());
            }
            met |= ours;
        }
        Ok((before, after))
    }

    fn reading(&self) -> String {
        format!("reading {}", self.path.display())
    }
}

/// The lines of our block in a template.
fn only_block(text: &str) -> String {
    let mut inside = false;
    let lines = text.split_inclusive('\n').filter(|line| {
        inside |= line.trim_end() == BEGIN;
        let keep = inside;
        inside &= line.trim_end() != END;
        keep
    });
    lines.collect()
}

fn merged(root: &str, cri: &str, cri_path: &str, text: Option<&str>) -> Result<View> {
    let mut table: toml::Table = cri.parse().with_context(|| format!("reading {cri_path}"))?;
    if let Some(text) = text {
        compare::overlay(&mut table, text.parse().context("reading our own configuration")?);
    }
    let others = config::imports(root)?.into_iter().filter(|file| file != cri_path).collect();
    let mut whole: toml::Table = root.parse().context("reading the root file")?;
    whole.remove("imports");
    compare::overlay(&mut whole, table);
    Ok(View { root: toml::to_string(&whole)?, drop_in: None, imports: (others, Vec::new()) })
}

/// The folder that a pattern of imports covers, if it is one that takes in a file of this name.
pub(crate) fn covered_folder(root: &Path, pattern: &str, name: &str) -> Option<PathBuf> {
    let pattern = root.parent().unwrap_or(Path::new("/")).join(pattern);
    let folder = pattern.parent()?;
    let file = folder.join(name);
    // containerd takes only stars for patterns.
    let plain = !folder.to_str()?.contains(['*', '?', '[']);
    (plain && pattern.to_str()?.contains('*') && covers(&pattern, &file)).then(|| folder.to_owned())
}

fn covers(pattern: &Path, file: &Path) -> bool {
    let options =
        glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
    let pattern = pattern.to_str().and_then(|pattern| Pattern::new(pattern).ok());
    pattern.is_some_and(|pattern| pattern.matches_path_with(file, options))
}

/// As containerd does it: what has no star need not exist.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    let Some(text) = pattern.to_str().filter(|text| text.contains('*')) else {
        return vec![pattern.to_owned()];
    };
    glob::glob(text).map(|files| files.filter_map(Result::ok).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            handler: "wasm".into(),
            runtime_type: crate::config::RUNTIME_TYPE.into(),
            runtime_path: "/opt/coracle/bin/containerd-shim-wasm-v1".into(),
            systemd_cgroup: false,
            options: toml::Table::new(),
            sandboxer: false,
            local_pull: false,
            defaults: toml::Table::new(),
        }
    }

    fn site(kind: Kind, basis: Basis, text: Option<&str>) -> Site {
        let version = config::version("version = 3").unwrap();
        let text = text.map(str::to_owned);
        Site { path: "/etc/containerd/conf.d/coracle.toml".into(), kind, version, text, basis }
    }

    /// Adding to a file and taking away again gives the file, and nothing where there was none.
    #[test]
    fn with_and_without_are_each_others_inverse() {
        let rendered = || Basis::Rendered { text: "version = 3\n".into() };
        let cases = [
            (Kind::Toml, Basis::Itself, None),
            (Kind::Toml, Basis::Itself, Some("version = 3 # mine\n[grpc]\n")),
            (Kind::Toml, Basis::Itself, Some("version = 3\n")),
            (Kind::Template, rendered(), None),
            (Kind::Template, rendered(), Some("{{ template \"base\" . }}\n")),
        ];
        for (kind, basis, text) in cases {
            let mut site = site(kind, basis, text);
            assert_eq!(site.without("wasm").unwrap().as_deref(), text);
            let with = site.with(text, &entry()).unwrap();
            site.text = Some(with.clone());
            assert_eq!(site.without("wasm").unwrap().as_deref(), text, "{with}");
        }
    }

    #[test]
    fn a_rendered_configuration_gets_the_block_of_the_template() {
        let base = "version = 3\n[grpc]\naddress = \"/x\"\n".to_owned();
        let site = site(Kind::Template, Basis::Rendered { text: base.clone() }, None);
        let with = site.with(None, &entry()).unwrap();
        let view = site.view(Some(&with)).unwrap();
        assert_eq!(view.root, format!("{base}{}", config::block(site.version, &entry())));
        assert_eq!(site.view(None).unwrap().root, base);
    }

    #[test]
    fn imports_stand_around_ours_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("config.toml");
        for name in ["a.toml", "coracle.toml", "z.toml"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let text = format!(
            "version = 3\nimports = [\"/first\", \"{}/*.toml\", \"last\"]\n",
            dir.path().display()
        );
        let mut site = site(Kind::Toml, Basis::Imported { root: root.clone(), text }, None);
        site.path = dir.path().join("coracle.toml");
        let view = site.view(Some("version = 3\n")).unwrap();
        let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        assert_eq!(view.imports.0, ["/first".to_owned(), at("a.toml")]);
        assert_eq!(view.imports.1, [at("z.toml"), at("last")]);
    }

    #[test]
    fn only_patterns_that_would_take_our_file_count() {
        let root = Path::new("/etc/containerd/config.toml");
        let folder = |pattern| covered_folder(root, pattern, "coracle.toml");
        assert_eq!(folder("/etc/containerd/conf.d/*.toml"), Some("/etc/containerd/conf.d".into()));
        assert_eq!(folder("conf.d/*"), Some("/etc/containerd/conf.d".into()));
        assert_eq!(folder("/etc/containerd/*/*.toml"), None);
        assert_eq!(folder("/etc/containerd/conf.d/*.conf"), None);
        assert_eq!(folder("/run/k0s/containerd-cri.toml"), None);
        assert_eq!(folder("/etc/containerd/conf.d/coracle.toml"), None);
    }

    #[test]
    fn k0s_merges_ours_into_its_own() {
        let cri = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"p\"\n";
        let root = "version = 2\nimports = [\"/run/k0s/containerd-cri.toml\", \"/x.toml\"]\n";
        let basis = Basis::Merged {
            root: root.into(),
            cri: cri.into(),
            cri_path: "/run/k0s/containerd-cri.toml".into(),
        };
        let mut site = site(Kind::Toml, basis, None);
        site.version = config::version(cri).unwrap();
        let view = site.view(Some(&site.with(None, &entry()).unwrap())).unwrap();
        assert_eq!(view.imports.0, ["/x.toml"]);
        let table: toml::Table = view.root.parse().unwrap();
        let plugin = &table["plugins"]["io.containerd.grpc.v1.cri"];
        assert_eq!(plugin["sandbox_image"].as_str(), Some("p"));
        assert_eq!(compare::missing(&table, &entry()).as_deref(), None);
    }
}
