//! Counts of a run, written to the file that `CORACLE_FUZZ_STATS` names.
//!
//! libFuzzer leaves no moment for a last word when it ends or finds something, so the file is
//! rewritten about once a second.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

static COUNTS: Mutex<Option<Counts>> = Mutex::new(None);

struct Counts {
    file: Option<std::ffi::OsString>,
    counts: BTreeMap<&'static str, u64>,
    written: Instant,
}

fn with(act: impl FnOnce(&mut Counts)) {
    let mut counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    act(counts.get_or_insert_with(|| Counts {
        file: std::env::var_os("CORACLE_FUZZ_STATS"),
        counts: BTreeMap::new(),
        written: Instant::now(),
    }));
}

/// Counts something.
pub fn add(what: &'static str, count: u64) {
    with(|counts| *counts.counts.entry(what).or_default() += count);
}

/// What has been counted.
#[must_use]
pub fn get(what: &str) -> u64 {
    let mut found = 0;
    with(|counts| found = counts.counts.get(what).copied().unwrap_or_default());
    found
}

/// All that has been counted.
#[must_use]
pub fn all() -> BTreeMap<&'static str, u64> {
    let mut found = BTreeMap::new();
    with(|counts| found = counts.counts.clone());
    found
}

/// Counts an execution and writes all counts when a second has passed.
pub(crate) fn executed(target: &'static str) {
    add("executions", 1);
    with(|counts| {
        let Some(file) = &counts.file else { return };
        if counts.written.elapsed() < Duration::from_secs(1) {
            return;
        }
        counts.written = Instant::now();
        let mut text = format!("target {target}\n");
        for (what, count) in &counts.counts {
            text += &format!("{what} {count}\n");
        }
        // Statistics are not worth a finding.
        let _ = std::fs::write(file, text);
    });
}
