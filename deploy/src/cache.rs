//! The cache of compiled code: `coracle run` uses it, `coracle cache` looks after it.

mod warm;

use std::fmt::Write as _;
use std::fs::File;
use std::io::Cursor;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, Result};
use coracle_engine::cache::{Bounds, Cache, Key, Place, Pruned, Scope};
use coracle_engine::config::Settings;
use sha2::{Digest, Sha256};

use crate::cli::{CacheCommand, PruneArgs};
use crate::compile;

/// Where this user's cache is; root's is the node's.
fn place() -> Result<Option<Place>> {
    let env = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let place = if rustix::process::geteuid().is_root() {
        Place::of_the_node(env).map(Some)
    } else {
        Place::of_a_user(env)
    };
    place.context("reading the environment")
}

/// The code of a module: from the cache, or compiled and kept there. A cache that cannot be used is
/// passed over.
pub(crate) fn code(bytes: &[u8], settings: &Settings) -> Result<File> {
    let opened = place()?.map(|place| Cache::open(&place)).transpose();
    let cache = opened.unwrap_or_else(|error| {
        tracing::warn!(%error, "no code cache");
        None
    });
    let Some(cache) = cache else { return compile::compile_to_memory(bytes, settings) };
    let key = Key::new(&Sha256::digest(bytes).into(), settings, Scope::Node);
    match cache.get(&key) {
        Ok(Some(image)) => return Ok(image),
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "code cache"),
    }
    let image = coracle_engine::compile::compile(bytes, settings)?;
    match keep(&cache, &key, &image) {
        Ok(file) => return Ok(file),
        Err(error) => tracing::warn!(%error, "code is not kept"),
    }
    compile::to_memory(&image)
}

/// Puts code into the cache and gives it back as it is there.
fn keep(cache: &Cache, key: &Key, image: &[u8]) -> Result<File> {
    let entry = cache.write(key, &mut Cursor::new(image))?;
    let file = entry.file()?;
    cache.publish(entry)?;
    Ok(file)
}

/// `coracle cache`.
pub(crate) fn cache(command: &CacheCommand) -> Result<ExitCode> {
    match command {
        CacheCommand::Ls => ls(&open()?.0),
        CacheCommand::Verify => verify(&open()?.0),
        CacheCommand::Prune(args) => prune(&open()?, args),
        CacheCommand::Stats => stats(&open()?),
        CacheCommand::Warm(args) => match warm::warm(args)? {},
    }
}

fn open() -> Result<(Cache, Place)> {
    let place = place()?.context("finding the cache: neither HOME nor CORACLE_CACHE_DIR is set")?;
    Ok((Cache::open(&place)?, place))
}

fn ls(cache: &Cache) -> Result<ExitCode> {
    let mut out = format!("{:<64}  {:>10}  {:>12}  {:>12}\n", "KEY", "SIZE", "MADE", "USED");
    for entry in cache.entries()? {
        let (made, used) = (ago(entry.made), ago(entry.used));
        writeln!(out, "{}  {:>10}  {made:>12}  {used:>12}", entry.key, size(entry.size))?;
    }
    print(&out)
}

fn verify(cache: &Cache) -> Result<ExitCode> {
    let (mut sound, mut damaged) = (0, 0);
    let mut out = String::new();
    for entry in cache.entries()? {
        match cache.verify(&entry.key)? {
            None => sound += 1,
            Some(fault) => {
                damaged += 1;
                writeln!(out, "removed {}: {fault}", entry.key)?;
                cache.remove(&entry.key)?;
            }
        }
    }
    writeln!(out, "{sound} sound, {damaged} damaged")?;
    print(&out)?;
    Ok(if damaged == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn prune((cache, place): &(Cache, Place), args: &PruneArgs) -> Result<ExitCode> {
    let bounds = if args.all {
        Bounds::NOTHING
    } else {
        Bounds {
            bytes: args.max_mib.map_or(place.bounds.bytes, |mib| mib.saturating_mul(1 << 20)),
            entries: args.max_entries.unwrap_or(place.bounds.entries),
        }
    };
    let Pruned { entries, bytes } = cache.prune(bounds)?;
    print(&format!("removed {entries} entries, {}\n", size(bytes)))
}

fn stats((cache, place): &(Cache, Place)) -> Result<ExitCode> {
    let entries = cache.entries()?;
    let bytes = entries.iter().map(|entry| entry.size).sum();
    let mut out = format!("folder   {}\n", place.dir.display());
    writeln!(out, "entries  {} of {}", entries.len(), place.bounds.entries)?;
    writeln!(out, "size     {} of {}", size(bytes), size(place.bounds.bytes))?;
    if let Some(oldest) = entries.first() {
        writeln!(out, "unused   for {} at most", ago(oldest.used))?;
    }
    print(&out)
}

/// Whoever reads may stop reading.
fn print(text: &str) -> Result<ExitCode> {
    use std::io::Write as _;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..0x2800 => format!("{bytes} B"),
        0x2800..0xa0_0000 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

/// How long ago something was, to one unit.
fn ago(time: SystemTime) -> String {
    let seconds = SystemTime::now().duration_since(time).unwrap_or_default().as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
