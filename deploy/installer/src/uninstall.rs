//! Decides what taking an installation back has to do. The record says what was written; without it our entries and
//! programs are recognised.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::act::state_folders;
use crate::cli::UninstallArgs;
use crate::compare;
use crate::config;
use crate::files;
use crate::plan::{Expectation, Plan, Step, Want, diff};
use crate::programs::{self, SHIM};
use crate::record::{BACKUPS, ConfigFile, Installed, Pending, Record, STATE_DIR, Swap, strays};
use crate::survey::Survey;

/// The configuration file and what becomes of it.
struct Undo {
    path: PathBuf,
    now: Option<String>,
    to: Option<String>,
}

/// What containers have left, with and without an installation.
const CACHE: &str = "/var/lib/coracle/cache";

/// Plans to take an installation back.
///
/// `shims` are the containers whose shim runs from our program.
pub(crate) fn plan(
    args: &UninstallArgs,
    survey: Option<&Survey>,
    record: &Record,
    shims: &[String],
) -> Result<Plan> {
    if !shims.is_empty() && !args.force {
        bail!(
            "{}: {}. Remove their pods first, or use --force, which leaves the programs to them",
            if shims.len() == 1 { "a container still runs" } else { "containers still run" },
            shims.join(", ")
        );
    }
    let mut notes = Vec::new();
    let installed = record.installed.as_ref();
    let undo = undo(survey, installed, &args.node.handler, &mut notes)?;
    let undo = undo.filter(|undo| undo.now != undo.to);
    if let (Some(survey), Some(undo)) = (survey, &undo) {
        check(survey, undo, &args.node.handler)?;
    }
    let (unit, waits) = daemon(args, survey, undo.is_some(), &mut notes);
    let mut steps = Vec::new();
    let mut pending = Pending {
        act: "uninstall".into(),
        swaps: Vec::new(),
        links: Vec::new(),
        folders: Vec::new(),
        unit: unit.clone(),
    };
    let mut text = String::new();
    if let Some(undo) = &undo {
        text = diff(&undo.path.to_string_lossy(), undo.now.as_deref(), undo.to.as_deref());
        begin(undo, record, &mut pending, &mut steps);
    }
    steps.extend(unit.map(Step::Restart));
    if let (Some(survey), true) = (survey, waits) {
        steps.push(Step::Await(Expectation {
            handler: args.node.handler.clone(),
            want: Want::Absent,
            failed: survey.failed(),
            cri: survey.as_it_is(&args.node.handler, None).cri,
        }));
    }
    let programs_only = installed.map(|was| Installed { entry: None, config: None, ..was.clone() });
    let left = Record { installed: programs_only, ..Record::default() };
    if !pending.swaps.is_empty() {
        steps.push(Step::Record(Box::new(left)));
    }
    let revocable = steps.len();
    if shims.is_empty() {
        tidy(args, installed, undo.as_ref(), &mut steps);
        if !steps.is_empty() && Path::new(CACHE).exists() {
            notes.push(format!("compiled code stays in {CACHE}, and may be removed"));
        }
    } else {
        notes.push(format!(
            "the programs in {} stay for {}; `coracle uninstall` removes them when those have ended",
            args.node.bin_dir.display(),
            shims.join(", ")
        ));
    }
    let formerly = survey.map(|survey| {
        survey.as_it_is(&args.node.handler, installed.and_then(|was| was.entry.clone()))
    });
    Ok(Plan { steps, revocable, pending, previous: record.clone(), diff: text, notes, formerly })
}

/// What becomes of the configuration file.
fn undo(
    survey: Option<&Survey>,
    installed: Option<&Installed>,
    handler: &str,
    notes: &mut Vec<String>,
) -> Result<Option<Undo>> {
    if let Some(file) = installed.and_then(|installed| installed.config.as_ref())
        && let Some(undo) = recorded(file)?
    {
        return Ok(Some(undo));
    }
    let Some(survey) = survey else { return Ok(None) };
    let site = &survey.site;
    let undo = Undo { path: site.path.clone(), now: site.text.clone(), to: site.without(handler)? };
    if undo.now != undo.to {
        let why = if installed.is_none() {
            "there is no record of an installation"
        } else {
            "it was changed since"
        };
        notes.push(format!("{}: {why}; only our entries are removed", undo.path.display()));
    }
    Ok(Some(undo))
}

/// A file that is as we left it becomes what it was.
fn recorded(file: &ConfigFile) -> Result<Option<Undo>> {
    let Some(bytes) = files::read(&file.path)? else { return Ok(None) };
    if files::digest(&bytes) != file.after {
        return Ok(None);
    }
    let to = match &file.backup {
        None => None,
        Some(backup) => {
            let was = files::read(backup)?.filter(|was| Some(files::digest(was)) == file.before);
            let Some(was) = was else { return Ok(None) };
            Some(String::from_utf8(was).context("the backup is not UTF-8")?)
        }
    };
    Ok(Some(Undo { path: file.path.clone(), now: Some(config::text(&bytes)?.to_owned()), to }))
}

/// Has the node's own containerd read what the configuration becomes.
fn check(survey: &Survey, undo: &Undo, handler: &str) -> Result<()> {
    if undo.path != survey.site.path {
        return Ok(());
    }
    let after =
        survey.containerd.dump(&survey.site.view(undo.to.as_deref())?).with_context(|| {
            format!(
                "containerd {} does not take its configuration without our entries",
                survey.containerd.version
            )
        })?;
    if compare::runtime_type(&after, handler).is_some_and(config::is_our_type) {
        bail!(
            "the handler {handler} would still be there: something else than {} has it, too",
            undo.path.display()
        );
    }
    Ok(())
}

/// The unit to be restarted, and whether to wait for containerd.
fn daemon(
    args: &UninstallArgs,
    survey: Option<&Survey>,
    written: bool,
    notes: &mut Vec<String>,
) -> (Option<String>, bool) {
    let Some(survey) = survey else { return (None, false) };
    let loaded = match &survey.live {
        Some(Ok(live)) => live
            .handler(&args.node.handler)
            .is_some_and(|runtime| config::is_our_type(&runtime.kind)),
        Some(Err(_)) => true,
        None => false,
    };
    if !survey.active || !(written || loaded) {
        return (None, false);
    }
    if survey.restarts_itself {
        return (None, true);
    }
    if args.no_restart {
        notes.push("containerd is not restarted; the handler is gone after its next start".into());
        return (None, false);
    }
    (survey.unit.clone(), true)
}

/// The steps that change the configuration.
fn begin(undo: &Undo, record: &Record, pending: &mut Pending, steps: &mut Vec<Step>) {
    let now = undo.now.as_deref().unwrap_or_default();
    let digest = files::digest(now.as_bytes());
    let name = undo.path.file_name().unwrap_or_default().to_string_lossy();
    let short = digest.get(..12).unwrap_or_default();
    let folder = Path::new(STATE_DIR).join(BACKUPS);
    let backup = folder.join(format!("{name}.{short}"));
    steps.extend(files::missing_folders(&folder).into_iter().map(Step::Folder));
    steps.push(Step::Backup { path: backup.clone(), bytes: now.into() });
    pending.swaps.push(Swap {
        path: undo.path.clone(),
        from: Some(digest),
        to: undo.to.as_ref().map(|text| files::digest(text.as_bytes())),
        backup: Some(backup),
        config: true,
    });
    let under_way = Record { pending: Some(pending.clone()), ..record.clone() };
    steps.push(Step::Record(Box::new(under_way)));
    let bytes = undo.to.clone().map(String::into_bytes);
    steps.push(Step::Config { path: undo.path.clone(), bytes });
}

/// The steps that remove what nobody needs without the handler: links, programs, the state, folders.
fn tidy(
    args: &UninstallArgs,
    installed: Option<&Installed>,
    undo: Option<&Undo>,
    steps: &mut Vec<Step>,
) {
    let shim = args.node.bin_dir.join(SHIM);
    let links = installed.map(|was| was.links.clone()).unwrap_or_default();
    let is_ours = |link: &PathBuf| std::fs::read_link(link).is_ok_and(|target| target == shim);
    steps.extend(links.into_iter().filter(is_ours).map(Step::Remove));
    let recorded =
        installed.map(|was| was.programs.iter().map(|program| program.path.clone()).collect());
    let programs: Vec<_> =
        recorded.unwrap_or_else(|| programs::in_folder(&args.node.bin_dir).collect());
    for program in &programs {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let old = program.with_file_name(format!(".{name}.coracle-old"));
        let files = [program.clone(), files::draft(program), old];
        steps.extend(
            files.into_iter().filter(|file| file.symlink_metadata().is_ok()).map(Step::Remove),
        );
    }
    let made = installed.map(|was| was.folders.clone()).unwrap_or_default();
    steps.extend(made.into_iter().rev().map(Step::RemoveFolder));
    if installed.is_none() && args.node.bin_dir.exists() {
        steps.push(Step::RemoveFolder(args.node.bin_dir.clone()));
    }
    let planned = steps.iter().filter_map(|step| match step {
        Step::Backup { path, .. } => Some(path.clone()),
        _ => None,
    });
    let mut files: Vec<_> = planned.chain(strays(None)).collect();
    files.sort();
    files.dedup();
    steps.extend(files.into_iter().map(Step::Remove));
    // The record goes last: who comes after an interrupted uninstall needs it.
    if installed.is_some() || undo.is_some() {
        steps.push(Step::Record(Box::default()));
    }
    let mut folders = state_folders();
    folders.retain(|folder| undo.is_some() || is_only_ours(folder));
    steps.extend(folders.into_iter().map(Step::RemoveFolder));
}

/// Whether a folder of the state holds nothing but what an uninstall removes.
fn is_only_ours(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    let ours = |name: &std::ffi::OsStr| folder.starts_with(STATE_DIR) || name == "install";
    entries.flatten().all(|entry| ours(&entry.file_name()))
}
