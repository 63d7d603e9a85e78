//! Decides what an installation has to do.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cli::{InstallArgs, RuntimeOption};
use crate::compare;
use crate::config::{Entry, RUNTIME_TYPE};
use crate::files;
use crate::plan::{Expectation, Plan, Step, Want, diff};
use crate::programs::{SHIM, Source};
use crate::record::{
    BACKUPS, ConfigFile, Installed, Pending, Program, Record, STATE_DIR, Swap, strays,
};
use crate::survey::Survey;

/// The files of an installation as they are and as they shall be.
struct Draft {
    swaps: Vec<Swap>,
    /// The steps that write them, and those that keep what is overwritten.
    keep: Vec<Step>,
    write: Vec<Step>,
    folders: Vec<PathBuf>,
    links: Vec<PathBuf>,
    tidy: Vec<Step>,
    notes: Vec<String>,
    diff: String,
}

/// Plans an installation. Without a survey only programs are installed.
pub(crate) fn plan(
    args: &InstallArgs,
    survey: Option<&Survey>,
    record: &Record,
    sources: &[Source],
) -> Result<Plan> {
    let mut draft = Draft {
        swaps: Vec::new(),
        keep: Vec::new(),
        write: Vec::new(),
        folders: Vec::new(),
        links: Vec::new(),
        tidy: Vec::new(),
        notes: Vec::new(),
        diff: String::new(),
    };
    draft.add_folder(&args.node.bin_dir);
    for source in sources {
        draft.add_program(&args.node.bin_dir, source)?;
    }
    if let Some(folder) = &args.link {
        draft.add_link(folder, &args.node.bin_dir.join(SHIM))?;
    }
    let previous = record.installed.as_ref();
    let mut installed = Installed {
        distribution: survey.map_or("none", |survey| survey.distribution.name()).to_owned(),
        socket: survey.map(|survey| survey.socket.clone()),
        entry: None,
        config: None,
        programs: sources.iter().map(|source| program(args, source)).collect(),
        links: joined(previous.map(|was| &was.links), &draft.links),
        folders: Vec::new(),
    };
    let Some(survey) = survey else {
        if let Some(was) = previous {
            installed.config.clone_from(&was.config);
            installed.entry.clone_from(&was.entry);
            installed.distribution.clone_from(&was.distribution);
            installed.socket.clone_from(&was.socket);
        }
        return Ok(draft.into_plan(record, installed, None, Vec::new()));
    };
    let mut entry = entry(args, survey)?;
    installed.config = Some(draft.add_config(survey, record, &mut entry)?);
    installed.entry = Some(entry.clone());
    let (unit, waits) = draft.daemon(args, survey, &entry)?;
    let expectation = Expectation {
        handler: entry.handler.clone(),
        want: Want::Loaded(entry),
        failed: survey.failed(),
        cri: true,
    };
    let waits = waits.then_some(Step::Await(expectation));
    let after = unit.clone().map(Step::Restart).into_iter().chain(waits).collect();
    let mut plan = draft.into_plan(record, installed, unit, after);
    plan.formerly =
        Some(survey.as_it_is(&args.node.handler, previous.and_then(|was| was.entry.clone())));
    Ok(plan)
}

fn program(args: &InstallArgs, source: &Source) -> Program {
    Program { path: args.node.bin_dir.join(source.name), digest: source.digest.clone() }
}

fn joined(before: Option<&Vec<PathBuf>>, more: &[PathBuf]) -> Vec<PathBuf> {
    let mut all = before.cloned().unwrap_or_default();
    all.extend(
        more.iter().filter(|path| before.is_none_or(|before| !before.contains(path))).cloned(),
    );
    all
}

/// The handler that this node needs.
fn entry(args: &InstallArgs, survey: &Survey) -> Result<Entry> {
    let handler = &args.node.handler;
    let shim = args.node.bin_dir.join(SHIM);
    if compare::cri_disabled(&survey.baseline) {
        bail!(
            "containerd's configuration disables CRI, so no pod can run on this node. Enable it there; \
             for Docker alone use --programs-only with --link"
        );
    }
    if let Some(kind) = compare::runtime_type(&survey.baseline, handler) {
        bail!(
            "the handler {handler} is there already, for the runtime {kind}. Choose another name with --handler"
        );
    }
    if args.sandboxer && survey.containerd.version.0 < 2 {
        bail!("--sandboxer needs containerd 2, and this is {}", survey.containerd.version);
    }
    if args.local_pull && !survey.transfers() {
        bail!(
            "--local-pull is for containerd 2.1 and newer, and this is {}",
            survey.containerd.version
        );
    }
    let runtime_path = shim.to_str().context("--bin-dir is not UTF-8")?.to_owned();
    let kind = if survey.heeds_runtime_path() { RUNTIME_TYPE } else { &runtime_path };
    Ok(Entry {
        handler: handler.clone(),
        runtime_type: kind.to_owned(),
        runtime_path,
        systemd_cgroup: compare::node_uses_systemd(&survey.baseline),
        options: args
            .options
            .iter()
            .map(|option| (option.key.clone(), option.value.clone()))
            .collect(),
        sandboxer: args.sandboxer,
        local_pull: args.local_pull,
        defaults: toml::Table::new(),
    })
}

/// What was asked for when this node was installed.
pub(crate) fn again(args: &InstallArgs, record: &Record) -> Result<InstallArgs> {
    let entry = record.installed.as_ref().and_then(|installed| installed.entry.as_ref());
    let Some(entry) = entry else {
        bail!("nothing is recorded in {STATE_DIR}: install without --again");
    };
    let mut args = args.clone();
    args.node.handler.clone_from(&entry.handler);
    if let Some(folder) = Path::new(&entry.runtime_path).parent() {
        args.node.bin_dir = folder.to_owned();
    }
    let option = |(key, value): (&String, &toml::Value)| RuntimeOption {
        key: key.clone(),
        value: value.clone(),
    };
    args.options = entry.options.iter().map(option).collect();
    (args.sandboxer, args.local_pull) = (entry.sandboxer, entry.local_pull);
    Ok(args)
}

impl Draft {
    fn add_folder(&mut self, folder: &Path) {
        let missing = files::missing_folders(folder);
        self.folders
            .extend(missing.into_iter().filter(|folder| !Path::new(STATE_DIR).starts_with(folder)));
    }

    fn add_program(&mut self, folder: &Path, source: &Source) -> Result<()> {
        let path = folder.join(source.name);
        let kept = path.with_file_name(format!(".{}.coracle-old", source.name));
        self.leftover(&kept);
        self.leftover(&files::draft(&path));
        let from = files::digest_of(&path)?;
        if from.as_ref() == Some(&source.digest) {
            return Ok(());
        }
        let backup = from.is_some().then(|| kept.clone());
        if let Some(backup) = backup.clone() {
            self.write.push(Step::Keep { path: path.clone(), backup });
            self.tidy.push(Step::Remove(kept));
        }
        self.write.push(Step::Program { path: path.clone(), name: source.name });
        self.swaps.push(Swap {
            path,
            from,
            to: Some(source.digest.clone()),
            backup,
            config: false,
        });
        Ok(())
    }

    fn add_link(&mut self, folder: &Path, target: &Path) -> Result<()> {
        let path = folder.join(SHIM);
        match std::fs::read_link(&path) {
            Ok(there) if there == target => return Ok(()),
            _ if path.symlink_metadata().is_ok() => {
                bail!("{} is there already, and is no link to {}", path.display(), target.display())
            }
            _ => {}
        }
        self.add_folder(folder);
        self.write.push(Step::Link { path: path.clone(), target: target.to_owned() });
        self.links.push(path);
        Ok(())
    }

    fn add_config(
        &mut self,
        survey: &Survey,
        record: &Record,
        entry: &mut Entry,
    ) -> Result<ConfigFile> {
        let site = &survey.site;
        let now = site.text.as_deref();
        let original = original(survey, record, &entry.handler)?;
        let first = site.with(original.as_deref(), entry)?;
        entry.defaults = compare::lost_runtimes(&survey.baseline, &read(survey, &first)?);
        let new = site.with(original.as_deref(), entry)?;
        check(survey, &new, entry)?;
        let backup = original.as_ref().map(|text| backup_path(&site.path, text.as_bytes()));
        let file = ConfigFile {
            path: site.path.clone(),
            backup: backup.clone(),
            before: original.as_ref().map(|text| files::digest(text.as_bytes())),
            after: files::digest(new.as_bytes()),
        };
        self.leftover(&files::draft(&site.path));
        if let (Some(path), Some(text)) = (&backup, &original) {
            self.back_up(path, text)?;
        }
        if now == Some(&*new) {
            return Ok(file);
        }
        self.diff = diff(&site.path.to_string_lossy(), now, Some(&new));
        let kept = now.map(|text| backup_path(&site.path, text.as_bytes()));
        if let (Some(path), Some(text)) = (&kept, now) {
            self.back_up(path, text)?;
            if kept != backup {
                self.tidy.push(Step::Remove(path.clone()));
            }
        }
        if let Some(folder) = site.path.parent() {
            self.add_folder(folder);
        }
        self.swaps.push(Swap {
            path: site.path.clone(),
            from: now.map(|text| files::digest(text.as_bytes())),
            to: Some(file.after.clone()),
            backup: kept,
            config: true,
        });
        self.write.push(Step::Config { path: site.path.clone(), bytes: Some(new.into_bytes()) });
        Ok(file)
    }

    fn back_up(&mut self, path: &Path, text: &str) -> Result<()> {
        let there = files::read(path)?.is_some_and(|bytes| bytes == text.as_bytes());
        let planned =
            self.keep.iter().any(|step| matches!(step, Step::Backup { path: p, .. } if p == path));
        if !there && !planned {
            self.keep.push(Step::Backup { path: path.to_owned(), bytes: text.into() });
        }
        Ok(())
    }

    /// What an installer left that was killed after its work was done.
    fn leftover(&mut self, path: &Path) {
        if path.symlink_metadata().is_ok() {
            self.tidy.push(Step::Remove(path.to_owned()));
        }
    }

    /// The unit to be restarted, and whether to wait for containerd.
    fn daemon(
        &mut self,
        args: &InstallArgs,
        survey: &Survey,
        entry: &Entry,
    ) -> Result<(Option<String>, bool)> {
        let written = self.swaps.iter().any(|swap| swap.config);
        let loaded = match &survey.live {
            Some(Ok(live)) => live.fault(entry).is_none(),
            Some(Err(error)) => {
                bail!("containerd's unit runs, but it does not answer: {error}. Repair it first")
            }
            None => false,
        };
        if loaded && !written {
            return Ok((None, false));
        }
        if !survey.active {
            let unit = survey.unit.as_deref().unwrap_or("containerd");
            self.notes.push(format!("{unit} does not run; the handler is there after its start"));
            return Ok((None, false));
        }
        if survey.restarts_itself {
            return Ok((None, true));
        }
        if args.no_restart {
            self.notes.push(
                "containerd is not restarted; the handler is there after its next start".into(),
            );
            return Ok((None, false));
        }
        Ok((survey.unit.clone(), true))
    }

    fn into_plan(
        mut self,
        record: &Record,
        mut installed: Installed,
        unit: Option<String>,
        after: Vec<Step>,
    ) -> Plan {
        self.folders.dedup();
        let made = record.installed.as_ref().map(|was| &was.folders);
        installed.folders = joined(made, &self.folders);
        let backup = installed.config.as_ref().and_then(|config| config.backup.clone());
        let done = Record { installed: Some(installed), ..Record::default() };
        let pending = Pending {
            act: "install".into(),
            swaps: self.swaps,
            links: self.links,
            folders: self.folders,
            unit,
        };
        let changes = !pending.swaps.is_empty() || !pending.links.is_empty() || !after.is_empty();
        let recorded = done.installed == record.installed && self.keep.is_empty();
        let mut steps = Vec::new();
        if changes || !recorded {
            let state = Path::new(STATE_DIR).join(BACKUPS);
            steps.extend(files::missing_folders(&state).into_iter().map(Step::Folder));
            steps.append(&mut self.keep);
        }
        if changes {
            let under_way = Record { pending: Some(pending.clone()), ..record.clone() };
            steps.push(Step::Record(Box::new(under_way)));
            steps.extend(pending.folders.iter().cloned().map(Step::Folder));
            steps.append(&mut self.write);
            steps.extend(after);
        }
        if changes || !recorded {
            steps.push(Step::Record(Box::new(done)));
        }
        let revocable = steps.len();
        steps.append(&mut self.tidy);
        let tidied = |file: &PathBuf| {
            steps.iter().any(|step| matches!(step, Step::Remove(path) if path == file))
        };
        let strays: Vec<_> =
            strays(backup.as_deref()).into_iter().filter(|file| !tidied(file)).collect();
        steps.extend(strays.into_iter().map(Step::Remove));
        Plan {
            steps,
            revocable,
            pending,
            previous: record.clone(),
            diff: self.diff,
            notes: self.notes,
            formerly: None,
        }
    }
}

/// The file's text without our entries: byte for byte what it was, if nobody has changed the file since.
fn original(survey: &Survey, record: &Record, handler: &str) -> Result<Option<String>> {
    let site = &survey.site;
    let config = record.installed.as_ref().and_then(|installed| installed.config.as_ref());
    if let (Some(config), Some(text)) = (config, &site.text)
        && config.path == site.path
        && config.after == files::digest(text.as_bytes())
    {
        let Some(backup) = &config.backup else { return Ok(None) };
        let bytes =
            files::read(backup)?.filter(|bytes| Some(files::digest(bytes)) == config.before);
        if let Some(bytes) = bytes {
            return Ok(Some(String::from_utf8(bytes).context("the backup is not UTF-8")?));
        }
    }
    site.without(handler)
}

/// What the node's own containerd makes of a new text of the file.
fn read(survey: &Survey, text: &str) -> Result<toml::Table> {
    let version = survey.containerd.version;
    let refused = || format!("containerd {version} does not take the new configuration");
    survey.containerd.dump(&survey.site.view(Some(text))?).with_context(refused)
}

/// Has the node's own containerd read the new configuration: it must be the old one and our entries, nothing else.
fn check(survey: &Survey, new: &str, entry: &Entry) -> Result<()> {
    let after = read(survey, new)?;
    let foreign = compare::foreign(&survey.baseline, &after, entry);
    if !foreign.is_empty() {
        bail!(
            "with the handler, containerd {} would also understand these settings differently: {}",
            survey.containerd.version,
            foreign.join(", ")
        );
    }
    if let Some(fault) = compare::missing(&after, entry) {
        bail!(
            "containerd {} would not see the handler of {RUNTIME_TYPE}: {fault}",
            survey.containerd.version
        );
    }
    Ok(())
}

fn backup_path(path: &Path, bytes: &[u8]) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let digest = files::digest(bytes);
    let short = digest.get(..12).unwrap_or_default();
    Path::new(STATE_DIR).join(BACKUPS).join(format!("{name}.{short}"))
}
