//! What is on this node: distribution, containerd, configuration. Reads, changes nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use toml::Table;

use crate::cli::NodeArgs;
use crate::compare;
use crate::config::{self, Entry, FormatVersion};
use crate::containerd::{Containerd, DROP_IN, Version};
use crate::distribution::{Distribution, Layout, Origin};
use crate::files;
use crate::live::Live;
use crate::plan::{Expectation, Want};
use crate::site::{Basis, Kind, Site, covered_folder};
use crate::units::Units;

/// containerd merges what it imports since this version; before, a plugin's whole table was replaced.
const MERGES: Version = Version(2, 0, 0);
/// CRI starts the shim from `runtime_path` since this version; 1.6.20 reads the setting, and looks into PATH all the same.
const HEEDS_PATH: Version = Version(1, 7, 0);
/// CRI leaves pulling to the transfer service since this version.
const TRANSFERS: Version = Version(2, 1, 0);

/// A containerd that runs answers within this time, also when it has just been started.
const ANSWERS: Duration = Duration::from_secs(10);

/// What is on this node.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The distribution.
    pub(crate) distribution: Distribution,
    /// Its containerd.
    pub(crate) containerd: Containerd,
    /// containerd's socket.
    pub(crate) socket: PathBuf,
    /// The unit that runs containerd.
    pub(crate) unit: Option<String>,
    /// Whether the unit runs.
    pub(crate) active: bool,
    /// Whether the distribution restarts containerd by itself.
    pub(crate) restarts_itself: bool,
    /// The file that our entries go into.
    pub(crate) site: Site,
    /// The configuration without our entries, as containerd understands it.
    pub(crate) baseline: Table,
    /// The containerd that runs; why not, when its unit runs and it does not answer.
    pub(crate) live: Option<Result<Live, String>>,
}

impl Survey {
    /// Looks at the node.
    pub(crate) fn take(args: &NodeArgs, units: &dyn Units) -> Result<Self> {
        let distribution = choose(args)?;
        let layout = distribution.layout();
        let containerd = Containerd::ask(program(&layout, args)?)?;
        let site = site(&layout, args, &containerd)?;
        let baseline = baseline(&site, &containerd, &args.handler)?;
        let socket = args.socket.clone().unwrap_or_else(|| {
            compare::socket(&baseline)
                .filter(|_| distribution == Distribution::Containerd)
                .unwrap_or_else(|| layout.socket.to_owned())
                .into()
        });
        let unit = unit(&layout, args, units);
        let active = unit.as_deref().is_some_and(|unit| units.is_active(unit));
        let live =
            active.then(|| Live::wait(&socket, ANSWERS).map_err(|error| format!("{error:#}")));
        let restarts_itself = matches!(layout.origin, Origin::Merged { .. });
        Ok(Self {
            distribution,
            containerd,
            socket,
            unit,
            active,
            restarts_itself,
            site,
            baseline,
            live,
        })
    }

    /// Plugins that have failed already.
    pub(crate) fn failed(&self) -> BTreeSet<String> {
        let live = self.live.as_ref().and_then(|live| live.as_ref().ok());
        live.map(|live| live.failed.clone()).unwrap_or_default()
    }

    /// What holds of containerd now, as far as it must hold again after something failed.
    pub(crate) fn as_it_is(&self, handler: &str, installed: Option<Entry>) -> Expectation {
        let live = self.live.as_ref().and_then(|live| live.as_ref().ok());
        let loaded = installed.filter(|entry| live.is_some_and(|live| live.fault(entry).is_none()));
        let absent = live.is_some_and(|live| live.handler(handler).is_none());
        Expectation {
            handler: handler.to_owned(),
            want: match loaded {
                Some(entry) => Want::Loaded(entry),
                None if absent => Want::Absent,
                None => Want::Anything,
            },
            failed: self.failed(),
            cri: live.is_some_and(|live| live.cri.is_ok()),
        }
    }

    /// Whether CRI of this containerd starts shims from `runtime_path`.
    pub(crate) fn heeds_runtime_path(&self) -> bool {
        self.containerd.version >= HEEDS_PATH
    }

    /// Whether CRI of this containerd leaves pulling to the transfer service.
    pub(crate) fn transfers(&self) -> bool {
        self.containerd.version >= TRANSFERS
    }
}

/// The distribution: the declared one, if it is there, else the one that is.
fn choose(args: &NodeArgs) -> Result<Distribution> {
    // Whoever says where containerd is says that there is one.
    let said = args.containerd.as_deref().is_some_and(Path::exists);
    let is_there = |distribution: &Distribution| {
        distribution.layout().signs.iter().any(|sign| Path::new(sign).exists())
            || (said && *distribution == Distribution::Containerd)
    };
    let found: Vec<_> = Distribution::ALL.into_iter().filter(is_there).collect();
    decide(args.distribution, &found)
}

fn decide(declared: Option<Distribution>, found: &[Distribution]) -> Result<Distribution> {
    let names = |list: &[Distribution]| {
        list.iter().map(|distribution| distribution.name()).collect::<Vec<_>>().join(", ")
    };
    if let Some(declared) = declared {
        if found.contains(&declared) {
            return Ok(declared);
        }
        let signs = declared.layout().signs.join(", ");
        let there = if found.is_empty() { "nothing else".to_owned() } else { names(found) };
        bail!(
            "this is said to be a node of {}, but there is none of {signs}; found is {there}. \
             Leave --distribution out, or say what is there",
            declared.name()
        );
    }
    let special: Vec<_> =
        found.iter().copied().filter(|found| *found != Distribution::Containerd).collect();
    match special.as_slice() {
        [one] => Ok(*one),
        [] if found.is_empty() => bail!(
            "no containerd found: neither a program of that name where distributions keep it, nor {}. \
             Say where it is with --containerd",
            names(&Distribution::ALL[..4])
        ),
        [] => Ok(Distribution::Containerd),
        several => bail!("this node has several: {}. Choose with --distribution", names(several)),
    }
}

fn program(layout: &Layout, args: &NodeArgs) -> Result<PathBuf> {
    if let Some(program) = &args.containerd {
        return Ok(program.clone());
    }
    let mut programs = layout.programs.iter().map(PathBuf::from);
    programs.find(|program| program.exists()).ok_or_else(|| {
        anyhow!(
            "containerd's program is not at {}. Say where it is with --containerd",
            layout.programs.join(", ")
        )
    })
}

fn unit(layout: &Layout, args: &NodeArgs, units: &dyn Units) -> Option<String> {
    if let Some(unit) = &args.unit {
        return Some(unit.clone());
    }
    let mut names = layout.units.iter().copied();
    let active = names.clone().find(|unit| units.is_active(unit));
    active.or_else(|| names.find(|unit| units.exists(unit))).map(str::to_owned)
}

fn read(path: &Path) -> Result<Option<String>> {
    let Some(bytes) = files::read(path)? else { return Ok(None) };
    let text = config::text(&bytes).with_context(|| format!("reading {}", path.display()))?;
    Ok(Some(text.to_owned()))
}

fn site(layout: &Layout, args: &NodeArgs, containerd: &Containerd) -> Result<Site> {
    match layout.origin {
        Origin::File { config } => {
            let path = args.config.clone().unwrap_or_else(|| config.into());
            plain_site(&path, read(&path)?, containerd, &args.handler)
        }
        Origin::Template { template } => {
            let path = PathBuf::from(template);
            let text = read(&path)?.with_context(|| format!("{template} is missing"))?;
            let version = version_of(&path, &text)?;
            Ok(Site { path, kind: Kind::Toml, version, text: Some(text), basis: Basis::Itself })
        }
        Origin::Rendered { folder } => rendered_site(Path::new(folder), containerd, &args.handler),
        Origin::Merged { folder, root, cri } => {
            let text = |path: &str| {
                read(Path::new(path))?.with_context(|| {
                    format!("{path} is missing: k0s writes it when it starts for the first time")
                })
            };
            let (root_text, cri_text) = (text(root)?, text(cri)?);
            let version = version_of(Path::new(cri), &cri_text)?;
            let cri_text = config::strip(&cri_text, &args.handler)?;
            let path = Path::new(folder).join(DROP_IN);
            let basis = Basis::Merged { root: root_text, cri: cri_text, cri_path: cri.to_owned() };
            Ok(Site { text: read(&path)?, path, kind: Kind::Toml, version, basis })
        }
    }
}

fn version_of(path: &Path, text: &str) -> Result<FormatVersion> {
    config::version(text).with_context(|| format!("reading {}", path.display()))
}

/// A root file, or a drop-in where it imports a folder and imports are merged.
fn plain_site(
    root: &Path,
    text: Option<String>,
    containerd: &Containerd,
    handler: &str,
) -> Result<Site> {
    let version = match &text {
        Some(text) => version_of(root, text)?,
        None => FormatVersion::native(containerd.version.0),
    };
    if let Some(text) = &text
        && let Some(path) = drop_in(root, text, containerd, handler)?
    {
        let basis = Basis::Imported { root: root.to_owned(), text: text.clone() };
        return Ok(Site { text: read(&path)?, path, kind: Kind::Toml, version, basis });
    }
    Ok(Site { path: root.to_owned(), kind: Kind::Toml, version, text, basis: Basis::Itself })
}

/// Where a drop-in of ours would be found, unless our entries are in the root file already.
fn drop_in(
    root: &Path,
    text: &str,
    containerd: &Containerd,
    handler: &str,
) -> Result<Option<PathBuf>> {
    if containerd.version < MERGES || config::strip(text, handler)? != text {
        return Ok(None);
    }
    let patterns = config::imports(text)?;
    let folder = patterns.iter().find_map(|pattern| covered_folder(root, pattern, DROP_IN));
    Ok(folder.map(|folder| folder.join(DROP_IN)))
}

/// k3s and RKE2: a drop-in where the rendered file imports a folder and imports are merged, else the template.
fn rendered_site(folder: &Path, containerd: &Containerd, handler: &str) -> Result<Site> {
    let rendered = folder.join("config.toml");
    let text = read(&rendered)?.with_context(|| {
        format!(
            "{} is missing: the distribution writes it when it starts for the first time",
            rendered.display()
        )
    })?;
    let version = version_of(&rendered, &text)?;
    let name = if version.number() < 3 { "config.toml.tmpl" } else { "config-v3.toml.tmpl" };
    let path = folder.join(name);
    let template = read(&path)?;
    let has_block = template.as_ref().is_some_and(|text| config::without_block(text) != *text);
    let base = config::without_block(&text);
    if !has_block && let Some(path) = drop_in(&rendered, &base, containerd, handler)? {
        let basis = Basis::Imported { root: rendered, text };
        return Ok(Site { text: read(&path)?, path, kind: Kind::Toml, version, basis });
    }
    let basis = Basis::Rendered { text };
    Ok(Site { path, kind: Kind::Template, version, text: template, basis })
}

/// The configuration without our entries. The present one must be sound, too: on a broken one nothing can be tried.
fn baseline(site: &Site, containerd: &Containerd, handler: &str) -> Result<Table> {
    let refused =
        || format!("containerd {} does not take its present configuration", containerd.version);
    let without = site.without(handler)?;
    if without != site.text {
        containerd.dump(&site.view(site.text.as_deref())?).with_context(refused)?;
    }
    containerd.dump(&site.view(without.as_deref())?).with_context(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Distribution::{Containerd as Plain, K0s, K3s};

    #[test]
    fn a_distribution_must_be_found() {
        assert_eq!(decide(None, &[K3s, Plain]).unwrap(), K3s);
        assert_eq!(decide(None, &[Plain]).unwrap(), Plain);
        assert_eq!(decide(Some(Plain), &[K3s, Plain]).unwrap(), Plain);
        let error = |declared, found: &[_]| decide(declared, found).unwrap_err().to_string();
        assert!(error(Some(K0s), &[K3s]).contains("found is k3s"));
        assert!(error(Some(K0s), &[]).contains("/var/lib/k0s/bin/containerd"));
        assert!(error(None, &[]).contains("--containerd"));
        assert!(error(None, &[K3s, K0s]).contains("Choose with --distribution"));
    }

    fn program(version: Version) -> Containerd {
        Containerd { program: "/usr/bin/containerd".into(), version }
    }

    #[test]
    fn drop_ins_are_for_those_who_merge_them() {
        let root = Path::new("/nowhere/config.toml");
        let text = "version = 2\nimports = [\"/nowhere/conf.d/*.toml\"]\n".to_owned();
        let path = |text: &str, version| {
            plain_site(root, Some(text.into()), &program(version), "wasm").unwrap().path
        };
        assert_eq!(path(&text, Version(1, 7, 24)), root);
        assert_eq!(path(&text, Version(2, 0, 0)), Path::new("/nowhere/conf.d/coracle.toml"));
        assert_eq!(path("version = 3\n", Version(2, 2, 0)), root);
        let entry = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.wasm]\nruntime_type = \
                     \"io.containerd.wasm.v1\"\n";
        assert_eq!(path(&(text + entry), Version(2, 0, 0)), root);
        assert!(plain_site(root, Some("version = 9".into()), &program(MERGES), "wasm").is_err());
        let site = plain_site(root, None, &program(Version(2, 3, 0)), "wasm").unwrap();
        assert_eq!((site.version.number(), site.text), (3, None));
    }

    #[test]
    fn rendered_files_choose_the_template() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        let site = |version| rendered_site(folder, &program(version), "wasm").unwrap();
        assert!(rendered_site(folder, &program(MERGES), "wasm").is_err());
        write("config.toml", "version = 2\n");
        assert_eq!(site(Version(1, 7, 0)).path, folder.join("config.toml.tmpl"));
        write("config.toml", "version = 3\n");
        assert_eq!(site(Version(2, 0, 0)).path, folder.join("config-v3.toml.tmpl"));
        write(
            "config.toml",
            &format!("version = 3\nimports = [\"{}/config-v3.toml.d/*.toml\"]\n", folder.display()),
        );
        assert_eq!(site(Version(2, 1, 0)).path, folder.join("config-v3.toml.d/coracle.toml"));
        write("config-v3.toml.tmpl", &format!("{BEGIN}\n{END}\n"));
        assert_eq!(site(Version(2, 1, 0)).path, folder.join("config-v3.toml.tmpl"));
    }

    use crate::config::{BEGIN, END};
}
