//! Programs that are initialised once for all starts.

use std::fs;
use std::path::Path;

use coracle_engine::image::CodeImage;

use crate::cache::{Node, Start};
use crate::first::{AT_ONCE, create_with, until};
use crate::harness::gone;

/// Nothing starts before all of its code is there.
const WHOLE: &str = "LazyAboveKiB = 1048576";

/// Writes how often it was initialised and started; `begin` is what its initialisation does first.
fn program(export: &str, begin: &str) -> String {
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write"
            (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 16) "initialised 0, started 0\n")
        (global $started (mut i32) (i32.const 48))
        (func (export "{export}") {begin}
            (i32.store8 (i32.const 28) (i32.add (i32.load8_u (i32.const 28)) (i32.const 1))))
        (func (export "_start")
            (global.set $started (i32.add (global.get $started) (i32.const 1)))
            (i32.store8 (i32.const 39) (global.get $started))
            (i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 25))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    )
}

/// A whole life with these runtime options; gives what was logged.
async fn run(node: &Node, text: &str, annotation: Option<&str>, options: &str) -> String {
    let start = Start::on(node.dir.path(), text).await;
    if let Some(export) = annotation {
        annotate(&start.bundle, export);
    }
    let said = create_with(&start, options).await;
    start.shim.start("c").await.unwrap();
    assert_eq!(start.shim.wait("c").await.unwrap().exit_status, 0);
    start.shim.delete("c").await.unwrap();
    until("the output", || said.lock().unwrap().ends_with('\n')).await;
    assert_eq!(*said.lock().unwrap(), "initialised 1, started 1\n");
    let shim = start.shim.pid;
    start.shim.shut_down().await;
    gone(shim).await;
    let log = start.log.lock().unwrap();
    log.clone()
}

fn annotate(bundle: &Path, export: &str) {
    let path = bundle.join("config.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    spec["annotations"] = serde_json::json!({ "coracle.dev/initialize": export });
    fs::write(path, spec.to_string()).unwrap();
}

/// Whether the one entry is a snapshot.
async fn is_initialised(node: &Node) -> bool {
    let entry = fs::read(node.entry().await).unwrap();
    CodeImage::new(&entry).unwrap().meta().unwrap().module.initialized
}

#[tokio::test]
async fn a_program_is_initialised_once_for_all_starts() {
    for options in [WHOLE, AT_ONCE] {
        let node = Node::new();
        let text = program("wizer.initialize", "");
        let log = run(&node, &text, None, options).await;
        assert_eq!(log.matches("initialised").count(), 1, "{log}");
        assert!(is_initialised(&node).await, "{options}");
        let log = run(&node, &text, None, options).await;
        assert!(!log.contains("initialised") && !log.contains("compiled"), "{log}");
    }
}

#[tokio::test]
async fn an_annotation_names_what_initialises() {
    let node = Node::new();
    let text = program("prepare", "");
    run(&node, &text, Some("prepare"), WHOLE).await;
    assert!(is_initialised(&node).await);
    // Without it, it is another program.
    let start = Start::on(node.dir.path(), &text).await;
    let said = create_with(&start, WHOLE).await;
    let shim = start.shim.pid;
    start.end().await;
    gone(shim).await;
    until("the output", || said.lock().unwrap().ends_with('\n')).await;
    assert_eq!(*said.lock().unwrap(), "initialised 0, started 1\n");
    assert_eq!(node.entries().len(), 2);
}

#[tokio::test]
async fn what_cannot_be_done_beforehand_is_done_at_every_start() {
    let node = Node::new();
    let text = program("wizer.initialize", "(drop (call $yield))");
    let log = run(&node, &text, None, WHOLE).await;
    assert!(log.contains("no snapshot") && log.contains("`sched_yield`"), "{log}");
    assert!(!is_initialised(&node).await);
    let log = run(&node, &text, None, WHOLE).await;
    assert!(!log.contains("no snapshot"), "it is not tried again: {log}");
}

/// Killed with its task, as the compiler is.
#[tokio::test]
async fn an_initialisation_without_end_goes_with_its_task() {
    let node = Node::new();
    let start = Start::on(node.dir.path(), &program("wizer.initialize", "(loop (br 0))")).await;
    start.shim.create("c", &start.bundle).await.unwrap();
    until("the end of the compilation", || start.logged("compiled") == 1).await;
    start.shim.kill("c", libc::SIGKILL).await.unwrap();
    start.shim.delete("c").await.unwrap();
    let children = format!("/proc/{0}/task/{0}/children", start.shim.pid);
    assert_eq!(fs::read_to_string(children).unwrap(), "");
    start.shim.shut_down().await;
    assert!(node.entries().is_empty());
}
