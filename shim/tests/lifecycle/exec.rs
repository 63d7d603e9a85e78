//! Further processes of a container: the calls in every state, and what such a process is.

use std::path::Path;
use std::time::Duration;

use containerd_shim_protos::api::{self, Status};
use containerd_shim_protos::events::task::{TaskExecAdded, TaskExecStarted, TaskExit};
use containerd_shim_protos::ttrpc::Code;
use serde_json::json;

use crate::harness::{V2, alive, gone, pause_spec, run, spec, within};
use crate::home::{Home, call, process};

fn code<T: std::fmt::Debug>(answer: Result<T, (Code, String)>) -> Code {
    answer.expect_err("this call must be refused").0
}

#[tokio::test]
async fn a_whole_life_in_order() {
    let home = Home::new().await;
    let shim = &home.shim;
    let mut spin = call("e", &process(&["spin.wat"]));
    spin.stdout = home.fifo("out").to_str().unwrap().into();
    shim.exec(spin.clone()).await.unwrap();
    let state = shim.exec_state("e").await.unwrap();
    assert_eq!((state.status.enum_value(), state.pid), (Ok(Status::CREATED), 0));
    assert_eq!((state.id.as_str(), state.stdout), ("e", spin.stdout));
    assert_eq!(shim.pids("c").await, [home.pid]);

    let pid = shim.start_exec("e").await.unwrap();
    let state = shim.exec_state("e").await.unwrap();
    assert_eq!((state.status.enum_value(), state.pid), (Ok(Status::RUNNING), pid));
    let waiting = shim.wait_exec("e");
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.is_err());
    let pids = api::PidsRequest { id: "c".into(), ..Default::default() };
    let pids: api::PidsResponse = shim.call(V2, "Pids", pids).await.unwrap();
    let of = |pid: u32| pids.processes.iter().find(|process| process.pid == pid).unwrap();
    assert_eq!(pids.processes.len(), 2);
    assert!(of(home.pid).info.is_none());
    assert_eq!(of(pid).info.type_url, "containerd.runc.v1.ProcessDetails");
    assert!(of(pid).info.value.ends_with(b"e"));

    shim.kill_exec("e", libc::SIGTERM).await.unwrap();
    assert_eq!(within("the end", waiting).await, Ok(143));
    let state = shim.exec_state("e").await.unwrap();
    assert_eq!((state.status.enum_value(), state.exit_status), (Ok(Status::STOPPED), 143));
    let deleted = shim.delete_exec("e").await.unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 143));
    assert_eq!(code(shim.exec_state("e").await), Code::NOT_FOUND);
    assert!(!alive(pid));
    assert_eq!(shim.status("c").await, Status::RUNNING);

    let topics = home.containerd.events(5).await;
    assert_eq!(
        topics,
        [
            "/tasks/create",
            "/tasks/start",
            "/tasks/exec-added",
            "/tasks/exec-started",
            "/tasks/exit"
        ]
    );
    let added: TaskExecAdded = home.containerd.event("/tasks/exec-added");
    assert_eq!((added.container_id.as_str(), added.exec_id.as_str()), ("c", "e"));
    let started: TaskExecStarted = home.containerd.event("/tasks/exec-started");
    assert_eq!((started.exec_id.as_str(), started.pid), ("e", pid));
    let exit: TaskExit = home.containerd.event("/tasks/exit");
    assert_eq!((exit.container_id.as_str(), exit.id.as_str()), ("c", "e"));
    assert_eq!((exit.pid, exit.exit_status), (pid, 143));
    home.leave().await;
}

#[tokio::test]
async fn every_call_is_refused_in_the_wrong_state() {
    let home = Home::new().await;
    let shim = &home.shim;
    // Nothing there.
    assert_eq!(code(shim.start_exec("e").await), Code::NOT_FOUND);
    assert_eq!(code(shim.exec_state("e").await), Code::NOT_FOUND);
    assert_eq!(code(shim.wait_exec("e").await), Code::NOT_FOUND);
    assert_eq!(code(shim.kill_exec("e", 9).await), Code::NOT_FOUND);
    assert_eq!(code(shim.delete_exec("e").await), Code::NOT_FOUND);
    assert_eq!(code(shim.resize("e", (80, 24)).await), Code::NOT_FOUND);
    assert_eq!(code(shim.close_input("e").await), Code::NOT_FOUND);
    let spin = || call("e", &process(&["spin.wat"]));
    for (bad, want) in [
        (api::ExecProcessRequest { id: "other".into(), ..spin() }, Code::NOT_FOUND),
        (api::ExecProcessRequest { exec_id: String::new(), ..spin() }, Code::INVALID_ARGUMENT),
        (api::ExecProcessRequest { exec_id: "../e".into(), ..spin() }, Code::INVALID_ARGUMENT),
        (api::ExecProcessRequest { spec: None.into(), ..spin() }, Code::INVALID_ARGUMENT),
        (call("e", &json!({ "args": "x" })), Code::INVALID_ARGUMENT),
        (call("e", &process(&[])), Code::INVALID_ARGUMENT),
    ] {
        assert_eq!(code(shim.exec(bad.clone()).await), want, "{bad:?}");
    }
    // Created.
    shim.exec(spin()).await.unwrap();
    assert_eq!(code(shim.exec(spin()).await), Code::ALREADY_EXISTS);
    assert_eq!(code(shim.kill_exec("e", 9).await), Code::FAILED_PRECONDITION);
    shim.resize("e", (80, 24)).await.unwrap();
    shim.close_input("e").await.unwrap();
    shim.delete_exec("e").await.unwrap();
    // Running.
    shim.exec(spin()).await.unwrap();
    shim.start_exec("e").await.unwrap();
    assert_eq!(code(shim.start_exec("e").await), Code::FAILED_PRECONDITION);
    assert_eq!(code(shim.delete_exec("e").await), Code::FAILED_PRECONDITION);
    assert_eq!(code(shim.kill_exec("e", 65).await), Code::INVALID_ARGUMENT);
    shim.resize("e", (80, 24)).await.unwrap();
    shim.kill_exec("e", 9).await.unwrap();
    assert_eq!(shim.wait_exec("e").await, Ok(137));
    // Stopped.
    assert_eq!(shim.wait_exec("e").await, Ok(137), "Wait answers again");
    assert_eq!(code(shim.start_exec("e").await), Code::FAILED_PRECONDITION);
    assert_eq!(code(shim.kill_exec("e", 9).await), Code::NOT_FOUND);
    assert_eq!(code(shim.resize("e", (80, 24)).await), Code::FAILED_PRECONDITION);
    shim.close_input("e").await.unwrap();
    assert_eq!(code(shim.exec(spin()).await), Code::ALREADY_EXISTS);
    let (first, second) = tokio::join!(shim.delete_exec("e"), shim.delete_exec("e"));
    assert!(first.is_ok() || second.is_ok(), "{first:?} {second:?}");
    assert_eq!(code(shim.delete_exec("e").await), Code::NOT_FOUND);
    // The container has ended.
    shim.exec(spin()).await.unwrap();
    shim.kill("c", 9).await.unwrap();
    shim.wait("c").await.unwrap();
    assert_eq!(code(shim.start_exec("e").await), Code::FAILED_PRECONDITION);
    let late = api::ExecProcessRequest { exec_id: "late".into(), ..spin() };
    assert_eq!(code(shim.exec(late).await), Code::FAILED_PRECONDITION);
    assert_eq!(shim.exec_state("e").await.unwrap().status.enum_value(), Ok(Status::CREATED));
    let waiting = shim.wait_exec("e");
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.is_err());
    home.shim.delete("c").await.unwrap();
    within("the end of waiting", waiting).await.unwrap();
    home.shim.shut_down().await;
}

#[tokio::test]
async fn a_container_that_is_only_created_takes_processes_too() {
    let home = Home::created(pause_spec("c")).await;
    assert_ne!(home.launch("e", &process(&["exit.wat"])).await, Ok(0));
    assert_eq!(home.shim.wait_exec("e").await, Ok(42));
    home.shim.start("c").await.unwrap();
    home.leave().await;
}

#[tokio::test]
async fn processes_end_with_their_container_and_before_it() {
    // In a pid namespace of its own the kernel ends them, in a shared one the shim does.
    for own in [true, false] {
        let mut spec = pause_spec("c");
        if !own {
            let all = spec["linux"]["namespaces"].as_array_mut().unwrap();
            all.retain(|namespace| namespace["type"] != "pid");
        }
        let home = Home::with(spec).await;
        let first = home.launch("e1", &process(&["spin.wat"])).await.unwrap();
        let second = home.launch("e2", &process(&["spin.wat"])).await.unwrap();
        home.shim.kill("c", libc::SIGKILL).await.unwrap();
        assert_eq!(home.shim.wait("c").await.unwrap().exit_status, 137);
        assert!(!alive(first) && !alive(second));
        let topics = home.containerd.events(9).await;
        assert_eq!(topics[6..], ["/tasks/exit"; 3]);
        let exits: Vec<TaskExit> = home.containerd.all_events("/tasks/exit");
        assert_eq!(exits[2].id, "c", "the container's own exit is the last");
        let mut others: Vec<_> =
            exits[..2].iter().map(|e| (e.id.as_str(), e.exit_status)).collect();
        others.sort_unstable();
        assert_eq!(others, [("e1", 137), ("e2", 137)]);
        assert_eq!(home.shim.delete_exec("e1").await.unwrap().exit_status, 137);
        // `e2` goes with the container.
        home.leave().await;
    }
}

#[tokio::test]
async fn it_lives_where_the_container_does() {
    let mut spec = pause_spec("c");
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "cgroup" }));
    let home = Home::with(spec).await;
    let mut described = process(&["spin.wat", "x"]);
    described["cwd"] = json!("/bin");
    described["user"] = json!({ "uid": 1234, "gid": 4321, "additionalGids": [5], "umask": 0o27 });
    described["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]);
    described["oomScoreAdj"] = json!(700);
    described["capabilities"] = json!({
        "bounding": ["CAP_SYS_ADMIN"], "effective": ["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"],
        "inheritable": ["CAP_SYS_ADMIN"], "permitted": ["CAP_SYS_ADMIN"],
    });
    let pid = home.launch("e", &described).await.unwrap();
    let link = |pid: u32, file: &str| std::fs::read_link(format!("/proc/{pid}/{file}")).unwrap();
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        let file = format!("ns/{kind}");
        assert_eq!(link(pid, &file), link(home.pid, &file), "{kind}");
    }
    assert_ne!(link(pid, "ns/mnt"), link(std::process::id(), "ns/mnt"));
    let text =
        |pid: u32, file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    assert_eq!(text(pid, "cgroup"), text(home.pid, "cgroup"));
    assert_eq!(link(pid, "root"), Path::new("/"));
    assert_eq!(link(pid, "cwd"), Path::new("/bin"));
    let status = text(pid, "status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(field("PPid"), home.shim.pid.to_string());
    assert_eq!(field("Uid"), "1234 1234 1234 1234");
    assert_eq!(field("Gid"), "4321 4321 4321 4321");
    assert_eq!(field("Groups"), "5");
    assert_eq!(field("Umask"), "0027");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(text(pid, "oom_score_adj"), "700\n");
    let limits = text(pid, "limits");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert!(files.contains(" 200 "), "{files}");
    home.leave().await;
}

/// CVE-2019-5736 and CVE-2024-21626: neither the shim's executable nor anything that it has open.
#[tokio::test]
async fn nothing_of_the_shim_can_be_reached_from_it() {
    let home = Home::new().await;
    let pid = home.launch("e", &process(&["spin.wat"])).await.unwrap();
    let folder = format!("/proc/{pid}/fd");
    let mut open: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap().display().to_string())
        .collect();
    open.sort();
    // Its streams, its two folders, its code (which only those can open who could anyway), and the limit of
    // memory that it keeps to.
    let known = |name: &String| {
        let exact = ["/", "/dev/null"].contains(&name.as_str());
        let limit = ["/memory.limit_in_bytes", "/memory.max"].iter().any(|end| name.ends_with(end));
        exact || limit || name.contains("/cache/") || name.starts_with("/memfd:code-image")
    };
    assert!(open.iter().all(known), "{open:?}");
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{name}")).unwrap();
        let writable = !info.lines().any(|l| l.starts_with("flags:") && l.ends_with('0'));
        let target = std::fs::read_link(&path).unwrap();
        assert!(
            !writable || target == Path::new("/dev/null"),
            "{} can be written",
            target.display()
        );
    }
    let exe = format!("/proc/{pid}/exe");
    let flags = rustix::fs::statvfs(&exe).unwrap().f_flag;
    assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    assert!(std::fs::File::options().write(true).open(&exe).is_err());
    home.shim.kill_exec("e", 9).await.unwrap();
    // By way of what the shim has open while it makes the process.
    for (n, cwd) in (3..12).map(|n| (n, format!("/proc/self/fd/{n}"))) {
        let mut described = process(&["exit.wat"]);
        described["cwd"] = json!(cwd);
        let (_, sentence) = home.launch(&format!("cwd{n}"), &described).await.unwrap_err();
        assert!(sentence.contains("chdir to cwd"), "{sentence}");
    }
    let exes = ["/proc/self/exe", "/proc/1/exe", "/proc/self/fd/0", "/proc/1/cwd"];
    for (n, exe) in exes.into_iter().enumerate() {
        assert!(home.launch(&format!("exe{n}"), &process(&[exe])).await.is_err(), "{exe}");
    }
    home.leave().await;
}

#[tokio::test]
async fn what_cannot_be_executed_is_said_in_the_words_of_runc() {
    let home = Home::new().await;
    let mut lost = process(&["exit.wat"]);
    lost["cwd"] = json!("/none");
    let prefix = "OCI runtime exec failed: exec failed: unable to start container process: ";
    for (n, (described, words, code)) in [
        (process(&["sh"]), "exec: \"sh\": executable file not found in $PATH", 127),
        (process(&["/bin/sh"]), "exec: \"/bin/sh\": stat /bin/sh: no such file or directory", 127),
        (process(&[""]), "exec: \"\": executable file not found in $PATH", 127),
        (process(&["/bin"]), "exec: \"/bin\": ", 126),
        (process(&["text.txt"]), "exec: \"text.txt\": ", 126),
        (process(&["named.wat"]), "_start", 126),
        (lost, "chdir to cwd (\"/none\") set in config.json failed: no such file", 126),
    ]
    .into_iter()
    .enumerate()
    {
        let exec = format!("e{n}");
        let (_, sentence) = home.launch(&exec, &described).await.unwrap_err();
        assert!(sentence.starts_with(prefix) && sentence.contains(words), "{sentence}");
        assert_eq!(sentence.lines().count(), 1, "{sentence}");
        assert_eq!(home.shim.wait_exec(&exec).await, Ok(code), "{sentence}");
        home.shim.delete_exec(&exec).await.unwrap();
    }
    let topics = home.containerd.events(9).await;
    assert!(
        !topics.contains(&"/tasks/exit".to_owned()),
        "what never started has no exit: {topics:?}"
    );
    // An export by its name; and the container is none the worse.
    home.launch("last", &process(&["named.wat#other"])).await.unwrap();
    assert_eq!(home.shim.wait_exec("last").await, Ok(1));
    assert_eq!(home.shim.pids("c").await, [home.pid]);
    home.leave().await;
}

#[tokio::test]
async fn programs_may_lie_on_volumes_and_behind_links() {
    let volume = tempfile::tempdir().unwrap();
    let mut spec = pause_spec("c");
    spec["mounts"].as_array_mut().unwrap().push(json!({
        "destination": "/tools", "type": "bind", "source": volume.path(), "options": ["rbind", "ro"],
    }));
    let home = Home::with(spec).await;
    // It comes when the container runs already.
    std::fs::copy(home.bundle.join("rootfs/bin/exit.wat"), volume.path().join("x")).unwrap();
    std::os::unix::fs::symlink("/tools/x", home.bundle.join("rootfs/bin/link")).unwrap();
    for (exec, program) in [("e1", "/tools/x"), ("e2", "link"), ("e3", "../tools/x")] {
        home.launch(exec, &process(&[program])).await.unwrap();
        assert_eq!(home.shim.wait_exec(exec).await, Ok(42), "{program}");
    }
    // A link that leads out of the container leads nowhere.
    std::os::unix::fs::symlink("../../../../bin/true", home.bundle.join("rootfs/out")).unwrap();
    assert!(home.launch("e4", &process(&["/out"])).await.is_err());
    home.leave().await;
}

#[tokio::test]
async fn it_has_streams_of_its_own() {
    let home = Home::new().await;
    let mut echo = call("e", &process(&["echo.wat"]));
    let out = home.reads(&mut echo);
    let stdin = home.fifo("in-e");
    echo.stdin = stdin.to_str().unwrap().into();
    let client = tokio::task::spawn_blocking(move || {
        use std::io::Write;
        let mut writer = std::fs::File::options().write(true).open(stdin).unwrap();
        writer.write_all(b"ahoy").unwrap();
    });
    home.shim.exec(echo).await.unwrap();
    home.shim.start_exec("e").await.unwrap();
    within("the client", client).await.unwrap();
    assert_eq!(home.shim.wait_exec("e").await, Ok(7));
    home.shim.delete_exec("e").await.unwrap();
    assert_eq!(within("the output", out).await.unwrap(), "ahoy");
    home.leave().await;
}

#[tokio::test]
async fn in_a_user_namespace_it_is_that_namespaces_user() {
    let mut spec = pause_spec("c");
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    for map in ["uidMappings", "gidMappings"] {
        spec["linux"][map] = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
    }
    let home = Home::with(spec).await;
    let pid = home.launch("e", &process(&["spin.wat"])).await.unwrap();
    let user = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    assert_eq!(user(pid), user(home.pid));
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Uid:\t100000\t100000"), "{status}");
    home.leave().await;
}

#[tokio::test]
async fn a_shim_that_is_killed_takes_it_along() {
    let home = Home::new().await;
    let pid = home.launch("e", &process(&["spin.wat"])).await.unwrap();
    let shim = nix::unistd::Pid::from_raw(home.shim.pid.cast_signed());
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).unwrap();
    gone(pid).await;
    gone(home.pid).await;
    let output = run(home.containerd.shim("c", &home.bundle, "delete"), Vec::new()).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn many_at_once() {
    let home = Home::new().await;
    let life = |n: usize| {
        let home = &home;
        async move {
            let exec = format!("e{n}");
            home.launch(&exec, &process(&["exit.wat"])).await.unwrap();
            assert_eq!(home.shim.wait_exec(&exec).await, Ok(42));
            home.shim.delete_exec(&exec).await.unwrap();
        }
    };
    tokio::join!(life(0), life(1), life(2), life(3), life(4), life(5), life(6), life(7));
    assert_eq!(home.containerd.events(26).await.len(), 26);
    home.leave().await;
}

#[tokio::test]
async fn a_container_without_a_pod_takes_processes_too() {
    let mut plain = spec(&["/bin/spin.wat"]);
    plain["linux"]["resources"] = json!({ "memory": { "limit": 64 << 20 } });
    let home = Home::with(plain).await;
    home.launch("e", &process(&["exit.wat"])).await.unwrap();
    assert_eq!(home.shim.wait_exec("e").await, Ok(42));
    home.leave().await;
}

#[tokio::test]
async fn its_first_start_goes_on_compiling() {
    let home = Home::created_with(pause_spec("c"), "LazyAboveKiB = 0").await;
    home.shim.start("c").await.unwrap();
    for exec in ["e1", "e2"] {
        home.launch(exec, &process(&["exit.wat"])).await.unwrap();
        assert_eq!(home.shim.wait_exec(exec).await, Ok(42));
        home.shim.delete_exec(exec).await.unwrap();
    }
    // One that is killed, and deleted with its container.
    home.launch("e3", &process(&["spin.wat"])).await.unwrap();
    home.shim.kill_exec("e3", libc::SIGKILL).await.unwrap();
    assert_eq!(home.shim.wait_exec("e3").await, Ok(137));
    home.leave().await;
}

#[tokio::test]
async fn a_container_that_ends_does_not_wait_for_its_compilation() {
    let home = Home::new().await;
    std::fs::write(home.bundle.join("rootfs/bin/huge.wat"), crate::programs::huge(2500)).unwrap();
    home.shim.exec(call("e", &process(&["huge.wat"]))).await.unwrap();
    let start = home.shim.start_exec("e");
    tokio::pin!(start);
    let early = tokio::time::timeout(Duration::from_millis(300), &mut start).await;
    assert!(early.is_err(), "the compiler was done already: {early:?}");
    let now = std::time::Instant::now();
    home.shim.kill("c", libc::SIGKILL).await.unwrap();
    let (code, sentence) = within("the refusal", start).await.unwrap_err();
    assert_eq!(code, Code::FAILED_PRECONDITION, "{sentence}");
    assert_eq!(home.shim.wait("c").await.unwrap().exit_status, 137);
    assert!(now.elapsed() < Duration::from_secs(2), "{:?}", now.elapsed());
    home.leave().await;
}

#[tokio::test]
async fn it_pauses_with_its_container() {
    let home = Home::new().await;
    home.launch("e", &process(&["spin.wat"])).await.unwrap();
    home.shim.exec(call("waits", &process(&["exit.wat"]))).await.unwrap();
    let pause = api::PauseRequest { id: "c".into(), ..Default::default() };
    home.shim.call::<api::Empty>(V2, "Pause", pause).await.unwrap();
    let status = || async { home.shim.exec_state("e").await.unwrap().status.enum_value() };
    assert_eq!(status().await, Ok(Status::PAUSED));
    assert_eq!(
        code(home.shim.exec(call("late", &process(&["x"]))).await),
        Code::FAILED_PRECONDITION
    );
    assert_eq!(code(home.shim.start_exec("waits").await), Code::FAILED_PRECONDITION);
    let resume = api::ResumeRequest { id: "c".into(), ..Default::default() };
    home.shim.call::<api::Empty>(V2, "Resume", resume).await.unwrap();
    assert_eq!(status().await, Ok(Status::RUNNING));
    home.shim.start_exec("waits").await.unwrap();
    assert_eq!(home.shim.wait_exec("waits").await, Ok(42));
    home.leave().await;
}
