//! From birth to removal: pids, signals, exit, cleanup, death of the shim.

use std::io::Write;
use std::time::{Duration, Instant};

use coracle_oci::cgroup::{Cgroup, CgroupPath, Host, Version};
use coracle_shim::guest::{Exit, Guest, GuestError, Remains, cleanup_bundle};

use crate::support::*;

async fn end(guest: &Guest) -> Exit {
    tokio::time::timeout(Duration::from_secs(10), guest.wait())
        .await
        .expect("the guest lives on")
        .exit
}

#[test]
fn a_parked_guest_is_alive_in_its_cgroup_and_leaves_nothing() {
    block_on(async {
        let bundle = Bundle::new();
        let mut guest = bundle.spawn().await.unwrap();
        assert_eq!(guest.pids().unwrap(), [guest.pid() as u32]);
        assert!(!bundle.cgroups().is_empty());
        // All in one group, seen from inside as the root.
        assert!(
            proc(&guest, "cgroup")
                .lines()
                .filter(|l| !l.starts_with("0::"))
                .all(|l| l.ends_with(&bundle.id)),
            "{}",
            proc(&guest, "cgroup")
        );
        let limits: Vec<_> = bundle
            .cgroups()
            .iter()
            .filter_map(|dir| {
                std::fs::read_to_string(dir.join("memory.limit_in_bytes"))
                    .or_else(|_| std::fs::read_to_string(dir.join("memory.max")))
                    .ok()
            })
            .collect();
        assert_eq!(limits, [format!("{}\n", 64 << 20)]);
        assert_eq!(proc(&guest, "comm"), "pause\n");
        assert_eq!(proc(&guest, "environ"), "");
        guest.cleanup().await.unwrap();
        assert_eq!(end(&guest).await, Exit::Signal(libc::SIGKILL));
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
    });
}

#[test]
fn every_waiter_gets_the_same_answer() {
    block_on(async {
        let bundle = Bundle::new();
        let mut guest = bundle.spawn().await.unwrap();
        let waiters: Vec<_> = (0..3).map(|_| tokio::spawn(guest.wait())).collect();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
        guest.signal(libc::SIGKILL, false).unwrap();
        let first = guest.wait().await;
        assert_eq!(first.exit, Exit::Signal(libc::SIGKILL));
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap(), first);
        }
        assert_eq!(guest.wait().await, first);
        assert!(matches!(guest.signal(libc::SIGTERM, false), Err(GuestError::State { .. })));
        assert!(matches!(guest.signal(libc::SIGTERM, true), Err(GuestError::State { .. })));
        assert!(guest.pids().unwrap().is_empty());
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
    });
}

#[test]
fn the_first_process_of_a_pid_namespace_ends_by_signals() {
    block_on(async {
        for signal in
            [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1, libc::SIGQUIT, 34 + 7]
        {
            let bundle = Bundle::new();
            let mut guest = bundle.spawn().await.unwrap();
            guest.signal(signal, false).unwrap();
            assert_eq!(end(&guest).await, Exit::Code(128 + signal as u8), "signal {signal}");
            guest.cleanup().await.unwrap();
        }
        let bundle = Bundle::new();
        let mut guest = bundle.spawn().await.unwrap();
        assert!(matches!(guest.signal(4711, false), Err(GuestError::Os { .. })));
        guest.signal(libc::SIGTERM, true).unwrap();
        assert_eq!(end(&guest).await, Exit::Code(143));
        guest.cleanup().await.unwrap();
    });
}

#[test]
fn pause_sleeps_until_it_is_told_to_end() {
    block_on(async {
        let bundle = Bundle::new();
        let mut guest = bundle.spawn().await.unwrap();
        guest.start().await.unwrap();
        assert!(matches!(guest.start().await, Err(GuestError::State { .. })));
        let numbers: Vec<_> = descriptors(&guest).into_iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, [0, 1, 2], "{:?}", descriptors(&guest));
        guest.signal(libc::SIGCHLD, false).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        guest.signal(libc::SIGTERM, false).unwrap();
        assert_eq!(end(&guest).await, Exit::Code(0));
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
    });
}

#[test]
fn pause_reaps_what_is_left_to_it() {
    block_on(async {
        let bundle = Bundle::new();
        let mut guest = bundle.spawn().await.unwrap();
        guest.start().await.unwrap();
        // A grandchild whose parent ends at once, in the guest's pid namespace.
        let pid = guest.pid().to_string();
        let entered = std::process::Command::new("nsenter")
            .args(["-t", &pid, "-p", "sh", "-c", "sleep 0.1 & exit 0"])
            .status()
            .unwrap();
        assert!(entered.success());
        // Not for ever: block_on has a limit.
        while !proc(&guest, &format!("task/{pid}/children")).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        guest.cleanup().await.unwrap();
    });
}

#[test]
fn a_dropped_guest_dies() {
    block_on(async {
        let bundle = Bundle::new();
        let guest = bundle.spawn().await.unwrap();
        let end = guest.wait();
        drop(guest);
        assert_eq!(end.await.exit, Exit::Signal(libc::SIGKILL));
        cleanup_bundle(bundle.path(), &bundle.id).unwrap();
        bundle.assert_clean();
    });
}

/// Runs a guest on a thread that then ends, as if its shim had been killed.
fn orphan(bundle: &Bundle, started: bool) -> i32 {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            block_on(async {
                let mut guest = bundle.spawn().await.unwrap();
                if started {
                    guest.start().await.unwrap();
                }
                let pid = guest.pid();
                std::mem::forget(guest);
                pid
            })
        });
        thread.join().unwrap()
    })
}

fn wait_for_death(pid: i32) {
    let begun = Instant::now();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let options = rustix::process::WaitOptions::NOHANG;
    while rustix::process::waitpid(Some(pid), options).unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(5), "the guest outlives its shim");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_guest_dies_with_its_shim_and_the_bundle_can_be_cleaned() {
    for started in [false, true] {
        let bundle = Bundle::new();
        let pid = orphan(&bundle, started);
        wait_for_death(pid);
        assert!(!bundle.cgroups().is_empty());
        let remains = cleanup_bundle(bundle.path(), &bundle.id).unwrap();
        assert_eq!(remains, Remains { pid: Some(pid as u32), killed: false });
        bundle.assert_clean();
        let again = cleanup_bundle(bundle.path(), &bundle.id).unwrap();
        assert_eq!(again, Remains::default());
    }
}

#[test]
fn cleanup_kills_a_running_guest_and_what_is_in_its_cgroup_and_unmounts() {
    block_on(async {
        let bundle = Bundle::new();
        for _ in 0..2 {
            rustix::mount::mount_bind_recursive(bundle.rootfs(""), bundle.rootfs("")).unwrap();
        }
        let guest = bundle.spawn().await.unwrap();
        let mut stranger = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        for dir in bundle.cgroups() {
            std::fs::write(dir.join("cgroup.procs"), stranger.id().to_string()).unwrap();
        }
        let both = guest.pids().unwrap();
        assert_eq!(both.len(), 2);
        let (path, id) = (bundle.path().to_owned(), bundle.id.clone());
        let pid = guest.pid() as u32;
        let cleaning = tokio::task::spawn_blocking(move || cleanup_bundle(&path, &id));
        // A killed process stays in the group until its parent, which is this one, reaps it.
        let reaped = tokio::task::spawn_blocking(move || stranger.wait().unwrap());
        assert_eq!(guest.wait().await.exit, Exit::Signal(libc::SIGKILL));
        assert!(!reaped.await.unwrap().success());
        assert_eq!(cleaning.await.unwrap().unwrap(), Remains { pid: Some(pid), killed: true });
        bundle.assert_clean();
    });
}

#[test]
fn cleanup_spares_a_process_that_merely_has_the_pid() {
    let bundle = Bundle::new();
    std::fs::write(bundle.path().join("config.json"), "{}").unwrap();
    let mut bystander = std::process::Command::new("sleep").arg("100").spawn().unwrap();
    let state = serde_json::json!({
        "id": bundle.id, "pid": bystander.id(), "start_time": 1, "unified": false, "cgroup": [],
    });
    let file = bundle.path().join("coracle-guest.json");
    std::fs::File::create(file).unwrap().write_all(state.to_string().as_bytes()).unwrap();
    assert!(cleanup_bundle(bundle.path(), "another").is_err());
    let remains = cleanup_bundle(bundle.path(), &bundle.id).unwrap();
    assert_eq!(remains, Remains { pid: Some(bystander.id()), killed: false });
    assert!(bystander.try_wait().unwrap().is_none());
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    bundle.assert_clean();
}

/// What a shim leaves that is killed before it knows its guest: groups that it has made, or not yet.
#[test]
fn cleanup_before_there_is_a_guest_removes_groups_and_spares_who_is_in_them() {
    let bundle = Bundle::new();
    std::fs::write(bundle.path().join("config.json"), "{}").unwrap();
    let group = CgroupPath::parse(Some(&format!("/{}", bundle.id)), &bundle.id).unwrap();
    let group = Cgroup::new(&Host::detect().unwrap(), &group);
    let state = serde_json::json!({
        "id": bundle.id, "pid": 0, "start_time": 0,
        "unified": group.version() == Version::V2, "cgroup": group.dirs().collect::<Vec<_>>(),
    });
    let clean = || {
        std::fs::write(bundle.path().join("coracle-guest.json"), state.to_string()).unwrap();
        assert_eq!(cleanup_bundle(bundle.path(), &bundle.id).unwrap(), Remains::default());
    };
    clean();
    bundle.assert_clean();
    group.create().unwrap();
    clean();
    bundle.assert_clean();
    group.create().unwrap();
    let mut bystander = std::process::Command::new("sleep").arg("100").spawn().unwrap();
    group.add(bystander.id()).unwrap();
    clean();
    assert_eq!(bystander.try_wait().unwrap(), None);
    assert!(!bundle.cgroups().is_empty(), "it is the bystander's");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    clean();
    bundle.assert_clean();
}

#[test]
fn twenty_at_once_and_nothing_is_left() {
    block_on(async {
        let bundles: Vec<_> = (0..20).map(|_| Bundle::new()).collect();
        let mut guests = Vec::new();
        for bundle in &bundles {
            guests.push(bundle.spawn().await.unwrap());
        }
        for guest in &mut guests {
            guest.start().await.unwrap();
        }
        for (guest, bundle) in guests.iter_mut().zip(&bundles) {
            guest.cleanup().await.unwrap();
            bundle.assert_clean();
        }
    });
}

#[test]
fn the_sub_command_alone_explains_itself() {
    let output = std::process::Command::new(RUNNER).arg("guest").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("for the shim itself"));
}
