//! Linux programs: the same shim runs them as runc would.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use containerd_shim_protos::api::{self, Status};
use containerd_shim_protos::ttrpc::Code;
use serde_json::{Value, json};

use crate::harness::{Containerd, Shim, alive, pause_spec, request, request_with, spec, within};

/// Debian's busybox-static: one file that needs no other.
const BUSYBOX: &str = "/bin/busybox";

/// A spec with the environment and the root file system of a busybox image.
pub(crate) fn busybox_spec(args: &[&str]) -> Value {
    let mut spec = spec(args);
    spec["process"]["env"] = json!(["PATH=/sbin:/bin", "A=b"]);
    spec["process"]["noNewPrivileges"] = false.into();
    spec
}

pub(crate) fn busybox(bundle: &Path) {
    let bin = bundle.join("rootfs/bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::copy(BUSYBOX, bin.join("busybox")).expect("deploy/setup.sh installs busybox-static");
    for name in
        ["sh", "cat", "sleep", "ls", "grep", "head", "mkdir", "mknod", "hostname", "dd", "wc"]
    {
        std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
    }
}

pub(crate) struct Linux {
    containerd: Containerd,
    pub(crate) shim: Shim,
    pub(crate) bundle: PathBuf,
}

/// How a program ended and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: u32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Linux {
    pub(crate) async fn new(spec: &Value) -> Self {
        let containerd = Containerd::new().await;
        let bundle = containerd.bundle("c", spec);
        busybox(&bundle);
        let shim = containerd.start("c", &bundle).await;
        Self { containerd, shim, bundle }
    }

    fn fifo(&self, name: &str) -> (String, tokio::task::JoinHandle<String>) {
        let path = self.containerd.dir.path().join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let text = path.to_str().unwrap().to_owned();
        let reader =
            tokio::task::spawn_blocking(move || std::fs::read_to_string(path).unwrap_or_default());
        (text, reader)
    }

    /// Create and Start.
    pub(crate) async fn go(&self) -> Result<u32, (Code, String)> {
        self.shim.create("c", &self.bundle).await?;
        self.shim.start("c").await
    }

    /// A whole life.
    pub(crate) async fn run(spec: &Value) -> Ended {
        let linux = Self::new(spec).await;
        let ((stdout, out), (stderr, err)) = (linux.fifo("out"), linux.fifo("err"));
        let create = api::CreateTaskRequest { stdout, stderr, ..request("c", &linux.bundle) };
        linux.shim.create_with(create).await.unwrap();
        linux.shim.start("c").await.unwrap();
        let code = linux.shim.wait("c").await.unwrap().exit_status;
        let out = within("the output", out).await.unwrap();
        let err = within("the output", err).await.unwrap();
        linux.leave().await;
        Ended { code, out, err }
    }

    /// A shell's script.
    async fn sh(script: &str) -> Ended {
        Self::run(&busybox_spec(&["sh", "-c", script])).await
    }

    pub(crate) async fn leave(&self) {
        self.shim.delete("c").await.unwrap();
        self.shim.shut_down().await;
    }
}

#[tokio::test]
async fn a_shell_is_found_in_the_path_and_its_exit_code_seen() {
    let ended = Linux::sh("echo out $A $HOME $0 $$; echo err >&2; exit 42").await;
    assert_eq!(
        (ended.code, ended.out.as_str(), ended.err.as_str()),
        (42, "out b / sh 1\n", "err\n")
    );
}

#[tokio::test]
async fn scripts_run_by_their_interpreter() {
    let linux = Linux::new(&busybox_spec(&["/start.sh", "ahoy"])).await;
    let script = linux.bundle.join("rootfs/start.sh");
    std::fs::write(&script, "#!/bin/sh\ntest \"$1\" = ahoy && exit 7\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    linux.go().await.unwrap();
    assert_eq!(linux.shim.wait("c").await.unwrap().exit_status, 7);
    linux.leave().await;
    let topics = linux.containerd.events(4).await;
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
}

#[tokio::test]
async fn nothing_of_the_runner_reaches_the_program() {
    let ended = Linux::run(&busybox_spec(&["busybox", "ls", "/proc/1/fd"])).await;
    // The last is the folder itself.
    assert_eq!(ended.out.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"], "{ended:?}");
    let ended = Linux::run(&busybox_spec(&["cat", "/proc/1/status"])).await;
    for set in ["SigBlk:", "SigIgn:", "SigCgt:"] {
        let set = ended.out.lines().find_map(|line| line.strip_prefix(set)).unwrap();
        let set = u64::from_str_radix(set.trim(), 16).unwrap();
        // The C library keeps 32 and 33 for itself, so whoever runs the tests may have them ignored.
        assert_eq!(set & !(0b11 << 31), 0, "{ended:?}");
    }
}

/// Whether a process has a handler for the signal.
fn handles(pid: u32, signal: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(caught.trim(), 16).unwrap() & 1 << (signal - 1) != 0
}

#[tokio::test]
async fn a_signal_without_a_handler_spares_the_first_process_and_sigkill_does_not() {
    let linux = Linux::new(&busybox_spec(&["sleep", "1000"])).await;
    let pid = linux.go().await.unwrap();
    linux.shim.kill("c", libc::SIGTERM).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(linux.shim.status("c").await, Status::RUNNING);
    assert_eq!(linux.shim.pids("c").await, [pid]);
    let begun = Instant::now();
    linux.shim.kill("c", libc::SIGKILL).await.unwrap();
    assert_eq!(linux.shim.wait("c").await.unwrap().exit_status, 137);
    assert!(begun.elapsed() < Duration::from_secs(2) && !alive(pid));
    linux.leave().await;

    let handled = "trap 'exit 9' TERM; while :; do sleep 0.05; done";
    let linux = Linux::new(&busybox_spec(&["sh", "-c", handled])).await;
    let pid = linux.go().await.unwrap();
    within("the handler", async {
        while !handles(pid, libc::SIGTERM) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    linux.shim.kill("c", libc::SIGTERM).await.unwrap();
    assert_eq!(linux.shim.wait("c").await.unwrap().exit_status, 9);
    linux.leave().await;
}

#[tokio::test]
async fn what_cannot_be_executed_is_refused_in_the_words_of_runc() {
    for (args, words) in [
        (&["nosuch"][..], "executable file not found in $PATH"),
        (&["/nosuch"][..], "no such file or directory"),
        (&["/bin"][..], "is a directory"),
        (&["/plain"][..], "permission denied"),
        (&["/broken"][..], "exec format error"),
        (&["/orphan"][..], "exec /orphan: no such file or directory"),
    ] {
        let linux = Linux::new(&busybox_spec(args)).await;
        let rootfs = linux.bundle.join("rootfs");
        for (name, text, mode) in [
            ("plain", "#!/bin/sh\n", 0o644),
            ("broken", "\x7fELF\x02\x01\x01", 0o755),
            ("orphan", "#!/none\n", 0o755),
        ] {
            std::fs::write(rootfs.join(name), text).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(rootfs.join(name), mode).unwrap();
        }
        let (_, sentence) = linux.go().await.unwrap_err();
        assert!(sentence.contains(words), "{args:?}: {sentence}");
        assert_eq!(sentence.lines().count(), 1, "{sentence}");
        if linux.shim.state("c").await.is_ok() {
            assert_eq!(linux.shim.wait("c").await.unwrap().exit_status, 126);
            linux.shim.delete("c").await.unwrap();
        }
        linux.shim.shut_down().await;
    }
}

#[tokio::test]
async fn linux_programs_can_be_forbidden() {
    let linux = Linux::new(&busybox_spec(&["sh"])).await;
    let create = request_with("c", &linux.bundle, "LinuxPrograms = false");
    let (code, sentence) = linux.shim.create_with(create).await.unwrap_err();
    assert_eq!(code, Code::INVALID_ARGUMENT);
    assert!(sentence.contains("/bin/busybox") && sentence.contains("LinuxPrograms"), "{sentence}");
    linux.shim.shut_down().await;
}

#[tokio::test]
async fn a_sidecar_shares_the_shim_and_the_namespaces_of_its_pod() {
    let containerd = Containerd::new().await;
    let sandbox = containerd.bundle("s", &pause_spec("s"));
    let shim = containerd.start("s", &sandbox).await;
    let pause = shim.create("s", &sandbox).await.unwrap();
    shim.start("s").await.unwrap();
    let mut spec = busybox_spec(&["sleep", "1000"]);
    spec["annotations"] = json!({
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.sandbox-id": "s",
    });
    spec["linux"]["namespaces"] = json!([
        { "type": "pid" }, { "type": "mount" }, { "type": "uts", "path": format!("/proc/{pause}/ns/uts") },
        { "type": "ipc", "path": format!("/proc/{pause}/ns/ipc") },
        { "type": "network", "path": format!("/proc/{pause}/ns/net") },
    ]);
    let sidecar = containerd.bundle("c", &spec);
    busybox(&sidecar);
    let same = containerd.start("c", &sidecar).await;
    assert_eq!(same.pid, shim.pid);
    let pid = shim.create("c", &sidecar).await.unwrap();
    shim.start("c").await.unwrap();
    let namespace = |pid: u32, name| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
    for name in ["uts", "ipc", "net"] {
        assert_eq!(namespace(pid, name), namespace(pause, name), "{name}");
    }
    assert_ne!(namespace(pid, "pid"), namespace(pause, "pid"));
    for id in ["c", "s"] {
        shim.kill(id, libc::SIGKILL).await.unwrap();
        shim.wait(id).await.unwrap();
        shim.delete(id).await.unwrap();
    }
    shim.shut_down().await;
}

#[tokio::test]
async fn a_program_dies_with_its_shim() {
    let linux = Linux::new(&busybox_spec(&["sleep", "1000"])).await;
    let pid = linux.go().await.unwrap();
    let shim = nix::unistd::Pid::from_raw(linux.shim.pid.cast_signed());
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).unwrap();
    crate::harness::gone(pid).await;
    let output =
        crate::harness::run(linux.containerd.shim("c", &linux.bundle, "delete"), Vec::new());
    assert!(output.await.status.success());
}

#[tokio::test]
async fn hooks_of_all_kinds_run_around_it_in_their_order() {
    let containerd = Containerd::new().await;
    let order = containerd.dir.path().join("bundles/c/rootfs/order");
    let hook = |kind: &str, file: &str| {
        let script = format!("echo {kind} >> {file}");
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 20 }])
    };
    let outside = order.to_str().unwrap();
    let mut spec = busybox_spec(&["sh", "-c", "echo program >> /order; sleep 1000"]);
    spec["hooks"] = json!({
        "prestart": hook("prestart", outside), "createRuntime": hook("createRuntime", outside),
        "createContainer": hook("createContainer", outside),
        "startContainer": hook("startContainer", "/order"),
        "poststop": hook("poststop", outside),
    });
    let bundle = containerd.bundle("c", &spec);
    busybox(&bundle);
    let shim = containerd.start("c", &bundle).await;
    shim.create("c", &bundle).await.unwrap();
    shim.start("c").await.unwrap();
    let seen = || std::fs::read_to_string(&order).unwrap_or_default();
    within("the program", async {
        while !seen().contains("program") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    shim.kill("c", libc::SIGKILL).await.unwrap();
    shim.wait("c").await.unwrap();
    shim.delete("c").await.unwrap();
    let wanted = "prestart\ncreateRuntime\ncreateContainer\nstartContainer\nprogram\npoststop\n";
    assert_eq!(seen(), wanted);
    shim.shut_down().await;
}
