//! Bounds: what was not used for the longest time goes first.

use std::time::{Duration, SystemTime};

use rustix::fs::AtFlags;

use super::publish::TEMPORARY;
use super::{Cache, CacheError, Entry, Key, names};

/// An entry under way that is older than this was left behind.
const ABANDONED: Duration = Duration::from_secs(600);

/// How much a cache keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of all entries together.
    pub bytes: u64,
    /// Number of entries.
    pub entries: usize,
}

impl Default for Bounds {
    /// 2 GiB in 4,096 entries.
    fn default() -> Bounds {
        Bounds { bytes: 2 << 30, entries: 4096 }
    }
}

impl Bounds {
    /// Nothing at all.
    pub const NOTHING: Bounds = Bounds { bytes: 0, entries: 0 };
}

/// What pruning has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Entries.
    pub entries: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Cache {
    /// Removes what is beyond the bounds given, and what was left behind.
    ///
    /// # Errors
    /// When the folder cannot be read or an entry cannot be removed.
    pub fn prune(&self, bounds: Bounds) -> Result<Pruned, CacheError> {
        self.remove_abandoned()?;
        self.shrink(bounds, None)
    }

    /// The same by the cache's own bounds, but never the entry of `kept`.
    pub(super) fn prune_but(&self, kept: Option<&Key>) -> Result<Pruned, CacheError> {
        self.remove_abandoned()?;
        self.shrink(self.bounds, kept)
    }

    fn shrink(&self, bounds: Bounds, kept: Option<&Key>) -> Result<Pruned, CacheError> {
        let entries = self.entries()?;
        let mut bytes: u64 = entries.iter().map(|entry| entry.size).sum();
        let mut count = entries.len();
        let mut pruned = Pruned::default();
        let candidates = entries.iter().filter(|entry| Some(&entry.key) != kept);
        for Entry { key, size, .. } in candidates {
            if bytes <= bounds.bytes && count <= bounds.entries {
                break;
            }
            self.remove(key)?;
            (bytes, count) = (bytes - size, count - 1);
            pruned = Pruned { entries: pruned.entries + 1, bytes: pruned.bytes + size };
        }
        Ok(pruned)
    }

    fn remove_abandoned(&self) -> Result<(), CacheError> {
        let failed = |source| CacheError { act: "list", path: self.path.clone(), source };
        for name in names(&self.dir).map_err(failed)? {
            if !name.starts_with(TEMPORARY) {
                continue;
            }
            let stat = rustix::fs::statat(&self.dir, &name, AtFlags::SYMLINK_NOFOLLOW);
            let made = stat.ok().and_then(|stat| u64::try_from(stat.st_mtime).ok());
            let old = made.is_some_and(|made| {
                let made = SystemTime::UNIX_EPOCH + Duration::from_secs(made);
                SystemTime::now().duration_since(made).is_ok_and(|age| age > ABANDONED)
            });
            if old {
                // Another process may have done it.
                let _ = rustix::fs::unlinkat(&self.dir, &name, AtFlags::empty());
            }
        }
        Ok(())
    }
}
