//! First starts: the program runs while its code is made, and what becomes of the compilers.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_shim::compile::worker_group;
use coracle_shim::request::TaskId;

use crate::cache::{Node, Start};
use crate::harness::{alive, gone, request_with, within};
use crate::programs::{hello, huge, loops};

/// Every module starts before all of its code is there.
pub(crate) const AT_ONCE: &str = "LazyAboveKiB = 0";

/// Creates the container of a start so that it starts at once; what it writes.
async fn create(start: &Start) -> Arc<Mutex<String>> {
    create_with(start, AT_ONCE).await
}

/// Creates the container of a start with these runtime options; what it writes.
pub(crate) async fn create_with(start: &Start, options: &str) -> Arc<Mutex<String>> {
    let mut request = request_with("c", &start.bundle, options);
    let said = Arc::new(Mutex::new(String::new()));
    for (name, field) in [("stdout", &mut request.stdout), ("stderr", &mut request.stderr)] {
        let fifo = start.bundle.join(name);
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        *field = fifo.to_str().unwrap().to_owned();
        let said = Arc::clone(&said);
        std::thread::spawn(move || {
            let mut text = String::new();
            fs::File::open(fifo).unwrap().read_to_string(&mut text).unwrap();
            said.lock().unwrap().push_str(&text);
        });
    }
    start.shim.create_with(request).await.unwrap();
    said
}

/// Pids of the compilers of a shim.
fn compilers(shim: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
    let pids = children.split_whitespace().map(|pid| pid.parse().unwrap());
    pids.filter(|pid: &u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim() == "coracle"
    })
    .collect()
}

/// Cgroups of the compilers of a bundle's container.
fn groups(bundle: &Path) -> Vec<PathBuf> {
    let name = worker_group(&TaskId::parse("c").unwrap(), bundle);
    let name = name.trim_start_matches('/');
    let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
    let all = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]);
    let groups = all.flat_map(|hierarchy| fs::read_dir(hierarchy).into_iter().flatten().flatten());
    let groups = groups.map(|entry| entry.path());
    groups.filter(|group| group.file_name().unwrap().to_str().unwrap().starts_with(name)).collect()
}

pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    within(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_first_start_fills_the_cache_for_the_second() {
    let node = Node::new();
    let start = Start::on(node.dir.path(), &hello()).await;
    let said = create(&start).await;
    let (bundle, shim) = (start.bundle.clone(), start.shim.pid);
    start.shim.start("c").await.unwrap();
    assert_eq!(start.shim.wait("c").await.unwrap().exit_status, 0);
    start.shim.delete("c").await.unwrap();
    start.shim.shut_down().await;
    until("the output", || said.lock().unwrap().contains("hello")).await;
    assert_eq!(start.logged("starting at once"), 1);
    // The shim leaves when the code is kept.
    gone(shim).await;
    assert_eq!(node.entries().len(), 1, "{}", start.log.lock().unwrap());
    assert!(groups(&bundle).is_empty());
    let second = Start::on(node.dir.path(), &hello()).await;
    let said = create(&second).await;
    second.shim.start("c").await.unwrap();
    assert_eq!(second.shim.wait("c").await.unwrap().exit_status, 0);
    second.shim.delete("c").await.unwrap();
    until("the output", || said.lock().unwrap().contains("hello")).await;
    assert_eq!(second.logged("compiled") + second.logged("starting at once"), 0);
    second.shim.shut_down().await;
}

#[tokio::test]
async fn a_large_program_is_done_before_it_is_compiled() {
    let node = Node::new();
    let start = Start::on(node.dir.path(), &huge(1200)).await;
    create(&start).await;
    start.shim.start("c").await.unwrap();
    assert_eq!(start.shim.wait("c").await.unwrap().exit_status, 0);
    assert!(node.entries().is_empty(), "it was compiled before it ended");
    start.shim.delete("c").await.unwrap();
    let shim = start.shim.pid;
    start.shim.shut_down().await;
    node.entry().await;
    gone(shim).await;
    assert!(groups(&start.bundle).is_empty());
}

#[tokio::test]
async fn a_killed_program_takes_its_compilers_along() {
    let node = Node::new();
    let module = loops(&huge(2500));
    let start = Start::on(node.dir.path(), &module).await;
    create(&start).await;
    start.shim.start("c").await.unwrap();
    until("both compilers", || compilers(start.shim.pid).len() == 2).await;
    assert!(!groups(&start.bundle).is_empty());
    let pids = compilers(start.shim.pid);
    start.shim.kill("c", libc::SIGKILL).await.unwrap();
    assert_eq!(start.shim.wait("c").await.unwrap().exit_status, 137);
    start.shim.delete("c").await.unwrap();
    let shim = start.shim.pid;
    start.shim.shut_down().await;
    gone(shim).await;
    assert!(pids.iter().all(|pid| !alive(*pid)));
    assert!(groups(&start.bundle).is_empty());
    assert!(node.entries().is_empty());
}

#[tokio::test]
async fn a_program_whose_compiler_dies_ends_with_a_clear_error() {
    let node = Node::new();
    // Calls what is not made before it has waited for a byte.
    let start = Start::on(node.dir.path(), &late(&huge(1200))).await;
    let said = create(&start).await;
    let first = compilers(start.shim.pid);
    start.shim.start("c").await.unwrap();
    until("both compilers", || compilers(start.shim.pid).len() == 2).await;
    for pid in &first {
        let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    assert_eq!(start.shim.wait("c").await.unwrap().exit_status, 125);
    until("the error", || said.lock().unwrap().contains("start the program again")).await;
    start.shim.delete("c").await.unwrap();
    let shim = start.shim.pid;
    start.shim.shut_down().await;
    // The other compiler goes on, and the next start is a whole one.
    gone(shim).await;
    assert_eq!(node.entries().len(), 1);
    assert!(groups(&start.bundle).is_empty());
}

#[tokio::test]
async fn a_compiler_that_gets_no_processor_is_waited_for() {
    let node = Node::new();
    let start = Start::on(node.dir.path(), &late(&huge(1200))).await;
    create_with(&start, &format!("{AT_ONCE}\nCompileTimeoutSeconds = 4")).await;
    let first = compilers(start.shim.pid);
    start.shim.start("c").await.unwrap();
    let signal = |signal| {
        for pid in &first {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal).unwrap();
        }
    };
    signal(nix::sys::signal::Signal::SIGSTOP);
    tokio::time::sleep(Duration::from_secs(6)).await;
    signal(nix::sys::signal::Signal::SIGCONT);
    assert_eq!(start.shim.wait("c").await.unwrap().exit_status, 0);
    start.shim.delete("c").await.unwrap();
    start.shim.shut_down().await;
}

/// Sleeps for a second in a function that is made at once, and then calls the last one of many.
fn late(many: &str) -> String {
    let imports = r#"(module
        (import "wasi_snapshot_preview1" "poll_oneoff"
            (func $poll (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)"#;
    let body = r#"(func (export "_start")
        ;; A subscription to the monotonic clock: 1 s from now.
        (i32.store (i32.const 16) (i32.const 1)) (i64.store (i32.const 24) (i64.const 1000000000))
        (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))
        (call_indirect (param i32) (result i32) (i32.const 1) (i32.const 0)) drop)
        (table 1 funcref) (elem (i32.const 0) 1150))"#;
    let many = many.trim_start_matches("(module").trim_end_matches(')');
    let many = many.replace("(func (export \"_start\"", "");
    format!("{imports} {many} {body}")
}
