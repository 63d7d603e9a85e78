//! `ls`.

use std::collections::BTreeSet;
use std::io;

use crate::args::Options;
use crate::error::Failure;
use crate::host::{self, Stat};
use crate::out::{Context, human};
use crate::passwd::Names;
use crate::time;

const TYPE: u32 = 0o170_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const CHARACTERS: u32 = 0o020_000;
const BLOCKS: u32 = 0o060_000;
const PIPE: u32 = 0o010_000;
const SOCKET: u32 = 0o140_000;
/// Columns of a terminal; WASI does not tell how many it has.
const WIDTH: usize = 80;

struct Entry {
    name: String,
    stat: Stat,
    /// Where a symbolic link leads.
    target: Option<String>,
}

struct Lister {
    options: Options,
    users: Names,
    groups: Names,
    now: i64,
}

/// Lists folders and files.
pub fn run(context: &mut Context, words: Vec<String>) -> Result<(), Failure> {
    let options = Options::parse(words, "1aAdFhilnrRSt", &[])?;
    let long = options.has('l') || options.has('n');
    let names = long && !options.has('n');
    let users = if names { Names::users() } else { Names::none() };
    let groups = if names { Names::groups() } else { Names::none() };
    let mut paths = options.operands.clone();
    if paths.is_empty() {
        paths.push(".".to_owned());
    }
    let lister = Lister { options, users, groups, now: time::now() };
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    let several = paths.len() > 1;
    for path in paths {
        // A link that leads to a folder is listed as that folder, unless the link itself is wanted.
        let follow = !long && !lister.options.has('d');
        match lister.entry(&path, &path, follow) {
            Ok(entry) if entry.stat.mode & TYPE == FOLDER && !lister.options.has('d') => {
                folders.push(path)
            }
            Ok(entry) => files.push(entry),
            Err(error) => context.fault(&path, &error),
        }
    }
    let mut between = !files.is_empty();
    lister.print(context, files, false)?;
    let headed = several || lister.options.has('R');
    for folder in folders {
        lister.folder(context, &folder, headed, &mut between, 0)?;
    }
    Ok(())
}

impl Lister {
    fn entry(&self, path: &str, name: &str, follow: bool) -> io::Result<Entry> {
        let stat = match host::stat(path, follow) {
            // A link that leads nowhere is still there.
            Err(_) if follow => host::stat(path, false)?,
            stat => stat?,
        };
        let target = (stat.mode & TYPE == LINK).then(|| std::fs::read_link(path).ok()).flatten();
        let target = target.map(|target| target.to_string_lossy().into_owned());
        Ok(Entry { name: name.to_owned(), stat, target })
    }

    fn folder(
        &self,
        context: &mut Context,
        path: &str,
        headed: bool,
        between: &mut bool,
        depth: usize,
    ) -> Result<(), Failure> {
        let names = match names(path) {
            Ok(names) => names,
            Err(error) => {
                context.fault(path, &error);
                return Ok(());
            }
        };
        if std::mem::replace(between, true) && headed {
            context.line("")?;
        }
        if headed {
            let line = format!("{}:", context.shown(path));
            context.line(line)?;
        }
        let (all, almost) = (self.options.has('a'), self.options.has('A'));
        let mut entries = Vec::new();
        let dots = [".", ".."].iter().filter(|_| all).map(|name| (*name).to_owned());
        let named = names.into_iter().filter(|name| all || almost || !name.starts_with('.'));
        for name in dots.chain(named) {
            let inside = format!("{}/{name}", path.trim_end_matches('/'));
            if self.needs_stat() {
                match self.entry(&inside, &name, false) {
                    Ok(entry) => entries.push(entry),
                    Err(error) => context.fault(&inside, &error),
                }
            } else {
                entries.push(Entry { name, stat: Stat::default(), target: None });
            }
        }
        let below = self.below(path, &entries);
        self.print(context, entries, true)?;
        // As deep as a path may be long.
        if depth < 2048 {
            for folder in below {
                self.folder(context, &folder, headed, between, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Whether names alone do not do.
    fn needs_stat(&self) -> bool {
        "ltSFinR".chars().any(|letter| self.options.has(letter))
    }

    /// The folders in a folder, when all of them are to be listed.
    fn below(&self, path: &str, entries: &[Entry]) -> Vec<String> {
        if !self.options.has('R') {
            return Vec::new();
        }
        let is_folder = |entry: &&Entry| {
            entry.stat.mode & TYPE == FOLDER && entry.name != "." && entry.name != ".."
        };
        let mut folders: Vec<String> = entries
            .iter()
            .filter(is_folder)
            .map(|entry| format!("{}/{}", path.trim_end_matches('/'), entry.name))
            .collect();
        folders.sort();
        folders
    }

    fn print(
        &self,
        context: &mut Context,
        mut entries: Vec<Entry>,
        total: bool,
    ) -> Result<(), Failure> {
        let by = |letter| self.options.has(letter);
        entries.sort_by(|one, other| {
            let moment = |entry: &Entry| (entry.stat.modified, entry.stat.modified_nanos);
            let first = if by('S') {
                other.stat.size.cmp(&one.stat.size)
            } else if by('t') {
                moment(other).cmp(&moment(one))
            } else {
                std::cmp::Ordering::Equal
            };
            first.then_with(|| one.name.cmp(&other.name))
        });
        if by('r') {
            entries.reverse();
        }
        if by('l') || by('n') {
            if total {
                let blocks: u64 = entries.iter().map(|entry| entry.stat.blocks).sum();
                let size = if by('h') { human(blocks * 512) } else { (blocks / 2).to_string() };
                context.line(format_args!("total {size}"))?;
            }
            for entry in &entries {
                let line = self.long(context, entry);
                context.line(line)?;
            }
            return Ok(());
        }
        let cells: Vec<String> = entries.iter().map(|entry| self.cell(context, entry)).collect();
        if context.terminal && !by('1') {
            return columns(context, &cells);
        }
        cells.iter().try_for_each(|cell| context.line(cell))
    }

    /// The inode's number, if it is wanted, the name, and what stands for its type.
    fn cell(&self, context: &Context, entry: &Entry) -> String {
        let inode =
            if self.options.has('i') { format!("{:>7} ", entry.stat.inode) } else { String::new() };
        let mark = match entry.stat.mode & TYPE {
            _ if !self.options.has('F') => "",
            FOLDER => "/",
            LINK => "@",
            PIPE => "|",
            SOCKET => "=",
            _ if entry.stat.mode & 0o111 != 0 => "*",
            _ => "",
        };
        format!("{inode}{}{mark}", context.shown(&entry.name))
    }

    fn long(&self, context: &Context, entry: &Entry) -> String {
        let stat = &entry.stat;
        let size = match stat.mode & TYPE {
            CHARACTERS | BLOCKS => format!("{:>4},{:>4}", stat.major, stat.minor),
            _ if self.options.has('h') => format!("{:>9}", human(stat.size)),
            _ => format!("{:>9}", stat.size),
        };
        let mut line = format!(
            "{} {:>4} {:<8} {:<8} {size} {} {}",
            mode(stat.mode),
            stat.links,
            context.shown(&self.users.get(stat.uid)),
            context.shown(&self.groups.get(stat.gid)),
            time::short(stat.modified, self.now),
            self.cell(context, entry),
        );
        if let Some(target) = &entry.target {
            line += " -> ";
            line += &context.shown(target);
        }
        line
    }
}

/// The names in a folder, without `.` and `..`.
fn names(path: &str) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(path)? {
        names.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// `drwxr-xr-x`.
fn mode(mode: u32) -> String {
    let kind = match mode & TYPE {
        FOLDER => 'd',
        LINK => 'l',
        CHARACTERS => 'c',
        BLOCKS => 'b',
        PIPE => 'p',
        SOCKET => 's',
        _ => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, set) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => set.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Prints cells in as many columns as there is room for, downwards.
fn columns(context: &mut Context, cells: &[String]) -> Result<(), Failure> {
    let width = cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0) + 2;
    let columns = (WIDTH / width).max(1);
    let rows = cells.len().div_ceil(columns);
    for row in 0..rows {
        let mut line = String::new();
        for cell in cells.iter().skip(row).step_by(rows) {
            line += &format!("{cell:<width$}");
        }
        context.line(line.trim_end())?;
    }
    Ok(())
}
