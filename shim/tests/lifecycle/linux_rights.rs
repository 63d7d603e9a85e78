//! What Linux programs may do: the spec to the letter.

use serde_json::{Value, json};

use crate::harness::pause_spec;
use crate::home::{Home, process};
use crate::linux::{Linux, busybox, busybox_spec};

/// The value of a field of `/proc/self/status`, in words.
fn field(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

async fn status(alter: impl FnOnce(&mut Value)) -> String {
    let mut spec = busybox_spec(&["cat", "/proc/self/status"]);
    alter(&mut spec);
    let ended = Linux::run(&spec).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    ended.out
}

fn set(names: &[&str]) -> Value {
    names.iter().map(|name| format!("CAP_{name}")).collect()
}

#[tokio::test]
async fn capability_sets_and_no_new_privs_are_those_of_the_spec() {
    let (some, few) = (set(&["CHOWN", "KILL", "NET_RAW"]), set(&["KILL"]));
    let all = json!({ "bounding": some, "permitted": some, "effective": few, "inheritable": few, "ambient": few });
    let seen = status(|spec| spec["process"]["capabilities"] = all.clone()).await;
    // CAP_CHOWN is 0, CAP_KILL 5, CAP_NET_RAW 13; root's program has all of its bounding set.
    for (name, bits) in [("CapBnd", 0x2021), ("CapPrm", 0x2021), ("CapInh", 0x20)] {
        assert_eq!(field(&seen, name), format!("{bits:016x}"), "{name}");
    }
    assert_eq!(field(&seen, "NoNewPrivs"), "0");
    let seen = status(|spec| {
        spec["process"]["capabilities"] = all;
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        spec["process"]["noNewPrivileges"] = true.into();
    })
    .await;
    // The program of another user has the ambient set.
    for (name, bits) in [("CapBnd", 0x2021), ("CapPrm", 0x20), ("CapEff", 0x20), ("CapAmb", 0x20)] {
        assert_eq!(field(&seen, name), format!("{bits:016x}"), "{name}");
    }
    assert_eq!(field(&seen, "NoNewPrivs"), "1");
}

#[tokio::test]
async fn user_groups_mask_and_limits_are_those_of_the_spec() {
    let seen = status(|spec| {
        spec["process"]["user"] =
            json!({ "uid": 1234, "gid": 4321, "additionalGids": [5, 6], "umask": 0o27 });
        spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]);
    })
    .await;
    assert_eq!(field(&seen, "Uid"), "1234 1234 1234 1234");
    assert_eq!(field(&seen, "Gid"), "4321 4321 4321 4321");
    assert_eq!(field(&seen, "Groups"), "5 6");
    assert_eq!(field(&seen, "Umask"), "0027");
    let mut spec = busybox_spec(&["sh", "-c", "ulimit -n; ulimit -Hn"]);
    spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]);
    assert_eq!(Linux::run(&spec).await.out, "100\n200\n");
}

#[tokio::test]
async fn a_user_owns_the_streams_and_has_a_home() {
    let mut spec = busybox_spec(&["sh", "-c", "echo anew > /dev/stderr; echo $HOME"]);
    spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    spec["mounts"].as_array_mut().unwrap().push(json!({
        "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"],
    }));
    let ended = Linux::run(&spec).await;
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (0, "/\n", "anew\n"));
}

#[tokio::test]
async fn a_read_only_root_cannot_be_written() {
    let mut spec = busybox_spec(&["sh", "-c", "echo x > /x"]);
    spec["root"]["readonly"] = true.into();
    let ended = Linux::run(&spec).await;
    assert!(ended.code == 1 && ended.err.contains("Read-only file system"), "{ended:?}");
}

/// Allows all but what these rules say.
fn seccomp(rules: Value) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules })
}

#[tokio::test]
async fn seccomp_profiles_hold_with_and_without_no_new_privs() {
    let rules = json!([
        { "names": ["mkdir", "mkdirat", "not_a_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 },
        { "names": ["sethostname"], "action": "SCMP_ACT_KILL_PROCESS" },
    ]);
    for no_new_privileges in [false, true] {
        let script = "mkdir /x; hostname boat; echo \"code $?\"; grep ^Seccomp: /proc/self/status";
        let mut spec = busybox_spec(&["sh", "-c", script]);
        spec["process"]["noNewPrivileges"] = no_new_privileges.into();
        spec["linux"]["seccomp"] = seccomp(rules.clone());
        let ended = Linux::run(&spec).await;
        assert!(ended.err.contains("No space left on device"), "{ended:?}");
        // SIGSYS is 31.
        assert_eq!(ended.out, "code 159\nSeccomp:\t2\n", "{ended:?}");
    }
}

#[tokio::test]
async fn a_profile_that_cannot_be_had_fails_the_create() {
    for (profile, word) in [
        (json!({ "defaultAction": "SCMP_ACT_NOTIFY" }), "SCMP_ACT_NOTIFY"),
        (
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [
                { "index": 0, "value": 1, "op": "SCMP_CMP_LIKE" },
            ] },
        ] }),
            "SCMP_CMP_LIKE",
        ),
    ] {
        let mut spec = busybox_spec(&["sh"]);
        spec["linux"]["seccomp"] = profile;
        let linux = Linux::new(&spec).await;
        let (_, sentence) = linux.shim.create("c", &linux.bundle).await.unwrap_err();
        assert!(sentence.contains(word), "{sentence}");
        linux.shim.shut_down().await;
    }
}

#[tokio::test]
async fn devices_are_ruled_by_the_cgroup() {
    // A node that the spec allows, one that it does not, and one that everybody may use. Nodes of any
    // kind may be made.
    let script =
        "mknod /kmsg c 1 11 && mknod /mem c 1 1 && mknod /zero c 1 5 && mknod /disk b 8 0 || exit 9
        head -c 1 /zero | wc -c
        head -c 1 /mem
        head -c 1 /disk
        dd if=/dev/null of=/kmsg count=0 && echo written
        head -c 1 /kmsg";
    let mut spec = busybox_spec(&["sh", "-c", script]);
    spec["process"]["capabilities"] = json!({
        "bounding": set(&["MKNOD", "SYS_RAWIO"]), "permitted": set(&["MKNOD", "SYS_RAWIO"]),
        "effective": set(&["MKNOD", "SYS_RAWIO"]),
    });
    spec["linux"]["resources"] = json!({ "devices": [
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "w" },
    ] });
    let ended = Linux::run(&spec).await;
    assert_eq!(ended.out, "1\nwritten\n", "{ended:?}");
    for refused in ["/mem", "/disk", "/kmsg"] {
        let line = ended.err.lines().find(|line| line.contains(&format!("head: {refused}:")));
        let line = line.unwrap_or_else(|| panic!("{refused}: {ended:?}"));
        assert!(line.contains("Operation not permitted"), "{ended:?}");
    }
}

#[tokio::test]
async fn settings_that_this_runtime_does_not_have_fail_the_create() {
    let mut spec = busybox_spec(&["sh"]);
    spec["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 7 });
    let linux = Linux::new(&spec).await;
    let (_, sentence) = linux.shim.create("c", &linux.bundle).await.unwrap_err();
    assert!(sentence.contains("process.ioPriority"), "{sentence}");
    linux.shim.shut_down().await;
    let mut spec = busybox_spec(&["true"]);
    spec["linux"]["personality"] = json!({ "domain": "LINUX" });
    spec["process"]["args"] = json!(["sh", "-c", "exit 3"]);
    assert_eq!(Linux::run(&spec).await.code, 3);
}

#[tokio::test]
async fn a_process_beside_a_guest_is_filtered_and_can_make_no_device() {
    let mut spec = pause_spec("c");
    spec["linux"]["seccomp"] =
        seccomp(json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }]));
    let home = Home::with(spec).await;
    busybox(&home.bundle);
    let mut sleeper = process(&["sleep", "1000"]);
    sleeper["capabilities"] = json!({
        "bounding": set(&["MKNOD", "CHOWN"]), "permitted": set(&["MKNOD", "CHOWN"]),
        "effective": set(&["MKNOD", "CHOWN"]),
    });
    let pid = home.launch("e", &sleeper).await.unwrap();
    let seen = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    // The group of a container whose own program is not for Linux has no rules for devices.
    for set in ["CapBnd", "CapPrm", "CapEff"] {
        assert_eq!(field(&seen, set), format!("{:016x}", 1), "{set}");
    }
    assert_eq!(field(&seen, "Seccomp"), "2");
    home.leave().await;

    let linux = Linux::new(&busybox_spec(&["sleep", "1000"])).await;
    linux.go().await.unwrap();
    linux.shim.exec(crate::home::call("e", &sleeper)).await.unwrap();
    let pid = linux.shim.start_exec("e").await.unwrap();
    let seen = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert_eq!(field(&seen, "CapBnd"), format!("{:016x}", 1 | 1 << 27), "its group has rules");
    linux.shim.kill("c", libc::SIGKILL).await.unwrap();
    linux.shim.wait("c").await.unwrap();
    linux.leave().await;
}

/// `execCPUAffinity` is for further processes alone; containers' first ones run where their group lets them.
#[tokio::test]
async fn a_process_runs_on_the_processors_that_it_asks_for() {
    let mut spec = pause_spec("c");
    spec["process"]["execCPUAffinity"] = json!({ "final": "1023" });
    let home = Home::with(spec).await;
    busybox(&home.bundle);
    let allowed = |pid: u32| {
        let seen = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        field(&seen, "Cpus_allowed_list")
    };
    let everywhere = allowed(home.pid);
    for (exec, program) in [("linux", &["sleep", "1000"][..]), ("wasm", &["spin.wat"])] {
        let mut bound = process(program);
        bound["execCPUAffinity"] = json!({ "initial": "0", "final": "0" });
        let pid = home.launch(exec, &bound).await.unwrap();
        assert_eq!(allowed(pid), "0", "{exec}");
    }
    let mut free = process(&["sleep", "1000"]);
    free["execCPUAffinity"] = json!({ "initial": "0" });
    let pid = home.launch("free", &free).await.unwrap();
    assert_eq!(allowed(pid), everywhere, "it is born in the group");
    let mut absent = process(&["sleep", "1000"]);
    absent["execCPUAffinity"] = json!({ "final": "1023" });
    let (_, sentence) = home.launch("absent", &absent).await.unwrap_err();
    assert!(sentence.contains("[1023] (execCPUAffinity): Invalid argument"), "{sentence}");
    let mut wrong = process(&["sleep", "1000"]);
    wrong["execCPUAffinity"] = json!({ "final": "3-1" });
    let (_, sentence) = home.shim.exec(crate::home::call("wrong", &wrong)).await.unwrap_err();
    assert!(sentence.contains("process.execCPUAffinity"), "{sentence}");
    home.leave().await;
}

/// A label that cannot be had is never left out: what asks for it does not start.
#[tokio::test]
async fn a_process_whose_label_cannot_be_had_does_not_start() {
    let home = Home::new().await;
    busybox(&home.bundle);
    for (exec, program) in [("linux", &["sh", "-c", ":"][..]), ("wasm", &["hello.wat"])] {
        let mut labelled = process(program);
        labelled["apparmorProfile"] = json!("no-such-profile");
        let (_, sentence) = home.launch(exec, &labelled).await.unwrap_err();
        assert!(sentence.contains("no-such-profile"), "{sentence}");
        let free = format!("{exec}-unconfined");
        let mut unconfined = process(program);
        unconfined["apparmorProfile"] = json!("unconfined");
        home.launch(&free, &unconfined).await.unwrap();
        assert_eq!(home.shim.wait_exec(&free).await, Ok(0));
    }
    home.leave().await;
}

/// Hooks are the container's: a further process runs none, and its own description has none.
#[tokio::test]
async fn a_further_process_runs_no_hook() {
    let scratch = tempfile::tempdir().unwrap();
    let note = scratch.path().join("note");
    let hook = |stage: &str| {
        let script = format!("echo {stage} >> {}", note.display());
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"] }])
    };
    let mut spec = pause_spec("c");
    spec["hooks"] = json!({
        "prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
        "poststart": hook("poststart"), "poststop": hook("poststop"),
    });
    let home = Home::with(spec).await;
    busybox(&home.bundle);
    let before = std::fs::read_to_string(&note).unwrap();
    assert_eq!(before, "prestart\ncreateRuntime\npoststart\n");
    home.launch("e", &process(&["sh", "-c", ":"])).await.unwrap();
    assert_eq!(home.shim.wait_exec("e").await, Ok(0));
    home.shim.delete_exec("e").await.unwrap();
    assert_eq!(std::fs::read_to_string(&note).unwrap(), before);
    home.leave().await;
    assert_eq!(std::fs::read_to_string(&note).unwrap(), before + "poststop\n");
}
