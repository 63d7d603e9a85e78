//! The node's cache of code: its bounds and its size.

use std::sync::Arc;

use coracle_engine::cache::{Cache, CacheError, Place};

use super::metrics::Metrics;

/// The cache; it is opened each time, so that one that was away is found again.
#[derive(Debug, Clone)]
pub(crate) struct NodeCache(Arc<Place>);

/// What is in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// Entries.
    pub(crate) entries: usize,
    /// Their bytes together.
    pub(crate) bytes: u64,
}

impl NodeCache {
    pub(crate) fn new(place: Place) -> Self {
        Self(Arc::new(place))
    }

    /// What it may hold.
    pub(crate) fn bounds(&self) -> Contents {
        Contents { entries: self.0.bounds.entries, bytes: self.0.bounds.bytes }
    }

    /// Removes what is beyond its bounds, as each shim does that publishes code.
    pub(crate) async fn prune(&self, metrics: &Metrics) {
        let place = Arc::clone(&self.0);
        let pruned = move || Cache::open(&place)?.prune(place.bounds);
        match tokio::task::spawn_blocking(pruned).await {
            Ok(Ok(pruned)) => metrics.pruned(pruned),
            Ok(Err(error)) => tracing::warn!(%error, "the cache is not bounded now"),
            // The daemon ends.
            Err(_) => {}
        }
    }

    /// What is in it; nothing if it cannot be read.
    pub(crate) async fn contents(&self) -> Contents {
        let place = Arc::clone(&self.0);
        let look = move || -> Result<Contents, CacheError> {
            let entries = Cache::open(&place)?.entries()?;
            let bytes = entries.iter().map(|entry| entry.size).sum();
            Ok(Contents { entries: entries.len(), bytes })
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(Ok(contents)) => contents,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the cache cannot be read");
                Contents::default()
            }
            Err(_) => Contents::default(),
        }
    }
}
