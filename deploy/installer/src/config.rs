//! containerd's configuration files: what is read out of them, and our entries in them. Text in, text out; no file is
//! touched here. Everything is decided by parsing; comments and layout of others stay as they are.

mod merge;

use serde::{Deserialize, Serialize};
use toml_edit::{DocumentMut, Item, Table, TableLike};

pub(crate) use merge::merge;

/// The runtime's name, from which containerd derives the shim's (`containerd-shim-wasm-v1`).
pub(crate) const RUNTIME_TYPE: &str = "io.containerd.wasm.v1";

/// Whether a handler's type is our runtime's.
pub(crate) fn is_our_type(kind: &str) -> bool {
    kind == RUNTIME_TYPE || (kind.starts_with('/') && kind.ends_with("/containerd-shim-wasm-v1"))
}

/// Annotations that reach our shim: its own, and those by which images and pods of other runtimes tell themselves. A star
/// matches no slash.
pub(crate) const ANNOTATIONS: [&str; 5] =
    ["coracle.dev/*", "module.wasm.image/*", "run.oci.handler", "*.wasm.*", "wasm.*"];

/// First line above what we write; also how a template's block begins.
pub(crate) const BEGIN: &str =
    "# BEGIN coracle: written by `coracle install`, removed by `coracle uninstall`";
/// Last line of a template's block.
pub(crate) const END: &str = "# END coracle";
/// Above tables and keys that we put into somebody else's file.
const NOTE: &str = "# Written by `coracle install`; `coracle uninstall` removes it.";
/// Above a handler that is containerd's own.
const DEFAULT_NOTE: &str = "# containerd's default, which goes when any handler is named.";

/// CRI's part of the configuration, in the versions of the format.
const CRI_V1: &str = "cri";
const CRI_V2: &str = "io.containerd.grpc.v1.cri";
const CRI_V3: &str = "io.containerd.cri.v1.runtime";
/// CRI's images, from version 3 on.
const IMAGES_V3: &str = "io.containerd.cri.v1.images";
const PULL_KEY: &str = "use_local_image_pull";

/// Why a text is no configuration that we can work with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The text is no TOML. The source says line and column.
    #[error("it cannot be parsed: {0}")]
    Syntax(#[from] toml_edit::TomlError),
    /// A version of the format that we do not know.
    #[error("its version is {0}; known are 1 to 4")]
    Version(String),
    /// The bytes are no text.
    #[error("it is not UTF-8")]
    NoText,
}

/// Version of the configuration format, 1 to 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FormatVersion(u8);

impl FormatVersion {
    /// What a containerd of this major version has by default.
    pub(crate) fn native(major: u64) -> Self {
        Self(if major < 2 { 2 } else { 3 })
    }

    /// The key of CRI's table below `plugins`.
    fn cri(self) -> &'static str {
        match self.0 {
            1 => CRI_V1,
            2 => CRI_V2,
            _ => CRI_V3,
        }
    }

    /// The key below `plugins` of the table that has [`PULL_KEY`].
    fn images(self) -> &'static str {
        if self.0 < 3 { self.cri() } else { IMAGES_V3 }
    }

    /// The number.
    pub(crate) fn number(self) -> u8 {
        self.0
    }
}

/// The runtime option that says who makes control groups.
pub(crate) const SYSTEMD_CGROUP: &str = "SystemdCgroup";

/// A runtime handler of ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its name, as a RuntimeClass names it.
    pub(crate) handler: String,
    /// [`RUNTIME_TYPE`], or the shim's path for a containerd that does not heed `runtime_path`.
    pub(crate) runtime_type: String,
    /// The shim's program.
    pub(crate) runtime_path: String,
    /// Whether groups of containers are systemd's units.
    pub(crate) systemd_cgroup: bool,
    /// Further runtime options, which the shim reads.
    #[serde(default)]
    pub(crate) options: toml::Table,
    /// Whether the shim makes the pods' sandboxes.
    pub(crate) sandboxer: bool,
    /// Whether CRI's own client pulls images, which the transfer service only does for the node's platform.
    pub(crate) local_pull: bool,
    /// Handlers that containerd has by default, and would not have any more beside one that is named.
    #[serde(default)]
    pub(crate) defaults: toml::Table,
}

impl Entry {
    /// What the handler's table of options holds.
    pub(crate) fn all_options(&self) -> toml::Table {
        let mut options = self.options.clone();
        if self.systemd_cgroup {
            options.insert(SYSTEMD_CGROUP.to_owned(), toml::Value::Boolean(true));
        }
        options
    }
}

/// Text of a file.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, ConfigError> {
    std::str::from_utf8(bytes).map_err(|_| ConfigError::NoText)
}

/// The version that a configuration says it has; the first versions did not say.
pub(crate) fn version(text: &str) -> Result<FormatVersion, ConfigError> {
    let doc: DocumentMut = text.parse()?;
    let Some(item) = doc.get("version") else { return Ok(FormatVersion(1)) };
    match item.as_integer() {
        Some(0 | 1) => Ok(FormatVersion(1)),
        Some(2) => Ok(FormatVersion(2)),
        Some(3) => Ok(FormatVersion(3)),
        Some(4) => Ok(FormatVersion(4)),
        _ => Err(ConfigError::Version(item.to_string().trim().to_owned())),
    }
}

/// The files that a configuration imports, as it names them.
pub(crate) fn imports(text: &str) -> Result<Vec<String>, ConfigError> {
    let doc: DocumentMut = text.parse()?;
    let list = doc.get("imports").and_then(Item::as_array);
    Ok(list.into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect())
}

/// The same configuration importing these files.
pub(crate) fn with_imports(text: &str, files: &[String]) -> Result<String, ConfigError> {
    let mut doc: DocumentMut = text.parse()?;
    doc.insert("imports", toml_edit::value(files.iter().collect::<toml_edit::Array>()));
    Ok(doc.to_string())
}

/// Our entries as a text of their own, without the version.
pub(crate) fn tables(version: FormatVersion, entry: &Entry) -> String {
    let quoted = |text: &str| toml_edit::Value::from(text).to_string().trim().to_owned();
    let prefix = |key: &str| format!("plugins.{}", quoted(key));
    let list = ANNOTATIONS.map(quoted).join(", ");
    let runtime = format!("{}.containerd.runtimes.{}", prefix(version.cri()), entry.handler);
    let mut out = format!(
        "[{runtime}]\n  runtime_type = {}\n  runtime_path = {}\n  pod_annotations = [{list}]\n  \
         container_annotations = [{list}]\n",
        quoted(&entry.runtime_type),
        quoted(&entry.runtime_path),
    );
    if entry.sandboxer {
        out += "  sandboxer = \"shim\"\n";
    }
    let options = entry.all_options();
    if !options.is_empty() {
        out += &format!("\n[{runtime}.options]\n");
        for (key, value) in options {
            out += &format!("  {key} = {value}\n");
        }
    }
    for (handler, table) in &entry.defaults {
        out += &format!("\n{NOTE}\n{DEFAULT_NOTE}\n");
        out += &nested(&["plugins", version.cri(), "containerd", "runtimes", handler], table);
    }
    if entry.local_pull {
        let images = prefix(version.images());
        out += &format!("\n[{images}]\n  {NOTE}\n  {PULL_KEY} = true\n");
    }
    out
}

/// A table below these keys, as text.
fn nested(path: &[&str], value: &toml::Value) -> String {
    let whole = path.iter().rev().fold(value.clone(), |value, key| {
        toml::Value::Table([((*key).to_owned(), value)].into_iter().collect())
    });
    whole.as_table().map(toml::Table::to_string).unwrap_or_default()
}

/// A whole configuration file that holds nothing but our entries.
pub(crate) fn own_file(version: FormatVersion, entry: &Entry) -> String {
    format!("{NOTE}\nversion = {}\n\n{}", version.number(), tables(version, entry))
}

/// Our entries as a block that a template of a configuration ends with.
pub(crate) fn block(version: FormatVersion, entry: &Entry) -> String {
    format!("{BEGIN}\n{}{END}\n", tables(version, entry))
}

/// A template without our block.
pub(crate) fn without_block(text: &str) -> String {
    let mut inside = false;
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        match line.trim_end() {
            BEGIN => inside = true,
            END if inside => inside = false,
            _ if !inside => out += line,
            _ => {}
        }
    }
    out
}

/// The configuration with our entries put in.
pub(crate) fn add(
    text: &str,
    version: FormatVersion,
    entry: &Entry,
) -> Result<String, ConfigError> {
    let mut doc: DocumentMut = text.parse()?;
    let ours: DocumentMut = format!("\n{NOTE}\n{}", tables(version, entry)).parse()?;
    merge(doc.as_table_mut(), ours.into_table());
    let mut out = doc.to_string();
    if !out.ends_with('\n') {
        out.push('\n');
    }
    Ok(out)
}

/// The configuration without our entries: the handler, if it is of our runtime, and what bears our note.
pub(crate) fn strip(text: &str, handler: &str) -> Result<String, ConfigError> {
    let mut doc: DocumentMut = text.parse()?;
    let mut touched = false;
    for key in [CRI_V1, CRI_V2, CRI_V3] {
        let path = ["plugins", key, "containerd", "runtimes"];
        let Some(runtimes) = at_mut(doc.as_table_mut(), &path) else { continue };
        let ours =
            |item: &Item| item.get("runtime_type").and_then(Item::as_str).is_some_and(is_our_type);
        if runtimes.get(handler).is_some_and(ours) {
            runtimes.remove(handler);
            touched = true;
        }
        let repeated = |item: &Item| {
            let above = item.as_table().and_then(|table| table.decor().prefix());
            above.and_then(|raw| raw.as_str()).is_some_and(|comment| comment.contains(NOTE))
        };
        let repeated: Vec<_> = runtimes
            .iter()
            .filter(|(_, item)| repeated(item))
            .map(|(name, _)| name.to_owned())
            .collect();
        for name in repeated {
            runtimes.remove(&name);
            touched = true;
        }
    }
    for key in [CRI_V1, CRI_V2, IMAGES_V3] {
        touched |= strip_pull(doc.as_table_mut(), key);
    }
    Ok(if touched { doc.to_string() } else { text.to_owned() })
}

/// Removes the key about pulling when we put it there, and its table when nothing else was in it.
fn strip_pull(doc: &mut Table, plugin: &str) -> bool {
    let Some(plugins) = at_mut(doc, &["plugins"]) else { return false };
    let Some(table) = plugins.get_mut(plugin).and_then(Item::as_table_like_mut) else {
        return false;
    };
    let above = table.key(PULL_KEY).and_then(|key| key.leaf_decor().prefix());
    if !above.and_then(|raw| raw.as_str()).is_some_and(|comment| comment.contains(NOTE)) {
        return false;
    }
    table.remove(PULL_KEY);
    if table.is_empty() {
        plugins.remove(plugin);
    }
    true
}

/// Whether nothing is left of a file that we made.
pub(crate) fn is_bare(text: &str) -> Result<bool, ConfigError> {
    let doc: DocumentMut = text.parse()?;
    Ok(text.starts_with(NOTE) && doc.iter().all(|(key, item)| key == "version" || is_hollow(item)))
}

/// Whether an item holds nothing but tables that hold nothing.
fn is_hollow(item: &Item) -> bool {
    item.as_table_like().is_some_and(|table| table.iter().all(|(_, item)| is_hollow(item)))
}

fn at_mut<'a>(table: &'a mut dyn TableLike, path: &[&str]) -> Option<&'a mut dyn TableLike> {
    path.iter().try_fold(table, |table, key| table.get_mut(key)?.as_table_like_mut())
}

#[cfg(test)]
mod tests;
