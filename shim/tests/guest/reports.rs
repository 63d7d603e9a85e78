//! Reports of programs that failed: on standard error, in the file for Kubernetes, and to the shim.

use std::io::Read;

use coracle_shim::guest::{Exit, Stdio, Trap};
use serde_json::json;

use crate::support::*;

const CLOSE: &str = r#"(import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
    (memory (export "memory") 3)"#;

/// A kubelet's file, mounted into the bundle at `at`.
fn with_message(bundle: &mut Bundle, at: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    bundle.mount(bind(file.path(), at, &["rbind", "rw"]));
    file
}

/// Runs a program to its end; gives that, and what it wrote to standard error.
async fn end(bundle: &Bundle, wat: &str) -> (Exit, Option<Trap>, String) {
    let (mut reader, writer) = pipe();
    let stdio = Stdio { stderr: Some(writer), ..Stdio::default() };
    let mut guest = bundle.run(wat, stdio).await.unwrap();
    let status = guest.wait().await;
    guest.cleanup().await.unwrap();
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    (status.exit, status.trap, said)
}

#[test]
fn each_kind_of_trap_is_told_everywhere() {
    for (body, kind) in [
        ("(func $lost (unreachable))", "unreachable"),
        ("(func $lost (call $lost))", "call stack exhausted"),
        ("(func $lost (drop (i32.load (i32.const -1))))", "out of bounds memory access"),
        ("(func $lost (drop (i32.div_u (i32.const 1) (i32.const 0))))", "integer divide by zero"),
    ] {
        let wat = format!(
            r#"(module {CLOSE} {body}
            (func $main (export "_start") (drop (call $close (i32.const 99))) (call $lost)))"#
        );
        let mut bundle = Bundle::new();
        let file = with_message(&mut bundle, "/dev/termination-log");
        let (exit, trap, said) = block_on(end(&bundle, &wat));
        assert_eq!(exit, Exit::Code(134), "{said}");
        assert_eq!(trap.unwrap().to_string(), kind);
        assert!(said.starts_with(&format!("wasm trap: {kind}\n  0: ")), "{said}");
        assert!(said.contains("  lost\n"), "{said}");
        assert!(said.contains("\n  memory in use: 3 pages (196608 bytes) of at most "), "{said}");
        assert!(said.ends_with("\n  last host call: fd_close (badf)\n"), "{said}");
        let message = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(message, said.trim_end(), "{kind}");
        assert!(message.len() <= 4096);
        bundle.assert_clean();
    }
}

#[test]
fn an_exception_is_told_and_a_good_end_is_not() {
    let thrown =
        r#"(module (tag $oops (export "oops")) (func $main (export "_start") (throw $oops)))"#;
    let mut bundle = Bundle::new();
    let file = with_message(&mut bundle, "/dev/termination-log");
    let (exit, trap, said) = block_on(end(&bundle, thrown));
    assert_eq!((exit, trap), (Exit::Code(134), Some(Trap::Exception)), "{said}");
    assert!(std::fs::read_to_string(file.path()).unwrap().starts_with("uncaught exception `oops`"));
    for code in [0, 3, 134] {
        let wat = format!(
            r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (func (export "_start") (call $exit (i32.const {code}))))"#
        );
        let mut bundle = Bundle::new();
        let file = with_message(&mut bundle, "/dev/termination-log");
        let (exit, trap, said) = block_on(end(&bundle, &wat));
        assert_eq!((exit, trap, said.as_str()), (Exit::Code(code), None, ""));
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "");
    }
}

#[test]
fn what_the_program_wrote_itself_stays() {
    let mut bundle = Bundle::new();
    let file = with_message(&mut bundle, "/dev/termination-log");
    std::fs::write(file.path(), "its own words").unwrap();
    let wat = r#"(module (func (export "_start") (unreachable)))"#;
    let (exit, _, said) = block_on(end(&bundle, wat));
    assert_eq!(exit, Exit::Code(134));
    assert!(said.contains("unreachable"));
    assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "its own words");
}

#[test]
fn the_path_that_the_annotation_names_counts_and_a_link_does_not() {
    let wat = r#"(module (func (export "_start") (unreachable)))"#;
    let mut bundle = Bundle::new();
    let other = with_message(&mut bundle, "/run/why");
    let usual = with_message(&mut bundle, "/dev/termination-log");
    let key = "io.kubernetes.container.terminationMessagePath";
    bundle.spec["annotations"][key] = json!("/run/why");
    block_on(end(&bundle, wat));
    assert!(std::fs::read_to_string(other.path()).unwrap().contains("unreachable"));
    assert_eq!(std::fs::read_to_string(usual.path()).unwrap(), "");
    // Nothing is mounted at the path: what the image has there is left alone.
    let mut bundle = Bundle::new();
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::os::unix::fs::symlink(outside.path(), bundle.rootfs("log")).unwrap();
    std::fs::write(bundle.rootfs("plain"), "").unwrap();
    for path in ["/log", "/plain", "/../../../etc/passwd", "relative"] {
        bundle.spec["annotations"][key] = json!(path);
        let (exit, ..) = block_on(end(&bundle, wat));
        assert_eq!(exit, Exit::Code(134), "{path}");
    }
    assert_eq!(std::fs::read_to_string(bundle.rootfs("plain")).unwrap(), "");
    assert_eq!(std::fs::read_to_string(outside.path()).unwrap(), "");
}

#[test]
fn a_long_report_is_cut_for_kubernetes_and_a_program_that_cannot_start_has_one() {
    let name = "n".repeat(300);
    let deep: String = (0..60)
        .map(|n| format!("(func ${name}{n} (call_indirect (i32.const {})))", n + 1))
        .collect();
    let elements: String = (0..60).map(|n| format!(" ${name}{n}")).collect();
    let wat = format!(
        r#"(module (table 100 funcref) (elem (i32.const 0) func {elements}) {deep}
        (func (export "_start") (call_indirect (i32.const 0))))"#
    );
    let mut bundle = Bundle::new();
    let file = with_message(&mut bundle, "/dev/termination-log");
    let (_, _, said) = block_on(end(&bundle, &wat));
    assert!(said.len() > 6000, "{said}");
    let message = std::fs::read_to_string(file.path()).unwrap();
    assert!(message.len() <= 4096 && message.len() > 4080, "{}", message.len());
    assert!(message.ends_with("\n…") && said.starts_with(&message[..4000]));
    // Failed link.
    let mut bundle = Bundle::new();
    let file = with_message(&mut bundle, "/dev/termination-log");
    let text = r#"(module (import "env" "nothing" (func)) (func (export "_start")))"#;
    let error = block_on(bundle.run(text, Stdio::default())).map(|guest| guest.pid()).unwrap_err();
    let message = std::fs::read_to_string(file.path()).unwrap();
    assert!(message.contains("nothing") && error.to_string().contains(&message), "{message}");
    coracle_shim::guest::cleanup_bundle(bundle.path(), &bundle.id).unwrap();
    bundle.assert_clean();
}
