//! What the kernel kills for want of memory: told once, before the exit, and heard without asking.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Duration;

use containerd_shim_protos::api::Status;
use containerd_shim_protos::events::task::{TaskExit, TaskOOM};
use serde_json::json;

use crate::control::{Container, unified};
use crate::harness::{calm, sleeps, within};
use crate::linux::{busybox, busybox_spec};

/// What takes memory that `memory.grow` knows nothing of: 72 MB of a table.
const TABLE: &str = r#"(module (memory (export "memory") 1) (table $all 0 funcref)
    (elem declare func $self)
    (func $self (export "_start")
        (drop (table.grow $all (ref.func $self) (i32.const 9000000)))))"#;

#[tokio::test]
async fn memory_that_runs_out_is_told_before_the_end() {
    let c =
        Container::program(TABLE, json!({"memory": {"limit": 32 << 20, "swap": 32 << 20}})).await;
    // It dies at once.
    c.up().await;
    assert_eq!(c.shim.wait("c").await.unwrap().exit_status, 137);
    assert_eq!(c.usage().await.oom_kills, 1);
    let topics = c.containerd.events(4).await;
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/oom", "/tasks/exit"]);
    assert_eq!(c.containerd.event::<TaskOOM>("/tasks/oom").container_id, "c");
    assert_eq!(c.containerd.event::<TaskExit>("/tasks/exit").exit_status, 137);
    c.leave().await;
    assert_eq!(c.containerd.events(5).await.len(), 5, "told once");
}

#[tokio::test]
async fn memory_that_runs_out_for_another_process_is_told_too() {
    let c = Container::sleeper(json!({"memory": {"limit": 32 << 20, "swap": 32 << 20}})).await;
    c.up().await;
    // Takes all memory there is.
    let mut hog = c.process("exec tail /dev/zero");
    let status = tokio::task::spawn_blocking(move || hog.wait().unwrap());
    let status = within("the kill", status).await.unwrap();
    assert_eq!(status.signal(), Some(libc::SIGKILL));
    let topics = c.containerd.events(3).await;
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/oom"]);
    assert_eq!(c.shim.status("c").await, Status::RUNNING);
    c.shim.kill("c", libc::SIGKILL).await.unwrap();
    c.shim.wait("c").await.unwrap();
    c.leave().await;
    let rest = &c.containerd.events(5).await[3..];
    assert_eq!(rest, ["/tasks/exit", "/tasks/delete"], "an ordinary kill is no want of memory");
}

#[tokio::test]
async fn an_idle_shim_sleeps_also_with_a_watch_on_memory() {
    let c = Container::sleeper(json!({"memory": {"limit": 32 << 20}})).await;
    c.up().await;
    calm(c.shim.pid).await;
    let fds = || {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", c.shim.pid)).unwrap();
        let links = entries.map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap());
        let watches = |link: &PathBuf| {
            let name = if unified() { "anon_inode:inotify" } else { "anon_inode:[eventfd]" };
            link.to_str() == Some(name)
        };
        links.filter(watches).count()
    };
    // The event loop has an eventfd of its own.
    assert_eq!(fds(), if unified() { 1 } else { 2 });
    let before = sleeps(c.shim.pid);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(sleeps(c.shim.pid), before, "the shim woke up with nothing to do");
    c.shim.kill("c", libc::SIGKILL).await.unwrap();
    c.shim.wait("c").await.unwrap();
    within("the watch to go", async {
        while fds() > usize::from(!unified()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    c.leave().await;
}

#[tokio::test]
async fn a_linux_program_hears_of_its_childs_end_and_goes_on() {
    let script = "busybox tail /dev/zero; test $? = 137 && exit 42";
    let mut spec = busybox_spec(&["sh", "-c", script]);
    spec["linux"]["resources"] = json!({"memory": {"limit": 32 << 20, "swap": 32 << 20}});
    let c = Container::with(spec, busybox).await;
    c.up().await;
    assert_eq!(c.shim.wait("c").await.unwrap().exit_status, 42);
    let topics = c.containerd.events(4).await;
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/oom", "/tasks/exit"]);
    c.leave().await;
}
