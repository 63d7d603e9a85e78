//! Every input that is kept runs without a finding.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail where it stands")]

use std::sync::{Mutex, PoisonError};

use coracle_fuzz::{corpus, stats};

/// Targets count descriptors and memory of the process, so they run one after another.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn replay(target: &str) -> usize {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let files = corpus::files(target).unwrap();
    for file in &files {
        // The test's output is shown when it fails: the last line is the input that did it.
        println!("{}", file.display());
        corpus::replay(target, file).unwrap();
    }
    files.len()
}

#[test]
fn decode() {
    assert!(replay("decode") > 10);
    assert!(stats::get("modules accepted") > 10 && stats::get("modules refused") > 10);
}

#[test]
fn image() {
    assert!(replay("image") > 10);
    assert!(stats::get("images loaded") > 10 && stats::get("images refused") > 10);
}

#[test]
fn execute() {
    assert!(replay("execute") > 10);
    assert!(stats::get("calls compared") > 100, "{}", stats::get("calls compared"));
}

#[test]
fn wasi() {
    assert!(replay("wasi") > 10);
    assert!(stats::get("calls") > 100);
}
