//! The task API over the socket of a real shim process, with a real guest: the pod sleeper.

use std::time::Duration;

use crate::harness::{
    Containerd, Shim, V2, V3, alive, calm, gone, pause_spec, request, run, sleeps, spec, within,
};
use containerd_shim_protos::api::{self, Empty, Status};
use containerd_shim_protos::events::task::{TaskCreate, TaskDelete, TaskExit, TaskStart};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::Code;

async fn shim(containerd: &Containerd) -> (Shim, std::path::PathBuf) {
    let bundle = containerd.bundle("c", &pause_spec("c"));
    (containerd.start("c", &bundle).await, bundle)
}

fn code<T: std::fmt::Debug>(answer: Result<T, (Code, String)>) -> Code {
    answer.expect_err("this call must be refused").0
}

#[tokio::test]
async fn a_whole_life_in_order() {
    let containerd = Containerd::new().await;
    let (shim, bundle) = shim(&containerd).await;
    let pid = shim.create("c", &bundle).await.unwrap();
    assert!(alive(pid), "the guest lives from Create on");
    for service in ["mnt", "net", "pid", "uts", "ipc"] {
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{service}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{service}");
    }
    assert_eq!(shim.status("c").await, Status::CREATED);
    assert_eq!(shim.pids("c").await, [pid]);

    assert_eq!(shim.start("c").await.unwrap(), pid);
    assert_eq!(shim.status("c").await, Status::RUNNING);
    assert_eq!(shim.pids("c").await, [pid]);

    let waiting = shim.wait("c");
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.is_err());
    assert_eq!(shim.status("c").await, Status::RUNNING, "State does not wait for Wait");
    shim.kill("c", libc::SIGKILL).await.unwrap();
    let end = within("the end", waiting).await.unwrap();
    assert_eq!(end.exit_status, 137);
    let state = shim.state("c").await.unwrap();
    assert_eq!(state.status.enum_value(), Ok(Status::STOPPED));
    assert_eq!((state.exit_status, state.pid, state.exited_at), (137, pid, end.exited_at.clone()));
    assert_eq!(state.bundle, bundle.to_str().unwrap());
    assert!(shim.pids("c").await.is_empty());

    let deleted = shim.delete("c").await.unwrap();
    assert_eq!((deleted.pid, deleted.exit_status, deleted.exited_at), (pid, 137, end.exited_at));
    assert_eq!(
        containerd.events(4).await,
        ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
    );
    let created: TaskCreate = containerd.event("/tasks/create");
    assert_eq!((created.container_id.as_str(), created.pid), ("c", pid));
    assert_eq!(containerd.event::<TaskStart>("/tasks/start").pid, pid);
    let exit: TaskExit = containerd.event("/tasks/exit");
    assert_eq!((exit.id.as_str(), exit.exit_status, exit.pid), ("c", 137, pid));
    assert_eq!(containerd.event::<TaskDelete>("/tasks/delete").exit_status, 137);
    shim.shut_down().await;
}

#[tokio::test]
async fn every_call_is_refused_in_the_wrong_state() {
    let containerd = Containerd::new().await;
    let (shim, bundle) = shim(&containerd).await;
    // Nothing there.
    assert_eq!(code(shim.state("c").await), Code::NOT_FOUND);
    assert_eq!(code(shim.start("c").await), Code::NOT_FOUND);
    assert_eq!(code(shim.wait("c").await), Code::NOT_FOUND);
    assert_eq!(code(shim.kill("c", 9).await), Code::NOT_FOUND);
    assert_eq!(code(shim.delete("c").await), Code::NOT_FOUND);
    // Created.
    shim.create("c", &bundle).await.unwrap();
    assert_eq!(code(shim.create("c", &bundle).await), Code::ALREADY_EXISTS);
    assert_eq!(code(shim.kill("c", 65).await), Code::INVALID_ARGUMENT);
    // Running.
    shim.start("c").await.unwrap();
    assert_eq!(code(shim.start("c").await), Code::FAILED_PRECONDITION);
    assert_eq!(code(shim.delete("c").await), Code::FAILED_PRECONDITION);
    // Stopped.
    shim.kill("c", 9).await.unwrap();
    shim.wait("c").await.unwrap();
    assert_eq!(shim.wait("c").await.unwrap().exit_status, 137, "Wait answers again");
    assert_eq!(code(shim.start("c").await), Code::FAILED_PRECONDITION);
    assert_eq!(code(shim.kill("c", 9).await), Code::NOT_FOUND);
    // Deleted, twice at once.
    let (first, second) = tokio::join!(shim.delete("c"), shim.delete("c"));
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    assert_eq!(code(shim.delete("c").await), Code::NOT_FOUND);
    // The id is free again.
    shim.create("c", &bundle).await.unwrap();
    shim.delete("c").await.unwrap();
    shim.shut_down().await;
}

#[tokio::test]
async fn what_does_not_exist_says_so() {
    let containerd = Containerd::new().await;
    let (shim, bundle) = shim(&containerd).await;
    shim.create("c", &bundle).await.unwrap();
    let id = || "c".to_owned();
    let checkpoint = api::CheckpointTaskRequest { id: id(), ..Default::default() };
    for service in [V2, V3] {
        let answer = shim.call::<Empty>(service, "Checkpoint", checkpoint.clone()).await;
        let (code, sentence) = answer.unwrap_err();
        assert_eq!(code, Code::UNIMPLEMENTED);
        assert!(sentence.contains("not supported"), "{sentence}");
    }
    let start = api::StartRequest { id: id(), exec_id: "e".into(), ..Default::default() };
    assert_eq!(code(shim.call::<api::StartResponse>(V2, "Start", start).await), Code::NOT_FOUND);
    shim.delete("c").await.unwrap();
    shim.shut_down().await;
}

#[tokio::test]
async fn bad_creates_fail_in_one_sentence_and_the_next_good_one_works() {
    let containerd = Containerd::new().await;
    let (shim, good) = shim(&containerd).await;
    let elf = containerd.bundle("elf", &spec(&["/prog"]));
    std::fs::copy("/bin/true", elf.join("rootfs/prog")).unwrap();
    let missing = containerd.bundle("missing", &spec(&["/none.wasm"]));
    let broken = containerd.bundle("broken", &serde_json::json!([]));
    let mut tty = request("tty", &good);
    tty.terminal = true;
    let mut gone = request("gone", &good);
    gone.stdout = "/nonexistent/fifo".into();
    let mut mount = request("mount", &good);
    mount.rootfs = vec![containerd_shim_protos::types::mount::Mount {
        type_: "overlay".into(),
        source: "overlay".into(),
        options: vec!["lowerdir=/nonexistent".into()],
        ..Default::default()
    }];
    let mut options = request("options", &good);
    options.options = Some(containerd_shim_protos::protobuf::well_known_types::any::Any {
        type_url: "some.other.Options".into(),
        ..Default::default()
    })
    .into();
    for (bad, word) in [
        (crate::harness::request_with("elf", &elf, "LinuxPrograms = false"), "wasm"),
        (request("missing", &missing), "none.wasm"),
        (request("broken", &broken), "config.json"),
        (tty, "terminal"),
        (gone, "/nonexistent/fifo"),
        (mount, "mount overlay"),
        (options, "some.other.Options"),
        (request("../x", &good), "container id"),
        (request("rel", std::path::Path::new("relative")), "bundle"),
    ] {
        let (_, sentence) = shim.create_with(bad.clone()).await.unwrap_err();
        assert!(sentence.contains(word), "{word}: {sentence}");
        assert_eq!(sentence.lines().count(), 1, "{sentence}");
        assert!(shim.delete(&bad.id).await.is_err(), "a Create that failed left a task");
    }
    assert!(containerd.topics().is_empty(), "a Create that failed has no event");
    shim.create("c", &good).await.unwrap();
    shim.delete("c").await.unwrap();
    shim.shut_down().await;
}

#[tokio::test]
async fn killed_before_start() {
    let containerd = Containerd::new().await;
    let (shim, bundle) = shim(&containerd).await;
    let pid = shim.create("c", &bundle).await.unwrap();
    shim.kill("c", libc::SIGWINCH).await.unwrap();
    assert_eq!(shim.status("c").await, Status::CREATED, "a harmless signal harms nobody");
    shim.kill("c", libc::SIGTERM).await.unwrap();
    assert_eq!(shim.wait("c").await.unwrap().exit_status, 143);
    assert!(!alive(pid));
    assert_eq!(code(shim.start("c").await), Code::FAILED_PRECONDITION);
    shim.delete("c").await.unwrap();
    let topics = containerd.events(3).await;
    assert_eq!(topics, ["/tasks/create", "/tasks/exit", "/tasks/delete"]);
    shim.shut_down().await;
}

#[tokio::test]
async fn a_task_never_started_can_be_deleted() {
    let containerd = Containerd::new().await;
    let (shim, bundle) = shim(&containerd).await;
    let pid = shim.create("c", &bundle).await.unwrap();
    assert_eq!(shim.delete("c").await.unwrap().exit_status, 137);
    assert!(!alive(pid));
    shim.shut_down().await;
}

#[tokio::test]
async fn shutdown_waits_for_the_last_task_unless_told_otherwise() {
    let containerd = Containerd::new().await;
    let (shim, bundle) = shim(&containerd).await;
    let pid = shim.create("c", &bundle).await.unwrap();
    let polite = api::ShutdownRequest { id: "c".into(), ..Default::default() };
    shim.call::<Empty>(V2, "Shutdown", polite).await.unwrap();
    assert_eq!(shim.status("c").await, Status::CREATED);
    let now = api::ShutdownRequest { id: "c".into(), now: true, ..Default::default() };
    shim.call::<Empty>(V2, "Shutdown", now).await.unwrap();
    shim.gone().await;
    assert!(!alive(pid) && !shim.socket.exists());
    let topics = containerd.events(3).await;
    assert_eq!(topics, ["/tasks/create", "/tasks/exit", "/tasks/delete"]);
}

#[tokio::test]
async fn sigterm_ends_guests_and_leaves_nothing() {
    let containerd = Containerd::new().await;
    let (shim, bundle) = shim(&containerd).await;
    let pid = shim.create("c", &bundle).await.unwrap();
    shim.start("c").await.unwrap();
    signal(shim.pid, nix::sys::signal::Signal::SIGTERM);
    shim.gone().await;
    assert!(!alive(pid) && !shim.socket.exists());
}

fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

#[tokio::test]
async fn a_killed_shim_leaves_no_guest_and_delete_cleans_up() {
    let containerd = Containerd::new().await;
    let (shim, bundle) = shim(&containerd).await;
    let mut create = request("c", &bundle);
    create.rootfs = vec![containerd_shim_protos::types::mount::Mount {
        type_: "tmpfs".into(),
        source: "tmpfs".into(),
        ..Default::default()
    }];
    let pid = shim.create_with(create).await.unwrap();
    shim.start("c").await.unwrap();
    signal(shim.pid, nix::sys::signal::Signal::SIGKILL);
    gone(pid).await;
    let output = run(containerd.shim("c", &bundle, "delete"), Vec::new()).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer = api::DeleteResponse::parse_from_bytes(&output.stdout).unwrap();
    assert_eq!((answer.pid, answer.exit_status), (pid, 137));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(bundle.to_str().unwrap()), "a mount was left behind");
    assert!(!shim.socket.exists());
    let again = run(containerd.shim("c", &bundle, "delete"), Vec::new()).await;
    assert!(again.status.success());
}

#[tokio::test]
async fn rootfs_mounts_come_and_go_with_the_task() {
    let containerd = Containerd::new().await;
    let (shim, bundle) = shim(&containerd).await;
    let mut create = request("c", &bundle);
    create.rootfs = vec![containerd_shim_protos::types::mount::Mount {
        type_: "tmpfs".into(),
        source: "tmpfs".into(),
        options: vec!["size=1m".into()],
        ..Default::default()
    }];
    shim.create_with(create).await.unwrap();
    let mounted = || {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.contains(bundle.join("rootfs").to_str().unwrap())
    };
    assert!(mounted());
    shim.delete("c").await.unwrap();
    assert!(!mounted());
    shim.shut_down().await;
}

#[tokio::test]
async fn many_tasks_at_once_in_one_shim() {
    let containerd = Containerd::new().await;
    let (shim, _) = shim(&containerd).await;
    let life = |n: usize| {
        let (shim, containerd) = (&shim, &containerd);
        async move {
            let id = format!("t{n}");
            let bundle = containerd.bundle(&id, &pause_spec("c"));
            shim.create(&id, &bundle).await.unwrap();
            shim.start(&id).await.unwrap();
            shim.kill(&id, libc::SIGKILL).await.unwrap();
            assert_eq!(shim.wait(&id).await.unwrap().exit_status, 137);
            shim.delete(&id).await.unwrap();
        }
    };
    tokio::join!(life(0), life(1), life(2), life(3), life(4), life(5), life(6), life(7));
    assert_eq!(containerd.events(32).await.len(), 32);
    shim.shut_down().await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_a_whole_task() {
    let containerd = Containerd::new().await;
    let (shim, bundle) = shim(&containerd).await;
    let address = format!("unix://{}", shim.socket.display());
    let other = Shim::connect(&address).await;
    {
        let create = other.create("c", &bundle);
        tokio::pin!(create);
        let soon = tokio::time::timeout(Duration::from_millis(3), &mut create).await;
        drop(soon);
    }
    drop(other);
    // Delete waits for the Create that nobody listens to any more.
    let _ = shim.delete("c").await;
    let state = shim.state("c").await;
    assert_eq!(code(state), Code::NOT_FOUND);
    shim.create("c", &bundle).await.unwrap();
    shim.delete("c").await.unwrap();
    shim.shut_down().await;
}

#[tokio::test]
async fn an_idle_shim_sleeps() {
    let containerd = Containerd::new().await;
    let (shim, bundle) = shim(&containerd).await;
    shim.create("c", &bundle).await.unwrap();
    shim.start("c").await.unwrap();
    containerd.events(2).await;
    calm(shim.pid).await;
    let before = sleeps(shim.pid);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(sleeps(shim.pid), before, "the shim woke up with nothing to do");
    shim.kill("c", 9).await.unwrap();
    shim.wait("c").await.unwrap();
    shim.delete("c").await.unwrap();
    shim.shut_down().await;
}
