//! `coracle cache warm`, and starts that find what it has compiled.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cache::{Node, Start};
use crate::clean::groups;
use crate::harness::{alive, within};
use crate::programs::{hello, huge};

/// `coracle cache warm` on a node.
fn warm(node: &Path, image: &Path) -> Command {
    let shim = Path::new(env!("CARGO_BIN_EXE_containerd-shim-wasm-v1"));
    let mut command = Command::new(shim.with_file_name("coracle"));
    command
        .args(["cache", "warm"])
        .arg(image)
        .env("CORACLE_CACHE_DIR", node.join("cache"))
        .env("CORACLE_RUN_DIR", node.join("run"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A module of this text.
fn module(node: &Path, text: &str) -> PathBuf {
    let file = node.join("module.wat");
    fs::write(&file, text).unwrap();
    file
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// Folders of it on a node.
fn scratch(node: &Path) -> Vec<String> {
    let names = fs::read_dir(node.join("run")).unwrap().flatten();
    let names = names.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("warm-")).collect()
}

/// Control groups of its compilers.
fn compilers(pid: u32) -> Vec<String> {
    let name = format!("/coracle-compile-warm-{pid}-");
    groups().into_iter().filter(|path| path.contains(&name)).collect()
}

#[tokio::test]
async fn a_container_starts_from_code_that_was_made_before_it() {
    let node = Node::new();
    let dir = node.dir.path();
    let output = warm(dir, &module(dir, &hello())).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("compiled in"), "{}", said(&output));
    assert_eq!(node.entries().len(), 1);
    assert_eq!(Start::on(dir, &hello()).await.run().await, 0);
    assert_eq!(node.entries().len(), 1);
    // And the other way round.
    let output = warm(dir, &module(dir, &hello())).output().unwrap();
    assert!(said(&output).contains("in the cache already"), "{}", said(&output));
    assert_eq!(scratch(dir), [""; 0]);
}

#[tokio::test]
async fn options_are_those_of_the_runtime() {
    let node = Node::new();
    let module = module(node.dir.path(), &hello());
    let warm = |options: &[&str]| {
        let mut command = warm(node.dir.path(), &module);
        for option in options {
            command.args(["--option", option]);
        }
        command.output().unwrap()
    };
    let own = warm(&["CacheByNamespace=true"]);
    assert!(own.status.success(), "{}", said(&own));
    let everybodys = warm(&[]);
    assert!(said(&everybodys).contains("compiled in"), "{}", said(&everybodys));
    let bad = warm(&["Frob=1", "CodeImageMiB=0"]);
    assert_eq!(bad.status.code(), Some(125));
    assert!(said(&bad).contains("Frob") && said(&bad).contains("CodeImageMiB"), "{}", said(&bad));
}

#[tokio::test]
async fn what_cannot_be_compiled_is_told_in_one_sentence() {
    let node = Node::new();
    let dir = node.dir.path();
    let invalid = module(dir, "(module (func (result i32)))");
    let unknown = Path::new("hello:1");
    let cases: [(&Path, &[&str]); 5] = [
        ("/bin/true".as_ref(), &["ELF", "accepted is a core wasm module"]),
        ("./none.wasm".as_ref(), &["./none.wasm", "No such file"]),
        (dir, &["is a directory"]),
        (&invalid, &["cannot compile", "type mismatch"]),
        (unknown, &["/nonexistent/containerd.sock", "No such file"]),
    ];
    for (image, words) in cases {
        let mut command = warm(dir, image);
        let output = command.args(["--address", "/nonexistent/containerd.sock"]).output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(125), "{text}");
        assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("coracle: ")).count(), 1, "{text}");
        assert_eq!(scratch(dir), [""; 0]);
    }
    assert!(node.entries().is_empty());
}

/// SIGTERM ends it in good order; what SIGKILL leaves is removed by the next one.
#[tokio::test]
async fn an_end_from_outside_leaves_nothing_for_long() {
    let node = Node::new();
    let dir = node.dir.path();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let child = warm(dir, &module(dir, &huge(2400))).spawn().unwrap();
        let pid = child.id();
        within("the compiler", async {
            while compilers(pid).is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        // At work, and not still being made.
        tokio::time::sleep(Duration::from_millis(100)).await;
        kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(!output.status.success() && !alive(pid));
        if signal == Signal::SIGTERM {
            assert_eq!(output.status.code(), Some(125), "{}", said(&output));
            assert!(said(&output).contains("interrupted"), "{}", said(&output));
            assert_eq!(scratch(dir), [""; 0]);
            assert_eq!(compilers(pid), [""; 0]);
        } else {
            assert_eq!(scratch(dir).len(), 1);
            let next = warm(dir, &module(dir, &hello())).output().unwrap();
            assert!(next.status.success(), "{}", said(&next));
            assert_eq!(scratch(dir), [""; 0]);
            assert_eq!(compilers(pid), [""; 0]);
        }
    }
    assert_eq!(node.entries().len(), 1);
}
