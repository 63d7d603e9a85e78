//! `df`.

use crate::args::Options;
use crate::error::{Failure, reason};
use crate::host;
use crate::out::{Context, human};

/// A line of the mount table.
struct Mount {
    source: String,
    target: String,
    kind: String,
}

/// Prints the space of the container's file systems, or of those that hold the operands.
pub fn run(context: &mut Context, words: Vec<String>) -> Result<(), Failure> {
    let options = Options::parse(words, "hkmaTPi", &[])?;
    let table = std::fs::read("/proc/mounts").map_err(|error| {
        let reason = reason(&error);
        Failure::Told(format!(
            "cannot list mounts: /proc/mounts: {reason}; does the container mount /proc?"
        ))
    })?;
    let table = String::from_utf8_lossy(&table).into_owned();
    let mut mounts: Vec<Mount> = table.lines().filter_map(mount).collect();
    // Of several on one folder the last one is seen.
    mounts.reverse();
    let mut chosen: Vec<&Mount> = Vec::new();
    if options.operands.is_empty() {
        for mount in &mounts {
            if !chosen.iter().any(|other| other.target == mount.target) {
                chosen.push(mount);
            }
        }
        chosen.reverse();
    } else {
        for path in &options.operands {
            match holder(&mounts, path) {
                Ok(mount) => chosen.push(mount),
                Err(error) => context.fault(path, &error),
            }
        }
    }
    if chosen.is_empty() {
        return Ok(());
    }
    let line = head(&options);
    context.line(line)?;
    for mount in chosen {
        match host::statfs(&mount.target) {
            Ok(space) => {
                if space.blocks != 0 || options.has('a') || !options.operands.is_empty() {
                    let line = row(context, &options, mount, &space);
                    context.line(line)?;
                }
            }
            Err(error) => context.fault(&mount.target, &error),
        }
    }
    Ok(())
}

/// The mount that holds a path: of those on a folder above it, the longest. Symbolic links are followed.
fn holder<'m>(mounts: &'m [Mount], path: &str) -> std::io::Result<&'m Mount> {
    host::stat(path, true)?;
    let mut whole = std::fs::canonicalize(path).map_or_else(
        |_| if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
        |path| path.to_string_lossy().into_owned(),
    );
    if !whole.starts_with('/') {
        whole.insert(0, '/');
    }
    let holds = |mount: &&Mount| {
        let target = mount.target.trim_end_matches('/');
        whole.strip_prefix(target).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    // The first of equal length is the one that is seen: the list begins with the last mount.
    let mut best: Option<&Mount> = None;
    for mount in mounts.iter().filter(holds) {
        if best.is_none_or(|best| mount.target.len() > best.target.len()) {
            best = Some(mount);
        }
    }
    best.ok_or_else(|| std::io::ErrorKind::NotFound.into())
}

fn mount(line: &str) -> Option<Mount> {
    let mut fields = line.split(' ');
    let mut next = || fields.next().map(unescape);
    Some(Mount { source: next()?, target: next()?, kind: next()? })
}

/// The kernel writes white space and backslashes as `\040` and the like.
fn unescape(field: &str) -> String {
    let bytes = field.as_bytes();
    let (mut out, mut n) = (Vec::new(), 0);
    while n < bytes.len() {
        let code = field.get(n + 1..n + 4).filter(|_| bytes[n] == b'\\');
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                n += 4;
            }
            None => {
                out.push(bytes[n]);
                n += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn head(options: &Options) -> String {
    let kind = if options.has('T') { "Type       " } else { "" };
    if options.has('i') {
        return format!(
            "{:<20} {kind}{:>10} {:>9} {:>9} IUse% Mounted on",
            "Filesystem", "Inodes", "Used", "Available"
        );
    }
    let unit = if options.has('h') {
        "Size"
    } else if options.has('m') {
        "1M-blocks"
    } else {
        "1K-blocks"
    };
    format!(
        "{:<20} {kind}{unit:>10} {:>9} {:>9} Use% Mounted on",
        "Filesystem", "Used", "Available"
    )
}

fn row(context: &Context, options: &Options, mount: &Mount, space: &host::StatFs) -> String {
    let shown = |bytes: u64| {
        if options.has('h') {
            human(bytes)
        } else {
            bytes.div_ceil(if options.has('m') { 1 << 20 } else { 1 << 10 }).to_string()
        }
    };
    let (all, used, available) = if options.has('i') {
        let used = space.files.saturating_sub(space.files_free);
        (space.files.to_string(), used, space.files_free)
    } else {
        let bytes = |blocks: u64| blocks.saturating_mul(space.block);
        let used = bytes(space.blocks.saturating_sub(space.free));
        (shown(bytes(space.blocks)), used, bytes(space.available))
    };
    let both = used.saturating_add(available);
    let percent = if both == 0 { 0 } else { (u128::from(used) * 100).div_ceil(u128::from(both)) };
    let text = |amount: u64| if options.has('i') { amount.to_string() } else { shown(amount) };
    let kind = if options.has('T') {
        format!("{:<10} ", context.shown(&mount.kind))
    } else {
        String::new()
    };
    format!(
        "{:<20} {kind}{all:>10} {:>9} {:>9} {percent:>3}% {}",
        context.shown(&mount.source),
        text(used),
        text(available),
        context.shown(&mount.target),
    )
}
