//! The cage of WebAssembly guests and of the sleeper, as the kernel tells of it.

use coracle_shim::guest::Stdio;
use serde_json::{Value, json};

use crate::support::*;

const SPIN: &str = r#"(module (func (export "_start") (loop (br 0))))"#;

/// Mode 2 is a filter; how many there are.
fn filters(status: &str) -> Option<u32> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().parse::<u32>().ok()
    };
    (field("Seccomp")? == 2).then(|| field("Seccomp_filters")).flatten()
}

fn every_thread(pid: i32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("status"));
    tasks.map(|task| status(task.unwrap()).unwrap()).collect()
}

async fn filters_under(profile: Option<Value>) -> Vec<Option<u32>> {
    let mut bundle = Bundle::new();
    if let Some(profile) = profile {
        bundle.spec["linux"]["seccomp"] = profile;
    }
    let mut guest = bundle.run(SPIN, Stdio::default()).await.unwrap();
    let all = every_thread(guest.pid());
    guest.cleanup().await.unwrap();
    bundle.assert_clean();
    assert!(all.iter().all(|status| status.contains("NoNewPrivs:\t1\n")), "{all:?}");
    all.iter().map(|status| filters(status)).collect()
}

#[test]
fn every_thread_of_a_program_is_filtered() {
    block_on(async {
        assert_eq!(filters_under(None).await, [Some(1)]);
    });
}

#[test]
fn a_profile_of_the_spec_comes_on_top_where_it_forbids_more() {
    block_on(async {
        let nothing = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
        assert_eq!(filters_under(Some(nothing)).await, [Some(1)]);
        let no_files = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": ["mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 },
        ] });
        // The profile's, that of the other ABI's calls, and the cage.
        let own = if cfg!(target_arch = "x86_64") { 3 } else { 2 };
        assert_eq!(filters_under(Some(no_files)).await, [Some(own)]);
    });
}

#[test]
fn the_sleeper_is_in_a_cage_too() {
    block_on(async {
        let bundle = Bundle::new();
        let mut guest = bundle.spawn().await.unwrap();
        assert_eq!(status(&guest, "Seccomp"), "0", "the cage closes at the start");
        guest.start().await.unwrap();
        assert_eq!(filters(&proc(&guest, "status")), Some(1));
        guest.signal(libc::SIGTERM, false).unwrap();
        assert_eq!(guest.wait().await.exit, coracle_shim::guest::Exit::Code(0));
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
    });
}

#[test]
fn a_timer_of_the_wall_clock_can_be_waited_for() {
    // poll_oneoff with one subscription to the real-time clock, absolute, long past; the sum of its errors
    // becomes the exit code.
    let text = r#"(module
        (import "wasi_snapshot_preview1" "poll_oneoff"
            (func $poll (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "_start")
            (i64.store (i32.const 24) (i64.const 1000))
            (i32.store16 (i32.const 40) (i32.const 1))
            (call $exit (i32.add
                (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128))
                (i32.load16_u (i32.const 72))))))"#;
    block_on(async {
        let bundle = Bundle::new();
        let mut guest = bundle.run(text, Stdio::default()).await.unwrap();
        assert_eq!(guest.wait().await.exit, coracle_shim::guest::Exit::Code(0));
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
    });
}
