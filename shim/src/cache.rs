//! The node's code cache as the shim uses it: a start never fails because of it.

use std::fs::File;
use std::io::Seek as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coracle_engine::cache::{
    Cache, CacheError, FileIdentity, Key, Lock, Place, Scope, Unpublished,
};
use coracle_engine::config::Settings;
use coracle_oci::digest::Digest;
use tokio::task::JoinHandle;

/// How often is looked whether another process has finished a compilation.
const LOOK: Duration = Duration::from_millis(20);
/// How often is told that another process's compilation is waited for.
const TELL: Duration = Duration::from_secs(5);

/// The cache of this node; without one, every start compiles.
#[derive(Debug, Clone)]
pub struct CodeCache(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    cache: Cache,
    warned: AtomicBool,
}

/// The way to one module's code: its key in the cache.
#[derive(Debug, Clone)]
pub struct Slot {
    shared: Arc<Shared>,
    key: Key,
}

/// Whose turn it is to compile.
#[derive(Debug)]
pub enum Turn {
    /// Nobody's any more: the code is there.
    Done(File),
    /// The caller's; others wait for the lock, if there is one.
    Ours(Option<Lock>),
}

impl CodeCache {
    /// Opens the cache; if it cannot be used, says so and goes without.
    pub fn open(place: &Place) -> Self {
        match Cache::open(place) {
            Ok(cache) => Self(Some(Arc::new(Shared { cache, warned: AtomicBool::new(false) }))),
            Err(error) => {
                tracing::warn!(%error, "no code cache: every start compiles");
                Self(None)
            }
        }
    }

    /// None at all.
    pub fn none() -> Self {
        Self(None)
    }

    /// Where the code of the module with this digest belongs, initialised by an export if one is named;
    /// `None` without a cache.
    pub fn slot(
        &self,
        module: &Digest,
        scope: Scope<'_>,
        initialize: Option<&str>,
    ) -> Option<Slot> {
        let shared = Arc::clone(self.0.as_ref()?);
        let key = Key::new(module.as_bytes(), &Settings::program(), scope);
        let key = initialize.map_or(key, |export| key.initialized_by(export));
        Some(Slot { shared, key })
    }

    /// The digest that a module's file had, if it is still the same file.
    pub fn known_digest(&self, file: &FileIdentity) -> Option<Digest> {
        self.0.as_ref()?.cache.known_digest(file).map(Digest::from_bytes)
    }

    /// Keeps the digest of a module's file.
    pub fn keep_digest(&self, file: &FileIdentity, digest: &Digest) {
        if let Some(shared) = &self.0 {
            shared.cache.keep_digest(file, digest.as_bytes());
        }
    }
}

impl Slot {
    /// The code, if it is there.
    pub fn get(&self) -> Option<File> {
        self.shared.cache.get(&self.key).unwrap_or_else(|error| self.complain(&error, None))
    }

    /// Waits until the code is there or it is this caller's turn to make it. `origin` names the module
    /// in the log. For as long as `patience`; after that everybody compiles for himself.
    pub async fn turn(&self, origin: &str, patience: Duration) -> Turn {
        let begun = tokio::time::Instant::now();
        let mut told = begun;
        loop {
            match self.shared.cache.try_lock(&self.key) {
                Ok(Some(lock)) => {
                    // Whoever had the lock before may have published it.
                    return match self.get() {
                        Some(file) => Turn::Done(file),
                        None => Turn::Ours(Some(lock)),
                    };
                }
                Ok(None) => {}
                Err(error) => return self.complain(&error, Turn::Ours(None)),
            }
            let waited = begun.elapsed();
            if waited >= patience {
                tracing::warn!(%origin, "another compilation takes too long: compiling as well");
                return Turn::Ours(None);
            }
            if told.elapsed() >= TELL {
                told = tokio::time::Instant::now();
                let seconds = waited.as_secs();
                tracing::warn!(%origin, seconds, "waiting for another container's compilation");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Writes code to the cache's disk and gives it back from there, so that all who run it share one
    /// copy; `None` if it cannot be written. Others find it once it is published.
    pub async fn store(&self, image: &File) -> Option<(File, Publication)> {
        let (slot, image) = (self.clone(), image.try_clone());
        let write = move || image.map_or(None, |mut image| slot.write(&mut image));
        let (file, entry) = tokio::task::spawn_blocking(write).await.ok().flatten()?;
        Some((file, Publication { slot: self.clone(), entry }))
    }

    fn write(&self, image: &mut File) -> Option<(File, Unpublished)> {
        image.rewind().ok()?;
        let written = self.shared.cache.write(&self.key, image);
        let entry = written.map_err(|error| self.complain(&error, ())).ok()?;
        entry.file().ok().map(|file| (file, entry))
    }

    fn complain<T>(&self, error: &CacheError, without: T) -> T {
        self.shared.complain(error);
        without
    }
}

/// Code that is written, and that nobody can find yet.
#[derive(Debug)]
pub struct Publication {
    slot: Slot,
    entry: Unpublished,
}

impl Publication {
    /// Publishes it away from the caller, however long the disk takes, and lets others have the turn
    /// then.
    pub fn publish(self, turn: Option<Lock>) -> JoinHandle<()> {
        tokio::task::spawn_blocking(move || {
            let shared = &self.slot.shared;
            if let Err(error) = shared.cache.publish(self.entry) {
                shared.complain(&error);
            }
            drop(turn);
        })
    }
}

impl Shared {
    /// Says once what is wrong with the cache.
    fn complain(&self, error: &CacheError) {
        if self.warned.swap(true, Ordering::Relaxed) {
            tracing::debug!(%error, "code cache");
        } else {
            tracing::warn!(%error, "code cache: going on without it");
        }
    }
}
